`make bench` measures l2overlay beside tinc, fastd, OpenVPN, vde_plug, kernel VXLAN and the bare veth in one run on one machine, prints the table of ratios, and writes JSON and a chart.
