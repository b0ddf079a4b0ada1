"""LANs behind the simulator's nodes, and cables between them that the overlay knows nothing of.

    stations - LAN a - TAP (node a) ===== underlay ===== (node b) TAP - LAN b - stations
                 |                                                        |
                 +------------------------- cable ------------------------+

A LAN is a hub: what goes in at one place comes out at all others, those of LANs that cables join to it included, a tenth
of a millisecond later. A LAN that is a ring gives each frame back to the TAP that it came from, once. A station may repeat
to the TAP what it hears from it (`Echo`).
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from l2overlay.config.types import Config, ProtectConfig
from l2overlay.counters import DropReason
from l2overlay.dataplane.ethernet import BROADCAST, PROBE_GROUP, plain
from l2overlay.keys import public_key

from .frames import make_frame, number_of
from .simulator import Node, Simulation

CABLE_DELAY = 0.0001


@dataclass(frozen=True, slots=True)
class Echo:
    """A station that sends again what it hears and `repeats` accepts: so many copies, so many seconds later."""

    repeats: Callable[[bytes], bool]
    delay: float
    copies: int


class LanNode(Node):
    """A node with a LAN. Its stations count how often each frame has come, by number."""

    sim: "LanSimulation"

    def __init__(self, sim: "LanSimulation", number: int, private_key: bytes) -> None:
        super().__init__(sim, number, private_key)
        self.copies: Counter[int] = Counter()
        self.probes_heard = 0
        self.ring = False
        self.echo: Echo | None = None

    def say(self, to: "Node | bytes" = BROADCAST, *, source: bytes | None = None) -> int:
        """A station of this LAN sends one frame. Returns its number."""
        number = next(self.sim.frame_numbers)
        destination = to.mac if isinstance(to, Node) else to
        frame = make_frame(destination, source or self.mac, number)
        self.sim.watch.frame_sent(number, frame, self.name)
        self.sim.lan_carries(frame, self, station=self)
        return number

    def total_drops(self) -> dict[DropReason, int]:
        """All that ended here, in this run."""
        return self.overlay.total_counters().drops

    def _deliver(self, frame: bytes) -> None:
        self.sim.lan_carries(frame, self, tap=self)

    def hear(self, frame: bytes) -> None:
        """The stations of this LAN get a frame."""
        number = number_of(frame)
        if number is not None:
            self.copies[number] += 1
            self.delivered.setdefault(number, self.sim.now)


class LanSimulation(Simulation):
    """A segment whose file has `[protect]`."""

    nodes: list[LanNode]  # type: ignore[assignment]

    def __init__(
        self, seed: int, count: int = 2, *, protect: ProtectConfig | None = None, **options: Any
    ) -> None:
        self.protect = protect or ProtectConfig()
        self.cables: set[frozenset[str]] = set()
        super().__init__(seed, count, **options)

    def make_node(self, number: int, private_key: bytes) -> Node:
        return LanNode(self, number, private_key)

    def _make_config(self, *arguments: Any) -> Config:
        return replace(super()._make_config(*arguments), protect=self.protect)

    def in_order_of_keys(self) -> list[LanNode]:
        """The nodes, the smallest public key first."""
        return sorted(self.nodes, key=lambda node: public_key(node.private_key))

    def plug(self, a: LanNode, b: LanNode) -> None:
        """A cable between two LANs."""
        self.cables.add(frozenset({a.name, b.name}))

    def unplug(self, a: LanNode, b: LanNode) -> None:
        """And away with it."""
        self.cables.discard(frozenset({a.name, b.name}))

    def one_lan(self, node: LanNode) -> list[LanNode]:
        """The nodes whose LANs cables join to this one's, itself included."""
        names, grown = {node.name}, {node.name}
        while grown:
            grown = {name for cable in self.cables if cable & names for name in cable} - names
            names |= grown
        return [each for each in self.nodes if each.name in names]

    def lan_carries(
        self, frame: bytes, at: LanNode, *, tap: LanNode | None = None, station: LanNode | None = None
    ) -> None:
        """A frame goes in at the LAN of `at`, from its TAP or from a station of it."""

        def arrive() -> None:
            for node in self.one_lan(at):
                if node is not station or tap is not None:
                    node.hear(frame)
                if node is not tap or node.ring:
                    node.probes_heard += frame[:6] == PROBE_GROUP
                    node.receive_frames([plain(frame)])
            if tap is not None and at.echo is not None and at.echo.repeats(frame):
                for _ in range(at.echo.copies):
                    self.at(self.now + at.echo.delay, lambda: at.receive_frames([plain(frame)]))

        self.at(self.now + CABLE_DELAY, arrive)
