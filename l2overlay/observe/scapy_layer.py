"""scapy layers for our datagrams and for the records inside them: to read a capture, and to build what no node would send.

    from scapy.all import rdpcap
    from l2overlay.observe.scapy_layer import Data, open_data
    for packet in rdpcap("underlay.pcap"):
        if Data in packet:
            open_data(packet[Data], key).show()

The cars of a train (`Train`) are opened together, by `open_train`; `trains_in` finds those of a capture that are whole.

The formats are those of docs/protocol.md, written down here once more and without our codec (`dataplane.wire`,
`controlplane.handshake`), so that the tests can hold one against the other. UDP port 7470 is bound on import; see
`bind_port` for others. Lengths that are left out are computed when a packet is built, and kept when they are given, right
or wrong.

scapy is GPL-2.0-only and slow (100 us a frame): it is in the extra `scapy` and in no path of the daemon.
"""

# mypy: allow-subclassing-any

import struct
from collections.abc import Iterable
from typing import Any, ClassVar

from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from l2overlay.config.limits import DEFAULT_PORT
from l2overlay.errors import L2OverlayError


class ScapyMissingError(L2OverlayError, ImportError):
    """scapy is not installed."""


try:
    from scapy.fields import (
        ByteEnumField,
        ByteField,
        ConditionalField,
        FlagsField,
        LEFieldLenField,
        LEIntField,
        LELongField,
        LEShortField,
        PacketListField,
        StrField,
        XByteField,
        XLE3BytesField,
        XLEIntField,
        XLELongField,
        XLEShortField,
        XStrField,
        XStrFixedLenField,
        XStrLenField,
    )
    from scapy.layers.inet import UDP
    from scapy.layers.l2 import Ether
    from scapy.packet import Packet, Raw, bind_layers
except ImportError:
    raise ScapyMissingError("scapy is not installed; pip install 'l2overlay[scapy]'") from None

DATAGRAMS = {1: "INIT", 2: "RESP", 3: "COOKIE", 4: "DATA", 5: "TRAIN"}
SUITES = {1: "AES-GCM", 2: "ChaCha20-Poly1305"}
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
TAG_LEN = 16
TRAIN_HEAD_LEN = 16
MAX_DATAGRAM_LEN = 0xFFFF

# -- datagrams -----------------------------------------------------------------------------------------------------------


class Datagram(Packet):
    """What a UDP payload of ours is, by its first byte."""

    name = "l2overlay"

    @classmethod
    def dispatch_hook(cls, _pkt: bytes = b"", *_: Any, **__: Any) -> Any:
        """`Init`, `Resp`, `Cookie`, `Data`, `Train`, or `Raw` for what has no such type or not its length."""
        lengths = {
            1: (Init, 152, 152),
            2: (Resp, 100, 100),
            3: (Cookie, 64, 64),
            4: (Data, 32, MAX_DATAGRAM_LEN),
            5: (Train, 17, MAX_DATAGRAM_LEN),
        }
        shape, least, most = lengths.get(_pkt[0] if _pkt else 0, (Raw, 0, MAX_DATAGRAM_LEN))
        return shape if least <= len(_pkt) <= most else Raw


class Init(Datagram):
    """First message of a handshake: 152 bytes."""

    name = "l2overlay INIT"
    fields_desc: ClassVar[list[Any]] = [
        ByteEnumField("type", 1, DATAGRAMS),
        ByteEnumField("suite", 1, SUITES),
        XLEShortField("reserved", 0),
        XLEIntField("sender", 0),
        XStrFixedLenField("ephemeral", b"", 32),
        XStrFixedLenField("sealed_static", b"", 48),
        XStrFixedLenField("sealed_payload", b"", 32),
        XStrFixedLenField("mac1", b"", 16),
        XStrFixedLenField("mac2", b"", 16),
    ]


class Resp(Datagram):
    """Its answer: 100 bytes."""

    name = "l2overlay RESP"
    fields_desc: ClassVar[list[Any]] = [
        ByteEnumField("type", 2, DATAGRAMS),
        ByteEnumField("suite", 1, SUITES),
        XLEShortField("reserved", 0),
        XLEIntField("sender", 0),
        XLEIntField("receiver", 0),
        XStrFixedLenField("ephemeral", b"", 32),
        XStrFixedLenField("sealed_payload", b"", 24),
        XStrFixedLenField("mac1", b"", 16),
        XStrFixedLenField("mac2", b"", 16),
    ]


class Cookie(Datagram):
    """What a node under load answers instead: 64 bytes."""

    name = "l2overlay COOKIE"
    fields_desc: ClassVar[list[Any]] = [
        ByteEnumField("type", 3, DATAGRAMS),
        XStrFixedLenField("reserved", bytes(3), 3),
        XLEIntField("receiver", 0),
        XStrFixedLenField("nonce", b"", 24),
        XStrFixedLenField("sealed_cookie", b"", 32),
    ]


class _AllButTheTag(XStrField):
    """The ciphertext: all that is left but the last 16 bytes."""

    def getfield(self, pkt: Packet, s: bytes) -> tuple[bytes, bytes]:
        return s[-TAG_LEN:], self.m2i(pkt, s[:-TAG_LEN])


class Data(Datagram):
    """Sealed records; `open_data` opens them."""

    name = "l2overlay DATA"
    fields_desc: ClassVar[list[Any]] = [
        ByteEnumField("type", 4, DATAGRAMS),
        XLE3BytesField("reserved", 0),
        XLEIntField("receiver", 0),
        LELongField("counter", 0),
        _AllButTheTag("sealed", b""),
        XStrFixedLenField("tag", b"", TAG_LEN),
    ]


class Train(Datagram):
    """One car of a train: a piece of sealed records and their tag; `open_train` opens them all."""

    name = "l2overlay TRAIN"
    fields_desc: ClassVar[list[Any]] = [
        ByteEnumField("type", 5, DATAGRAMS),
        ByteField("index", 0),
        ByteField("count", 2),
        XByteField("reserved", 0),
        XLEIntField("receiver", 0),
        LELongField("counter", 0),
        XStrField("piece", b""),
    ]


def bind_port(port: int) -> None:
    """Dissect UDP datagrams from and to this port as ours."""
    bind_layers(UDP, Datagram, sport=port)
    bind_layers(UDP, Datagram, dport=port)


bind_port(DEFAULT_PORT)

# -- records -------------------------------------------------------------------------------------------------------------


class Record(Packet):
    """One record of a plaintext, by its first byte; what follows its length belongs to the next one."""

    name = "l2overlay record"

    @classmethod
    def dispatch_hook(cls, _pkt: bytes = b"", *_: Any, **__: Any) -> Any:
        """The class of this kind of record; `Unknown` when its length is not of its kind, `Raw` when it is cut short."""
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
    """How much of a record's body is left behind `taken` bytes of it."""
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
        """The headers of the whole super-frame with this slice's bytes behind, dissected; lengths and sums are not right."""
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
    """Its datagram has the size that is tried."""

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
    """The key of the probes that the sender gives to its LAN, and how often where stations are has changed by a cable."""

    name = "l2overlay LAN"
    fields_desc: ClassVar[list[Any]] = [
        *_head(11),
        XStrFixedLenField("key", b"", 32),
        LEIntField("change", 0),
    ]


class Reception(Record):
    """How many counters the other end has used since the last one, and how many of them were opened here."""

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
    """What a DATA datagram, or a train, says."""

    name = "l2overlay plaintext"
    fields_desc: ClassVar[list[Any]] = [PacketListField("records", [], Record, max_count=1 << 16)]


# -- sealing -------------------------------------------------------------------------------------------------------------


def seal_data(plaintext: bytes, key: bytes, receiver: int, counter: int, suite: int = 1) -> Any:
    """A `Data` under one direction's key of a session; `plaintext` may be a `Plaintext`."""
    data = Data(receiver=receiver, counter=counter)
    sealed = _aead(key, suite).encrypt(_nonce(data), bytes(plaintext), None)
    data.sealed, data.tag = sealed[:-TAG_LEN], sealed[-TAG_LEN:]
    return data


def open_data(data: Any, key: bytes, suite: int = 1) -> Any:
    """The `Plaintext` of a `Data`. Raises `cryptography.exceptions.InvalidTag` when the key is not its own."""
    return Plaintext(_aead(key, suite).decrypt(_nonce(data), bytes(data.sealed) + bytes(data.tag), None))


def seal_train(
    plaintext: bytes, key: bytes, receiver: int, counter: int, car_len: int, suite: int = 1
) -> list[Any]:
    """The cars of a train, `car_len` bytes each but the last."""
    nonce = struct.pack("<IQ", receiver, counter)
    sealed = _aead(key, suite).encrypt(nonce, bytes(plaintext), None)
    step = car_len - TRAIN_HEAD_LEN
    pieces = [sealed[at : at + step] for at in range(0, len(sealed), step)]
    return [
        Train(index=index, count=len(pieces), receiver=receiver, counter=counter, piece=piece)
        for index, piece in enumerate(pieces)
    ]


def open_train(cars: Iterable[Any], key: bytes, suite: int = 1) -> Any:
    """The `Plaintext` of a train's cars, in whatever order. Raises `InvalidTag` also when one is missing."""
    in_order = sorted(cars, key=lambda car: int(car.index))
    sealed = b"".join(bytes(car.piece) for car in in_order)
    return Plaintext(_aead(key, suite).decrypt(_nonce(in_order[0]), sealed, None))


def trains_in(packets: Iterable[Any]) -> list[list[Any]]:
    """The whole trains of a capture, as they began. What is there twice counts once."""
    trains: dict[tuple[int, int], dict[int, Any]] = {}
    for packet in packets:
        if Train in packet:
            car = packet[Train]
            trains.setdefault((car.receiver, car.counter), {}).setdefault(car.index, car)
    return [
        [cars[index] for index in sorted(cars)]
        for cars in trains.values()
        if sorted(cars) == list(range(next(iter(cars.values())).count))
    ]


def _aead(key: bytes, suite: int) -> AESGCM | ChaCha20Poly1305:
    return AESGCM(key) if suite == 1 else ChaCha20Poly1305(key)


def _nonce(data: Any) -> bytes:
    """Bytes 4 to 15 of the header: receiver and counter."""
    return struct.pack("<IQ", data.receiver, data.counter)
