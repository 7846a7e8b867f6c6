{
  name: 'guestbook-ui',
  image: 'nginx:1.29-alpine',
  replicas: 1,
}
