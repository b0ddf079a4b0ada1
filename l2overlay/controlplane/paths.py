"""The ways to one peer: which there are, what each of them takes, and which of them carries the frames.

Today the list has one way: the address from which the peer was last proven to answer. A relay's circuit or a stream would be
one more. What is known of a path belongs to its `Way`: whether it lives, how large a datagram reaches the peer, how long
trains may be. The way in use programs the link: address, datagram size and whose traffic is noted.

    candidate   an address where the peer may be: peers.toml names it, or datagrams of the peer come from there
    challenge   asks a candidate, if the peer is up; `roaming` bounds how often
    choice      a peer that is up moves when it answers a challenge; one that is down, with the handshake
    size        `path_mtu` and `reception` find it for the way in use
"""

from collections.abc import Callable, Iterator
from math import inf

from l2overlay.addresses import Address
from l2overlay.controlplane.events import (
    PathSizeChanged,
    PathTooSmall,
    PeerMoved,
    PeerOnTwoHosts,
)
from l2overlay.controlplane.liveness import Liveness
from l2overlay.controlplane.local import LocalNode
from l2overlay.controlplane.path_mtu import PathMtu
from l2overlay.controlplane.reception import TrainLength
from l2overlay.controlplane.roaming import MIN_QUESTION, Roaming
from l2overlay.dataplane.link import Link
from l2overlay.dataplane.wire import Record, control_record, path_probe

FOLLOW_TIME = 1.0
"""Seconds that a peer calls another of our addresses than the one it is answered from, before we answer from there. Perhaps
it is about to follow us: were both ends to follow at once, they would pass each other again and again."""

DEFAULT_PATH_LIMIT = {4: 1472, 6: 1452}
"""UDP payload in one Ethernet frame, until the shell knows the interface."""


class Way:
    """One way to a peer, and what is known of it."""

    __slots__ = ("address", "liveness", "mtu", "trains")

    def __init__(self, keepalive: float, now: float) -> None:
        self.address: Address | None = None
        self.liveness = Liveness(keepalive)
        self.mtu = PathMtu(DEFAULT_PATH_LIMIT[4], now)
        self.trains = TrainLength()


class Paths:
    """All ways to one peer."""

    def __init__(
        self, way: Way, link: Link, local: LocalNode, wake_at: Callable[[float], None], now: float
    ) -> None:
        """`way` is the first one, which carries the frames. `wake_at` arms the peer's timer."""
        self.ways = [way]
        self.used = way
        """The way that carries the frames."""
        self.configured: Address | None = None
        """Where peers.toml says that the peer is."""
        self._link = link
        self._local = local
        self._wake_at = wake_at
        self._roaming = Roaming(local.random, now)
        self._called_elsewhere: tuple[Address | None, float] = (None, inf)
        self._told_too_small = False

    def addresses(self) -> Iterator[Address]:
        """Where the peer is, may be, or has just been asked."""
        sessions = (session.address for session in self._link.sessions())
        ways = (way.address for way in self.ways)
        found = (*ways, self.configured, *sessions, *self._roaming.asked())
        return (address for address in found if address is not None)

    def two_hosts(self, now: float) -> tuple[Address, Address] | None:
        """The addresses of two hosts that seem to have the peer's key."""
        return self._roaming.places.two_hosts(now)

    @property
    def unanswered_since(self) -> float:
        """When the oldest PING left that wants an answer."""
        return self.used.liveness.unanswered_since

    def deadline(self) -> float:
        """When `probe` or `ask` has something to do."""
        return min(self.used.mtu.deadline(), self._roaming.next_try)

    # -- which address -----------------------------------------------------------------------------------------

    def configure(self, address: Address | None, now: float, *, up: bool) -> bool:
        """The shell resolved the peer's endpoint. Returns True if the peer is down and is to be tried at a new address.

        A peer that is up keeps the address that it proved until it has answered at the new one.
        """
        is_new, self.configured = address != self.configured, address
        if up and is_new:
            known = address is not None and same_host(address, self.used.address)
            self._roaming.want(None if known else address, now)
            self.ask(now)
        if up or address is None or address == self.used.address:
            return False
        self.take(address)
        self._expect_default_size(address, now)
        return True

    def take(self, address: Address | None) -> None:
        """Use `address`, because the peer is there."""
        self.used.address = self._link.endpoint = address

    def stop(self) -> None:
        """The peer went down: nothing is asked any more."""
        self.used.liveness.stop()
        self._roaming.stop()

    def fall_back(self) -> None:
        """Call the peer where peers.toml says that it is, if it says so."""
        self.take(self.configured or self.used.address)

    def forget(self) -> None:
        """The peer is no longer configured."""
        self.configured = None
        self.take(None)

    def heard_at(self, address: Address, length: int, now: float) -> None:
        """Datagrams with `length` bytes of plaintext came from `address`, and nothing was sent there yet."""
        if address == self.used.address or length < MIN_QUESTION or self._roaming.has_left(address, now):
            return
        if self._is_to_follow(address, now):
            self._challenge(address, now)

    def _is_to_follow(self, address: Address, now: float) -> bool:
        """At once to another address of the peer; when it calls another of ours, after `FOLLOW_TIME`."""
        if not same_host(address, self.used.address):
            return True
        called, since = self._called_elsewhere
        if called != address:
            self._called_elsewhere = address, now
            return False
        return since + FOLLOW_TIME <= now

    def _challenge(self, address: Address, now: float) -> None:
        """Frames go to a new address only after the peer has answered from there."""
        if self._link.current is None:
            return
        token = self._roaming.challenge(address, now)
        if token is not None:
            self._link.send_alone(control_record(Record.PATH_CHALLENGE, token), address)

    def ask(self, now: float) -> None:
        """Challenge a new endpoint until it answers, a few times."""
        endpoint = self._roaming.due_endpoint(now)
        if endpoint is not None:
            self._challenge(endpoint, now)
        self._wake_at(self._roaming.next_try)

    def answer(self, token: bytes, address: Address, now: float) -> None:
        """Answer a PATH_CHALLENGE that came from `address`, within a rate."""
        if self._link.current is not None and self._roaming.may_answer(now):
            self._link.send_alone(control_record(Record.PATH_RESPONSE, token), address)

    def received_response(self, token: bytes, address: Address, now: float) -> None:
        """A PATH_RESPONSE came from `address`. If we asked there, the frames go there from now on."""
        old = self.used.address
        if not self._roaming.answered(address, token) or address == old:
            return
        self._called_elsewhere = (None, inf)
        self.take(address)
        self._roaming.moved(old, address, now)
        if not same_host(address, old):
            self._local.events.append(PeerMoved(self._link.key, old, address))
        self.proven(now)
        self._expect_default_size(address, now)
        self.restart(now)

    def proven(self, now: float) -> None:
        """The peer has proven where it is."""
        assert self.used.address is not None
        if self._link.current is not None:
            place = self.used.address._replace(local="")
            two = self._roaming.came(place, self._link.current.local_index, now)
            if two is not None:
                self._local.events.append(PeerOnTwoHosts(self._link.key, *two))

    # -- which size --------------------------------------------------------------------------------------------

    def set_limit(self, datagram_size: int, now: float) -> None:
        """The local interface towards the peer takes datagrams of at most this size."""
        self.used.mtu.set_limit(datagram_size, now)
        self._apply_size()

    def _expect_default_size(self, address: Address, now: float) -> None:
        self.used.mtu.set_limit(DEFAULT_PATH_LIMIT[6 if ":" in address.host else 4], now)

    def restart(self, now: float) -> None:
        """The path may be another one: neither what it takes nor what it loses is known."""
        self.used.mtu.restart(now)
        self._apply_size()
        self.forget_trains()

    def probe(self, now: float) -> None:
        """Send the probe that is due, if one is."""
        probe = self.used.mtu.due_probe(now)
        self._apply_size()
        if probe is not None and self.used.address is not None:
            token, size = probe
            self._link.send_alone(path_probe(token, size), self.used.address)

    def acknowledged(self, token: int, now: float) -> None:
        """The peer got the probe with this token."""
        if self.used.mtu.acknowledged(token, now):
            self._apply_size()
        self._wake_at(self.used.mtu.deadline())

    def reported_untrusted(self, used: int, opened: int, now: float) -> None:
        """The peer told how many of the counters used it opened: trains become longer or shorter."""
        way = self.used
        if way.trains.reported_untrusted(used, opened, way.mtu.size, now):
            self._link.outbox.resize(way.mtu.size, way.trains.cars)

    def forget_trains(self) -> None:
        """Send no trains until the peer reports again."""
        self.used.trains = TrainLength()
        self._link.outbox.resize(self.used.mtu.size)

    def _apply_size(self) -> None:
        """The outbox fills datagrams of the size that the path is known to take."""
        mtu = self.used.mtu
        if self._link.outbox.datagram_size != mtu.size:
            self.forget_trains()
            self._local.events.append(PathSizeChanged(self._link.key, mtu.size))
        if mtu.is_too_small != self._told_too_small:
            self._told_too_small = mtu.is_too_small
            if self._told_too_small:
                self._local.events.append(PathTooSmall(self._link.key))
        self._wake_at(mtu.deadline())


def same_host(address: Address, other: Address | None) -> bool:
    """Whether two addresses are one, whichever of ours they belong to."""
    return other is not None and address[:2] == other[:2]
