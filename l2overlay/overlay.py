"""One node of a segment, without I/O: bytes in, bytes out, time and chance as arguments.

The shell (`node`, the simulator, a fuzzer, a test) calls, as often as it likes and in this order:

    overlay.receive_frames(frames, now)        frames read from the TAP
    overlay.receive_datagrams(bursts, now)     datagrams read from the UDP socket
    overlay.handle_timer(now)                  when `next_timer()` has come
    overlay.bursts_to_send()                   then always: what goes to the UDP socket ...
    overlay.frames_to_deliver()                ... and to the TAP ...
    overlay.next_event()                       ... and what happened

The way of a frame out: `Switch.forward_from_tap` names the peer, that peer's `Outbox` packs it, its `Session` seals. The way
in: `Session.open_untrusted`, the peer's `Inbox` unpacks, `Switch.forward_from_peer` lets it pass. Whatever is not DATA goes
to `Membership`. A lone frame of a known flow takes a quicker way between the same ends, which `microflows` tells of.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import inf

from l2overlay.addresses import Address, MacAddress, PeerKey
from l2overlay.config.types import Config, PeerConfig
from l2overlay.controlplane.events import (
    DatagramReturned,
    Event,
    PeerDown,
    PeerUp,
    StationFrozen,
    StationMoved,
)
from l2overlay.controlplane.handshake import FEATURE_LAN, HandshakeContext
from l2overlay.controlplane.local import LocalNode
from l2overlay.controlplane.membership import Membership
from l2overlay.controlplane.peer import Peer
from l2overlay.controlplane.protection import LoopStatus, Protection, StormStatus
from l2overlay.controlplane.refusals import Refusal
from l2overlay.controlplane.witness import CHANCE_LEN
from l2overlay.counters import Counters, DropReason
from l2overlay.dataplane.ethernet import (
    ETHERNET_HEADER_LEN,
    MIN_TAP_FRAME_LEN,
    SOURCE,
    SWITCHED,
    VIRTIO_LEN,
    split_station_key,
    station_key,
)
from l2overlay.dataplane.fdb import LOCAL, FilteringDatabase, Port
from l2overlay.dataplane.gate import Gate, Held
from l2overlay.dataplane.link import Link
from l2overlay.dataplane.microflows import Microflows
from l2overlay.dataplane.offload import is_super_frame, segment_len
from l2overlay.dataplane.outbox import frame_record
from l2overlay.dataplane.own_datagrams import OwnDatagrams
from l2overlay.dataplane.protect.storm import StormControl
from l2overlay.dataplane.session import REJECT_TIME, Session
from l2overlay.dataplane.switch import FLOOD, Decision, Flood, Switch
from l2overlay.dataplane.wire import (
    BASE_SIZE,
    CHECKSUM_LEN,
    DATA_OVERHEAD,
    DATA_TYPE,
    TRAIN_TYPE,
    Record,
    control_record,
)
from l2overlay.errors import ConfigError, Problem
from l2overlay.seams import Burst, Gather, Pieces, TapFrame

SWEEP_INTERVAL = 30.0
"""Seconds between sweeps of the FDB, which only free memory."""

RETURNED_INTERVAL = 10.0
"""Seconds between two events about datagrams that come back."""

MAX_EVENTS = 4096
"""Events that nobody fetched; the oldest go first."""

MIN_CAPACITY = BASE_SIZE - DATA_OVERHEAD
"""What one datagram to any peer can hold: every path takes the base size."""

FAILED = (
    DropReason.UNKNOWN_SESSION,
    DropReason.EXPIRED_SESSION,
    DropReason.REPLAYED,
    DropReason.BAD_TAG,
    DropReason.BAD_TRAIN,
    DropReason.TRAIN_INCOMPLETE,
    DropReason.BAD_TYPE,
    DropReason.BAD_LENGTH,
    DropReason.BAD_MAC1,
    DropReason.BAD_HANDSHAKE,
    DropReason.NO_COOKIE,
    DropReason.HANDSHAKE_LIMIT,
    DropReason.UNKNOWN_PEER,
    DropReason.STALE_HANDSHAKE,
)
"""What a flood of datagrams from strangers is counted as."""

TAGS_LEN = 8
"""Two VLAN tags, which the segment's MTU does not count."""


@dataclass(frozen=True, slots=True)
class PeerStatus:
    """One peer as `status` shows it. Times are ages in seconds."""

    key: PeerKey
    name: str
    endpoint: Address | None
    up: bool
    reason: str
    """Why it is down, or empty."""
    next_try: float | None
    """Seconds until the next INIT of a peer that is down."""
    rtt: float | None
    last_heard: float | None
    session_age: float | None
    datagram_size: int
    path_too_small: bool
    """The path does not carry the smallest datagram that it must: larger frames are lost."""
    cars: int
    """Datagrams that may be sealed as one; 1 on a path that loses, and on one that has not carried much yet."""
    stations: int
    queued_frames: int
    counters: Counters
    two_hosts: tuple[Address, Address] | None = None
    """Addresses of two hosts that seem to have this peer's key."""
    left: float | None = None
    """Seconds since it said that it leaves, until it comes back."""
    mtu: int = 0
    """Of its segment, as it said; 0 when it did not say."""


@dataclass(frozen=True, slots=True)
class FdbEntry:
    """One learned or static station. `peer` is None for the local side."""

    mac: MacAddress
    vlan: int
    peer: PeerKey | None
    static: bool
    age: float
    """Seconds since it was last heard."""


class Overlay:
    """One node. Not thread-safe and needs not be: no method waits."""

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
        self._max_frame_len = segment.mtu + ETHERNET_HEADER_LEN + TAGS_LEN
        self._switch = Switch(FilteringDatabase(segment.ageing_time), own_macs)
        self._gate: Gate | None = None
        self._microflows = Microflows(self._switch.fdb, self._max_frame_len)
        self._members = Membership(self._local, config, self._max_frame_len + CHECKSUM_LEN, now)
        self._up: dict[Port, Link] = {}
        self._opened: tuple[Session, Address, list[bytes]] | None = None
        self._frames: list[Gather] = []
        self._events: deque[Event] = deque(maxlen=MAX_EVENTS)
        self._next_sweep = now + SWEEP_INTERVAL
        self._own_datagrams: OwnDatagrams | None = None
        self._tell_returned = now
        self._protection = Protection(context.public_key, random(32), self._counters_of, now)
        self._witnesses = self._protection.loop.witnesses
        self._set_static_stations((), config.peers, now)
        self._config = config
        self._protection.configure(config, self._switch, now)
        self._open_ports()

    @property
    def gate(self) -> Gate | None:
        """Set by the shell while a filter is in force."""
        return self._gate

    @gate.setter
    def gate(self, gate: Gate | None) -> None:
        self._gate = gate
        self._microflows.forget()

    def look_for_own(self, datagrams: OwnDatagrams | None) -> None:
        """Drop these when they come from the TAP; None: the way to no peer goes by the bridge."""
        self._own_datagrams = datagrams
        self._microflows.forget()

    @property
    def _addresses_decide(self) -> bool:
        """Whether nothing looks deeper into a frame, or counts frames, and so may treat the next one otherwise."""
        protection = self._protection
        if self._own_datagrams is not None:
            return False
        return self._gate is None and protection.guards is None and self._switch.security is None

    # -- the way out -------------------------------------------------------------------------------------------

    def receive_frames(self, frames: Sequence[TapFrame], now: float) -> bool:
        """Frames from the TAP. Returns whether it is calm: nothing can have come of it but something to send.

        A lone frame meets cold caches, and each function of ours on its way is then worth microseconds. So what mostly has
        nothing to do is asked for here, and not called to find that out.
        """
        if self._local.wakeup <= now:
            self.handle_timer(
                now, all_read=False
            )  # a machine that slept must not use a session that grew too old meanwhile
        elif len(frames) == 1:
            burst = self._microflows.seal(frames[0], now)
            if burst is not None:
                self._links.bursts.append(burst)
                return True
        if self._own_datagrams is not None:
            frames = self._without_own(self._own_datagrams, frames, now)
        if self._witnesses.waiting:
            frames = self._without_witnesses(frames, now)
        if self._protection.guards is not None:
            frames = self._protection.guards.from_tap(frames, now)
        groups: dict[Decision, list[TapFrame]] = {}
        by_header: dict[bytes, list[TapFrame]] = {}
        for frame in frames:
            # All that decides is in SWITCHED, and a batch is one instant: ask the switch once per distinct header. Frames
            # with one decision stay in order; a flow has one.
            group = by_header.get(frame[SWITCHED])
            if group is None:
                group = groups.setdefault(self._decide(frame, now), [])
                by_header[frame[SWITCHED]] = group
            group.append(frame)
        used: dict[Link, None] = {}
        for decision, group in groups.items():
            if decision is FLOOD:
                self._flood(group, used, now)
            elif isinstance(decision, DropReason):
                self._local.counters.drop(decision, len(group))
            else:
                self._send_to(decision, group, used, now)
                if len(frames) == 1 and used and self._addresses_decide:
                    self._microflows.went_out(frames[0], self._up[decision], now)
        for link in used:
            link.flush(now, frames=True)
        if self._local.events or self._switch.moves or self._switch.freezes or self._protection.has_news():
            self._settle(now)
        return False

    def _without_own(self, own: OwnDatagrams, frames: Sequence[TapFrame], now: float) -> Sequence[TapFrame]:
        kept = [frame for frame in frames if not own.includes(frame)]
        returned = len(frames) - len(kept)
        if returned:
            self._local.counters.drop(DropReason.OWN_DATAGRAM, returned)
            if self._tell_returned <= now:
                self._tell_returned = now + RETURNED_INTERVAL
                self._local.events.append(DatagramReturned())
        return kept

    def _decide(self, frame: TapFrame, now: float) -> Decision:
        if len(frame) < MIN_TAP_FRAME_LEN:
            return DropReason.RUNT_FRAME
        decision = self._switch.forward_from_tap(frame, now)
        if isinstance(decision, DropReason):
            self._look_at_refused(decision, frame, now)
            return decision
        if self._gate is None:
            return decision
        return self._gate.admit_out(frame, None if decision is FLOOD else decision) or decision

    def _look_at_refused(self, reason: DropReason, frame: TapFrame, now: float) -> None:
        if reason is DropReason.LOOP_PROBE and self._protection.loop.hear_untrusted(frame, now):
            self._follow_loops(now)
        elif self._protection.loop.suspects:
            self._protection.loop.suspects = False
            self._frames.append([self._witnesses.make(self._local.random(CHANCE_LEN), now)])
        else:
            self._protection.tell_refused(reason, LOCAL, MacAddress(frame[SOURCE]), now)

    def _without_witnesses(self, frames: Sequence[TapFrame], now: float) -> Sequence[TapFrame]:
        kept = [frame for frame in frames if not self._witnesses.heard(frame[VIRTIO_LEN:], now)]
        if len(kept) < len(frames):
            self._local.counters.drop(DropReason.LOOP_PROBE, len(frames) - len(kept))
            self._protection.loop.heard_witness(now)
            self._follow_loops(now)
        return kept

    def _flood(self, frames: list[TapFrame], used: dict[Link, None], now: float) -> None:
        if not self._up or self._protection.loop.ring is not None:
            self._local.counters.drop(self._why_no_flood(), len(frames))
            return
        if self._protection.storm is not None:
            frames = self._below_limit(self._protection.storm, frames, now)
        used.update(dict.fromkeys(self._up.values()))
        for frame in frames:
            # One record for all peers: a broadcast to a hundred of them takes 0.22 ms and not 0.30 (tests/bench, flood).
            record = frame_record(frame, MIN_CAPACITY)
            size = len(frame) - VIRTIO_LEN
            for link in self._up.values():
                if record is None:
                    self._pack(link, [frame])
                    continue
                link.outbox.add_record(record)
                link.counters.tx_frames += 1
                link.counters.tx_bytes += size

    def _why_no_flood(self) -> DropReason:
        """Of a node that floods to nobody."""
        closed = self._protection.closed
        if self._up or DropReason.LOOP_BLOCKED in closed.values():
            return DropReason.LOOP_BLOCKED
        is_kept_apart = any(peer.up for peer in self._members if Port(peer.key) in closed)
        return DropReason.ISOLATED if is_kept_apart else DropReason.NO_PEER

    def _below_limit(self, storm: StormControl, frames: list[TapFrame], now: float) -> list[TapFrame]:
        passing = []
        for frame in frames:
            refused = storm.refuse(frame, len(frame) - VIRTIO_LEN, LOCAL, now)
            if refused is None:
                passing.append(frame)
            else:
                self._local.counters.drop(refused)
        return passing

    def _send_to(self, port: Port, frames: list[TapFrame], used: dict[Link, None], now: float) -> None:
        link = self._up.get(port)
        if link is not None:
            self._pack(link, frames)
            used[link] = None
            return
        waiting = self._links.by_key[PeerKey(port)]
        closed = self._protection.closed.get(port)
        for frame in frames:
            reason = closed or waiting.enqueue(frame, now)
            if reason is not None:
                waiting.counters.drop(reason)

    def _pack(self, link: Link, frames: list[TapFrame]) -> None:
        counters, limit = link.counters, VIRTIO_LEN + self._max_frame_len
        if max(map(len, frames)) > limit:
            fitting = [frame for frame in frames if len(frame) <= limit or not self._is_giant(frame)]
            if len(fitting) < len(frames):
                counters.drop(DropReason.GIANT_FRAME, len(frames) - len(fitting))
            frames = fitting
        refused = link.outbox.add_all(frames)
        counters.tx_frames += len(frames)
        counters.tx_bytes += _bytes_in(frames)
        for frame, reason in refused:
            counters.drop(reason)
            counters.tx_frames -= 1
            counters.tx_bytes -= len(frame) - VIRTIO_LEN

    def _is_giant(self, head: bytes) -> bool:
        """Of a frame longer than the segment's MTU allows: unless it is to be cut into segments that are not."""
        return not is_super_frame(head) or segment_len(head) > self._max_frame_len

    # -- the way in --------------------------------------------------------------------------------------------

    def receive_datagrams(self, bursts: Sequence[Burst], now: float) -> bool:
        """Datagrams from the underlay; never raises for anything in them. Returns whether it is calm: nothing can have come
        of it but something to deliver.
        """
        overdue = self._local.wakeup <= now
        if overdue:
            self.handle_timer(now, all_read=False)
        if len(bursts) == 1 and self._receive_alone(bursts[0], now):
            if self._opened is None:
                return not overdue
        else:
            for burst in bursts:
                self._receive_burst(burst, now)
        self._receive_opened(now)
        if self._local.events or self._switch.moves or self._switch.freezes or self._protection.has_news():
            self._settle(now)
        return False

    def _receive_alone(self, burst: Burst, now: float) -> bool:
        """The quick way of one datagram of DATA; if what it holds needs the ordinary way, it waits to be unpacked. False:
        it is none, or something is wrong with it; nothing was done.
        """
        data = burst.buffers[0]
        if len(data) > burst.datagram_size or len(burst.buffers) > 1:
            return False
        session = self._links.sessions.get(int.from_bytes(data[4:8], "little"))
        if session is None or session.created_time + REJECT_TIME <= now:
            return False
        plaintext = session.open_alone_untrusted(data)
        if plaintext is None:
            return False
        link = self._links.by_key[session.peer]
        link.counters.rx_datagrams += 1
        frame = self._microflows.unpack_untrusted(plaintext, link, session, burst.address, now)
        if frame is not None:
            self._frames.append((frame,))
        else:
            self._opened = (session, burst.address, [plaintext])
        return True

    def _receive_burst(self, burst: Burst, now: float) -> None:
        data, size = b"".join(burst.buffers), burst.datagram_size
        if not data:
            self._refuse(self._local.counters, DropReason.BAD_LENGTH)
        at = 0
        while at < len(data):
            at = self._receive_run(data, at, size, burst.address, now)

    def _receive_run(self, data: bytes, at: int, size: int, address: Address, now: float) -> int:
        """Take the datagram at byte `at` of a burst, and those behind it of its kind and session. Returns where they end."""
        if data[at] not in (DATA_TYPE, TRAIN_TYPE):
            self._receive_opened(now)
            self._local.counters.rx_datagrams += 1
            self._members.receive_untrusted(data[at : at + size], address, now)
            return at + size
        session = self._links.sessions.get(int.from_bytes(data[at + 4 : at + 8], "little"))
        if session is None:
            self._refuse(self._local.counters, DropReason.UNKNOWN_SESSION)
            return at + size
        link = self._links.by_key[session.peer]
        plaintexts, end = link.open_untrusted(session, data, at, size, address, now)
        if plaintexts:
            self._collect_opened(session, address, plaintexts, now)
        return end

    @staticmethod
    def _refuse(counters: Counters, reason: DropReason) -> None:
        """Drop one datagram."""
        counters.rx_datagrams += 1
        counters.drop(reason)

    def _collect_opened(
        self, session: Session, address: Address, plaintexts: list[bytes], now: float
    ) -> None:
        """Bursts of one session that were read together are unpacked together.

        A super-frame takes more datagrams than a burst holds: unpacked one by one, each would reach the TAP in two halves.
        """
        if self._opened is not None and self._opened[:2] == (session, address):
            self._opened[2].extend(plaintexts)
            return
        if self._opened is not None:
            self._receive_opened(now)
        self._opened = (session, address, plaintexts)

    def _receive_opened(self, now: float) -> None:
        if self._opened is None:
            return
        (session, address, plaintexts), self._opened = self._opened, None
        peer = self._members.peers[session.peer]
        has_answer = peer.received_datagram(session, now)
        received = peer.link.inbox.receive_untrusted(plaintexts, now)
        if received.frames:
            peer.received_frames(now)
            self._accept_frames(peer.link, received.frames, now)
        controls = received.controls
        if len(controls) > 1:
            controls = _with_one_challenge(controls)
        is_used = not controls or peer.link.uses(session)
        for kind, body in controls:
            if not is_used:
                peer.receive_former_control(kind, body, address, now)
            elif kind is Record.LAN:
                self._receive_lan(peer, body)
            else:
                peer.receive_control(kind, body, address, now)
        if address != peer.link.endpoint and not any(kind is Record.PATH_CHALLENGE for kind, _ in controls):
            peer.paths.heard_at(address, sum(map(len, plaintexts)), now)
        if has_answer or controls:
            peer.link.flush(now)

    def _accept_frames(self, link: Link, frames: list[Pieces], now: float) -> None:
        counters, port, protection = link.counters, Port(link.key), self._protection
        if port in protection.closed:
            counters.drop(protection.closed[port], len(frames))
            return
        if protection.guards is not None:
            frames = protection.guards.from_peer(frames, port, now)
        verdicts: dict[bytes, DropReason | Held | Flood | None] = {}
        limit = self._max_frame_len + VIRTIO_LEN
        accepted, accepted_len = self._frames, 0
        before = len(accepted)
        for frame in frames:
            head = frame[0]
            switched = head[SWITCHED]
            if switched not in verdicts:
                verdicts[switched] = self._judge(head, port, now)
            verdict = verdicts[switched]
            length = len(head) if len(frame) == 1 else sum(map(len, frame))
            if length > limit and not isinstance(verdict, DropReason) and self._is_giant(head):
                verdict = DropReason.GIANT_FRAME
            if verdict is FLOOD:
                verdict = self._refuse_flood(head, length - VIRTIO_LEN, port, now)
            if verdict is None:
                accepted.append(frame)
                accepted_len += length
            else:
                self._keep_back(frame, verdict, link)
        if (
            len(frames) == 1
            and len(accepted) > before
            and verdicts[switched] is None
            and self._addresses_decide
        ):
            self._microflows.came_in(frames[0][0], link, now)
        counters.rx_frames += len(accepted) - before
        counters.rx_bytes += accepted_len - VIRTIO_LEN * (len(accepted) - before)

    def _refuse_flood(self, head: bytes, size: int, port: Port, now: float) -> DropReason | None:
        if self._protection.loop.ring is not None:
            return DropReason.LOOP_BLOCKED
        storm = self._protection.storm
        return None if storm is None else storm.refuse(head, size, port, now)

    def _keep_back(self, frame: Pieces, verdict: DropReason | Held, link: Link) -> None:
        """Drop a frame for its reason, or hold it until the kernel's filter knows its station."""
        if isinstance(verdict, Held):
            assert self._gate is not None  # it said so
            refused = self._gate.hold(frame, MacAddress(frame[0][SOURCE]), Port(link.key))
            if refused is None:
                return
            verdict = refused
        link.counters.drop(verdict)

    def _judge(self, head: bytes, port: Port, now: float) -> DropReason | Held | Flood | None:
        """FLOOD: it passes, if not too much does; the bridge will flood it."""
        refused = self._switch.forward_from_peer(head, port, now)
        if refused is not None:
            self._protection.tell_refused(refused, port, MacAddress(head[SOURCE]), now)
            return refused
        held = self._gate.admit_in(head, port) if self._gate is not None else None
        if held is not None or self._protection.passes_floods:
            return held
        return FLOOD if self._switch.is_flooded(head, now) else None

    def filter_loaded(self, known: Mapping[MacAddress, PeerKey]) -> None:
        """The kernel's filter has these stations now: deliver what waited for that."""
        if self._gate is None:
            return
        free, late = self._gate.loaded({mac: Port(peer) for mac, peer in known.items()})
        for port, frame in free:
            self._frames.append(frame)
            counters = self._counters_of(port)
            counters.rx_frames += 1
            counters.rx_bytes += sum(map(len, frame)) - VIRTIO_LEN
        for port in late:
            self._counters_of(port).drop(DropReason.FILTER_PENDING)

    def filter_failed(self) -> None:
        """The kernel's filter could not be told: what waited for it is dropped."""
        for port in self._gate.give_up() if self._gate is not None else ():
            self._counters_of(port).drop(DropReason.FILTER_PENDING)

    def _counters_of(self, port: Port) -> Counters:
        """Of a peer; our own for one that has been removed."""
        peer = self._members.peers.get(PeerKey(port))
        return peer.counters if peer is not None else self._local.counters

    def receive_overflowed(self, count: int) -> None:
        """The UDP socket had no room for `count` datagrams, which came before those of the next `receive_datagrams`."""
        self._local.counters.rx_datagrams += count
        self._local.counters.drop(DropReason.RECEIVE_OVERFLOW, count)
        for port in self._up:
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
        """The kernel dropped `count` datagrams by the filter that `known_addresses` are the exceptions of."""
        self._local.counters.rx_datagrams += count
        self._local.counters.drop(DropReason.FLOOD_FILTERED, count)

    def failed_datagrams(self) -> int:
        """How many datagrams came to nothing so far, whoever sent them."""
        counters = (self._local.counters, *(peer.counters for peer in self._members))
        return sum(each.drops.get(reason, 0) for each in counters for reason in FAILED)

    @property
    def session_count(self) -> int:
        """Sessions of all peers, confirmed or not."""
        return len(self._links.sessions)

    def known_addresses(self) -> set[Address]:
        """Where peers are, may be, or have just been asked whether they are."""
        return {address for peer in self._members for address in peer.paths.addresses()}

    def tap_overflowed(self, count: int) -> None:
        """The queue of the TAP had no room for `count` frames, which therefore never came to `receive_frames`."""
        self._local.counters.drop(DropReason.TAP_OVERFLOW, count)

    # -- what comes out ----------------------------------------------------------------------------------------

    def bursts_to_send(self) -> list[Burst]:
        """What must leave now; empties the outbox."""
        bursts, self._links.bursts = self._links.bursts, []
        return bursts

    def frames_to_deliver(self) -> list[Gather]:
        """What must be written to the TAP now; empties the list."""
        frames, self._frames = self._frames, []
        return frames

    def next_timer(self) -> float:
        """When `handle_timer` wants to be called, in the time of `now`."""
        return min(self._local.wakeup, self._next_sweep, self._protection.next_time())

    def handle_timer(self, now: float, *, all_read: bool = True) -> None:
        """Retries, rekeys, keepalives, expiries: all that is due at `now`. Unless `all_read`, datagrams may still wait to be
        read, so nobody is taken for silent."""
        if self._local.wakeup <= now:
            self._members.handle_timer(now, all_read=all_read)
        if self._next_sweep <= now:
            self._next_sweep = now + SWEEP_INTERVAL
            self._switch.fdb.sweep(now)
        self._settle(now)
        if self._protection.next_time() <= now:
            self._guard_against_loops(now)
            self._settle(now)

    def _catch_up(self, now: float) -> None:
        """What is overdue comes first: a machine that slept must not use a session that grew too old meanwhile."""
        if self._local.wakeup <= now:
            self.handle_timer(now, all_read=False)

    def next_event(self) -> Event | None:
        """The oldest event not yet told."""
        return self._events.popleft() if self._events else None

    def _settle(self, now: float) -> None:
        """Let the data plane follow what the control plane has found out."""
        while self._local.events:
            events, self._local.events = self._local.events, []
            for event in events:
                if isinstance(event, PeerUp):
                    self._peer_came_up(self._members.peers[event.peer], now)
                elif isinstance(event, PeerDown):
                    self._up.pop(Port(event.peer), None)
                    self._switch.fdb.flush(Port(event.peer))
                    self._protection.loop.hurry(now)
                self._events.append(event)
        if self._switch.moves or self._switch.freezes:
            if self._switch.freezes:
                # Frames that go in circles look like this: probe now, not in a second.
                self._protection.loop.hurry(now)
            self._tell_moves()
        if self._protection.has_news():
            self._events += self._protection.news(now)

    def _peer_came_up(self, peer: Peer, now: float) -> None:
        closed = self._protection.closed.get(Port(peer.key))
        if closed is None:
            self._up[Port(peer.key)] = peer.link
        frames = peer.link.waiting.take()
        if frames and closed is not None:
            peer.counters.drop(closed, len(frames))
        elif frames:
            self._pack(peer.link, frames)
        self._protection.loop.hurry(now)
        self._protection.loop.tell(peer.key)
        peer.link.flush(now, frames=True)

    def _tell_moves(self) -> None:
        for key, old, new in self._switch.moves:
            mac, vlan = split_station_key(key)
            self._events.append(StationMoved(mac, vlan, _peer_of(old), _peer_of(new)))
        for freeze in self._switch.freezes:
            mac, vlan = split_station_key(freeze.station)
            self._events.append(StationFrozen(mac, vlan, _peer_of(freeze.port), _peer_of(freeze.other)))
        self._switch.moves.clear()
        self._switch.freezes.clear()

    # -- loops and closed ports --------------------------------------------------------------------------------

    def _guard_against_loops(self, now: float) -> None:
        self._follow_loops(now)
        loop = self._protection.loop
        if not loop.enabled or loop.next_probe > now:
            return
        self._frames.append([loop.probe([link.key for link in self._up.values()], now)])
        keys, body = loop.lan_records()
        for peer in (self._members.peers[key] for key in keys if key in self._members.peers):
            if peer.up and peer.features & FEATURE_LAN:
                peer.link.outbox.add_record(control_record(Record.LAN, body))
                peer.link.flush(now)

    def _follow_loops(self, now: float) -> None:
        up = [peer.key for peer in self._members if peer.up]
        if self._protection.follow_loops(self._switch, up, now):
            self._open_ports()
            self._protection.loop.hurry(now)

    def _open_ports(self) -> None:
        """Frames go to every peer that is up and not closed."""
        closed = self._protection.closed
        self._microflows.forget()  # after any change of what protects, too
        self._up = {Port(p.key): p.link for p in self._members if p.up and Port(p.key) not in closed}

    def _receive_lan(self, peer: Peer, body: bytes) -> None:
        if self._protection.loop.receive_lan(peer.key, body):
            self._switch.fdb.flush(Port(peer.key))

    # -- what the shell tells ----------------------------------------------------------------------------------

    def set_endpoint(self, peer: PeerKey, address: Address | None, now: float) -> None:
        """The shell resolved (or re-resolved) the peer's endpoint. Starts a handshake when there is no session."""
        self._members.set_endpoint(peer, address, now)

    def set_path_limit(self, peer: PeerKey, datagram_size: int, now: float) -> None:
        """The local interface towards the peer takes datagrams (UDP payload) of at most this size."""
        member = self._members.peers.get(peer)
        if member is not None:
            member.paths.set_limit(datagram_size, now)
            self._settle(now)

    def probe_peers(self, now: float) -> None:
        """The underlay changed (address, route, link): try every peer at once instead of at its next timer."""
        self._catch_up(now)
        for peer in self._members:
            peer.probe(now)
        self._settle(now)

    def reconfigure(self, config: Config, now: float) -> None:
        """Take a new peers.toml: only peers that differ are touched. Removed: BYE, session gone, stations flushed.

        Raises ConfigError, and changes nothing, when the key's own stanza is missing.
        """
        if config.peer(self._local.context.public_key) is None:
            raise ConfigError("peers.toml", (Problem(0, 0, "this node's own key has no [[peers]] stanza"),))
        self._catch_up(now)
        old, self._config = self._config, config
        self._switch.fdb.ageing_time = config.segment.ageing_time
        self._set_static_stations(old.peers, config.peers, now)
        self._members.reconfigure(config, now)
        self._protection.configure(config, self._switch, now)
        self._follow_loops(now)
        self._protection.close_ports(self._switch)
        self._open_ports()
        self._settle(now)

    def leave(self, now: float) -> None:
        """Queue a BYE to every peer that has a session."""
        self._catch_up(now)
        for peer in self._members:
            peer.say_bye()

    def _set_static_stations(self, old: Sequence[PeerConfig], new: Sequence[PeerConfig], now: float) -> None:
        before = {(mac, peer.public_key) for peer in old for mac in peer.macs}
        after = {(mac, peer.public_key) for peer in new for mac in peer.macs}
        for mac, _ in before - after:
            self._switch.fdb.remove(station_key(mac, 0))
        self._switch.fdb.forget({mac for mac, _ in after - before})  # where it was learned, in a VLAN too
        for mac, key in after - before:
            port = LOCAL if key == self._local.context.public_key else Port(key)
            self._switch.fdb.add_static(station_key(mac, 0), port, now)

    # -- what can be seen --------------------------------------------------------------------------------------

    @property
    def counters(self) -> Counters:
        """Of what belongs to no peer: handshakes, strangers, and what the shell counts."""
        return self._local.counters

    def refusals(self, now: float) -> list[Refusal]:
        """Handshakes that came to nothing lately, and why."""
        return self._local.refusals.recent(now)

    def total_counters(self) -> Counters:
        """Of the node as a whole: its own and all peers' together."""
        total = Counters()
        for counters in (self._local.counters, *(peer.counters for peer in self._members)):
            total.add(counters)
        return total

    @property
    def stamp(self) -> int:
        """The highest INIT stamp used so far."""
        return self._local.stamp

    def peers(self, now: float) -> list[PeerStatus]:
        """Every configured peer but ourselves, in the file's order."""
        return [self._status(peer, now) for peer in self._members]

    def _status(self, peer: Peer, now: float) -> PeerStatus:
        way = peer.paths.used
        waiting = not peer.up and peer.dialling.next_init < inf
        return PeerStatus(
            key=peer.key,
            name=peer.config.name,
            endpoint=peer.link.endpoint,
            up=peer.up,
            reason=peer.reason,
            next_try=max(0.0, peer.dialling.next_init - now) if waiting else None,
            rtt=peer.liveness.rtt,
            last_heard=None if peer.liveness.last_heard is None else now - peer.liveness.last_heard,
            session_age=None if peer.link.current is None else now - peer.link.current.created_time,
            datagram_size=way.mtu.size,
            path_too_small=way.mtu.is_too_small,
            cars=way.trains.cars,
            stations=self._switch.fdb.count(Port(peer.key)),
            queued_frames=len(peer.link.waiting),
            counters=peer.counters,
            two_hosts=peer.paths.two_hosts(now),
            left=None if peer.left_time is None else now - peer.left_time,
            mtu=peer.mtu if peer.up else 0,
        )

    def loops(self, now: float) -> list[LoopStatus]:
        """Second paths beside the overlay that are cut now."""
        return self._protection.loops(now)

    def storms(self, now: float) -> list[StormStatus]:
        """Ports from which more is flooded than may be, now."""
        return self._protection.storms(now)

    def stations(self, now: float) -> list[FdbEntry]:
        """The filtering database without expired entries, remote and local."""
        return [
            FdbEntry(*split_station_key(key), _peer_of(entry.port), entry.static, now - entry.heard)
            for key, entry in self._switch.fdb.entries(now)
        ]


def _with_one_challenge(controls: list[tuple[Record, bytes]]) -> list[tuple[Record, bytes]]:
    """Only the last PATH_CHALLENGE of what was read together is answered: nobody has proven where it came from."""
    challenges = [control for control in controls if control[0] is Record.PATH_CHALLENGE]
    return [control for control in controls if control[0] is not Record.PATH_CHALLENGE] + challenges[-1:]


def _bytes_in(frames: Sequence[TapFrame]) -> int:
    """Ethernet bytes, without the virtio headers."""
    return sum(map(len, frames)) - VIRTIO_LEN * len(frames)


def _peer_of(port: Port) -> PeerKey | None:
    return None if port == LOCAL else PeerKey(port)
