"""The other end of a node under test: handshakes and sessions made with our own functions, driven by hand."""

from dataclasses import dataclass, field
from random import Random

from l2overlay.addresses import Address, PeerKey
from l2overlay.config.types import Config, PeerConfig, SegmentConfig, Suite
from l2overlay.controlplane.cookie import CookieHolder
from l2overlay.controlplane.events import Event
from l2overlay.controlplane.handshake import (
    HandshakeContext,
    PendingHandshake,
    initiate,
    receive_init_untrusted,
    receive_resp_untrusted,
    respond,
)
from l2overlay.controlplane.overview import PeerStatus
from l2overlay.counters import Counters, DropReason
from l2overlay.dataplane.session import Session
from l2overlay.dataplane.wire import RECORD, RECORD_LEN, Record, control_record
from l2overlay.keys import public_key
from l2overlay.overlay import Overlay
from tests import drive

START = 1000.0
FAR_ADDRESS = Address("192.0.2.2", 7470)
INIT, RESP, COOKIE, DATA = 1, 2, 3, 4


def segment(name: str = "lan", psk: bytes | None = None) -> SegmentConfig:
    return SegmentConfig(name=name, bridge="br-lan", tap="tap-lan", psk=psk)


def config_of(*keys: bytes, segment_config: SegmentConfig | None = None, **options: object) -> Config:
    """A file with these private keys' stanzas; `options` go into each."""
    peers = tuple(
        PeerConfig(name=f"n{i}", public_key=public_key(key), **options)  # type: ignore[arg-type]
        for i, key in enumerate(keys)
    )
    return Config(segment_config or segment(), peers)


class NearEnd:
    """Our node, and the time."""

    def __init__(self, private_key: bytes, config: Config, *, seed: int = 1) -> None:
        self.now = START
        self.random = Random(seed)
        self.overlay = Overlay(
            config, private_key, now=START, wall_clock=1.8e9, random=self.random.randbytes, own_macs=()
        )
        self.key = public_key(private_key)

    def receive(self, *datagrams: bytes, source: Address = FAR_ADDRESS) -> list[tuple[Address, bytes]]:
        """Give it datagrams; returns what it sends."""
        drive.receive_each(self.overlay, datagrams, source, self.now)
        return self.sent()

    def sent(self) -> list[tuple[Address, bytes]]:
        return drive.sent(self.overlay)

    def wait(self, seconds: float) -> list[tuple[float, bytes]]:
        """Let time pass, timers included; returns what it sends, and when."""
        end, sent = self.now + seconds, []
        while (due := self.overlay.next_timer()) <= end:
            self.now = max(self.now, due)
            self.overlay.handle_timer(self.now)
            sent += [(self.now, datagram) for _, datagram in self.sent()]
        self.now = end
        return sent

    def events(self) -> list[Event]:
        return drive.events(self.overlay)

    def drops(self, reason: DropReason) -> int:
        return self.overlay.total_counters().drops.get(reason, 0)

    def status(self) -> PeerStatus:
        (status,) = self.overlay.peers(self.now)
        return status


@dataclass
class FarEnd:
    """A peer of `near`, played by hand."""

    private_key: bytes
    near_key: PeerKey
    segment: SegmentConfig = field(default_factory=segment)
    stamp: int = 1
    features: int = 0
    random: Random = field(default_factory=lambda: Random(99))
    session: Session | None = None
    pending: PendingHandshake | None = None

    def __post_init__(self) -> None:
        self.context = HandshakeContext.create(
            self.private_key, Suite.AESGCM, self.segment.name, self.segment.psk
        )
        self.cookie = CookieHolder(self.near_key)

    def init(self, now: float = START, *, stamp: int | None = None) -> bytes:
        """A fresh INIT, with mac2 if it has a cookie."""
        self.stamp = self.stamp + 1 if stamp is None else stamp
        self.pending = initiate(
            self.context,
            self.near_key,
            sender=self.random.getrandbits(32),
            stamp=self.stamp,
            features=self.features,
            ephemeral=self.random.randbytes(32),
            cookie=self.cookie.cookie(now),
        )
        return self.pending.datagram

    def receive_resp(self, datagram: bytes) -> None:
        assert self.pending is not None
        keys, remote_index, _ = receive_resp_untrusted(self.context, self.pending, datagram)
        self.session = self._make_session(
            keys.send, keys.receive, self.pending.sender, remote_index, initiator=True
        )

    def answer(self, init: bytes) -> bytes:
        """RESP to the node's INIT."""
        received = receive_init_untrusted(self.context, init)
        index = self.random.getrandbits(32)
        resp, keys = respond(
            self.context, received, sender=index, features=self.features, ephemeral=self.random.randbytes(32)
        )
        self.session = self._make_session(keys.send, keys.receive, index, received.sender, initiator=False)
        return resp

    def _make_session(
        self, send: bytes, receive: bytes, local: int, remote: int, *, initiator: bool
    ) -> Session:
        return Session(
            self.near_key,
            Suite.AESGCM,
            send_key=send,
            receive_key=receive,
            local_index=local,
            remote_index=remote,
            initiator=initiator,
            created_time=START,
            address=FAR_ADDRESS,
        )

    def seal(self, plaintext: bytes = b"") -> bytes:
        assert self.session is not None
        return b"".join(self.session.seal([plaintext]))

    def control(self, kind: Record, body: bytes = b"") -> bytes:
        return self.seal(control_record(kind, body))

    def open(self, datagram: bytes) -> list[tuple[Record, bytes]]:
        """The records of a datagram of the node; none when it is of another session."""
        assert self.session is not None
        plaintexts, end = self.session.open_untrusted(datagram, 0, len(datagram), Counters())
        return [] if not end else [record for plaintext in plaintexts for record in records_in(plaintext)]

    def dial(self, near: NearEnd) -> None:
        """Come up as the initiator, and let the node do what it does at once then."""
        self.receive_resp(next(d for _, d in near.receive(self.init(near.now)) if d[0] == RESP))
        near.receive(self.seal())
        near.wait(0.0)
        assert near.status().up


def records_in(plaintext: bytes) -> list[tuple[Record, bytes]]:
    found, at = [], 0
    while at + RECORD_LEN <= len(plaintext):
        kind, _, length = RECORD.unpack_from(plaintext, at)
        found.append((Record(kind), plaintext[at + RECORD_LEN : at + RECORD_LEN + length]))
        at += RECORD_LEN + length
    return found
