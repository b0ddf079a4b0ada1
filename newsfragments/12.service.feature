`l2overlay install-service SEGMENT` makes a node a systemd service. It runs as a user of its own with CAP_NET_ADMIN as its
only capability, and NetworkManager and systemd-networkd are told to leave its TAP alone.
