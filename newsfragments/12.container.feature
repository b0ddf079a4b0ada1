`packaging/Dockerfile` runs a node in a container of the host's network, with NET_ADMIN as its only capability.
