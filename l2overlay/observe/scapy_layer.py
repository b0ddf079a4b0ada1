"""scapy layers for our datagrams, and with `scapy_records.py` for the records inside them: to read a capture, and to build
what no node would send.

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
        LELongField,
        XByteField,
        XLE3BytesField,
        XLEIntField,
        XLEShortField,
        XStrField,
        XStrFixedLenField,
    )
    from scapy.layers.inet import UDP
    from scapy.packet import Packet, Raw, bind_layers

    from l2overlay.observe.scapy_records import (
        Bye,
        Fragment,
        Frame,
        Lan,
        Padding,
        PathAck,
        PathChallenge,
        PathProbe,
        PathResponse,
        Ping,
        Plaintext,
        Pong,
        Reception,
        Record,
        Slice,
        Unknown,
    )
except ImportError:
    raise ScapyMissingError("scapy is not installed; pip install 'l2overlay[scapy]'") from None

__all__ = [
    "Bye",
    "Cookie",
    "Data",
    "Datagram",
    "Fragment",
    "Frame",
    "Init",
    "Lan",
    "Padding",
    "PathAck",
    "PathChallenge",
    "PathProbe",
    "PathResponse",
    "Ping",
    "Plaintext",
    "Pong",
    "Reception",
    "Record",
    "Resp",
    "ScapyMissingError",
    "Slice",
    "Train",
    "Unknown",
    "bind_port",
    "open_data",
    "open_train",
    "seal_data",
    "seal_train",
    "trains_in",
]

DATAGRAMS = {1: "INIT", 2: "RESP", 3: "COOKIE", 4: "DATA", 5: "TRAIN"}
SUITES = {1: "AES-GCM", 2: "ChaCha20-Poly1305"}
TAG_LEN = 16
TRAIN_HEAD_LEN = 16
MAX_DATAGRAM_LEN = 0xFFFF

# -- datagrams -----------------------------------------------------------------------------------------------------------


class Datagram(Packet):
    """A UDP payload of ours; its first byte tells which."""

    name = "l2overlay"

    @classmethod
    def dispatch_hook(cls, _pkt: bytes = b"", *_: Any, **__: Any) -> Any:
        """`Init`, `Resp`, `Cookie`, `Data`, `Train`; or `Raw` if the type or the length is none of ours."""
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
    """The first message of a handshake: 152 bytes."""

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
    """The answer to an INIT: 100 bytes."""

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
    """The ciphertext: everything that is left except for the last 16 bytes."""

    def getfield(self, pkt: Packet, s: bytes) -> tuple[bytes, bytes]:
        return s[-TAG_LEN:], self.m2i(pkt, s[:-TAG_LEN])


class Data(Datagram):
    """Sealed records. `open_data` opens them."""

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
    """One car of a train: a piece of sealed records and their tag. `open_train` opens all cars."""

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

# -- sealing -------------------------------------------------------------------------------------------------------------


def seal_data(plaintext: bytes, key: bytes, receiver: int, counter: int, suite: int = 1) -> Any:
    """A `Data` sealed with the key of one direction of a session. `plaintext` may be a `Plaintext`."""
    data = Data(receiver=receiver, counter=counter)
    sealed = _aead(key, suite).encrypt(_nonce(data), bytes(plaintext), None)
    data.sealed, data.tag = sealed[:-TAG_LEN], sealed[-TAG_LEN:]
    return data


def open_data(data: Any, key: bytes, suite: int = 1) -> Any:
    """The `Plaintext` of a `Data`. Raises `cryptography.exceptions.InvalidTag` if the key is another."""
    return Plaintext(_aead(key, suite).decrypt(_nonce(data), bytes(data.sealed) + bytes(data.tag), None))


def seal_train(
    plaintext: bytes, key: bytes, receiver: int, counter: int, car_len: int, suite: int = 1
) -> list[Any]:
    """The cars of a train. Each has `car_len` bytes; the last may have fewer."""
    nonce = struct.pack("<IQ", receiver, counter)
    sealed = _aead(key, suite).encrypt(nonce, bytes(plaintext), None)
    step = car_len - TRAIN_HEAD_LEN
    pieces = [sealed[at : at + step] for at in range(0, len(sealed), step)]
    return [
        Train(index=index, count=len(pieces), receiver=receiver, counter=counter, piece=piece)
        for index, piece in enumerate(pieces)
    ]


def open_train(cars: Iterable[Any], key: bytes, suite: int = 1) -> Any:
    """The `Plaintext` of the cars of a train, in any order. Raises `InvalidTag` also if one is missing."""
    in_order = sorted(cars, key=lambda car: int(car.index))
    sealed = b"".join(bytes(car.piece) for car in in_order)
    return Plaintext(_aead(key, suite).decrypt(_nonce(in_order[0]), sealed, None))


def trains_in(packets: Iterable[Any]) -> list[list[Any]]:
    """The complete trains of a capture, in the order in which they began. A repeated car counts once."""
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
