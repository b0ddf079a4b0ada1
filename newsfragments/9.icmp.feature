`status` says "port closed at 192.0.2.2:7470 (ICMP): is the node running there?" instead of "no answer" when the host or a
router on the way says so; likewise for a host, network or firewall that cannot be passed.
