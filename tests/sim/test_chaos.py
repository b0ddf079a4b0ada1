"""Everything at once, by chance: whatever happened, the invariants hold, and when it is over the segment is whole."""

from collections.abc import Callable

import pytest

from .frames import station_mac
from .simulator import Node, Simulation
from .underlay import Conditions


class Chaos:
    """One fault after the other, each drawn from the seed."""

    def __init__(self, sim: Simulation) -> None:
        self.sim = sim
        self.faults: list[Callable[[Node], None]] = [
            self.kill,
            self.leave,
            self.restart_at_once,
            self.suspend,
            self.rebind_or_move,
            self.cut_one_way,
            self.partition,
            self.heal,
            self.bad_weather,
            self.shrink,
            self.reload,
            self.probe,
        ]

    def strike(self) -> None:
        """Something happens to somebody."""
        self.sim.random.choice(self.faults)(self.sim.random.choice(self.sim.nodes))

    def kill(self, node: Node) -> None:
        if node.running is not None:
            node.kill()
        else:
            node.start()

    def leave(self, node: Node) -> None:
        if node.running is not None:
            node.leave()
        else:
            node.start()

    def restart_at_once(self, node: Node) -> None:
        if node.running is not None:
            node.kill()
            node.wall_clock_error = self.sim.random.uniform(-1e6, 1e6)
            node.start()

    def suspend(self, node: Node) -> None:
        if node.running is None:
            return
        if node.asleep:
            node.resume(self.sim.random.choice(["timer", "frames", "datagrams"]))
        else:
            node.suspend()

    def rebind_or_move(self, node: Node) -> None:
        if node.nat is not None:
            node.nat.rebind()
        else:
            node.address = node.address._replace(port=self.sim.random.randrange(1024, 65536))

    def cut_one_way(self, node: Node) -> None:
        self.sim.cut(node, self.sim.random.choice([other for other in self.sim.nodes if other is not node]))

    def partition(self, node: Node) -> None:
        self.sim.partition(node)

    def heal(self, _: Node) -> None:
        self.sim.heal()

    def bad_weather(self, _: Node) -> None:
        chance = self.sim.random.choice([0.0, 0.05, 0.3])
        self.sim.underlay.impair(loss=chance, duplicate=chance / 2, corrupt=chance / 2, reorder=chance)

    def shrink(self, node: Node) -> None:
        other = self.sim.random.choice([each for each in self.sim.nodes if each is not node])
        self.sim.underlay.impair_path(
            node.name, other.name, largest=self.sim.random.choice([1200, 1350, 1472])
        )

    def reload(self, node: Node) -> None:
        if node.running is not None and not node.asleep:
            other = self.sim.random.choice([each for each in self.sim.nodes if each is not node])
            node.reconfigure(self.sim.config_without(other))
            node.reconfigure(self.sim.config)
            node.resolve()

    def probe(self, node: Node) -> None:
        if node.running is not None and not node.asleep:
            node.probe_peers()

    def end(self) -> None:
        """The sun comes out: all faults are over, every node runs, and its names resolve to where it is."""
        sim = self.sim
        sim.heal()
        sim.underlay.between.clear()
        sim.underlay.impair(loss=0.0, duplicate=0.0, corrupt=0.0, reorder=0.0)
        for node in sim.nodes:
            if node.running is None:
                node.start()
            if node.asleep:
                node.resume()
        sim.follow_addresses()
        for node in sim.nodes:
            node.reconfigure(sim.config)
            node.resolve()


@pytest.mark.parametrize("seed", range(12))
def test_after_any_faults_the_segment_is_whole_again_within_10_s(seed: int) -> None:
    sim = Simulation(seed, 4, Conditions(delay=0.02, jitter=0.02), natted=(3,) if seed % 2 else ())
    chaos = Chaos(sim)
    for sender in sim.nodes:
        for receiver in sim.nodes:
            if sender is not receiver:
                sim.talk(
                    sender,
                    receiver,
                    every=sim.random.uniform(0.1, 2.0),
                    size=sim.random.choice([60, 700, 1514]),
                )
    for _ in range(60):
        sim.run(sim.random.expovariate(0.5))
        chaos.strike()
    chaos.end()
    sim.run_until_all_up(within=10.0)
    sim.run(8.0)
    assert sim.all_up()
    frames = [(node, node.send(source=station_mac(100 + number))) for number, node in enumerate(sim.nodes)]
    sim.run(0.5)
    for sender, frame in frames:
        assert all(frame in node.delivered for node in sim.nodes if node is not sender)
