"""A node under test and two whom it meets: an insider, who has keys and no manners, and a stranger, who has neither.

The insider makes its session with the public functions of the handshake and then seals whatever plaintext a test likes.
"""

import random
from collections.abc import Callable

from l2overlay.addresses import Address, MacAddress, PeerKey
from l2overlay.config.types import Config, PeerConfig, SegmentConfig, Suite
from l2overlay.controlplane.events import Event
from l2overlay.controlplane.handshake import HandshakeContext, initiate, receive_resp_untrusted
from l2overlay.counters import Counters
from l2overlay.dataplane.session import Session
from l2overlay.keys import public_key
from l2overlay.overlay import Overlay
from l2overlay.seams import TapFrame
from tests import drive

NODE_PRIVATE, INSIDER_PRIVATE = b"\x01" * 32, b"\x02" * 32
NODE_KEY, INSIDER_KEY = public_key(NODE_PRIVATE), public_key(INSIDER_PRIVATE)
INSIDER_ADDRESS, STRANGER_ADDRESS = Address("192.0.2.2", 7470), Address("203.0.113.66", 666)
OWN_MAC = MacAddress(bytes.fromhex("fe5400000099"))
MTU = 1500


def deterministic(seed: int) -> Callable[[int], bytes]:
    return random.Random(seed).randbytes


class Meeting:
    """A node, up with an insider, at time `now`."""

    def __init__(self) -> None:
        segment = SegmentConfig("lan", "br-lan", "tap-lan", mtu=MTU)
        peers = (PeerConfig("node", NODE_KEY), PeerConfig("insider", INSIDER_KEY))
        self.now = 1000.0
        self.node = Overlay(
            Config(segment, peers),
            NODE_PRIVATE,
            now=self.now,
            wall_clock=1.8e9,
            random=deterministic(1),
            own_macs=[OWN_MAC],
        )
        self._context = HandshakeContext.create(INSIDER_PRIVATE, Suite.AESGCM, "lan")
        self._stamp = 0
        self.session = self.handshake()

    def handshake(self) -> Session:
        """A session between the insider and the node, confirmed by a keepalive."""
        self._stamp += 1
        pending = initiate(
            self._context,
            NODE_KEY,
            sender=self._stamp,
            stamp=self._stamp,
            features=0,
            ephemeral=bytes([self._stamp]) * 32,
        )
        self.receive(pending.datagram)
        (resp,) = [d for d in self.sent() if d[0] == 2]
        keys, index, _ = receive_resp_untrusted(self._context, pending, resp)
        session = Session(
            PeerKey(NODE_KEY),
            Suite.AESGCM,
            send_key=keys.send,
            receive_key=keys.receive,
            local_index=self._stamp,
            remote_index=index,
            initiator=True,
            created_time=self.now,
            address=INSIDER_ADDRESS,
        )
        self.receive(*self.sealed(b"", session=session))
        self.settle()
        assert self.node.peers(self.now)[0].up
        return session

    def settle(self) -> None:
        """Handle the timers that are due, and forget what the node has sent, delivered and told of itself."""
        while self.node.next_timer() <= self.now:
            self.node.handle_timer(self.now)
        self.sent()
        self.delivered()
        self.events()

    def sealed(self, *plaintexts: bytes, session: Session | None = None) -> list[bytes]:
        pieces = (session or self.session).seal(plaintexts)
        return [
            bytes(header + ciphertext) for header, ciphertext in zip(pieces[::2], pieces[1::2], strict=True)
        ]

    def receive(self, *datagrams: bytes, address: Address = INSIDER_ADDRESS) -> None:
        self.node.receive_datagrams(drive.bursts_of(datagrams, address), self.now)

    def say(self, *plaintexts: bytes) -> list[list[bytes]]:
        """The insider says it; the frames that reach the node's TAP, as gather lists."""
        self.receive(*self.sealed(*plaintexts))
        return self.delivered()

    def delivered(self) -> list[list[bytes]]:
        return [[bytes(piece) for piece in frame] for frame in self.node.frames_to_deliver()]

    def sent(self) -> list[bytes]:
        return [datagram for _, datagram in drive.sent(self.node)]

    def opened(self) -> list[bytes]:
        """What the node has sent to the insider, opened."""
        plaintexts: list[bytes] = []
        for datagram in self.sent():
            plaintexts += self.session.open_untrusted(datagram, 0, len(datagram), Counters())[0]
        return plaintexts

    def events(self) -> list[Event]:
        return drive.events(self.node)

    def read_from_tap(self, *frames: bytes) -> None:
        self.node.receive_frames([TapFrame(frame) for frame in frames], self.now)

    def counters(self) -> Counters:
        return self.node.total_counters()

    def drops(self) -> dict[str, int]:
        return {reason.value: count for reason, count in self.counters().drops.items() if count}
