The control socket speaks HTTP: `curl --unix-socket .../control.sock http://localhost/v1/status`. It describes itself at
`/v1/openapi.json`, and events are a stream of server-sent events. Only root and the node's own user may reload or stop a node.
