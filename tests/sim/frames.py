"""Frames that stations send in the simulator: each has a number, and a canary by which an eavesdropper would know it.

    destination | source | [81 00, TCI] | 88 b5 | canary[16] | number u64 | filler

0x88B5 is the EtherType for local experiments (IEEE 802, clause 9.2.3).
"""

from l2overlay.addresses import MacAddress

CANARY = b"plaintext canary"
SHORTEST = 14 + len(CANARY) + 8
_FILLER = bytes(range(256)) * 40


def make_frame(
    destination: bytes, source: bytes, number: int, size: int = 100, vlan: int | None = None
) -> bytes:
    """An Ethernet frame of `size` bytes, tag not counted."""
    tag = b"" if vlan is None else b"\x81\x00" + vlan.to_bytes(2, "big")
    head = destination + source + tag + b"\x88\xb5" + CANARY + number.to_bytes(8, "big")
    return head + _FILLER[: size - SHORTEST]


def number_of(frame: bytes) -> int | None:
    """Its number, or None when it is none of ours."""
    at = frame.find(CANARY)
    return None if at < 0 else int.from_bytes(frame[at + len(CANARY) : at + len(CANARY) + 8], "big")


def station_mac(node: int, station: int = 0) -> MacAddress:
    """The address of one of a node's stations."""
    return MacAddress(b"\x02\x00" + node.to_bytes(2, "big") + station.to_bytes(2, "big"))
