"""scapy layers for the records inside DATA and TRAIN. Import them from `scapy_layer`, which says so if scapy is missing."""

# mypy: allow-subclassing-any

import struct
from typing import Any, ClassVar

from scapy.fields import (
    ByteEnumField,
    ConditionalField,
    FlagsField,
    LEFieldLenField,
    LEIntField,
    LEShortField,
    PacketListField,
    StrField,
    XByteField,
    XLEIntField,
    XLELongField,
    XStrFixedLenField,
    XStrLenField,
)
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

RECORDS = {
    0: "PADDING",
    1: "FRAME",
    2: "SLICE",
    3: "FRAGMENT",
    4: "PING",
    5: "PONG",
    6: "PATH_PROBE",
    7: "PATH_ACK",
    8: "PATH_CHALLENGE",
    9: "PATH_RESPONSE",
    10: "BYE",
    11: "LAN",
    12: "RECEPTION",
}
GSO_TYPES = {0: "none", 1: "TCPv4", 4: "TCPv6", 5: "UDP", 0x81: "TCPv4+ECN", 0x84: "TCPv6+ECN"}

RECORD_LEN = 4
SLICE_HEAD_LEN = 2 + 14  # offset, and a template without its header
FRAGMENT_HEAD_LEN = 8
MAX_BODY_LEN = 0xFFFF


class Record(Packet):
    """One record of a plaintext; its first byte tells which. What follows its length belongs to the next record."""

    name = "l2overlay record"

    @classmethod
    def dispatch_hook(cls, _pkt: bytes = b"", *_: Any, **__: Any) -> Any:
        """The class of this kind of record; `Unknown` if the kind cannot have its length, `Raw` if it is cut short."""
        if not _pkt:
            return Raw
        if _pkt[0] == 0:
            return Padding
        length = int.from_bytes(_pkt[2:4], "little")
        if len(_pkt) < RECORD_LEN or len(_pkt) < RECORD_LEN + length:
            return Raw
        shape, least, most = _SHAPES.get(_pkt[0], (Unknown, 0, MAX_BODY_LEN))
        return shape if least <= length <= most else Unknown

    def extract_padding(self, s: bytes) -> tuple[bytes, bytes]:
        return b"", s

    def post_build(self, pkt: bytes, pay: bytes) -> bytes:
        if self.length is None:
            pkt = pkt[:2] + struct.pack("<H", len(pkt) - RECORD_LEN) + pkt[4:]
        return pkt + pay


def _head(kind: int) -> list[Any]:
    return [
        ByteEnumField("kind", kind, RECORDS),
        FlagsField("flags", 0, 8, ["PARTIAL_CHECKSUM"]),
        LEShortField("length", None),
    ]


def _rest(taken: int) -> Any:
    """How many bytes of the body of a record follow the first `taken`."""
    return lambda pkt: max(0, pkt.length - taken)


def _is_partial(pkt: Packet) -> bool:
    return bool(int(pkt.flags) & 1)


class Padding(Packet):
    """Ends the datagram: a zero, and whatever follows."""

    name = "l2overlay PADDING"
    fields_desc: ClassVar[list[Any]] = [ByteEnumField("kind", 0, RECORDS), StrField("rest", b"")]


class Unknown(Record):
    """A kind that is not defined."""

    name = "l2overlay unknown record"
    fields_desc: ClassVar[list[Any]] = [*_head(255), XStrLenField("body", b"", length_from=_rest(0))]


class Frame(Record):
    """A whole Ethernet frame."""

    name = "l2overlay FRAME"
    fields_desc: ClassVar[list[Any]] = [
        *_head(1),
        ConditionalField(LEShortField("csum_start", 0), _is_partial),
        ConditionalField(LEShortField("csum_offset", 0), _is_partial),
        XStrLenField("frame", b"", length_from=lambda pkt: _rest(4 if _is_partial(pkt) else 0)(pkt)),
    ]

    def ethernet(self) -> Packet:
        """The frame, dissected."""
        return Ether(self.frame)


class Slice(Record):
    """A part of a super-frame's payload, with the template that all its slices share."""

    name = "l2overlay SLICE"
    fields_desc: ClassVar[list[Any]] = [
        *_head(2),
        LEShortField("offset", 0),
        XLEIntField("id", 0),
        ByteEnumField("gso_type", 1, GSO_TYPES),
        XByteField("reserved", 0),
        LEShortField("gso_size", 0),
        LEFieldLenField("header_len", None, length_of="header"),
        LEShortField("csum_start", 0),
        LEShortField("total", 0),
        XStrLenField("header", b"", length_from=lambda pkt: min(pkt.header_len, pkt.length - SLICE_HEAD_LEN)),
        XStrLenField("data", b"", length_from=lambda pkt: _rest(SLICE_HEAD_LEN + pkt.header_len)(pkt)),
    ]

    def ethernet(self) -> Packet:
        """The headers of the super-frame and the bytes of this slice, dissected. Lengths and checksums are not right."""
        return Ether(self.header + self.data)


class Fragment(Record):
    """A part of a frame that is too large for one datagram."""

    name = "l2overlay FRAGMENT"
    fields_desc: ClassVar[list[Any]] = [
        *_head(3),
        LEShortField("offset", 0),
        XLEIntField("id", 0),
        LEShortField("total", 0),
        XStrLenField("part", b"", length_from=_rest(FRAGMENT_HEAD_LEN)),
    ]


class Ping(Record):
    """Asks for a PONG with the same token."""

    name = "l2overlay PING"
    fields_desc: ClassVar[list[Any]] = [*_head(4), XLELongField("token", 0)]


class Pong(Record):
    """Answers a PING."""

    name = "l2overlay PONG"
    fields_desc: ClassVar[list[Any]] = [*_head(5), XLELongField("token", 0)]


class PathProbe(Record):
    """The datagram of this record has the size that is tried."""

    name = "l2overlay PATH_PROBE"
    fields_desc: ClassVar[list[Any]] = [
        *_head(6),
        XLEIntField("token", 0),
        XStrLenField("zeros", b"", length_from=_rest(4)),
    ]


class PathAck(Record):
    """Answers a PATH_PROBE."""

    name = "l2overlay PATH_ACK"
    fields_desc: ClassVar[list[Any]] = [*_head(7), XLEIntField("token", 0)]


class PathChallenge(Record):
    """Asks a new address whether the peer is there."""

    name = "l2overlay PATH_CHALLENGE"
    fields_desc: ClassVar[list[Any]] = [*_head(8), XStrFixedLenField("token", b"", 8)]


class PathResponse(Record):
    """Answers a PATH_CHALLENGE."""

    name = "l2overlay PATH_RESPONSE"
    fields_desc: ClassVar[list[Any]] = [*_head(9), XStrFixedLenField("token", b"", 8)]


class Bye(Record):
    """The sender leaves."""

    name = "l2overlay BYE"
    fields_desc: ClassVar[list[Any]] = _head(10)


class Lan(Record):
    """The key of the probes that the sender gives to its LAN, and how often a cable has moved stations."""

    name = "l2overlay LAN"
    fields_desc: ClassVar[list[Any]] = [
        *_head(11),
        XStrFixedLenField("key", b"", 32),
        LEIntField("change", 0),
    ]


class Reception(Record):
    """How many counters the other end has used since the last report, and how many of them were opened here."""

    name = "l2overlay RECEPTION"
    fields_desc: ClassVar[list[Any]] = [*_head(12), LEIntField("used", 0), LEIntField("opened", 0)]


# By kind: its class, and how short and long its body may be.
_SHAPES: dict[int, tuple[type[Packet], int, int]] = {
    1: (Frame, 0, MAX_BODY_LEN),
    2: (Slice, SLICE_HEAD_LEN, MAX_BODY_LEN),
    3: (Fragment, FRAGMENT_HEAD_LEN, MAX_BODY_LEN),
    4: (Ping, 8, 8),
    5: (Pong, 8, 8),
    6: (PathProbe, 4, MAX_BODY_LEN),
    7: (PathAck, 4, 4),
    8: (PathChallenge, 8, 8),
    9: (PathResponse, 8, 8),
    10: (Bye, 0, 0),
    11: (Lan, 36, 36),
    12: (Reception, 8, 8),
}


class Plaintext(Packet):
    """The records of a DATA datagram or of a train."""

    name = "l2overlay plaintext"
    fields_desc: ClassVar[list[Any]] = [PacketListField("records", [], Record, max_count=1 << 16)]
