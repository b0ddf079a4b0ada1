"""Nodes that get too little of the processor: each turn, of the timer and of the socket, comes late."""

from functools import partial

import pytest

from l2overlay.controlplane.events import PeerDown

from .simulator import Node, Simulation, started


def starved(seed: int, lateness: tuple[float, float]) -> Simulation:
    """Three nodes with traffic, of which the first gets its turns late."""
    sim = started(seed, 3)
    a, b, c = sim.nodes
    sim.conversation(a, b)
    sim.conversation(a, c)
    sim.run(sim.random.uniform(1.0, 3.0))
    a.lateness = lateness
    sim.run(sim.random.uniform(3.0, 10.0))
    return sim


def is_down(node: Node, peer: Node) -> bool:
    return not node.up(peer)


@pytest.mark.parametrize(("lateness", "allowed"), [((0.1, 0.5), 8.0), ((0.5, 1.0), 8.5), ((0.5, 1.5), 9.0)])
def test_a_peer_killed_under_traffic_is_down_at_most_two_late_turns_later_than_otherwise(
    lateness: tuple[float, float], allowed: float
) -> None:
    times = []
    for seed in range(5):
        sim = starved(seed, lateness)
        a, b, c = sim.nodes
        assert a.times(PeerDown) == [], f"seed {seed}"
        b.kill()
        killed = sim.now
        sim.run_until(partial(is_down, a, b), within=30.0)
        times.append(sim.now - killed)
        assert a.times(PeerDown, c) == [], f"seed {seed}"
    print(" ".join(f"{time:.1f}" for time in sorted(times)))
    assert max(times) <= allowed


@pytest.mark.parametrize(("seed", "lateness"), [(0, (4.0, 8.0)), (1, (4.0, 8.0)), (0, (8.0, 8.0))])
def test_a_node_that_is_8_s_late_at_every_turn_takes_no_live_peer_for_down(
    seed: int, lateness: tuple[float, float]
) -> None:
    sim = starved(seed, lateness)
    sim.run(40.0)
    assert sim.nodes[0].times(PeerDown) == []


@pytest.mark.parametrize("asleep", [2.0, 5.0, 8.0, 20.0, 100.0])
@pytest.mark.parametrize("first", ["timer", "frames", "datagrams"])
def test_a_node_that_slept_while_it_asked_gives_its_peers_one_chance(asleep: float, first: str) -> None:
    for seed in range(2):
        sim = started(seed)
        a, b = sim.nodes
        sim.talk(a, b)
        sim.run(5.0)
        sim.cut(b, a)
        sim.run(sim.random.uniform(1.2, 5.9))
        a.suspend()
        sim.run(asleep)
        sim.heal()
        a.resume(first)
        sim.run(10.0)
        assert a.times(PeerDown) == [], f"seed {seed}"
        assert a.up(b)
