"""What `status` says about this node beside its peers and counters, gathered from the parts of the node."""

import os
from collections.abc import Callable
from dataclasses import dataclass

from l2overlay.addresses import PeerKey
from l2overlay.config.types import Config
from l2overlay.controlplane.overview import PeerStatus
from l2overlay.node.attachment import HostSide
from l2overlay.node.filter_keeper import FilterKeeper
from l2overlay.node.flood_watch import FloodWatch
from l2overlay.node.journal import Journal
from l2overlay.node.keeper import Keeper
from l2overlay.node.pump import Pump
from l2overlay.node.timer import LoopLag
from l2overlay.observe.refusals import refused_data
from l2overlay.observe.status import NodeFacts
from l2overlay.overlay import Overlay
from l2overlay.seams import Underlay


@dataclass(frozen=True, slots=True)
class Facts:
    """The parts of a node that have something to say."""

    key: PeerKey
    start_time: float
    clock: Callable[[], float]
    config: Callable[[], Config]
    overlay: Overlay
    side: HostSide
    udp: Callable[[], Underlay]
    """The socket of now: a reload may replace it."""
    pump: Pump
    lag: LoopLag
    keeper: Keeper
    filter: FilterKeeper
    floods: FloodWatch
    journal: Journal
    look_at_losses: Callable[[], None]
    stamp_lead: Callable[[], float]
    way_troubles: Callable[[], tuple[str, ...]]
    why_down: Callable[[PeerStatus], tuple[str, float | None] | None]

    def now(self) -> NodeFacts:
        """The facts of this moment. Counts first what the kernel has lost at the TAP since the last look."""
        self.look_at_losses()
        config, overlay, side, udp, pump, now = (
            self.config(),
            self.overlay,
            self.side,
            self.udp(),
            self.pump,
            self.clock(),
        )
        own = config.peer(self.key)
        assert own is not None  # checked at start and at every reload
        return NodeFacts(
            name=own.name,
            key=self.key,
            pid=os.getpid(),
            uptime=now - self.start_time,
            port=udp.port,
            gso=udp.gso,
            gro=udp.gro,
            tap=side.spec.tap,
            tap_mac=side.spec.tap_mac,
            tap_present=pump.tap is not None,
            offload=bool(pump.tap is not None and side.tap.offloads),
            bridge=side.spec.bridge,
            bridge_ports=side.ports,
            bridge_adopted=side.adopted,
            lag_p50=self.lag.percentile(0.5),
            lag_p99=self.lag.percentile(0.99),
            blocked_count=pump.blocked_count,
            stamp_lead=self.stamp_lead(),
            refused=tuple(refused_data(config, overlay.refusals(now), now)),
            linger=pump.linger,
            kernel_losses=dict(side.losses.counts),
            rehearsal_count=pump.rehearsal_count,
            log_lines_lost=self.journal.lines_lost,
            troubles=self._troubles(),
            loops=tuple(overlay.loops(now)),
            storms=tuple(overlay.storms(now)),
            filter=self.filter.status(),
            unresolved=self.unresolved(),
        )

    def unresolved(self) -> dict[PeerKey, tuple[str, float | None]]:
        """What this host knows of why peers do not answer."""
        failures = ((peer.key, self.why_down(peer)) for peer in self.overlay.peers(self.clock()))
        return {key: failure for key, failure in failures if failure is not None}

    def _troubles(self) -> tuple[str, ...]:
        return (
            *self.keeper.troubles,
            *self.side.troubles,
            *self.way_troubles(),
            *self.filter.troubles,
            *self.floods.troubles,
        )
