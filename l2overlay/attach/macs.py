"""A MAC for a guest: derived, so that the same call gives the same one, and never one that the segment knows already.

Most tools give each first guest the same MAC on every host, or none that outlives a restart. Here it comes from the node's
key, the segment and the guest's name. Two guests of one segment share it by chance only: 40 bits are free.
"""

import hashlib
from collections.abc import Container

from l2overlay.addresses import MacAddress

FIRST_BYTE = 0x52
"""Unicast and locally administered (IEEE 802-2014, 8.2.2), as QEMU's own begin."""


def free_mac(key: bytes, segment: str, guest: str, taken: Container[bytes]) -> MacAddress:
    """The first MAC derived for this guest that is not in `taken`."""
    attempt = 0
    while True:
        mac = _derived(key, f"{segment}/{guest}/{attempt}")
        if mac not in taken:
            return mac
        attempt += 1


def _derived(key: bytes, text: str) -> MacAddress:
    digest = hashlib.blake2s(text.encode(), key=key[:32], digest_size=5, person=b"l2o gst").digest()
    return MacAddress(bytes([FIRST_BYTE]) + digest)
