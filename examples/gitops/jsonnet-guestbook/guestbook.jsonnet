local guestbook = import 'guestbook.libsonnet';
local params = import 'params.libsonnet';

[
  guestbook.deployment(params.name, params.image, params.replicas),
  guestbook.service(params.name, std.extVar('port')),
]
