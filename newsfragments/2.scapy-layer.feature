`l2overlay.observe.scapy_layer` (extra `scapy`) dissects our datagrams in a capture, opens them with a session's key, and builds any of them by hand.
