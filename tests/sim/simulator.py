"""N nodes of one segment in virtual time: real `Overlay` objects, a seeded underlay, stations at fake TAPs.

    stations -> Node.send -> Overlay -> Underlay (loss, delay, NAT, ...) -> Overlay -> Node.delivered

A test reads as what happens to a segment:

    sim = Simulation(seed=1, count=3)
    a, b, c = sim.nodes
    sim.run_until(sim.all_up, within=1.0)
    sim.cut(a, b)                           # only from a to b
    sim.run(8.0)
    assert not a.up(b)

Time is a heap of moments. At each of them, in this order: datagrams arrive (all that reach a node at one instant are one
batch, and what a GRO would join is one burst), what tests asked for happens, timers are handled (`Overlay.next_timer` says
when). After every call to an overlay the node does what the shell does: sends, delivers, looks at events. `Watch`
(`invariants`) sees all of it. One seed decides every bit of chance, keys included: a failure names it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from heapq import heappop, heappush
from itertools import count as counting
from math import ceil, inf
from random import Random
from typing import Any

from l2overlay.addresses import Address, MacAddress, PeerKey, derive_macs
from l2overlay.config.types import Config, Endpoint, PeerConfig, SegmentConfig, Suite
from l2overlay.controlplane.events import Event, PeerDown, PeerMoved, PeerUp
from l2overlay.controlplane.overview import PeerStatus
from l2overlay.counters import DropReason
from l2overlay.dataplane.ethernet import BROADCAST, PROBE_GROUP, VIRTIO_LEN, plain
from l2overlay.keys import public_key
from l2overlay.overlay import Overlay
from l2overlay.seams import Burst, TapFrame

from .frames import make_frame, station_mac
from .invariants import Ledger, Watch
from .underlay import Conditions, Nat, Underlay

START = 1000.0
"""The moment at which every simulation begins: monotonic clocks do not start at 0."""
WALL_CLOCK = 1_800_000_000.0
LOCAL_LIMIT = 1472
"""Largest datagram of a node's interface: Ethernet and IPv4."""
STRANGER = Address("203.0.113.66", 666)
"""Where datagrams come from that tests inject."""
WATCHED_NODES = 16
"""In a larger segment the frames are not counted at every call: it would cost more than the run itself."""


class Node:
    """One host: its overlay while it runs, its address, and what its stations have received."""

    def __init__(self, sim: "Simulation", number: int, private_key: bytes) -> None:
        self.sim = sim
        self.name = chr(ord("a") + number) if number < 26 else f"n{number}"
        self.private_key = private_key
        self.key: PeerKey = public_key(private_key)
        self.mac: MacAddress = station_mac(number)
        self.address = Address(
            f"192.0.2.{number + 1}" if number < 250 else f"198.18.{number >> 8}.{number & 255}", 7470
        )
        self.second: Address | None = None
        """It is there as well, and answers from where it was called."""
        self._called_at: dict[Address, Address] = {}
        self.nat: Nat | None = None
        self.running: Overlay | None = None
        self.asleep = False
        self.lateness = (0.0, 0.0)
        """Each turn of a starved process, for the socket or the timer, is so late: at least and at most, seconds."""
        self._turn = -inf
        self.incarnation = 0
        self.last_stamp = 0
        self.wall_clock_error = 0.0
        self.path_limit = LOCAL_LIMIT
        self.events: list[tuple[float, Event]] = []
        self.delivered: dict[int, float] = {}
        """When each frame came, by its number."""
        self.strange: list[bytes] = []
        """Frames that no station of the simulation sent."""
        self.up_keys: set[PeerKey] = set()
        self.config: Config
        """The file that it runs with."""
        self._waiting: list[tuple[Address, bytes]] = []
        self._ledger = Ledger()
        self._alarm = inf

    def source_for(self, remote: Address) -> Address:
        """Where its datagrams to `remote` come from."""
        return self._called_at.get(remote, self.address)

    # -- life --------------------------------------------------------------------------------------------------

    def start(self, config: Config | None = None) -> None:
        """A new process: nothing of an earlier one is left but its key and its last stamp. `config` is its own file."""
        sim = self.sim
        self.config = config or sim.config
        self.incarnation += 1
        self.up_keys = set()
        self._alarm = inf
        self.running = Overlay(
            self.config,
            self.private_key,
            now=sim.now,
            wall_clock=WALL_CLOCK + sim.now - START + self.wall_clock_error,
            last_stamp=self.last_stamp,
            random=sim.random.randbytes,
            own_macs=derive_macs(self.key),
        )
        self._ledger = Ledger()
        self.resolve()

    def resolve(self) -> None:
        """Tell the overlay where every peer with an endpoint is, as the resolver does."""
        for peer in self.config.peers:
            if peer.public_key != self.key and peer.endpoint is not None:
                self.overlay.set_endpoint(
                    peer.public_key, Address(peer.endpoint.host, peer.endpoint.port), self.sim.now
                )
        self._did()

    def kill(self) -> None:
        """SIGKILL: not a word to anybody."""
        self.last_stamp = self.overlay.stamp
        self.running = None
        self._waiting.clear()

    def leave(self) -> None:
        """SIGTERM: BYE to all, and gone."""
        self.overlay.leave(self.sim.now)
        self._did()
        self.kill()

    def suspend(self) -> None:
        """The machine sleeps: nothing is received, no timer fires, and time goes on."""
        self.asleep = True
        self._waiting.clear()

    def resume(self, first: str = "timer") -> None:
        """It wakes, and the first that the shell has for the overlay is: the timer, "frames" or "datagrams"."""
        self.asleep = False
        self._alarm = inf  # what rang meanwhile did so in vain
        if first == "frames":
            self.send()
        elif first == "datagrams":
            self.arrive(STRANGER, b"\4" + bytes(40))
        self.sim.at(self.sim.now, self._set_alarm, order=2)

    def probe_peers(self) -> None:
        """The netlink watch saw the underlay change."""
        self.overlay.probe_peers(self.sim.now)
        self._did()

    def reconfigure(self, config: Config) -> None:
        """SIGHUP with another peers.toml."""
        self.overlay.reconfigure(config, self.sim.now)
        self.config = config
        self._did()

    # -- what the stations do ----------------------------------------------------------------------------------

    def send(
        self,
        to: "Node | bytes" = BROADCAST,
        *,
        source: bytes | None = None,
        size: int = 100,
        vlan: int | None = None,
    ) -> int:
        """A station sends one frame. Returns its number."""
        return self.send_many(1, to, source=source, size=size, vlan=vlan)[0]

    def send_many(
        self,
        count: int,
        to: "Node | bytes" = BROADCAST,
        *,
        source: bytes | None = None,
        size: int = 100,
        vlan: int | None = None,
    ) -> list[int]:
        """`count` frames that the TAP gives in one batch."""
        destination = to.mac if isinstance(to, Node) else to
        numbers = [next(self.sim.frame_numbers) for _ in range(count)]
        frames = [make_frame(destination, source or self.mac, number, size, vlan) for number in numbers]
        for number, frame in zip(numbers, frames, strict=True):
            self.sim.watch.frame_sent(number, frame, self.name)
        self.receive_frames([plain(frame) for frame in frames])
        return numbers

    def receive_frames(self, frames: Sequence[TapFrame]) -> None:
        """The TAP gives these frames."""
        if self.lateness[1]:  # before what is answered by them, which is the worst order
            self._in_turn(lambda: self._receive_frames(frames), order=-1)
        else:
            self._receive_frames(frames)

    def _receive_frames(self, frames: Sequence[TapFrame]) -> None:
        if self.running is not None and not self.asleep:
            self.running.receive_frames(frames, self.sim.now)
            self._did(frames_in=len(frames))

    # -- what is seen of it ------------------------------------------------------------------------------------

    @property
    def overlay(self) -> Overlay:
        assert self.running is not None, f"{self.name} does not run"
        return self.running

    def up(self, peer: "Node") -> bool:
        """Whether it believes that `peer` is up."""
        return self.running is not None and peer.key in self.up_keys

    def status(self, peer: "Node") -> PeerStatus:
        return next(status for status in self.overlay.peers(self.sim.now) if status.key == peer.key)

    def drops(self, reason: DropReason) -> int:
        """How often, in this run, something ended here for `reason`."""
        return self.overlay.total_counters().drops.get(reason, 0)

    def knows(self, mac: bytes) -> PeerKey | None:
        """Behind which peer a station is (None: unknown, or here)."""
        return next((entry.peer for entry in self.overlay.stations(self.sim.now) if entry.mac == mac), None)

    def times(self, kind: type[Event], peer: "Node | None" = None) -> list[float]:
        """When events of this kind happened, of one peer or of all."""
        return [
            time
            for time, event in self.events
            if isinstance(event, kind) and (peer is None or getattr(event, "peer", None) == peer.key)
        ]

    # -- what the shell does -----------------------------------------------------------------------------------

    def arrive(self, source: Address, datagram: bytes) -> None:
        """A datagram reaches the socket."""
        if self.running is not None and not self.asleep:
            self._waiting.append((source, datagram))
            if len(self._waiting) == 1:
                self._in_turn(self._receive_datagrams, order=0)

    def _in_turn(self, work: Callable[[], None], order: int) -> None:
        """Now, or when a starved process gets the processor: what waits then is done together."""
        now = self.sim.now
        if not self.lateness[1] and order:
            work()
            return
        if self.lateness[1] and self._turn < now:
            self._turn = now + self.sim.random.uniform(*self.lateness)
        self.sim.at(max(now, self._turn), work, order=order)

    def _receive_datagrams(self) -> None:
        waiting, self._waiting = self._waiting, []
        if waiting and self.running is not None:
            self.running.receive_datagrams(as_bursts(waiting), self.sim.now)
            self._did()

    def _did(self, frames_in: int = 0) -> None:
        """After every call: what must leave leaves, what must be delivered is, and the events are read."""
        sim, overlay = self.sim, self.overlay
        up, frames_out = len(self.up_keys), 0
        while True:
            for burst in overlay.bursts_to_send():
                for datagram in burst.datagrams():
                    sim.watch.datagram_sent(datagram, self.name, self.incarnation)
                    sim.carry(self, burst.address, datagram)
            for gather in overlay.frames_to_deliver():
                frame = b"".join(gather)[VIRTIO_LEN:]
                frames_out += not self._is_own(frame)
                self._deliver(frame)
            event = overlay.next_event()
            if event is None:
                break
            while event is not None:
                self._look_at(event)
                event = overlay.next_event()
        if len(sim.nodes) <= WATCHED_NODES:
            before, self._ledger = self._ledger, Ledger.of(overlay)
            up = max(up, len(self.up_keys))
            sim.watch.call_done(
                self.name, before, self._ledger, frames_in=frames_in, up=up, frames_out=frames_out
            )
        self._set_alarm()

    def _is_own(self, frame: bytes) -> bool:
        """A probe or a witness of the loop guard, which no peer has sent."""
        return frame[:6] == PROBE_GROUP or frame in self.overlay._witnesses.waiting

    def _deliver(self, frame: bytes) -> None:
        number = self.sim.watch.frame_delivered(frame, self.name)
        if number is None:
            self.strange.append(frame)
        else:
            self.delivered[number] = self.sim.now

    def _look_at(self, event: Event) -> None:
        self.events.append((self.sim.now, event))
        if isinstance(event, PeerUp):
            self.up_keys.add(event.peer)
        elif isinstance(event, PeerDown):
            self.up_keys.discard(event.peer)
        if isinstance(event, PeerUp | PeerMoved):
            self.overlay.set_path_limit(event.peer, self.path_limit, self.sim.now)

    def _set_alarm(self) -> None:
        due = self.overlay.next_timer()
        if due < self._alarm:
            self._alarm = max(due, self.sim.now)
            incarnation = self.incarnation
            self.sim.at(self._alarm, lambda: self._in_turn(lambda: self._ring(incarnation), order=1), order=1)

    def _ring(self, incarnation: int) -> None:
        if (
            self.running is None
            or self.asleep
            or incarnation != self.incarnation
            or self.sim.now < self._alarm
        ):
            return
        self._alarm = inf
        due = self.running.next_timer()
        if due <= self.sim.now:
            self.running.handle_timer(self.sim.now)
            after = self.running.next_timer()
            self.sim.watch.require(
                after > self.sim.now,
                f"the timer of {self.name} spins: due {due}, then {after}",
            )
            self._did()
        self._set_alarm()


@dataclass(slots=True)
class Talk:
    """One station that sends to another at a steady pace."""

    sender: Node
    receiver: Node
    numbers: list[int] = field(default_factory=list)
    stopped: bool = False

    def stop(self) -> None:
        self.stopped = True

    def lost(self, since: float = 0.0) -> float:
        """The share of frames sent after `since` that did not arrive."""
        sent = self.sender.sim.watch.sent
        numbers = [number for number in self.numbers if sent[number].time >= since]
        return sum(number not in self.receiver.delivered for number in numbers) / len(numbers)

    def first_arrival(self, since: float) -> float:
        """When the first frame sent after `since` arrived; never is infinity."""
        sent = self.sender.sim.watch.sent
        arrived = (
            self.receiver.delivered[number]
            for number in self.numbers
            if sent[number].time >= since and number in self.receiver.delivered
        )
        return next(arrived, inf)


@dataclass(frozen=True, slots=True)
class Captured:
    """A datagram as an eavesdropper sees it."""

    time: float
    sender: Node
    receiver: Node | None
    source: Address
    datagram: bytes

    @property
    def kind(self) -> int:
        return self.datagram[0]


class Simulation:
    """A segment of `count` nodes. With `start` they all start at once, at `START`."""

    def __init__(
        self,
        seed: int,
        count: int = 2,
        conditions: Conditions | None = None,
        *,
        natted: Sequence[int] = (),
        macs: dict[int, tuple[MacAddress, ...]] | None = None,
        keepalive: float = 20.0,
        suite: Suite = Suite.AESGCM,
        start: bool = True,
        capture: bool = False,
    ) -> None:
        """Nodes in `natted` are behind a NAT of their own, and nobody knows their endpoint; `macs` are static stations."""
        print(f"seed {seed}")
        self.seed = seed
        self.random = Random(seed)
        self.now = START
        self.watch = Watch(seed)
        self.watch.now = START
        self.underlay = Underlay(Random(seed ^ 0x5EED), conditions or Conditions())
        self.frame_numbers = counting(1)
        self.captured: list[Captured] | None = [] if capture else None
        self._moments: list[tuple[float, int, int, Callable[[], None]]] = []
        self._tie = counting()
        self._owners: dict[Address, Node] = {}
        self.nodes = [self.make_node(number, self.random.randbytes(32)) for number in range(count)]
        for number in natted:
            self.nodes[number].nat = Nat(f"203.0.113.{number + 1}")
        self.config = self._make_config(macs or {}, keepalive, suite)
        self._keep_watch_informed()
        if start:
            self.start()

    def make_node(self, number: int, private_key: bytes) -> Node:
        """One host; its LAN is a fake TAP unless a subclass knows better."""
        return Node(self, number, private_key)

    def _make_config(self, macs: dict[int, tuple[MacAddress, ...]], keepalive: float, suite: Suite) -> Config:
        peers = tuple(
            PeerConfig(
                name=node.name,
                public_key=node.key,
                endpoint=None if node.nat else Endpoint(*node.address[:2]),
                macs=macs.get(number, ()),
                persistent_keepalive=keepalive,
            )
            for number, node in enumerate(self.nodes)
        )
        return Config(SegmentConfig(name="sim", bridge="br-sim", tap="tap-sim", suite=suite), peers)

    def config_without(self, node: Node) -> Config:
        """The file after `peers remove`."""
        return replace(self.config, peers=tuple(p for p in self.config.peers if p.public_key != node.key))

    def follow_addresses(self) -> None:
        """Names are resolved anew: from now on the file's endpoints are where the nodes are now."""
        endpoints = {node.key: None if node.nat else Endpoint(*node.address[:2]) for node in self.nodes}
        peers = tuple(replace(peer, endpoint=endpoints[peer.public_key]) for peer in self.config.peers)
        self.config = replace(self.config, peers=peers)

    def start(self) -> None:
        """Start every node that does not run."""
        for node in self.nodes:
            if node.running is None:
                node.start()

    # -- time --------------------------------------------------------------------------------------------------

    def at(self, time: float, action: Callable[[], None], *, order: int = 0) -> None:
        """Do `action` at `time`; those of equal time by `order`, then as they were asked for."""
        heappush(self._moments, (max(time, self.now), order, next(self._tie), action))

    def run(self, seconds: float) -> None:
        """Let time pass."""
        end = self.now + seconds
        while self._moments and self._moments[0][0] <= end:
            self._step()
        self.now = self.watch.now = end
        for node in self.nodes:
            if node.running is not None and len(self.nodes) <= WATCHED_NODES:
                self.watch.books_balance(node.name, node.running)

    def run_until(self, condition: Callable[[], object], within: float) -> float:
        """Let time pass until `condition` holds; fails when it does not `within` so many seconds. Returns how many."""
        begin = self.now
        while not condition():
            if not self._moments or self._moments[0][0] > begin + within:
                self.now = self.watch.now = begin + within
                self.watch.fail(f"after {within} s it is still not so that {_name(condition)}")
            self._step()
        return self.now - begin

    def _step(self) -> None:
        time, _, _, action = heappop(self._moments)
        self.now = self.watch.now = time
        action()

    def run_until_all_up(self, within: float) -> float:
        """Seconds until every node has every other one up."""
        return self.run_until(self.all_up, within)

    # -- the wire ----------------------------------------------------------------------------------------------

    def carry(self, sender: Node, destination: Address, datagram: bytes) -> None:
        """The underlay takes a datagram from `sender`."""
        source = (
            sender.nat.outward(sender.address, destination) if sender.nat else sender.source_for(destination)
        )
        receiver = self._owner(destination, source)
        if self.captured is not None:
            self.captured.append(Captured(self.now, sender, receiver, source, datagram))
        if receiver is None:
            self.underlay.lost_something = True
            return
        self._keep_watch_informed()
        for time, carried in self.underlay.arrivals(sender.name, receiver.name, datagram, self.now):
            self.at(time, lambda carried=carried: self._arrive(source, destination, carried))  # type: ignore[misc]

    def inject(self, receiver: Node, datagram: bytes, source: Address = STRANGER) -> None:
        """Somebody sends `datagram` to `receiver`; it arrives at once."""
        self.at(self.now, lambda: receiver.arrive(source, datagram), order=-1)
        self.run(0.0)

    def _arrive(self, source: Address, destination: Address, datagram: bytes) -> None:
        receiver = self._owner(destination, source)
        if receiver is not None:
            if receiver.second is not None:
                receiver._called_at[source] = destination
            receiver.arrive(source, datagram)

    def _owner(self, destination: Address, source: Address) -> Node | None:
        """Who gets a datagram now that is sent to `destination`."""
        known = self._owners.get(destination)
        if known is not None and known.nat is None and known.address == destination:
            return known
        for node in self.nodes:
            if node.second == destination:
                return node
            if node.nat is None:
                if node.address == destination:
                    self._owners[destination] = node
                    return node
            elif node.nat.host == destination.host and node.nat.inward(destination, source) == node.address:
                return node
        return None

    @staticmethod
    def also_at(node: Node, address: Address) -> None:
        """The node has a second address from now on."""
        node.second = address

    def _keep_watch_informed(self) -> None:
        self.watch.keeps_order = self.underlay.kept_order
        self.watch.delay_allowance = max(self.watch.delay_allowance, self.underlay.conditions.longest_delay)

    def cut(self, sender: Node, receiver: Node) -> None:
        """Nothing from `sender` reaches `receiver` any more; the other direction is as it was."""
        self.underlay.cut(sender.name, receiver.name)

    def partition(self, *group: Node) -> None:
        """Nothing passes between `group` and the others."""
        for inside in group:
            for outside in self.nodes:
                if outside not in group:
                    self.cut(inside, outside)
                    self.cut(outside, inside)

    def heal(self) -> None:
        """Take back every cut."""
        self.underlay.heal()

    # -- the segment -------------------------------------------------------------------------------------------

    def all_up(self) -> bool:
        """Every node that runs has all others that run up."""
        running = [node for node in self.nodes if node.running is not None]
        return all(a.up(b) for a in running for b in running if a is not b)

    def talk(self, sender: Node, receiver: Node, every: float = 0.05, size: int = 100) -> Talk:
        """A station of `sender` sends to one of `receiver`, from now on."""
        talk = Talk(sender, receiver)

        def say() -> None:
            if not talk.stopped:
                if sender.running is not None and not sender.asleep:
                    talk.numbers.append(sender.send(receiver, size=size))
                self.at(self.now + every, say)

        say()
        return talk

    def conversation(self, a: Node, b: Node, every: float = 0.05, size: int = 100) -> tuple[Talk, Talk]:
        """Both ways."""
        return self.talk(a, b, every, size), self.talk(b, a, every, size)

    def check_nothing_got_lost(self) -> None:
        """On a network that lost nothing, all that was sent to a peer was received by it, or dropped with a name."""
        self.watch.require(
            not self.underlay.lost_something, "this network loses datagrams: nothing can be said"
        )
        for sender in self.nodes:
            for receiver in self.nodes:
                if sender is not receiver:
                    self._check_pair(sender, receiver)

    def _check_pair(self, sender: Node, receiver: Node) -> None:
        sent = sender.status(receiver).counters.tx_frames
        counters = receiver.status(sender).counters
        received = counters.rx_frames + sum(
            counters.drops.get(reason, 0)
            for reason in (
                DropReason.RESERVED_ADDRESS,
                DropReason.GROUP_SOURCE,
                DropReason.SPOOFED_STATION,
                DropReason.GIANT_FRAME,
            )
        )
        self.watch.require(
            sent == received,
            f"{sender.name} sent {sent} frames to {receiver.name}, which accounts for {received}",
        )


def started(seed: int, count: int = 2, conditions: Conditions | None = None, **options: Any) -> Simulation:
    """A segment whose nodes are all up."""
    sim = Simulation(seed, count, conditions, **options)
    sim.run_until(sim.all_up, within=10.0)
    return sim


def as_bursts(datagrams: Sequence[tuple[Address, bytes]]) -> list[Burst]:
    """What UDP GRO makes of datagrams that wait: runs from one address, equal in size but for a shorter last one."""
    runs: list[tuple[Address, int, bytearray]] = []
    open_to_more = False
    for source, datagram in datagrams:
        size = len(datagram)
        if open_to_more and runs[-1][0] == source and 0 < size <= runs[-1][1]:
            runs[-1][2].extend(datagram)
            open_to_more = size == runs[-1][1]
        else:
            runs.append((source, max(size, 1), bytearray(datagram)))
            open_to_more = size > 0
    return [Burst(source, size, [data]) for source, size, data in runs]


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that `share` of all values do not exceed."""
    return sorted(values)[max(0, ceil(len(values) * share) - 1)]


def _name(condition: Callable[[], object]) -> str:
    return getattr(condition, "__name__", "the condition").replace("_", " ")
