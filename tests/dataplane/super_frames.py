"""Super-frames made from the standards and not with our code, so that they can disagree with it.

    virtio[10] | destination | source | tags 0..2 | IPv4 with options or IPv6 with extension headers | TCP or UDP | payload

As the kernel hands them over: lengths of the whole, IPv4 header checksum right, and in the transport's checksum field the
sum of the pseudo-header (not inverted), which segmentation completes.
"""

import random
import struct
from dataclasses import dataclass

from hypothesis import strategies as st

from l2overlay.seams import TapFrame

NEEDS_CSUM = 1
GSO_TYPES = {"tcp4": 1, "tcp6": 4, "udp4": 5, "udp6": 5}
GSO_ECN = 0x80
FIN, SYN, PSH, ACK, ECE, CWR = 0x01, 0x02, 0x08, 0x10, 0x40, 0x80
DESTINATION, SOURCE = bytes.fromhex("525400000002"), bytes.fromhex("525400000001")


def ones_sum(data: bytes) -> int:
    """The one's complement sum of big-endian 16-bit words (RFC 1071), folded."""
    total: int = sum(struct.unpack(f"!{(len(data) + 1) // 2}H", data + b"\0" * (len(data) & 1)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


@dataclass(frozen=True, slots=True)
class SuperFrame:
    """One super-frame and what it is made of."""

    kind: str
    gso_size: int
    header: bytes
    """From the first byte of the Ethernet header to the last before the payload."""
    payload: bytes
    virtio: bytes

    @property
    def frame(self) -> TapFrame:
        return TapFrame(self.virtio + self.header + self.payload)

    @property
    def is_udp(self) -> bool:
        return self.kind.startswith("udp")

    @property
    def units(self) -> list[bytes]:
        """The payloads of its segments."""
        size = self.gso_size
        return [self.payload[at : at + size] for at in range(0, len(self.payload), size)]


def super_frame(
    kind: str = "tcp4",
    length: int = 10_000,
    gso_size: int = 1448,
    *,
    tags: int = 0,
    ip_extra: int = 0,
    tcp_options: int = 12,
    flags: int = ACK | PSH,
    seed: int = 0,
    hdr_len_extra: int = 0,
) -> SuperFrame:
    """`ip_extra` is bytes of IPv4 options (a multiple of 4) or the number of IPv6 extension headers."""
    chance = random.Random(seed)
    payload = chance.randbytes(length)
    transport = _udp(chance, length) if kind[:3] == "udp" else _tcp(chance, tcp_options, flags)
    protocol = 17 if kind[:3] == "udp" else 6
    below = len(transport) + length
    make_ip = _ipv4 if kind[3] == "4" else _ipv6
    ip, addresses = make_ip(chance, protocol, ip_extra, below)
    checksum_at = 6 if protocol == 17 else 16
    pseudo = ones_sum(addresses + struct.pack("!IHBB", below, 0, 0, protocol))
    transport = transport[:checksum_at] + pseudo.to_bytes(2, "big") + transport[checksum_at + 2 :]
    ethernet = DESTINATION + SOURCE
    ethernet += (b"\x88\xa8\x20\x63" + b"\x81\x00\x20\x07")[8 - 4 * tags :]  # S-tag 99 around C-tag 7
    ethernet += b"\x08\x00" if kind[3] == "4" else b"\x86\xdd"
    header = ethernet + ip + transport
    gso_type = GSO_TYPES[kind] | (GSO_ECN if protocol == 6 and flags & CWR else 0)
    csum_start = len(ethernet) + len(ip)
    hdr_len = min(len(header) + hdr_len_extra, len(header) + length)
    virtio = struct.pack("<BBHHHH", NEEDS_CSUM, gso_type, hdr_len, gso_size, csum_start, checksum_at)
    return SuperFrame(kind, gso_size, header, payload, virtio)


def partial_frame(kind: str, length: int, seed: int = 0, tags: int = 0) -> TapFrame:
    """A single segment whose checksum is still to do: NEEDS_CSUM without GSO."""
    whole = super_frame(kind, length, 65_535, seed=seed, tags=tags)
    flags, _, _, _, csum_start, csum_offset = struct.unpack("<BBHHHH", whole.virtio)
    virtio = struct.pack("<BBHHHH", flags, 0, 0, 0, csum_start, csum_offset)
    return TapFrame(virtio + whole.header + whole.payload)


def _tcp(chance: random.Random, options_len: int, flags: int) -> bytes:
    options = (b"\x01\x01\x08\x0a" + chance.randbytes(8) if options_len >= 12 else b"").ljust(
        options_len, b"\x01"
    )
    return (
        chance.randbytes(4)  # ports
        + chance.randbytes(4)  # sequence number: also near the wrap
        + chance.randbytes(4)
        + bytes([(20 + options_len) // 4 << 4, flags])
        + struct.pack("!HHH", 500, 0, 0)
        + options
    )


def _udp(chance: random.Random, length: int) -> bytes:
    # No well-known ports: scapy would dissect the payload and have an opinion on it.
    ports = struct.pack("!HH", chance.randrange(40_000, 41_000), chance.randrange(42_000, 43_000))
    return ports + struct.pack("!HH", 8 + length, 0)


def _ipv4(chance: random.Random, protocol: int, options_len: int, below: int) -> tuple[bytes, bytes]:
    header_len = 20 + options_len
    addresses = bytes([10, 0, 0, 1]) + chance.randbytes(4)
    head = struct.pack("!BBH", 0x40 | header_len // 4, 2, header_len + below)
    head += chance.randbytes(2) + struct.pack("!HBB", 0x4000, 64, protocol)
    options = b"\x01" * options_len
    checksum = 0xFFFF ^ ones_sum(head + addresses + options)
    return head + checksum.to_bytes(2, "big") + addresses + options, addresses


def _ipv6(chance: random.Random, protocol: int, extensions: int, below: int) -> tuple[bytes, bytes]:
    kinds = [0, 60, 60][:extensions]  # hop-by-hop, then destination options (RFC 8200, section 4.1)
    chain = b""
    for following in [*kinds, protocol][1:]:
        units = chance.randrange(3)
        pad = 4 + 8 * units
        chain += bytes([following, units, 1, pad]) + bytes(pad)
    addresses = b"\xfd" + chance.randbytes(31)
    first = [*kinds, protocol][0]
    head = struct.pack("!IHBB", 0x6002_0000 | chance.randrange(1 << 16), len(chain) + below, first, 64)
    return head + addresses + chain, addresses


MAX_HEADER_LEN = 60 + 60 + 48
"""More than IPv4 with TCP, or our IPv6 chains with TCP, ever have."""


@st.composite
def super_frames(
    draw: st.DrawFn, kinds: tuple[str, ...] = tuple(GSO_TYPES), max_len: int = 65_000
) -> SuperFrame:
    """Any super-frame of at most 128 segments: more tiny ones are refused, and the reference segmenter is slow."""
    kind = draw(st.sampled_from(kinds))
    # Without steps nearly all that hypothesis draws is tiny.
    lowest = draw(
        st.sampled_from([step for step in (1, 1000, 3000, 10_000, 30_000, 60_000) if step < max_len])
    )
    length = draw(st.integers(lowest, max_len - MAX_HEADER_LEN))
    usual = st.sampled_from((536, 1220, 1448, 1460, 8948, 65_535))
    gso_size = max(draw(st.one_of(usual, usual, st.integers(1, 65_535))), length // 128 + 1)
    extra = draw(st.integers(0, 10)) * 4 if kind[3] == "4" else draw(st.integers(0, 3))
    flags = ACK | draw(st.sampled_from((0, PSH, FIN, FIN | PSH, ECE))) | draw(st.sampled_from((0, CWR)))
    return super_frame(
        kind,
        length,
        gso_size,
        tags=draw(st.integers(0, 2)),
        ip_extra=extra,
        tcp_options=draw(st.integers(0, 10)) * 4,
        flags=flags,
        seed=draw(st.integers(0, 1 << 32)),
        hdr_len_extra=draw(st.sampled_from((0, 0, 33))),
    )
