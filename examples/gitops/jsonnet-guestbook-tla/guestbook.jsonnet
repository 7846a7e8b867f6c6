local guestbook = import 'guestbook.libsonnet';

function(name='guestbook-ui', image='nginx:1.29-alpine', replicas=1, port=80) [
  guestbook.deployment(name, image, replicas),
  guestbook.service(name, port),
]
