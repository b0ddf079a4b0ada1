"""Clocks that are wrong, and machines that slept."""

import pytest

from l2overlay.controlplane.events import PeerDown
from l2overlay.counters import DropReason

from .simulator import Simulation, started

YEARS = 365.25 * 86400


@pytest.mark.parametrize("steps", [(-10, 0), (10, 0), (10, -10), (-10, 10)], ids=str)
@pytest.mark.parametrize("natted", [(), (0,)], ids=["both can call", "only it can call"])
def test_a_node_that_restarts_with_its_clock_10_years_off_is_usable_1_s_later(
    steps: tuple[int, ...], natted: tuple[int, ...]
) -> None:
    sim = started(1, natted=natted)
    a, b = sim.nodes
    sim.conversation(b, a)
    for years in steps:
        sim.run(5.0)
        a.kill()
        a.wall_clock_error = years * YEARS
        a.start()
        sim.run(1.0)
        there, back = a.send(b), b.send(a)
        sim.run(0.1)
        assert there in b.delivered
        assert back in a.delivered
        assert b.drops(DropReason.STALE_HANDSHAKE) == 0


def test_a_node_whose_clock_and_memory_are_both_gone_is_called_by_the_others_within_8_s() -> None:
    """Its INITs look like replays; theirs do not."""
    sim = started(2)
    a, b = sim.nodes
    sim.conversation(a, b)
    sim.run(5.0)
    a.kill()
    a.last_stamp = 0
    a.wall_clock_error = -10 * YEARS
    a.start()
    sim.run_until_all_up(within=8.0)
    assert b.drops(DropReason.STALE_HANDSHAKE) > 0


@pytest.mark.parametrize("asleep", [30.0, 100.0, 170.0, 3600.0])
@pytest.mark.parametrize("first", ["timer", "frames", "datagrams"])
@pytest.mark.parametrize("who", ["one", "both"])
def test_after_a_suspend_frames_pass_within_1500_ms_and_no_expired_session_is_used(
    asleep: float, first: str, who: str
) -> None:
    for seed in range(1 if asleep > 1000 else 4):
        sim = started(seed)
        a, b = sim.nodes
        sim.conversation(a, b, every=1.0)
        sim.run(sim.random.uniform(1.0, 60.0))
        sleepers = [a] if who == "one" else [a, b]
        for node in sleepers:
            node.suspend()
        sim.run(asleep)
        woken = sim.now
        for node in sleepers:
            node.resume(first)
        talks = sim.conversation(a, b)
        sim.run(1.5)
        for talk in talks:
            assert talk.first_arrival(woken) <= woken + 1.5, f"seed {seed}"


def test_an_expired_session_is_replaced_within_1_s_when_the_peer_is_there() -> None:
    for seed in range(20):
        sim = started(seed)
        a, b = sim.nodes
        for node in sim.nodes:
            node.suspend()
        sim.run(3600.0)
        for node in sim.nodes:
            node.resume("timer")
        sim.run(1.0)
        assert sim.all_up(), f"seed {seed}"
        assert a.times(PeerDown, b)


def test_a_node_that_slept_says_bye_without_using_an_expired_session() -> None:
    sim = started(3)
    a, _ = sim.nodes
    a.suspend()
    sim.run(3600.0)
    a.asleep = False
    a.leave()


def test_a_probe_after_sleep_uses_no_expired_session() -> None:
    sim: Simulation = started(4)
    a, _ = sim.nodes
    a.suspend()
    sim.run(3600.0)
    a.asleep = False
    a.probe_peers()
    a.resume("timer")
    sim.run_until_all_up(within=1.0)
