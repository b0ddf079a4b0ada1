"""Defaults and limits of peers.toml, each with its reason. Imports nothing, so that anyone may import it."""

DEFAULT_PORT = 7470
DEFAULT_MTU = 1500
DEFAULT_AGEING_TIME = 300.0
"""IEEE 802.1Q-2018, table 8-6: recommended default, and the range below."""
DEFAULT_PERSISTENT_KEEPALIVE = 20.0
"""NATs forget a UDP mapping after 30 s at the earliest in practice (RFC 4787 asks for 120)."""

MAX_FILE_SIZE = 1 << 20
"""Bytes; 4096 stanzas of usual length are 600 KiB. More is the wrong file, and parsing it would stall a reload."""
MAX_PEERS = 4096
"""A full mesh: every node holds a session, and sends every flooded frame, once per peer."""
MAX_STATIC_MACS = 8192
"""Over all peers: half of the FDB (16 384), because static entries are never evicted and learning needs room."""
MAX_ADDRESSES = 16
"""Of one node's bridge."""
MAX_FILTER_RULES = 1000
"""Every frame that opens a connection is held against all of them."""
MAX_RULE_LINES = 4096
"""Rules of the kernel that one rule may become (sources times destinations)."""
MAX_FILTER_LINES = 65_536
"""Rules of the kernel that all rules together may become, groups and ports expanded. A frame that opens a connection is
held against each."""
MAX_LISTED = 1024
"""Peers and stations in one list of `[protect]`."""
MAX_BOUND_ADDRESSES = 64
"""Of one station in `[protect.bindings]`: two families, privacy addresses, a few more."""
MAX_STORM_RATE = 100_000_000_000

MAX_SEGMENT_NAME = 15
MAX_PEER_NAME = 63
"""A DNS label, since peers are mostly named after their hosts."""
MAX_INTERFACE_NAME = 15
"""IFNAMSIZ is 16 with its NUL (linux/if.h)."""
MIN_MTU = 1280
"""Below it Linux takes IPv6 off an interface (RFC 8200, section 5)."""
MAX_MTU = 9216
"""The largest jumbo frame that switches commonly carry."""
MIN_AGEING_TIME = 10.0
MAX_AGEING_TIME = 1_000_000.0
MAX_PERSISTENT_KEEPALIVE = 3600.0
"""A rarer keepalive keeps nothing open."""
