"""l2overlay: VMs, containers and LANs on different hosts as one layer-2 segment.

A node opens a TAP in a Linux bridge, learns which station (MAC) lives behind which peer, and carries whole Ethernet
frames to the other nodes in encrypted UDP datagrams. Read `overlay.py` first: it is one node without I/O, and a frame
can be followed from there. docs/architecture.md has the map.
"""

__version__ = "0.1.0"
