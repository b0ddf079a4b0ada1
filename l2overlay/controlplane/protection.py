"""Protection of one node: its guards, storm control and loop guard, which ports are closed, and what is told of it.

The overlay asks `guards` and `storm` for frames, and `closed` for ports; this module makes them from the configuration and
follows the loop guard. Nothing here is in the way of a frame that nobody floods, unless a guard is asked for.
"""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from math import inf

from l2overlay.addresses import MacAddress, PeerKey
from l2overlay.config.types import Config
from l2overlay.controlplane.events import (
    Event,
    FrameRefused,
    LoopFound,
    LoopHealed,
    ProbeRepeated,
    StormEnded,
    StormStarted,
)
from l2overlay.controlplane.loop_guard import LoopGuard, Mate, probe_mac
from l2overlay.controlplane.witness import REPEATED_INTERVAL
from l2overlay.counters import Counters, DropReason
from l2overlay.dataplane.fdb import LOCAL, Port
from l2overlay.dataplane.protect.guards import Guards, guards
from l2overlay.dataplane.protect.port_security import PortSecurity, isolated_peers, port_security
from l2overlay.dataplane.protect.storm import KIND_NAMES, StormControl
from l2overlay.dataplane.reserved import neighbourly
from l2overlay.dataplane.switch import Switch

TOLD = frozenset(
    {
        DropReason.UNKNOWN_STATION,
        DropReason.STATION_LIMIT,
        DropReason.SPOOFED_STATION,
        DropReason.BPDU_REFUSED,
        DropReason.ETHERTYPE_REFUSED,
        DropReason.ROGUE_DHCP,
        DropReason.ROGUE_ROUTER,
        DropReason.SPOOFED_ADDRESS,
        DropReason.UNREADABLE,
    }
)
"""What a person should hear of; the rest is counted."""
TELL_INTERVAL = 60.0
"""Seconds between two events about one station and reason."""
MAX_TOLD = 1024


@dataclass(frozen=True, slots=True)
class LoopStatus:
    """A second path, as `status` shows it."""

    peer: PeerKey | None
    """The LAN mate; None: our own LAN is a ring."""
    carrier: PeerKey
    seconds: float


@dataclass(frozen=True, slots=True)
class StormStatus:
    """A storm that goes on."""

    peer: PeerKey | None
    kind: str
    dropped: int
    seconds: float


class Protection:
    """The protection of one node. `counters_of` returns the counters of a port."""

    def __init__(self, own: PeerKey, key: bytes, counters_of: Callable[[Port], Counters], now: float) -> None:
        self.guards: Guards | None = None
        self.storm: StormControl | None = None
        self.loop = LoopGuard(own, key, now, enabled=False)
        self.closed: dict[Port, DropReason] = {}
        """Ports that nothing passes, and why."""
        self.events: list[Event] = []
        """The caller empties it."""
        self._own = own
        self._counters_of = counters_of
        self._config: Config | None = None
        self._isolated: frozenset[Port] = frozenset()
        self._told: dict[tuple[DropReason, Port, MacAddress], tuple[float, int]] = {}
        self._followed: tuple[dict[PeerKey, int], Mate | None] = ({}, None)
        self._since: dict[PeerKey, float] = {}
        self._next_repeated = -inf

    def configure(self, config: Config, switch: Switch, now: float) -> None:
        """Take over `[protect]`, and `learn` and `max_macs` of the peers."""
        protect, old = config.protect, self._config.protect if self._config is not None else None
        old_ports = {peer.public_key for peer in self._config.peers} if self._config is not None else set()
        self._config = config
        old_security, switch.security = switch.security or PortSecurity(), port_security(config, self._own)
        security = switch.security or PortSecurity()
        security.inherit(old_security, switch.fdb, now)
        security.enforce(old_security, switch.fdb)
        switch.bpdu_passes = protect is None or protect.bpdu_passes
        switch.reserved_passes = neighbourly(protect.reserved_passes if protect is not None else ())
        self._isolated = isolated_peers(config, self._own)
        old_guards, self.guards = self.guards, guards(protect, self._own)
        if self.guards is not None and old_guards is not None:
            self.guards.inherit(old_guards, now)
        if (protect and protect.storm) != (old and old.storm):
            self.storm = (
                StormControl(protect.storm) if protect is not None and protect.storm is not None else None
            )
        for gone in old_ports - {peer.public_key for peer in config.peers}:
            if self.storm is not None:
                self.storm.forget(Port(gone))
            if self.guards is not None:
                self.guards.forget(Port(gone))
        self.loop.enabled = protect is not None and protect.loop_guard
        self.loop.set_peers(peer.public_key for peer in config.peers if peer.public_key != self._own)

    # -- refusals ----------------------------------------------------------------------------------------------

    def _count_refusals(self, guard: Guards, now: float) -> None:
        for refusal in guard.refusals:
            self._counters_of(refusal.port).drop(refusal.why.reason)
            self.tell_refused(refusal.why.reason, refusal.port, refusal.mac, now, refusal.why.detail)
        guard.refusals.clear()

    def tell_refused(
        self,
        reason: DropReason,
        port: Port,
        mac: MacAddress,
        now: float,
        detail: str = "",
        *,
        count: int | None = None,
    ) -> None:
        """Tell that a frame of this station is dropped, unless that was told within `TELL_INTERVAL`.

        `count` is how many were counted when the frame was refused; None: as many as are counted now.
        """
        if reason not in TOLD:
            return
        last, told = self._told.get((reason, port, mac), (-inf, 0))
        if last + TELL_INTERVAL > now:
            return
        if count is None:
            count = self._counters_of(port).drops.get(reason, 0)
        if len(self._told) >= MAX_TOLD:
            del self._told[next(iter(self._told))]
        self._told[reason, port, mac] = (now, count)
        more = max(0, count - told - 1) if last > -inf else 0
        self.events.append(FrameRefused(reason, peer_of(port), mac, detail, more))

    # -- time --------------------------------------------------------------------------------------------------

    def next_time(self) -> float:
        """When `handle_timer` wants to be called."""
        return min(self.loop.next_time(), self.storm.next_time() if self.storm is not None else inf)

    def has_news(self) -> bool:
        """Whether `news` has something to do."""
        return bool(
            self.events
            or (self.guards is not None and self.guards.refusals)
            or (self.storm is not None and self.storm.restless)
        )

    def news(self, now: float) -> list[Event]:
        """What has happened; counts refused frames too."""
        if self.guards is not None:
            self._count_refusals(self.guards, now)
        if self.storm is not None:
            self._tell_storms(self.storm, now)
        events, self.events = self.events, []
        return events

    def _tell_storms(self, storm: StormControl, now: float) -> None:
        for begun in storm.begun:
            self.events.append(StormStarted(peer_of(begun.port), KIND_NAMES[begun.kind]))
        storm.begun.clear()
        for over in storm.ended(now):
            kind, lasted = KIND_NAMES[over.kind], over.last - over.began
            self.events.append(StormEnded(peer_of(over.port), kind, over.dropped, lasted))

    # -- loops -------------------------------------------------------------------------------------------------

    def follow_loops(self, switch: Switch, peers: Collection[PeerKey], now: float) -> bool:
        """Close and open ports as the loop guard says. Whether anything is different now; `peers` are those that are up."""
        loop = self.loop
        loop.expire(now)
        self._tell_repeated(now)
        mates = {peer: mate.reached for peer, mate in loop.mates.items()}
        (old_mates, old_ring), self._followed = self._followed, (mates, loop.ring)
        same_lan = mates.keys() == old_mates.keys() and (loop.ring is None) == (old_ring is None)
        if same_lan and mates == old_mates:
            return False
        if not same_lan:
            self._tell_loops(old_mates.keys(), old_ring, now)
            switch.fdb.flush(LOCAL)
            switch.damping.forget()
            loop.lan_changed(peers)
        self.close_ports(switch)
        return True

    def _tell_repeated(self, now: float) -> None:
        repeated, self.loop.witnesses.repeated = self.loop.witnesses.repeated, False
        if repeated and self.loop.ring is None and self._next_repeated <= now:
            self._next_repeated = now + REPEATED_INTERVAL
            self.events.append(ProbeRepeated(probe_mac(self._own)))

    def close_ports(self, switch: Switch) -> None:
        """Find out anew which ports are closed; what was learned at one that opens or closes is elsewhere now."""
        closed = dict.fromkeys(self._isolated, DropReason.ISOLATED)
        for peer in self._config.peers if self._config is not None else ():
            if self.loop.blocks(peer.public_key):
                closed.setdefault(Port(peer.public_key), DropReason.LOOP_BLOCKED)
        for port in closed.keys() ^ self.closed.keys():
            switch.fdb.flush(port)
        self.closed = closed

    def _tell_loops(self, old: Iterable[PeerKey], old_ring: Mate | None, now: float) -> None:
        loop, carrier = self.loop, self.loop.carrier()
        for peer in loop.mates.keys() - set(old):
            self._since[peer] = now
            self.events.append(LoopFound(peer, None if carrier == self._own else carrier))
        for peer in set(old) - loop.mates.keys():
            self.events.append(LoopHealed(peer, now - self._since.pop(peer, now)))
        if loop.ring is not None and old_ring is None:
            self.events.append(LoopFound(None, None, probe_mac(self._own)))
        elif loop.ring is None and old_ring is not None:
            self.events.append(LoopHealed(None, now - old_ring.since))

    # -- what can be seen --------------------------------------------------------------------------------------

    def loops(self, now: float) -> list[LoopStatus]:
        """Second paths that are cut now."""
        loop, carrier = self.loop, self.loop.carrier()
        found = [LoopStatus(peer, carrier, now - mate.since) for peer, mate in loop.mates.items()]
        if loop.ring is not None:
            found.append(LoopStatus(None, self._own, now - loop.ring.since))
        return found

    def storms(self, now: float) -> list[StormStatus]:
        """Storms that go on."""
        return [
            StormStatus(peer_of(storm.port), KIND_NAMES[storm.kind], storm.dropped, now - storm.began)
            for storm in (self.storm.storms() if self.storm is not None else ())
        ]


def peer_of(port: Port) -> PeerKey | None:
    """The peer behind a port; None for LOCAL."""
    return None if port == LOCAL else PeerKey(port)
