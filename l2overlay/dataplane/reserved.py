"""Protocols between neighbours, whose group addresses no bridge forwards (IEEE 802.1Q-2018, tables 8-1 to 8-3).

They end at the first bridge by default. `[protect] reserved` names those that the overlay carries, as if the two hosts were
one cable. The hosts' own bridges must let them through as well (`group_fwd_mask`).
"""

from collections.abc import Iterable

RESERVED_PREFIX = b"\x01\x80\xc2\x00\x00"
"""With a last byte of 01..0f it is never forwarded by a bridge; 00 is BPDUs, which have a switch of their own."""

RESERVED_PROTOCOLS: dict[str, tuple[bytes, tuple[int, ...]]] = {
    # EtherType, and last bytes of the destination
    "lldp": (b"\x88\xcc", (0x0E, 0x03)),  # 802.1AB, table 7-1: nearest bridge, nearest non-TPMR bridge
    "eapol": (b"\x88\x8e", (0x03, 0x0E)),  # 802.1X-2020, table 11-1
    "ptp": (b"\x88\xf7", (0x0E,)),  # IEEE 1588-2019, annex E: peer delay
    "lacp": (b"\x88\x09", (0x02, 0x03)),  # 802.1AX-2020, table 6-2; the slow protocols: marker and OAM too
}

Neighbourly = frozenset[tuple[bytes, int]]
"""EtherTypes with the last byte of a reserved destination: what passes."""


def is_reserved(mac: bytes) -> bool:
    """Whether a bridge must not forward it (BPDUs apart, which we pass as a bridge with STP off does)."""
    return mac[:5] == RESERVED_PREFIX and 1 <= mac[5] <= 15


def neighbourly(names: Iterable[str]) -> Neighbourly:
    """What passes when the protocols of these names do."""
    chosen = (RESERVED_PROTOCOLS[name] for name in names)
    return frozenset((ethertype, end) for ethertype, ends in chosen for end in ends)
