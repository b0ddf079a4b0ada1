"""What a kernel makes of a frame written to its TAP: segmentation and checksums, in plain Python and by the book.

`segments` completes what a virtio header leaves to do (virtio 1.2, section 5.1.6.2; Linux net/ipv4/tcp_offload.c and
udp_offload.c): every segment is a whole frame as it would leave the bridge. The checksum of a segment is computed over the
data on top of the partial sum it was given, as hardware does, so that a wrong partial sum gives a wrong checksum.
`check` then verifies each from nothing, and `check_with_scapy` has scapy do the same.
"""

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .super_frames import CWR, FIN, GSO_ECN, PSH, ones_sum


@dataclass(frozen=True, slots=True)
class Layout:
    """Where things are in a frame (without virtio header)."""

    ip: int
    version: int
    protocol: int
    transport: int
    payload: int


def layout(frame: bytes) -> Layout:
    """Walk Ethernet, tags, IP and its options or extension headers."""
    at = 12
    while frame[at : at + 2] in (b"\x81\x00", b"\x88\xa8"):
        at += 4
    ip = at + 2
    if frame[at : at + 2] == b"\x08\x00":
        assert frame[ip] >> 4 == 4
        version, protocol, transport = 4, frame[ip + 9], ip + (frame[ip] & 15) * 4
    else:
        assert frame[at : at + 2] == b"\x86\xdd"
        assert frame[ip] >> 4 == 6
        version, protocol, transport = 6, frame[ip + 6], ip + 40
        while protocol in (0, 60):
            protocol, transport = frame[transport], transport + 8 + 8 * frame[transport + 1]
    header_len = 8 if protocol == 17 else (frame[transport + 12] >> 4) * 4
    return Layout(ip, version, protocol, transport, transport + header_len)


def segments(pieces: Iterable[bytes | memoryview]) -> list[bytes]:
    """The frames that a kernel makes of one write to a TAP."""
    written = b"".join(pieces)
    flags, gso_type, hdr_len, gso_size, csum_start, csum_offset = struct.unpack_from("<BBHHHH", written)
    frame = written[10:]
    assert len(frame) >= 14
    if not flags & 1:
        assert gso_type == 0
        return [frame]
    assert csum_start + csum_offset + 2 <= len(frame)
    if gso_type == 0:
        return [_complete(frame, csum_start, csum_offset)]
    place = layout(frame)
    assert place.transport == csum_start
    assert place.payload <= hdr_len  # the linear part of the giver's buffer may reach into the payload
    assert csum_offset == (6 if place.protocol == 17 else 16)
    wanted = {(4, 6): 1, (6, 6): 4, (4, 17): 5, (6, 17): 5}[place.version, place.protocol]
    assert gso_type & ~GSO_ECN == wanted
    assert gso_size > 0
    assert _ip_len(frame, place) == len(frame) - place.ip
    cut = [(at, min(at + gso_size, len(frame))) for at in range(place.payload, len(frame), gso_size)]
    return [_segment(frame, place, number, at, end) for number, (at, end) in enumerate(cut)]


def _ip_len(frame: bytes, place: Layout) -> int:
    if place.version == 4:
        return int(struct.unpack_from("!H", frame, place.ip + 2)[0])
    return int(struct.unpack_from("!H", frame, place.ip + 4)[0]) + 40


def _segment(frame: bytes, place: Layout, number: int, at: int, end: int) -> bytes:
    segment = bytearray(frame[: place.payload] + frame[at:end])
    ip, transport = place.ip, place.transport
    if place.version == 4:
        ip_id = struct.unpack_from("!H", frame, ip + 4)[0] + number
        struct.pack_into("!HH", segment, ip + 2, len(segment) - ip, ip_id & 0xFFFF)
        segment[ip + 10 : ip + 12] = b"\0\0"
        struct.pack_into("!H", segment, ip + 10, 0xFFFF ^ ones_sum(bytes(segment[ip:transport])))
    else:
        struct.pack_into("!H", segment, ip + 4, len(segment) - ip - 40)
    offset = 6 if place.protocol == 17 else 16
    if place.protocol == 17:
        struct.pack_into("!H", segment, transport + 4, len(segment) - transport)
    else:
        sequence = struct.unpack_from("!I", frame, transport + 4)[0] + at - place.payload
        struct.pack_into("!I", segment, transport + 4, sequence & 0xFFFFFFFF)
        segment[transport + 13] &= 0xFF if number == 0 else ~CWR & 0xFF
        segment[transport + 13] &= 0xFF if end == len(frame) else ~(FIN | PSH) & 0xFF
    # The pseudo-header in the partial sum names the length of the whole; now it is that of the segment.
    old_len, new_len = len(frame) - transport, len(segment) - transport
    partial = struct.unpack_from("!H", segment, transport + offset)[0]
    partial = ones_sum(struct.pack("!HHH", partial, 0xFFFF ^ old_len, new_len))
    struct.pack_into("!H", segment, transport + offset, partial)
    return _complete(bytes(segment), transport, offset)


def _complete(frame: bytes, csum_start: int, csum_offset: int) -> bytes:
    """Finish a partial checksum; of UDP a 0 is sent as ffff (RFC 768)."""
    checksum = (0xFFFF ^ ones_sum(frame[csum_start:])) or (0xFFFF if csum_offset == 6 else 0)
    at = csum_start + csum_offset
    return frame[:at] + checksum.to_bytes(2, "big") + frame[at + 2 :]


def check(frame: bytes) -> Layout:
    """Every length and checksum of one TCP or UDP frame, verified from nothing."""
    place = layout(frame)
    assert _ip_len(frame, place) == len(frame) - place.ip
    assert place.protocol in (6, 17)
    if place.version == 4:
        assert ones_sum(frame[place.ip : place.transport]) == 0xFFFF
        addresses = frame[place.ip + 12 : place.ip + 20]
    else:
        addresses = frame[place.ip + 8 : place.ip + 40]
    below = frame[place.transport :]
    if place.protocol == 17:
        assert struct.unpack_from("!H", below, 4)[0] == len(below)
        assert below[6:8] != b"\0\0"
    pseudo = addresses + struct.pack("!IHBB", len(below), 0, 0, place.protocol)
    assert ones_sum(pseudo + below) == 0xFFFF
    return place


def check_with_scapy(frame: bytes) -> None:
    """scapy computes the lengths and checksums anew and comes to the same bytes."""
    from scapy.layers.inet import IP, TCP, UDP
    from scapy.layers.inet6 import IPv6
    from scapy.layers.l2 import Ether

    packet = Ether(frame)
    ip = packet[IP] if IP in packet else packet[IPv6]
    transport = packet[TCP] if TCP in packet else packet[UDP]
    if IP in packet:
        del ip.len, ip.chksum
    else:
        del ip.plen
    del transport.chksum
    if UDP in packet:
        del transport.len
    assert bytes(packet) == frame


def payload_of(frame: bytes) -> bytes:
    return frame[layout(frame).payload :]


def sequence_of(frame: bytes) -> int:
    return int(struct.unpack_from("!I", frame, layout(frame).transport + 4)[0])


def tcp_flags_of(frame: bytes) -> int:
    return frame[layout(frame).transport + 13]


def all_segments(frames: Sequence[Iterable[bytes | memoryview]]) -> list[bytes]:
    """The segments of several writes, in order."""
    return [segment for frame in frames for segment in segments(frame)]
