`uplink = { nat = "eth0" }` in a peer's stanza makes that host the gateway of the segment, for IPv4 and IPv6: forwarding, masquerade
and rp_filter are set, kept, and undone to the last rule and sysctl.
