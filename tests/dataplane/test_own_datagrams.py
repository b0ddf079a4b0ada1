"""Which frames from the TAP are the node's own datagrams."""

import socket

import pytest

from l2overlay.addresses import Address
from l2overlay.dataplane.own_datagrams import OwnDatagrams

OWN = OwnDatagrams(
    7470, [("192.0.2.1", Address("198.51.100.2", 7471)), ("2001:db8::1", Address("fe80::2%eth0", 7472))]
)
PLAIN, BURST = bytes(10), b"\x01\x05" + bytes(8)


def frame(
    source: str = "192.0.2.1",
    destination: str = "198.51.100.2",
    ports: tuple[int, int] = (7470, 7471),
    *,
    protocol: int = 17,
    tags: bytes = b"",
    virtio: bytes = PLAIN,
) -> bytes:
    family = socket.AF_INET6 if ":" in source else socket.AF_INET
    addresses = socket.inet_pton(family, source) + socket.inet_pton(family, destination)
    if family == socket.AF_INET6:
        head = b"\x86\xdd" + b"\x60" + bytes(5) + bytes([protocol, 64])
    else:
        head = b"\x08\x00" + b"\x45" + bytes(8) + bytes([protocol]) + bytes(2)
    udp = b"".join(port.to_bytes(2, "big") for port in ports) + bytes(40)
    return virtio + bytes(12) + tags + head + addresses + udp


@pytest.mark.parametrize("virtio", [PLAIN, BURST])
@pytest.mark.parametrize(
    "tags", [b"", b"\x81\x00\x00\x05", b"\x88\xa8\x00\x07\x81\x00\x00\x05", b"\x91\x00\x00\x05"]
)
def test_own_datagrams_are_told_in_both_families_tagged_or_not_alone_or_in_a_burst(
    tags: bytes, virtio: bytes
) -> None:
    assert OWN.includes(frame(tags=tags, virtio=virtio))
    assert OWN.includes(frame("2001:db8::1", "fe80::2", (7470, 7472), tags=tags, virtio=virtio))


@pytest.mark.parametrize(
    "other",
    [
        frame(source="192.0.2.9"),
        frame(destination="198.51.100.9"),
        frame(ports=(7000, 7471)),
        frame(ports=(7470, 7470)),
        frame(protocol=6),
        frame("2001:db8::1", "fe80::9", (7470, 7472)),
        frame()[:50],
        b"",
    ],
)
def test_whatever_differs_in_one_place_is_none(other: bytes) -> None:
    assert not OWN.includes(other)
