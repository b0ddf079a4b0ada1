"""Defaults and limits of peers.toml, each with its reason. Imports nothing."""

DEFAULT_PORT = 7470
DEFAULT_MTU = 1500
DEFAULT_AGEING_TIME = 300.0
"""IEEE 802.1Q-2018, table 8-6: the recommended default, and below the permitted range."""
DEFAULT_PERSISTENT_KEEPALIVE = 20.0
"""In practice, NATs keep an idle UDP mapping for at least 30 s (RFC 4787 demands 120)."""

MAX_FILE_SIZE = 1 << 20
"""Bytes. 4096 stanzas of usual length take 600 KiB. A larger file is the wrong one, and parsing it would stall a reload."""
MAX_PEERS = 4096
"""In a full mesh, every node holds one session per peer and sends every flooded frame once per peer."""
MAX_STATIC_MACS = 8192
"""Of all peers together: half of the FDB (16 384). Static entries are never evicted, and learning needs room."""
MAX_ADDRESSES = 16
"""On the bridge of one node."""
MAX_FILTER_RULES = 1000
"""Every frame that opens a connection is compared with all of them."""
MAX_RULE_LINES = 4096
"""How many rules of the kernel one rule may become (sources times destinations)."""
MAX_FILTER_LINES = 65_536
"""How many rules of the kernel all rules together may become, with groups and ports expanded. A frame that opens a
connection is compared with each."""
MAX_LISTED = 1024
"""Peers and stations in one list of `[protect]`."""
MAX_BOUND_ADDRESSES = 64
"""Of one station in `[protect.bindings]`: both address families, privacy addresses, and a few more."""
MAX_STORM_RATE = 100_000_000_000

MAX_SEGMENT_NAME = 15
MAX_PEER_NAME = 63
"""The length of a DNS label, because peers are usually named after their hosts."""
MAX_INTERFACE_NAME = 15
"""IFNAMSIZ is 16, including the NUL (linux/if.h)."""
MIN_MTU = 1280
"""With a smaller MTU, Linux turns IPv6 off on an interface (RFC 8200, section 5)."""
MAX_MTU = 9216
"""The largest jumbo frame that switches commonly forward."""
MIN_AGEING_TIME = 10.0
MAX_AGEING_TIME = 1_000_000.0
MAX_PERSISTENT_KEEPALIVE = 3600.0
"""A longer interval keeps no NAT mapping alive."""
