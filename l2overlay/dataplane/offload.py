"""Super-frames: TCP and UDP frames of up to 64 KiB that are not segmented yet and have no checksum yet.

The kernel puts them behind a `struct virtio_net_hdr` (virtio 1.2, section 5.1.6):

    flags u8 | gso_type u8 | hdr_len u16 | gso_size u16 | csum_start u16 | csum_offset u16

The sender cuts a super-frame into *slices* that fit the path, whatever the guest's MSS is. Each slice carries the *template*
(what all slices share: the virtio fields and the frame's headers) and a byte range of the payload. The receiver joins
consecutive slices into a *run*, and writes the run as one super-frame. It corrects the headers once per run: IP length, IPv4
id and header checksum, TCP sequence number (RFC 9293), the length in the pseudo-header of the partial checksum, the urgent
pointer, and the flags that belong to one end only. FIN and PSH belong to the run with the last byte, CWR (RFC 3168,
section 6.1.2) to the run with the first.

A *unit* is the payload of one segment: `gso_size` bytes; the last unit may be shorter. Units of UDP (USO) are datagrams, and
units of TCP may be signed (MD5, AO). Those are delivered whole or not at all, so their slices begin and end with a unit. A
unit that is too large for one datagram leaves its super-frame and travels as a frame of its own. Any other TCP super-frame
is cut anywhere, and the receiver ends its runs with a whole unit as long as nothing is lost.
"""

from dataclasses import dataclass
from struct import Struct
from struct import error as struct_error

from l2overlay import inet
from l2overlay.dataplane.ethernet import ETHERNET_HEADER_LEN, MAX_TAGS, VIRTIO_LEN, VLAN_TPIDS
from l2overlay.dataplane.wire import TEMPLATE, TEMPLATE_LEN
from l2overlay.errors import FrameError
from l2overlay.seams import TapFrame

VIRTIO = Struct("<BBHHHH")
NEEDS_CHECKSUM = 1  # VIRTIO_NET_HDR_F_NEEDS_CSUM

GSO_NONE = 0
GSO_TCPV4 = 1
GSO_TCPV6 = 4
GSO_UDP_L4 = 5
GSO_ECN = 0x80

_IPV4, _IPV6 = inet.IPV4.to_bytes(2), inet.IPV6.to_bytes(2)
_PROTO_TCP, _PROTO_UDP = inet.TCP, inet.UDP
_TCP_LEN, _UDP_LEN, _IPV4_LEN, _IPV6_LEN = 20, 8, 20, 40
_FIN, _SYN, _RST, _PSH, _URG, _CWR = 0x01, 0x02, 0x04, 0x08, 0x20, 0x80
_TCP_CHECKSUM, _UDP_CHECKSUM = 16, 6  # offsets of the checksum field in each header
_SIGNATURES = (19, 29)  # options of TCP: MD5 signature, TCP-AO
_ONLY_TIMESTAMPS = b"\x01\x01\x08\x0a"  # and eight bytes more

MAX_IP_LEN = 65_535

MIN_GSO_SIZE = 48
"""Linux sends no smaller full TCP segment (`tcp_min_snd_mss`): a receiver must not make it send thousands for one read."""
MAX_TINY_UNITS = 128
"""Units smaller than that in one super-frame. Linux merges keystrokes that it reads together (GRO, 64 a poll), and takes at
most 128 datagrams from one send (`UDP_MAX_SEGMENTS`). More would turn 64 KiB into up to 65 000 frames."""
MAX_HEADER_LEN = 256
"""What `count_segments` believes: IPv6 with extension headers, and TCP with options, have less."""

_U16 = Struct("!H")
_U32 = Struct("!I")


class TinySegmentsError(FrameError):
    """A super-frame of more tiny segments than any kernel makes."""


@dataclass(frozen=True, slots=True)
class Template:
    """A checked template: all of a super-frame but its payload. Offsets count from the frame's first byte."""

    gso_type: int
    gso_size: int
    header_len: int
    csum_start: int
    total: int
    ip_start: int
    is_ipv4: bool
    header: bytes

    @property
    def is_udp(self) -> bool:
        """USO: units that are delivered whole or not at all."""
        return self.gso_type == GSO_UDP_L4


def is_super_frame(frame: bytes) -> bool:
    """Whether the virtio header of this `TapFrame` says that the frame is not segmented yet."""
    return frame[1] != GSO_NONE


def segment_len(frame: bytes) -> int:
    """The largest size that a segment of a super-frame may have, headers included. Reads headers only; never raises."""
    gso_size: int
    csum_start: int
    _, gso_type, _, gso_size, csum_start, _ = VIRTIO.unpack_from(frame)
    if gso_type == GSO_UDP_L4:
        return csum_start + _UDP_LEN + gso_size
    data_offset_at = VIRTIO_LEN + csum_start + 12
    tcp_len = (int.from_bytes(frame[data_offset_at : data_offset_at + 1], "big") >> 4) * 4
    return csum_start + tcp_len + gso_size


def count_segments(head: bytes, size: int) -> tuple[int, int]:
    """How many frames a super-frame of `size` bytes becomes, and how many bytes they have. Reads headers only; never raises.

    A false header can hide at most `MAX_HEADER_LEN` bytes of payload.
    """
    gso_size = VIRTIO.unpack_from(head)[3]
    if not gso_size:
        return 1, size
    header_len = min(segment_len(head) - gso_size, MAX_HEADER_LEN, size)
    count = -(-(size - header_len) // gso_size) or 1
    return count, size + (count - 1) * header_len


def is_tiny(gso_size: int, count: int) -> bool:
    """Whether a super-frame is cut into more small segments than any kernel makes."""
    return gso_size < MIN_GSO_SIZE and count > MAX_TINY_UNITS


def make_template(frame: TapFrame, frame_id: int) -> tuple[bytes, Template]:
    """The template of a super-frame from the TAP, as bytes for the wire and parsed. Raises FrameError.

    The kernel's `hdr_len` is the linear part of its buffer and may reach into the payload; the true length of the headers
    is computed.
    """
    flags, gso_type, _, gso_size, csum_start, _ = VIRTIO.unpack_from(frame)
    if not flags & NEEDS_CHECKSUM:
        raise FrameError("a super-frame without a partial checksum")
    try:
        if gso_type & ~GSO_ECN == GSO_UDP_L4:
            header_len = csum_start + _UDP_LEN
        else:
            header_len = csum_start + (frame[VIRTIO_LEN + csum_start + 12] >> 4) * 4
    except IndexError:
        raise FrameError("the headers reach past the end of the frame") from None
    total = len(frame) - VIRTIO_LEN - header_len
    if not 0 < total <= MAX_IP_LEN or header_len > MAX_IP_LEN:
        raise FrameError("a super-frame without payload, or with too much of it or of headers")
    template = TEMPLATE.pack(frame_id, gso_type, 0, gso_size, header_len, csum_start, total)
    template += frame[VIRTIO_LEN : VIRTIO_LEN + header_len]
    return template, parse_template_untrusted(template)


def as_super_frame(frame: TapFrame) -> TapFrame | None:
    """A lone TCP segment with a partial checksum, described as a super-frame of one unit; None for what must stay whole.

    Every retransmission is a lone segment. Its slices arrive as one segment when none is lost, and each is worth something
    when one is: in fragments a segment of 9000 bytes gets through a link with 10 % loss every other time, and TCP stops
    (tests/host/test_faults_link.py: 512 KiB did not arrive in 20 s). A signed segment (MD5, AO) is worth nothing in parts.
    SYN counts as a byte of its own (RFC 9293, section 3.4), so that what follows it could not be told by its offset; a reset
    or an urgent pointer means the segment as a whole.
    """
    flags, _, hdr_len, _, csum_start, csum_offset = VIRTIO.unpack_from(frame)
    tcp = VIRTIO_LEN + csum_start
    if csum_offset != _TCP_CHECKSUM or len(frame) < tcp + _TCP_LEN or frame[tcp + 13] & (_SYN | _RST | _URG):
        return None
    gso_size = len(frame) - tcp - (frame[tcp + 12] >> 4) * 4
    try:
        _, is_ipv4 = _find_ip(frame[VIRTIO_LEN:tcp])
        gso_type = GSO_TCPV4 if is_ipv4 else GSO_TCPV6
        virtio = VIRTIO.pack(flags, gso_type, hdr_len, gso_size, csum_start, csum_offset)
        alone = TapFrame(virtio + frame[VIRTIO_LEN:])
        _, template = make_template(alone, 0)
    except (FrameError, IndexError, struct_error):
        return None
    return None if is_signed(template) else alone


def is_signed(template: Template) -> bool:
    """Whether each segment of a TCP super-frame carries a signature of itself: TCP MD5 (RFC 2385) or TCP-AO (RFC 5925)."""
    options = template.header[template.csum_start + _TCP_LEN :]
    if not options or options[:-8] == _ONLY_TIMESTAMPS:
        return False  # nearly all
    at = 0
    while at < len(options) and options[at]:
        if options[at] in _SIGNATURES:
            return True
        at += max(2, int.from_bytes(options[at + 1 : at + 2])) if options[at] > 1 else 1
    return False


def parse_template_untrusted(template: bytes) -> Template:
    """Check a template from the network (or from the kernel) down to its last length. Raises FrameError."""
    try:
        _, gso_type, reserved, gso_size, header_len, csum_start, total = TEMPLATE.unpack_from(template)
        header = template[TEMPLATE_LEN:]
        kind = gso_type & ~GSO_ECN
        if reserved or len(header) != header_len or not gso_size or not total:
            raise FrameError("template lengths contradict each other")
        if gso_size < MIN_GSO_SIZE and total > gso_size * MAX_TINY_UNITS:  # `is_tiny`, without the call
            raise TinySegmentsError(f"more than {MAX_TINY_UNITS} segments of {gso_size} bytes in one frame")
        ip_start, is_ipv4 = _find_ip(header)
        protocol = _check_ip(header, ip_start, csum_start, is_ipv4=is_ipv4)
        _check_ip_len(header, ip_start, total, is_ipv4=is_ipv4)
        wanted = {GSO_TCPV4: (True, _PROTO_TCP), GSO_TCPV6: (False, _PROTO_TCP)}
        if kind == GSO_UDP_L4:
            fits = (
                gso_type == GSO_UDP_L4
                and protocol in (None, _PROTO_UDP)
                and header_len == csum_start + _UDP_LEN
                and _U16.unpack_from(header, csum_start + 4)[0] == _UDP_LEN + total
            )
        else:
            version, wanted_protocol = wanted.get(kind, (None, None))
            data_offset = (header[csum_start + 12] >> 4) * 4
            fits = (
                version is is_ipv4
                and protocol in (None, wanted_protocol)
                and data_offset >= _TCP_LEN
                and header_len == csum_start + data_offset
            )
    except (IndexError, struct_error):
        raise FrameError("a template shorter than its headers") from None
    if not fits or header_len - ip_start + total > MAX_IP_LEN + (0 if is_ipv4 else _IPV6_LEN):
        raise FrameError("the template's headers do not fit its offload type")
    return Template(gso_type, gso_size, header_len, csum_start, total, ip_start, is_ipv4, header)


def _find_ip(header: bytes) -> tuple[int, bool]:
    """Where the IP header begins behind at most two tags of 802.1Q, and whether it is IPv4.

    The kernel writes no super-frame with another tag (`eth_type_vlan`).
    """
    at = ETHERNET_HEADER_LEN
    if (
        header[at - 2 : at] in VLAN_TPIDS
    ):  # without a tag `past_tags` would cost four calls (test_calls counts)
        _, at, _ = inet.past_tags(header, at - 2, MAX_TAGS, inet.VLAN_TPIDS)
    ethertype = header[at - 2 : at]
    if (ethertype, header[at] >> 4) not in ((_IPV4, 4), (_IPV6, 6)):
        raise FrameError("a super-frame that is not IP")
    return at, ethertype == _IPV4


def _check_ip(header: bytes, ip_start: int, csum_start: int, *, is_ipv4: bool) -> int | None:
    """The transport protocol, or None behind IPv6 extension headers: the kernel has read those."""
    if is_ipv4:
        if csum_start != ip_start + (header[ip_start] & 15) * 4 or csum_start < ip_start + _IPV4_LEN:
            raise FrameError("the checksum does not start behind the IPv4 header")
        return header[ip_start + 9]
    if csum_start < ip_start + _IPV6_LEN:
        raise FrameError("the checksum starts inside the IPv6 header")
    return header[ip_start + 6] if csum_start == ip_start + _IPV6_LEN else None


def _check_ip_len(header: bytes, ip_start: int, total: int, *, is_ipv4: bool) -> None:
    """Raise FrameError unless the IP length covers the whole payload or is 0, as BIG TCP and Windows' LSO write it."""
    at, actual = (2, total) if is_ipv4 else (4, total - _IPV6_LEN)
    claimed = _U16.unpack_from(header, ip_start + at)[0]
    if claimed not in (0, len(header) - ip_start + actual):
        raise FrameError("an IP length that is not that of the super-frame")


def run_header(template: Template, start: int, length: int) -> bytes:
    """Virtio header and frame headers for the run of payload bytes `start` to `start + length`."""
    header = bytearray(template.header)
    ip, transport, udp = template.ip_start, template.csum_start, template.is_udp
    if template.is_ipv4:
        _correct_ipv4(header, template, start, length)
    else:
        _U16.pack_into(header, ip + 4, template.header_len - ip - _IPV6_LEN + length)
    checksum_at = transport + (_UDP_CHECKSUM if udp else _TCP_CHECKSUM)
    old_len = template.header_len - transport + template.total
    new_len = template.header_len - transport + length
    checksum = _U16.unpack_from(header, checksum_at)[0] + new_len + (old_len ^ 0xFFFF)
    _U16.pack_into(header, checksum_at, _fold(checksum))
    if udp:
        _U16.pack_into(header, transport + 4, new_len)
    else:
        _correct_tcp(header, template, start, length)
    return _run_virtio(template, length, checksum_at - transport) + header


def _run_virtio(template: Template, length: int, csum_offset: int) -> bytes:
    gso_type, gso_size = template.gso_type, template.gso_size
    if length <= gso_size:
        gso_type, gso_size = GSO_NONE, 0
    return VIRTIO.pack(
        NEEDS_CHECKSUM, gso_type, template.header_len, gso_size, template.csum_start, csum_offset
    )


def _correct_ipv4(header: bytearray, template: Template, start: int, length: int) -> None:
    """Length, id (one more for every unit before that in which the run begins) and header checksum (RFC 791)."""
    ip = template.ip_start
    _U16.pack_into(header, ip + 2, template.header_len - ip + length)
    if start:
        unit = start // template.gso_size
        _U16.pack_into(header, ip + 4, (_U16.unpack_from(header, ip + 4)[0] + unit) & 0xFFFF)
    header[ip + 10 : ip + 12] = b"\0\0"
    words = int.from_bytes(header[ip : template.csum_start], "big")
    _U16.pack_into(header, ip + 10, 0xFFFF - (words % 0xFFFF or 0xFFFF))


def _correct_tcp(header: bytearray, template: Template, start: int, length: int) -> None:
    tcp = template.csum_start
    if start:
        sequence = (_U32.unpack_from(header, tcp + 4)[0] + start) & 0xFFFFFFFF
        _U32.pack_into(header, tcp + 4, sequence)
        header[tcp + 13] &= ~_CWR & 0xFF
        if header[tcp + 13] & _URG:
            _correct_urgent(header, tcp, start)
    if start + length < template.total:
        header[tcp + 13] &= ~(_FIN | _PSH) & 0xFF


def _correct_urgent(header: bytearray, tcp: int, start: int) -> None:
    """The urgent pointer counts from the segment's first byte (RFC 9293, section 3.8.5); one that lies before it ends."""
    pointer = _U16.unpack_from(header, tcp + 18)[0]
    _U16.pack_into(header, tcp + 18, max(0, pointer - start))
    if pointer < start:
        header[tcp + 13] &= ~_URG & 0xFF


def _fold(value: int) -> int:
    value = (value & 0xFFFF) + (value >> 16)
    return (value & 0xFFFF) + (value >> 16)


def split_units(frame: TapFrame, template: Template) -> list[TapFrame]:
    """Split a super-frame into one frame per unit, each with its partial checksum."""
    payload = frame[VIRTIO_LEN + template.header_len :]
    size = template.gso_size
    return [
        TapFrame(run_header(template, at, len(payload[at : at + size])) + payload[at : at + size])
        for at in range(0, template.total, size)
    ]
