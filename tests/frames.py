"""Frames as a TAP gives them, for tests of what judges a frame by its Ethernet header.

It is in `tests` and not in `l2overlay.testing`, because only tests of the core use it. `test_stranger.py` and the tests of
the real TAP make their frames without our code, and `super_frames.py` from the standards.
"""

from l2overlay.dataplane.ethernet import BROADCAST, ETHERNET_HEADER_LEN, plain
from l2overlay.seams import TapFrame

IPV4, ARP = b"\x08\x00", b"\x08\x06"


def frame(
    source: bytes, destination: bytes = BROADCAST, tag: bytes = b"", kind: bytes = IPV4, size: int = 60
) -> TapFrame:
    """A frame of zeros behind its header; `size` counts neither the tag nor the virtio header."""
    return plain(destination + source + tag + kind + bytes(size - ETHERNET_HEADER_LEN))
