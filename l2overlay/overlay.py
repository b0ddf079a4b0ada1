"""One node of a segment, without I/O: bytes in, bytes out, time and chance as arguments.

The shell (`node`, the simulator, a fuzzer, a test) calls:

    overlay.receive_frames(frames, now)        frames read from the TAP
    overlay.receive_datagrams(bursts, now)     datagrams read from the UDP socket
    overlay.handle_timer(now)                  when `next_timer()` has come
    overlay.bursts_to_send()                   after each of these: what goes to the UDP socket,
    overlay.frames_to_deliver()                what goes to the TAP,
    overlay.next_event()                       and what happened

Frames go through the `Forwarder`. A frame from the TAP: the `Switch` names the peer, that peer's `Outbox` packs the frame,
its `Session` seals. A datagram goes through the `Demultiplexer`: its `Session` opens it, the `Inbox` unpacks it, the
`Switch` lets the frames pass. Whatever is not DATA goes to `Membership`. A lone frame of a known flow takes a shorter way
between the same ends (`microflows`). `Ports` programs the `Forwarder` with what the control plane finds out.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence

from l2overlay.addresses import Address, MacAddress, PeerKey
from l2overlay.config.types import Config, Tos
from l2overlay.controlplane.events import (
    DatagramReturned,
    Event,
    PeerDown,
    PeerUp,
)
from l2overlay.controlplane.handshake import HandshakeContext
from l2overlay.controlplane.local import LocalNode
from l2overlay.controlplane.membership import Membership
from l2overlay.controlplane.overview import FdbEntry, PeerStatus, peer_status
from l2overlay.controlplane.ports import Ports
from l2overlay.controlplane.protection import LoopStatus, Protection, StormStatus, peer_of
from l2overlay.controlplane.refusals import Refusal
from l2overlay.counters import Counters, DropReason
from l2overlay.dataplane.demultiplexer import Demultiplexer
from l2overlay.dataplane.ethernet import (
    ETHERNET_HEADER_LEN,
    split_station_key,
)
from l2overlay.dataplane.fdb import FilteringDatabase, Port
from l2overlay.dataplane.forwarder import Forwarder
from l2overlay.dataplane.gate import FilterGate
from l2overlay.dataplane.marks import Marks
from l2overlay.dataplane.mirror import Mirror
from l2overlay.dataplane.own_datagrams import OwnDatagrams
from l2overlay.dataplane.switch import Switch
from l2overlay.dataplane.wire import (
    CHECKSUM_LEN,
)
from l2overlay.errors import ConfigError, Problem
from l2overlay.seams import Burst, Gather, TapFrame

SWEEP_INTERVAL = 30.0
"""Seconds between sweeps of the FDB, which only free memory."""

RETURNED_INTERVAL = 10.0
"""Seconds between two events about datagrams that come back."""

MAX_EVENTS = 4096
"""Events that are kept until `next_event` fetches them; the oldest are given up first."""

TAGS_LEN = 8
"""Two VLAN tags, which the segment's MTU does not count."""


class Overlay:
    """One node. No method waits; none may be called by two threads at a time."""

    def __init__(
        self,
        config: Config,
        private_key: bytes,
        *,
        now: float,
        wall_clock: float,
        last_stamp: int = 0,
        random: Callable[[int], bytes],
        own_macs: Sequence[MacAddress] = (),
    ) -> None:
        """`now` is monotonic seconds; `wall_clock` Unix seconds at the same instant, for INIT stamps only.

        `last_stamp` is the highest stamp that an earlier run of this key can have used (persist `stamp`); `random(n)`
        gives n unpredictable bytes; `own_macs` are the addresses of our own TAP and bridge, never learned from a peer.
        Raises ConfigError when the key's own stanza is missing.
        """
        segment = config.segment
        context = HandshakeContext.create(private_key, segment.suite, segment.name, segment.psk)
        if config.peer(context.public_key) is None:
            raise ConfigError("peers.toml", (Problem(0, 0, "this node's own key has no [[peers]] stanza"),))
        self._local = LocalNode(context, now=now, wall_clock=wall_clock, last_stamp=last_stamp, random=random)
        self._local.mtu = segment.mtu
        self._links = self._local.links
        max_frame_len = segment.mtu + ETHERNET_HEADER_LEN + TAGS_LEN
        self._switch = Switch(FilteringDatabase(segment.ageing_time), own_macs)
        self._forwarder = Forwarder(self._switch, self._links, self._local.counters, max_frame_len)
        self._microflows = self._forwarder.microflows
        self._members = Membership(self._local, config, max_frame_len + CHECKSUM_LEN, now)
        self._events: deque[Event] = deque(maxlen=MAX_EVENTS)
        self._next_sweep = now + SWEEP_INTERVAL
        self._tell_returned = now
        self._protection = Protection(context.public_key, random(32), self._forwarder.counters_of, now)
        self._witnesses = self._protection.loop.witnesses
        own = context.public_key
        self._ports = Ports(own, self._members, self._protection, self._forwarder, random)
        self._demultiplexer = Demultiplexer(self._links, self._forwarder, self._local.counters, self._ports)
        self._ports.set_static_stations((), config.peers, now)
        self._config = config
        self.marks: Marks | None = None
        self._set_marks(config)
        self._protection.configure(config, self._switch, now)
        self._ports.program()

    @property
    def gate(self) -> FilterGate | None:
        """Set by the shell while a filter is in force."""
        return self._forwarder.gate

    @gate.setter
    def gate(self, gate: FilterGate | None) -> None:
        self._forwarder.gate = gate
        self._forwarder.reconsider()

    @property
    def mirror(self) -> Mirror | None:
        """Set by the shell while somebody looks at frames: it is called once for each frame of both directions."""
        return self._forwarder.mirror

    @mirror.setter
    def mirror(self, mirror: Mirror | None) -> None:
        self._forwarder.mirror = mirror
        self._forwarder.reconsider()

    def look_for_own(self, datagrams: OwnDatagrams | None) -> None:
        """Drop these datagrams when they come from the TAP. None: no peer is reached by way of the bridge."""
        self._forwarder.own_datagrams = datagrams
        self._forwarder.reconsider()

    # -- the way out -------------------------------------------------------------------------------------------

    def receive_frames(self, frames: Sequence[TapFrame], now: float) -> bool:
        """Frames from the TAP. Returns whether it has news: there may be an event or an earlier timer, not only output.

        A lone frame meets cold caches, and each function on its way costs microseconds then. So what has nothing to do for
        most frames is not called: its condition is here.
        """
        if self._local.wakeup <= now:
            # A machine that slept must not use a session that grew too old meanwhile.
            self.handle_timer(now, all_read=False)
        elif len(frames) == 1:
            burst = self._microflows.seal(frames[0], now)
            if burst is not None:
                self._links.bursts.append(burst)
                return False
        forwarder = self._forwarder
        if forwarder.own_datagrams is not None:
            frames = self._without_own(frames, now)
        if self._witnesses.waiting:
            frames = self._ports.without_witnesses(frames, now)
        groups = forwarder.decide(frames, now)
        if forwarder.refused:
            self._ports.tell_refused(now)  # before anything leaves: a probe that came back closes ports
        forwarder.send(groups, now)
        if self._local.events or self._switch.moves or self._switch.freezes or self._protection.has_news():
            self._program(now)
        return True

    def receive_marked_frames(self, frames: Sequence[TapFrame], now: float) -> bool:
        """`receive_frames` of a node that copies marks (`marks` is not None)."""
        assert self.marks is not None
        return self.marks.receive_frames(frames, lambda run: self.receive_frames(run, now))

    def receive_marked_datagrams(self, bursts: Sequence[Burst], now: float) -> bool:
        """`receive_datagrams` of a node that copies marks."""
        assert self.marks is not None
        return self.marks.receive_datagrams(bursts, lambda run: self.receive_datagrams(run, now))

    def _without_own(self, frames: Sequence[TapFrame], now: float) -> Sequence[TapFrame]:
        kept = self._forwarder.without_own(frames)
        if len(kept) < len(frames) and self._tell_returned <= now:
            self._tell_returned = now + RETURNED_INTERVAL
            self._local.events.append(DatagramReturned())
        return kept

    # -- the way in --------------------------------------------------------------------------------------------

    def receive_datagrams(self, bursts: Sequence[Burst], now: float) -> bool:
        """Datagrams from the underlay. Never raises for anything in them.

        Returns whether it has news: there may be an event or an earlier timer, not only frames for the TAP.
        """
        overdue = self._local.wakeup <= now
        if overdue:
            self.handle_timer(now, all_read=False)
        demultiplexer = self._demultiplexer
        if len(bursts) == 1 and demultiplexer.receive_alone(bursts[0], now):
            if demultiplexer.opened is None:
                return overdue
        else:
            demultiplexer.receive(bursts, now)
        demultiplexer.unpack(now)
        if self._forwarder.refused:
            self._ports.tell_refused(now)
        if self._local.events or self._switch.moves or self._switch.freezes or self._protection.has_news():
            self._program(now)
        return True

    def filter_loaded(self, known: Mapping[MacAddress, PeerKey]) -> None:
        """The kernel's filter knows these stations now: let the frames that waited for them pass."""
        self._forwarder.filter_loaded({mac: Port(peer) for mac, peer in known.items()})

    def filter_failed(self) -> None:
        """The kernel's filter could not be updated: drop the frames that waited for it."""
        self._forwarder.filter_failed()

    def receive_overflowed(self, count: int) -> None:
        """The UDP socket had no room for `count` datagrams, which came before those of the next `receive_datagrams`."""
        self._local.counters.rx_datagrams += count
        self._local.counters.drop(DropReason.RECEIVE_OVERFLOW, count)
        for port in self._forwarder.ports:
            self._members.peers[PeerKey(port)].reception.overflowed()

    def admits_untrusted(
        self, data: bytes, size: int, host: bytes, stranger: Callable[[], Address], now: float
    ) -> bool:
        """Whether to name the address of a burst whose source the shell does not know, and to pass it to
        `receive_datagrams`. False: it is refused and counted; an answer may be in `bursts_to_send`.

        `host` is the source in 16 bytes (`host_bytes`); `stranger` makes its `Address`, with the address that was called.
        """
        return self._members.admits_untrusted(data, size, host, stranger, now)

    def flood_filtered(self, count: int) -> None:
        """The kernel's filter, which lets only datagrams of `known_addresses` pass, dropped `count` datagrams."""
        self._local.counters.rx_datagrams += count
        self._local.counters.drop(DropReason.FLOOD_FILTERED, count)

    def failed_datagrams(self) -> int:
        """How many datagrams were dropped so far as those of a flood from strangers are, whoever sent them."""
        return self._members.failed_datagrams()

    @property
    def session_count(self) -> int:
        """Sessions of all peers, confirmed or not."""
        return len(self._links.sessions)

    def known_addresses(self) -> set[Address]:
        """The addresses where peers are, may be, or were just asked whether they are."""
        return {address for peer in self._members for address in peer.paths.addresses()}

    def tap_overflowed(self, count: int) -> None:
        """The queue of the TAP had no room for `count` frames: `receive_frames` never gets them."""
        self._local.counters.drop(DropReason.TAP_OVERFLOW, count)

    # -- what comes out ----------------------------------------------------------------------------------------

    def bursts_to_send(self) -> list[Burst]:
        """Return what goes to the UDP socket now. The next call returns only what comes later."""
        bursts, self._links.bursts = self._links.bursts, []
        return bursts

    def frames_to_deliver(self) -> list[Gather]:
        """Return what goes to the TAP now. The next call returns only what comes later."""
        frames, self._forwarder.frames = self._forwarder.frames, []
        return frames

    def next_timer(self) -> float:
        """When `handle_timer` wants to be called, in the time of `now`."""
        return min(self._local.wakeup, self._next_sweep, self._protection.next_time())

    def handle_timer(self, now: float, *, all_read: bool = True) -> None:
        """Do all that is due at `now`: retries, rekeys, keepalives, expiries.

        `all_read` says that no datagram waits to be read. If one may, no peer is taken for silent.
        """
        if self._local.wakeup <= now:
            self._members.handle_timer(now, all_read=all_read)
        if self._next_sweep <= now:
            self._next_sweep = now + SWEEP_INTERVAL
            self._switch.fdb.sweep(now)
        self._program(now)
        if self._protection.next_time() <= now:
            self._ports.guard_against_loops(now)
            self._program(now)

    def _catch_up(self, now: float) -> None:
        """Do what is overdue: a machine that slept must not use a session that grew too old meanwhile."""
        if self._local.wakeup <= now:
            self.handle_timer(now, all_read=False)

    def next_event(self) -> Event | None:
        """Return the oldest event that was not fetched yet, or None."""
        return self._events.popleft() if self._events else None

    def _program(self, now: float) -> None:
        """Program the data plane with what the control plane has found out, and collect what happened."""
        while self._local.events:
            events, self._local.events = self._local.events, []
            for event in events:
                if isinstance(event, PeerUp):
                    self._ports.came_up(event.peer, now)
                elif isinstance(event, PeerDown):
                    self._ports.went_down(event.peer, now)
                self._events.append(event)
        if self._switch.moves or self._switch.freezes:
            self._events += self._ports.moves(now)
        if self._protection.has_news():
            self._events += self._protection.news(now)

    # -- what the shell tells ----------------------------------------------------------------------------------

    def set_endpoint(self, peer: PeerKey, address: Address | None, now: float) -> None:
        """The shell resolved (or re-resolved) the peer's endpoint. Starts a handshake when there is no session."""
        self._members.set_endpoint(peer, address, now)

    def set_path_limit(self, peer: PeerKey, datagram_size: int, now: float) -> None:
        """The local interface towards the peer takes datagrams (UDP payload) of at most this size."""
        member = self._members.peers.get(peer)
        if member is not None:
            member.paths.set_limit(datagram_size, now)
            self._program(now)

    def probe_peers(self, now: float) -> None:
        """The underlay changed (address, route, link): try every peer at once instead of at its next timer."""
        self._catch_up(now)
        for peer in self._members:
            peer.probe(now)
        self._program(now)

    def reconfigure(self, config: Config, now: float) -> None:
        """Take a new peers.toml: only peers that differ are touched. Removed: BYE, session gone, stations flushed.

        Raises ConfigError, and changes nothing, when the key's own stanza is missing.
        """
        if config.peer(self._local.context.public_key) is None:
            raise ConfigError("peers.toml", (Problem(0, 0, "this node's own key has no [[peers]] stanza"),))
        self._catch_up(now)
        old, self._config = self._config, config
        self._switch.fdb.ageing_time = config.segment.ageing_time
        self._set_marks(config)
        self._ports.set_static_stations(old.peers, config.peers, now)
        self._members.reconfigure(config, now)
        self._protection.configure(config, self._switch, now)
        self._ports.follow_loops(now)
        self._protection.close_ports(self._switch)
        self._ports.program()
        self._program(now)

    def leave(self, now: float) -> None:
        """Queue a BYE to every peer that has a session."""
        self._catch_up(now)
        for peer in self._members:
            peer.say_bye()

    def _set_marks(self, config: Config) -> None:
        tos = config.segment.tos
        if tos is Tos.OFF:
            self.marks = None
        elif self.marks is None:
            self.marks = Marks(self._links, self._forwarder, ecn=tos is Tos.COPY)
        else:
            self.marks.ecn = tos is Tos.COPY

    # -- what can be seen --------------------------------------------------------------------------------------

    @property
    def counters(self) -> Counters:
        """Counters of what belongs to no peer: handshakes, strangers, and what the shell counts."""
        return self._local.counters

    def refusals(self, now: float) -> list[Refusal]:
        """Handshakes that failed lately, and why."""
        return self._local.refusals.recent(now)

    def total_counters(self) -> Counters:
        """Counters of the whole node: its own and those of all peers, added up."""
        return self._members.total_counters()

    @property
    def stamp(self) -> int:
        """The highest INIT stamp used so far."""
        return self._local.stamp

    def peers(self, now: float) -> list[PeerStatus]:
        """Every configured peer but this node, in the order of the file."""
        return [peer_status(peer, self._switch.fdb.count(Port(peer.key)), now) for peer in self._members]

    def loops(self, now: float) -> list[LoopStatus]:
        """Second paths beside the overlay, as far as they are cut now."""
        return self._protection.loops(now)

    def storms(self, now: float) -> list[StormStatus]:
        """Ports that flood more than they may now."""
        return self._protection.storms(now)

    def stations(self, now: float) -> list[FdbEntry]:
        """The filtering database without expired entries, remote and local."""
        return [
            FdbEntry(*split_station_key(key), peer_of(entry.port), entry.static, now - entry.heard)
            for key, entry in self._switch.fdb.entries(now)
        ]
