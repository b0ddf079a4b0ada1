`status`, `peers`, `fdb`, `events`, `reload`, `leave` and `cleanup` ask or end a running node over a control socket, each with `--json`; `status` exits with 4 when something is degraded.
