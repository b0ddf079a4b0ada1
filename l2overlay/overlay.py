"""One node of a segment, without I/O: bytes in, bytes out, time and chance as arguments.

The shell (`node`, the simulator, a fuzzer, a test) calls:

    overlay.receive_frames(frames, now)        frames read from the TAP
    overlay.receive_datagrams(bursts, now)     datagrams read from the UDP socket
    overlay.handle_timer(now)                  when `next_timer()` has come
    overlay.bursts_to_send()                   after each of these: what goes to the UDP socket,
    overlay.frames_to_deliver()                what goes to the TAP,
    overlay.next_event()                       and what happened

Frames go through the `Forwarder`. A frame from the TAP: the `Switch` names the peer, that peer's `Outbox` packs the frame,
its `Session` seals. A datagram of a peer: the `Session` opens it, the `Inbox` unpacks it, the `Switch` lets the frames pass.
Whatever is not DATA goes to `Membership`. A lone frame of a known flow takes a shorter way between the same ends
(`microflows`).
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence

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
from l2overlay.controlplane.overview import FdbEntry, PeerStatus, peer_status
from l2overlay.controlplane.peer import Peer
from l2overlay.controlplane.protection import LoopStatus, Protection, StormStatus
from l2overlay.controlplane.refusals import Refusal
from l2overlay.controlplane.witness import CHANCE_LEN
from l2overlay.counters import Counters, DropReason
from l2overlay.dataplane.ethernet import (
    ETHERNET_HEADER_LEN,
    SOURCE,
    VIRTIO_LEN,
    split_station_key,
    station_key,
)
from l2overlay.dataplane.fdb import LOCAL, FilteringDatabase, Port
from l2overlay.dataplane.forwarder import Forwarder, Refused
from l2overlay.dataplane.gate import FilterGate
from l2overlay.dataplane.mirror import Mirror
from l2overlay.dataplane.own_datagrams import OwnDatagrams
from l2overlay.dataplane.session import REJECT_TIME, Session
from l2overlay.dataplane.switch import Switch
from l2overlay.dataplane.wire import (
    CHECKSUM_LEN,
    DATA_TYPE,
    TRAIN_TYPE,
    Record,
    control_record,
)
from l2overlay.errors import ConfigError, Problem
from l2overlay.seams import Burst, Gather, TapFrame

SWEEP_INTERVAL = 30.0
"""Seconds between sweeps of the FDB, which only free memory."""

RETURNED_INTERVAL = 10.0
"""Seconds between two events about datagrams that come back."""

MAX_EVENTS = 4096
"""Events that are kept until `next_event` fetches them; the oldest are given up first."""

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
"""The reasons for which datagrams of a flood from strangers are dropped."""

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
        self._opened: tuple[Session, Address, list[bytes]] | None = None
        self._events: deque[Event] = deque(maxlen=MAX_EVENTS)
        self._next_sweep = now + SWEEP_INTERVAL
        self._tell_returned = now
        self._protection = Protection(context.public_key, random(32), self._forwarder.counters_of, now)
        self._witnesses = self._protection.loop.witnesses
        self._set_static_stations((), config.peers, now)
        self._config = config
        self._protection.configure(config, self._switch, now)
        self._program_ports()

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
            frames = self._without_witnesses(frames, now)
        groups = forwarder.decide(frames, now)
        if forwarder.refused:
            self._look_at_refused(now)  # before anything leaves: a probe that came back closes ports
        forwarder.send(groups, now)
        if self._local.events or self._switch.moves or self._switch.freezes or self._protection.has_news():
            self._program(now)
        return True

    def _without_own(self, frames: Sequence[TapFrame], now: float) -> Sequence[TapFrame]:
        kept = self._forwarder.without_own(frames)
        if len(kept) < len(frames) and self._tell_returned <= now:
            self._tell_returned = now + RETURNED_INTERVAL
            self._local.events.append(DatagramReturned())
        return kept

    def _without_witnesses(self, frames: Sequence[TapFrame], now: float) -> Sequence[TapFrame]:
        kept = [frame for frame in frames if not self._witnesses.heard(frame[VIRTIO_LEN:], now)]
        if len(kept) < len(frames):
            self._forwarder.drop_missing(frames, kept, DropReason.LOOP_PROBE)
            self._protection.loop.heard_witness(now)
            self._follow_loops(now)
        return kept

    def _look_at_refused(self, now: float) -> None:
        refused, self._forwarder.refused = self._forwarder.refused, []
        for each in refused:
            if each.port == LOCAL and self._concerns_loops(each, now):
                continue
            mac = MacAddress(each.head[SOURCE])
            self._protection.tell_refused(each.reason, each.port, mac, now, count=each.counted)

    def _concerns_loops(self, refused: Refused, now: float) -> bool:
        """Whether the loop guard acts on a refused frame from the TAP: it is a probe that came back, or a reason to look."""
        loop = self._protection.loop
        if refused.reason is DropReason.LOOP_PROBE and loop.hear_untrusted(refused.head, now):
            self._follow_loops(now)
            return True
        if loop.suspects:
            loop.suspects = False
            self._forwarder.frames.append([self._witnesses.make(self._local.random(CHANCE_LEN), now)])
            return True
        return False

    # -- the way in --------------------------------------------------------------------------------------------

    def receive_datagrams(self, bursts: Sequence[Burst], now: float) -> bool:
        """Datagrams from the underlay. Never raises for anything in them.

        Returns whether it has news: there may be an event or an earlier timer, not only frames for the TAP.
        """
        overdue = self._local.wakeup <= now
        if overdue:
            self.handle_timer(now, all_read=False)
        if len(bursts) == 1 and self._receive_alone(bursts[0], now):
            if self._opened is None:
                return overdue
        else:
            for burst in bursts:
                self._receive_burst(burst, now)
        self._receive_opened(now)
        if self._forwarder.refused:
            self._look_at_refused(now)
        if self._local.events or self._switch.moves or self._switch.freezes or self._protection.has_news():
            self._program(now)
        return True

    def _receive_alone(self, burst: Burst, now: float) -> bool:
        """Open one datagram of DATA, and deliver the lone frame of a known flow; other contents wait in `_opened`.

        Returns False, and changes nothing, for anything but one valid DATA datagram.
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
            self._forwarder.frames.append((frame,))
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
        """Take the datagram at byte `at` of a burst, and those of its kind and session behind it. Returns where they end."""
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
            self._forwarder.accept(peer.link, received.frames, now)
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
        """How many datagrams were dropped so far for a reason in `FAILED`, whoever sent them."""
        counters = (self._local.counters, *(peer.counters for peer in self._members))
        return sum(each.drops.get(reason, 0) for each in counters for reason in FAILED)

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
            self._guard_against_loops(now)
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
                    self._peer_came_up(self._members.peers[event.peer], now)
                elif isinstance(event, PeerDown):
                    self._forwarder.ports.pop(Port(event.peer), None)
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
        if Port(peer.key) not in self._protection.closed:
            self._forwarder.ports[Port(peer.key)] = peer.link
        self._forwarder.send_waiting(peer.link)
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
        self._forwarder.frames.append(
            [loop.probe([link.key for link in self._forwarder.ports.values()], now)]
        )
        keys, body = loop.lan_records()
        for peer in (self._members.peers[key] for key in keys if key in self._members.peers):
            if peer.up and peer.features & FEATURE_LAN:
                peer.link.outbox.add_record(control_record(Record.LAN, body))
                peer.link.flush(now)

    def _follow_loops(self, now: float) -> None:
        up = [peer.key for peer in self._members if peer.up]
        if self._protection.follow_loops(self._switch, up, now):
            self._program_ports()
            self._protection.loop.hurry(now)

    def _program_ports(self) -> None:
        """Program what protects, and the ports: frames go to every peer that is up and not closed."""
        forwarder, protection = self._forwarder, self._protection
        forwarder.guards, forwarder.storm, forwarder.closed = (
            protection.guards,
            protection.storm,
            protection.closed,
        )
        forwarder.ring = protection.loop.ring is not None
        forwarder.ports = {
            Port(peer.key): peer.link
            for peer in self._members
            if peer.up and Port(peer.key) not in protection.closed
        }
        forwarder.reconsider()

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
        self._set_static_stations(old.peers, config.peers, now)
        self._members.reconfigure(config, now)
        self._protection.configure(config, self._switch, now)
        self._follow_loops(now)
        self._protection.close_ports(self._switch)
        self._program_ports()
        self._program(now)

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
        """Counters of what belongs to no peer: handshakes, strangers, and what the shell counts."""
        return self._local.counters

    def refusals(self, now: float) -> list[Refusal]:
        """Handshakes that failed lately, and why."""
        return self._local.refusals.recent(now)

    def total_counters(self) -> Counters:
        """Counters of the whole node: its own and those of all peers, added up."""
        total = Counters()
        for counters in (self._local.counters, *(peer.counters for peer in self._members)):
            total.add(counters)
        return total

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
            FdbEntry(*split_station_key(key), _peer_of(entry.port), entry.static, now - entry.heard)
            for key, entry in self._switch.fdb.entries(now)
        ]


def _with_one_challenge(controls: list[tuple[Record, bytes]]) -> list[tuple[Record, bytes]]:
    """Keep only the last PATH_CHALLENGE of what was read together: the address that each came from is not proven."""
    challenges = [control for control in controls if control[0] is Record.PATH_CHALLENGE]
    return [control for control in controls if control[0] is not Record.PATH_CHALLENGE] + challenges[-1:]


def _peer_of(port: Port) -> PeerKey | None:
    return None if port == LOCAL else PeerKey(port)
