"""The loop guard: finds a second path between the LANs of two nodes, and decides who stops forwarding where.

Every node sends a probe out of its TAP into its own LAN once a second. The overlay never carries probes, so one that
comes in by the TAP of another node, or by our own, has found a path beside the overlay.

    destination | source | 88 b5 | "l2o" 1 | sender[16] | sequence u64 | reached[512] | mac[16]

`sender` is a hash of the node's public key; `reached` has a bit for each peer that the sender forwards to; `mac` is keyed
BLAKE2s under a key that the node made when it started and told its peers inside their sessions (LAN record), so that no
station can make one. The sequence only grows: each probe counts once.

Who blocks. LAN mates are nodes that hear each other's probes: one LAN, however many cables. Cutting only the link between
two of them is not enough as soon as there is a third site, whose frames would reach the LAN through both, so:

    1. A node forwards nothing to or from a LAN mate: the LAN itself is the way there, the probe has just come along it.
    2. A node forwards nothing to or from any other peer that a mate with a smaller public key forwards to.

So each pair of LANs keeps one link, that of the smallest keys, and no frame goes in a circle. Nobody who is cut off
counts: a node that reaches no peer has no bits set, and its mates forward for it. A mate that is not heard for
`HOLD_TIME` is gone, and the links are open again. A link is closed for all frames, unicast too: what a station sends by
one way and is answered by another would make its address move with every frame.

When mates come or go, where stations are has changed for everybody: LAN records tell the peers to forget ours.

If a node hears its own probe, its LAN may be a ring in itself, or a station repeats what it hears. A witness tells which
(`witness`): only if that comes back, too, it is a ring. No link to close cures a ring; the node floods nothing into the
overlay and nothing out of it until the ring is gone, and known unicast goes on.

What it cannot tell from a cable: two stations at two sites that carry probes between them. That is a second path.
"""

import hashlib
import hmac
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from math import inf
from struct import Struct

from l2overlay.addresses import MacAddress, PeerKey
from l2overlay.controlplane.witness import Witnesses
from l2overlay.dataplane.ethernet import PROBE_GROUP, PROBE_TYPE, VIRTIO_LEN, plain
from l2overlay.dataplane.wire import LAN
from l2overlay.seams import TapFrame

PROBE_INTERVAL = 1.0
PROMPT_INTERVAL = 0.1
"""Seconds between probes that are sent at once, because what is forwarded has changed."""
HOLD_TIME = 3.5
"""Seconds: three probes may be lost, and a path that is gone is used again within four."""
REPEATS = 3
"""LAN records are not acknowledged; each is sent so often, a probe interval apart. They are idempotent."""

REACHED_BITS = 4096
_HEAD = Struct(">4s16sQ")
_MAGIC = b"l2o\x01"
_MAC_LEN = 16
PROBE_LEN = 14 + _HEAD.size + REACHED_BITS // 8 + _MAC_LEN


@dataclass(slots=True)
class _Lan:
    """What a peer has told of its LAN."""

    key: bytes
    change: int
    sequence: int = 0
    """Of the newest probe heard; grows within one key."""


@dataclass(slots=True)
class Mate:
    """A node whose probes come out of our own LAN."""

    reached: int
    since: float
    until: float


class LoopGuard:
    """The loop guard of one node. `enabled` may change at any time. What peers tell is kept even while it is off."""

    def __init__(self, own: PeerKey, key: bytes, now: float, *, enabled: bool) -> None:
        """`key` is 32 unpredictable bytes."""
        self.enabled = enabled
        self.mates: dict[PeerKey, Mate] = {}
        self.ring: Mate | None = None
        """Our own probe came back, and so did a witness."""
        self.witnesses = Witnesses(key)
        self.suspects = False
        """Our own probe came back: a witness is to be sent. The caller clears it."""
        self.next_probe = now
        self._own, self._key = own, key
        self._change = 0
        self._sequence = 0
        self._heard_of_own = 0
        self._last_probe = -inf
        self._lans: dict[PeerKey, _Lan] = {}
        self._senders: dict[bytes, PeerKey] = {}
        self._untold: dict[PeerKey, int] = {}
        self._head = bytes(PROBE_GROUP) + probe_mac(own) + PROBE_TYPE

    def set_peers(self, peers: Iterable[PeerKey]) -> None:
        """The peers of the configuration; nobody else is believed."""
        self._senders = {sender_of(peer): peer for peer in peers}
        for known in (self._lans, self.mates, self._untold):
            for gone in [peer for peer in known if peer not in self._senders.values()]:
                del known[gone]

    # -- probes ------------------------------------------------------------------------------------------------

    def probe(self, forwarding: Collection[PeerKey], now: float) -> TapFrame:
        """The next probe; `forwarding` are the peers that we forward to."""
        self._last_probe, self.next_probe = now, now + PROBE_INTERVAL
        self._sequence += 1
        reached = sum({_bit(peer) for peer in forwarding}).to_bytes(REACHED_BITS // 8, "big")
        body = self._head + _HEAD.pack(_MAGIC, sender_of(self._own), self._sequence) + reached
        return plain(body + _mac(self._key, body))

    def hurry(self, now: float) -> None:
        """What we forward has changed: the mates should know before their next second."""
        self.next_probe = min(self.next_probe, max(now, self._last_probe + PROMPT_INTERVAL))

    def hear_untrusted(self, frame: bytes, now: float) -> bool:
        """A frame to the probes' group came in by the TAP. Whether it is a probe that counts."""
        body = frame[VIRTIO_LEN : VIRTIO_LEN + PROBE_LEN]
        if not self.enabled or len(body) < PROBE_LEN:
            return False
        magic, sender, sequence = _HEAD.unpack_from(body, 14)
        reached = body[14 + _HEAD.size : -_MAC_LEN]
        if magic != _MAGIC:
            return False
        if sender == sender_of(self._own):
            self._hear_own(body, sequence)
            return False
        peer = self._senders.get(sender)
        lan = None if peer is None else self._lans.get(peer)
        if peer is None or lan is None or sequence <= lan.sequence or not _is_genuine(lan.key, body):
            return False
        lan.sequence = sequence
        since = self.mates[peer].since if peer in self.mates else now
        self.mates[peer] = Mate(int.from_bytes(reached, "big"), since, now + HOLD_TIME)
        return True

    def _hear_own(self, body: bytes, sequence: int) -> None:
        recent = self._sequence - HOLD_TIME / PROBE_INTERVAL
        if sequence > max(recent, self._heard_of_own) and _is_genuine(self._key, body):
            self._heard_of_own = sequence
            self.suspects = True

    def heard_witness(self, now: float) -> None:
        """A witness came back from our LAN: it is a ring."""
        self.ring = Mate(0, self.ring.since if self.ring is not None else now, now + HOLD_TIME)

    # -- what follows from them --------------------------------------------------------------------------------

    def expire(self, now: float) -> None:
        """Forget mates that are not heard any more, and witnesses that did not come back."""
        if self.enabled:
            self.witnesses.expire(now)
        else:
            self.witnesses.forget()
        self.mates = {peer: mate for peer, mate in self.mates.items() if self.enabled and mate.until > now}
        if self.ring is not None and (not self.enabled or self.ring.until <= now):
            self.ring = None

    def next_time(self) -> float:
        """When a probe is due, or a mate or a witness is forgotten."""
        if not self.enabled:
            return inf
        holds = [mate.until for mate in self.mates.values()] + list(self.witnesses.waiting.values())
        return min(self.next_probe, self.ring.until if self.ring is not None else inf, *holds, inf)

    def blocks(self, peer: PeerKey) -> bool:
        """Whether nothing may pass between us and this peer."""
        if not self.mates:
            return False
        bit = _bit(peer)
        return peer in self.mates or any(
            mate < self._own and self.mates[mate].reached & bit for mate in self.mates
        )

    def carrier(self) -> PeerKey:
        """Of us and our mates the one whose links stay open."""
        return min([self._own, *self.mates])

    # -- LAN records -------------------------------------------------------------------------------------------

    def lan_changed(self, peers: Iterable[PeerKey]) -> None:
        """Stations are elsewhere now: tell these peers to forget ours."""
        self._change += 1
        for peer in peers:
            self.tell(peer)

    def tell(self, peer: PeerKey) -> None:
        """This peer is to get our LAN record."""
        if self.enabled:
            self._untold[peer] = REPEATS

    def lan_records(self) -> tuple[list[PeerKey], bytes]:
        """Whom to send our LAN record's body now; called once a probe."""
        peers = list(self._untold)
        self._untold = {peer: count - 1 for peer, count in self._untold.items() if count > 1}
        return peers, LAN.pack(self._key, self._change)

    def receive_lan(self, peer: PeerKey, body: bytes) -> bool:
        """A peer's LAN record. Whether its stations must be forgotten."""
        key, change = LAN.unpack(body)
        known = self._lans.get(peer)
        if known is not None and (known.key, known.change) == (key, change):
            return False
        sequence = known.sequence if known is not None and known.key == key else 0
        self._lans[peer] = _Lan(key, change, sequence)
        return known is not None


def probe_mac(public_key: bytes) -> MacAddress:
    """The source of a node's probes. Not the TAP's: a bridge complains of a frame that comes in with its port's address."""
    digest = hashlib.blake2s(public_key, digest_size=6, person=b"l2oprobe").digest()
    return MacAddress(bytes([digest[0] & 0xFC | 0x02]) + digest[1:])


def sender_of(public_key: bytes) -> bytes:
    """How a probe names its node: a station in the LAN must not learn the public key, which is what keeps strangers out."""
    return hashlib.blake2s(public_key, digest_size=16, person=b"l2oloop").digest()


def _bit(peer: PeerKey) -> int:
    # Keys are as good as random. Two peers that share a bit matter only where a mate reaches one of them and not the other.
    return 1 << (int.from_bytes(peer[:2], "little") % REACHED_BITS)


def _mac(key: bytes, body: bytes) -> bytes:
    return hashlib.blake2s(body, key=key, digest_size=_MAC_LEN).digest()


def _is_genuine(key: bytes, body: bytes) -> bool:
    return hmac.compare_digest(_mac(key, body[:-_MAC_LEN]), body[-_MAC_LEN:])
