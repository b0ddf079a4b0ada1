"""`l2overlay demo`: three hosts as namespaces joined into one LAN, told step by step."""
