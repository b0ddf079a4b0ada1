A broadcast to many peers leaves by one system call for 64 datagrams (sendmmsg).
