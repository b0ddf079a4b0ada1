`[protect] reserved = ["lldp", "eapol", "ptp", "lacp"]` lets protocols between neighbours cross the overlay; only LLDP could.
