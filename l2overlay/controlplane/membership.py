"""Who is in the segment: the peers of peers.toml, and the handshakes by which they prove it.

What a datagram from anybody can cost us is bounded here, in this order: its length; one hash (mac1: silence to all who do
not know our public key); under load a second hash, and an answer shorter than the question (cookie); then one
handshake out of a limited number a second. State is made only for configured peers.

To find out what an address is called takes longer than all that. So the shell asks first (`admits_untrusted`), with what
it has, about each datagram from an address that it does not know.
"""

import hashlib
from collections.abc import Callable, Iterator
from math import inf

from l2overlay.addresses import Address, PeerKey, host_bytes
from l2overlay.config.types import Config, PeerConfig, Suite
from l2overlay.controlplane.cookie import CookieChecker, has_mac2
from l2overlay.controlplane.events import Cause
from l2overlay.controlplane.handshake import (
    INIT_LEN,
    RESP_LEN,
    ReceivedInit,
    features_with,
    receive_init_untrusted,
    receive_resp_untrusted,
    resp_receiver_untrusted,
    respond,
    suite_untrusted,
)
from l2overlay.controlplane.local import LocalNode
from l2overlay.controlplane.peer import Peer
from l2overlay.controlplane.token_bucket import TokenBucket
from l2overlay.counters import FAILED, Counters, DropReason
from l2overlay.dataplane.wire import DATA_TYPE, TRAIN_TYPE
from l2overlay.errors import DatagramError

INIT_TYPE, RESP_TYPE, COOKIE_TYPE = 1, 2, 3
COOKIE_LEN = 64
LENGTHS = {INIT_TYPE: INIT_LEN, RESP_TYPE: RESP_LEN, COOKIE_TYPE: COOKIE_LEN}

HANDSHAKE_RATE = 200.0
"""INITs a second that we read; reading and answering one takes 0.2 ms. Half a burst used is load: we ask for cookies."""
HANDSHAKE_BURST = 200.0
UNDER_LOAD_TIME = 1.0
CALL_RATE = 200.0
"""INITs a second that are refused for want of a cookie; more of them keep up the load."""
CLAIM_RATE = 1000.0
"""INITs a second with a cookie, true or not, from hosts that did not ask lately."""
NAMING_RATE = 200.0
"""Datagrams a second from unknown addresses that are let in unseen, 40 us each: a segment in peace has fewer."""
MOVING_RATE = 1000.0
"""Datagrams a second that carry a session's index and come from an unknown address: peers that move send some, and so does a
stranger who has seen an index."""
COOKIE_RATE = 2000.0
"""COOKIEs a second, about 3 % of a core ..."""
FIRST_COOKIE_RATE = 500.0
"""... and of these so many at most to hosts that did not ask before."""
MAX_ASKED = 8
"""Who asked more often within `RECENT_TIME` gets none: a node asks every 0.6 s at most."""
RECENT_TIME = 2.0
RECENT_SIZE = 1 << 21
"""Twice 2 MiB, in a flood only. At 20 000 strangers a second 4 % of them look as if they had asked before."""

START_SPREAD = 400.0
"""First INITs a second when a node starts: a small segment at once, a thousand peers in 2.5 s."""


class RecentHosts:
    """How often a host asked in the last seconds, about, and in fixed memory: two tables of counters that take turns.

    Who forges addresses rarely uses one twice, and a genuine newcomer asks again soon. Without the difference a flood
    takes nearly every COOKIE.
    """

    def __init__(self, secret: bytes, now: float) -> None:
        self._secret = secret
        self._since = now
        self._newer, self._older = bytearray(), bytearray()

    def count(self, host: bytes, now: float) -> int:
        """How often `host` was counted before this time."""
        if not self._newer or now >= self._since + RECENT_TIME:
            recent = self._newer and now < self._since + 2 * RECENT_TIME
            self._older = self._newer if recent else bytearray(RECENT_SIZE)
            self._newer, self._since = bytearray(RECENT_SIZE), now
        digest = hashlib.blake2s(host, key=self._secret, digest_size=4).digest()
        slot = int.from_bytes(digest, "little") % RECENT_SIZE
        asked = self._newer[slot]
        self._newer[slot] = min(asked + 1, 255)
        return asked + self._older[slot]


class Membership:
    """The peers of one node, by key."""

    def __init__(self, local: LocalNode, config: Config, max_frame_len: int, now: float) -> None:
        self.peers: dict[PeerKey, Peer] = {}
        self._local = local
        self._max_frame_len = max_frame_len
        self._checker = CookieChecker(local.context.public_key)
        self._handshakes = TokenBucket(HANDSHAKE_RATE, HANDSHAKE_BURST, now)
        self._cookies = TokenBucket(COOKIE_RATE, COOKIE_RATE, now)
        self._first_cookies = TokenBucket(FIRST_COOKIE_RATE, FIRST_COOKIE_RATE, now)
        self._recent = RecentHosts(local.random(32), now)
        self._calls = TokenBucket(CALL_RATE, CALL_RATE, now)
        self._claims = TokenBucket(CLAIM_RATE, CLAIM_RATE, now)
        self._naming = TokenBucket(NAMING_RATE, NAMING_RATE, now)
        self._moving = TokenBucket(MOVING_RATE, MOVING_RATE, now)
        self._under_load_until = -inf
        for peer in config.peers:
            self._add(peer, now)

    def __iter__(self) -> Iterator[Peer]:
        return iter(self.peers.values())

    def set_endpoint(self, key: PeerKey, address: Address | None, now: float) -> None:
        """The peer is to be tried at `address`, soon."""
        peer = self.peers.get(key)
        if peer is not None:
            spread = self._local.unanswered / START_SPREAD
            peer.set_endpoint(address, now, delay=spread * self._local.jitter())

    def handle_timer(self, now: float, *, all_read: bool = True) -> None:
        """Handle every peer whose time has come; see `Peer.handle_timer`."""
        for peer in self.peers.values():
            if peer.wakeup <= now:
                peer.handle_timer(now, all_read=all_read)
        self._local.wakeup = min((peer.wakeup for peer in self.peers.values()), default=inf)

    def reconfigure(self, config: Config, now: float) -> None:
        """Drop who is gone or has another key, add who is new, leave the others alone."""
        wanted = {peer.public_key: peer for peer in config.peers}
        for key in [key for key in self.peers if key not in wanted]:
            self._remove(self.peers.pop(key), now)
        for key, peer_config in wanted.items():
            if key in self.peers:
                self.peers[key].configure(peer_config, now)
            else:
                self._add(peer_config, now)
        self.peers = {key: self.peers[key] for key in wanted if key in self.peers}

    def failed_datagrams(self) -> int:
        """How many datagrams were dropped so far for a reason in `FAILED`, whoever sent them."""
        counters = (self._local.counters, *(peer.counters for peer in self))
        return sum(each.drops.get(reason, 0) for each in counters for reason in FAILED)

    def total_counters(self) -> Counters:
        """Counters of the whole node: its own and those of all peers, added up."""
        total = Counters()
        for counters in (self._local.counters, *(peer.counters for peer in self)):
            total.add(counters)
        return total

    def admits_untrusted(
        self, data: bytes, size: int, host: bytes, stranger: Callable[[], Address], now: float
    ) -> bool:
        """Whether datagrams of `size` bytes from an address that the shell does not know are worth its name.

        What is refused here is counted, and answered with a COOKIE where it deserves one. The first datagram speaks for all.
        """
        if self._naming.take(now):
            return True
        reason = self._turn_away(data[:size], host, stranger, now)
        if reason is None:
            return True
        count = max(1, -(-len(data) // size))
        self._local.counters.rx_datagrams += count
        self._local.counters.drop(reason, count)
        return False

    def _turn_away(
        self, datagram: bytes, host: bytes, stranger: Callable[[], Address], now: float
    ) -> DropReason | None:
        """Why a datagram goes no further, found out at the least cost."""
        kind = datagram[0] if datagram else 0
        index = int.from_bytes(datagram[4:8], "little")
        if kind in (DATA_TYPE, TRAIN_TYPE):
            if index not in self._local.links.sessions:
                return DropReason.UNKNOWN_SESSION
            return None if self._moving.take(now) else DropReason.FLOOD_FILTERED
        if kind not in LENGTHS:
            return DropReason.BAD_TYPE
        if len(datagram) != LENGTHS[kind]:
            return DropReason.BAD_LENGTH
        if kind == INIT_TYPE:
            return self._turn_init_away(datagram, host, stranger, now)
        waiting = index if kind == COOKIE_TYPE else resp_receiver_untrusted(datagram)
        return None if waiting in self._local.pending else DropReason.UNKNOWN_SESSION

    def _turn_init_away(
        self, datagram: bytes, host: bytes, stranger: Callable[[], Address], now: float
    ) -> DropReason | None:
        if now < self._under_load_until:
            asked = self._recent.count(host, now)
            if not self._may_matter(datagram, asked, now):
                self._note_call(now)
                return DropReason.NO_COOKIE
            if not self._checker.verify_mac1(datagram):
                return DropReason.BAD_MAC1
            if self._lacks_cookie(datagram, stranger(), asked, now):
                return DropReason.NO_COOKIE
        elif not self._checker.verify_mac1(datagram):
            return DropReason.BAD_MAC1
        return None if self._handshakes.has_one(now) else DropReason.HANDSHAKE_LIMIT

    def _may_matter(self, datagram: bytes, asked: int, now: float) -> bool:
        """Whether an INIT may have a cookie, or may get one; found out without its MACs."""
        if has_mac2(datagram) and (asked or self._claims.take(now)):
            return True
        return (
            asked <= MAX_ASKED
            and bool(asked or self._first_cookies.has_one(now))
            and self._cookies.has_one(now)
        )

    def receive_untrusted(self, datagram: bytes, address: Address, now: float) -> None:
        """A datagram that is not DATA, from anybody. Never raises; what is wrong is counted."""
        try:
            reason = self._receive(datagram, address, now)
        except DatagramError:
            reason = DropReason.BAD_HANDSHAKE
        if reason is not None:
            self._local.counters.drop(reason)

    def _receive(self, datagram: bytes, address: Address, now: float) -> DropReason | None:
        kind = datagram[0] if datagram else 0
        if kind not in LENGTHS:
            return DropReason.BAD_TYPE
        if len(datagram) != LENGTHS[kind]:
            return DropReason.BAD_LENGTH
        if kind == COOKIE_TYPE:
            return self._receive_cookie(datagram, now)
        if not self._checker.verify_mac1(datagram):
            if kind == INIT_TYPE and suite_untrusted(datagram) in set(Suite):
                self._local.refuse(Cause.WRONG_KEY, address, None, now)
            return DropReason.BAD_MAC1
        if kind == RESP_TYPE:
            return self._receive_resp(datagram, address, now)
        return self._receive_init(datagram, address, now)

    def _receive_init(self, datagram: bytes, address: Address, now: float) -> DropReason | None:
        if now < self._under_load_until and self._lacks_cookie(datagram, address, None, now):
            return DropReason.NO_COOKIE
        if not self._handshakes.take(now):
            return DropReason.HANDSHAKE_LIMIT
        if self._handshakes.level < HANDSHAKE_BURST / 2:
            self._under_load_until = now + UNDER_LOAD_TIME
        try:
            received = receive_init_untrusted(self._local.context, datagram)
        except DatagramError:
            same_suite = suite_untrusted(datagram) == self._local.context.suite
            cause = Cause.OTHER_SEGMENT if same_suite else Cause.OTHER_SUITE
            self._local.refuse(cause, address, None, now)
            raise
        peer = self.peers.get(received.remote)
        if peer is None:
            self._local.refuse(Cause.UNKNOWN_KEY, address, received.remote, now)
            return DropReason.UNKNOWN_PEER
        if received.stamp <= peer.last_stamp:
            self._answer_stale(peer, datagram, address, now)
            return DropReason.STALE_HANDSHAKE
        self._accept(peer, received, address, now)
        return None

    def _lacks_cookie(self, datagram: bytes, address: Address, asked: int | None, now: float) -> bool:
        """Whether an INIT under load has no cookie, or a wrong one; then it may get one. `asked`: how often, if counted."""
        if has_mac2(datagram) and self._checker.verify_mac2(datagram, _source(address), now):
            return False
        self._note_call(now)
        if self._deserves_cookie(address.host, asked, now):
            self._send_cookie(datagram, address, now)
        return True

    def _note_call(self, now: float) -> None:
        """An INIT is refused for want of a cookie: many of them are load, too."""
        if not self._calls.take(now):
            self._under_load_until = now + UNDER_LOAD_TIME

    def _send_cookie(self, datagram: bytes, address: Address, now: float) -> None:
        reply = self._checker.reply(datagram, _source(address), now, self._local.random)
        self._local.send(address, reply)

    def _answer_stale(self, peer: Peer, datagram: bytes, address: Address, now: float) -> None:
        """The peer's clock is behind and its stamp is lost, or somebody sends an old INIT again.

        Silence while the peer has a session: PINGs tell when it has lost it. A peer without one is called at the address
        that the INIT came from, once a cookie proves that address. Neither answer is larger than the INIT.
        """
        if peer.up:
            return
        if self._checker.verify_mac2(datagram, _source(address), now):
            self._local.refuse(Cause.STALE_STAMP, address, peer.key, now)
            peer.dialling.call_back(address, now)
        elif self._deserves_cookie(address.host, None, now):
            self._send_cookie(datagram, address, now)

    def _deserves_cookie(self, host: str, asked: int | None, now: float) -> bool:
        if asked is None:
            asked = self._recent.count(host_bytes(host), now)
        if asked > MAX_ASKED or (not asked and not self._first_cookies.take(now)):
            return False
        return self._cookies.take(now)

    def _accept(self, peer: Peer, received: ReceivedInit, address: Address, now: float) -> None:
        index = self._local.new_index()
        datagram, keys = respond(
            self._local.context,
            received,
            sender=index,
            features=features_with(self._local.mtu),
            ephemeral=self._local.random(32),
        )
        peer.last_stamp, peer.features = received.stamp, received.features
        self._local.send(address, datagram)
        peer.received_init(keys, index, received.sender, address, now)

    def _receive_resp(self, datagram: bytes, address: Address, now: float) -> DropReason | None:
        pending = self._local.pending.get(resp_receiver_untrusted(datagram))
        if pending is None:
            return DropReason.UNKNOWN_SESSION
        peer = self.peers[pending.remote]
        try:
            keys, remote_index, peer.features = receive_resp_untrusted(self._local.context, pending, datagram)
        except DatagramError:
            peer.answer_unreadable(address, now)
            raise
        peer.received_resp(pending, keys, remote_index, address, now)
        return None

    def _receive_cookie(self, datagram: bytes, now: float) -> DropReason | None:
        pending = self._local.pending.get(int.from_bytes(datagram[4:8], "little"))
        if pending is None:
            return DropReason.UNKNOWN_SESSION
        try:
            self.peers[pending.remote].dialling.receive_cookie_untrusted(datagram, pending.mac1, now)
        except DatagramError:
            return DropReason.BAD_COOKIE_REPLY
        return None

    def _add(self, config: PeerConfig, now: float) -> None:
        if config.public_key != self._local.context.public_key:
            self.peers[config.public_key] = Peer(config, self._local, self._max_frame_len, now)

    def _remove(self, peer: Peer, now: float) -> None:
        peer.say_bye()
        peer.retire(now)
        self._local.counters.add(peer.counters)


def _source(address: Address) -> bytes:
    """What a cookie is for."""
    return f"{address.host}|{address.port}".encode()
