"""Paths that carry less than the interface says, from the start or suddenly, and tell nobody."""

import pytest

from l2overlay.controlplane.events import PathSizeChanged, PeerDown
from l2overlay.controlplane.path_mtu import RAISE_TIME
from l2overlay.dataplane.wire import BASE_SIZE

from .simulator import Simulation, started
from .underlay import Conditions

FULL = 1514
"""A guest's frame at MTU 1500."""


def test_on_a_plain_path_datagrams_are_full_size_within_a_second() -> None:
    sim = started(1)
    a, b = sim.nodes
    sim.run(1.0)
    assert a.status(b).datagram_size == b.status(a).datagram_size == 1472
    assert [event.datagram_size for _, event in a.events if isinstance(event, PathSizeChanged)] == [1472]


@pytest.mark.parametrize("carries", [BASE_SIZE, 1232, 1300, 1392, 1464])
def test_on_a_narrow_path_no_frame_is_lost_whatever_its_size_from_the_first_one_on(carries: int) -> None:
    sim = started(2, 2, Conditions(largest=carries))
    a, b = sim.nodes
    talks = [sim.talk(a, b, every=0.05, size=size) for size in (60, 1200, 1400, FULL)]
    sim.run(30.0)
    for talk in talks:
        talk.stop()
    sim.run(1.0)
    assert [talk.lost() for talk in talks] == [0.0] * len(talks)
    assert BASE_SIZE <= a.status(b).datagram_size <= carries


@pytest.mark.parametrize("both_ways", [True, False], ids=["both ways", "one way"])
@pytest.mark.parametrize("seed", range(2))
def test_a_path_that_shrinks_passes_everything_after_5_s_and_is_used_in_full_again_later(
    seed: int, both_ways: bool
) -> None:
    sim = started(seed)
    a, b = sim.nodes
    large, small = sim.conversation(a, b, 0.1, FULL), sim.conversation(a, b, 0.1, 100)
    sim.run(sim.random.uniform(5.0, 10.0))
    _shrink(sim, 1300, both_ways=both_ways)
    shrunk = sim.now
    sim.run(30.0)
    assert large[0].lost(since=shrunk) > 0.0, "it did matter"
    assert large[0].lost(since=shrunk + 5.0) < 0.01, "all but those that are under way"
    assert a.status(b).datagram_size == 1280
    _shrink(sim, 1472, both_ways=both_ways)
    wide_again = sim.now
    sim.run(RAISE_TIME + 5.0)
    assert a.status(b).datagram_size == 1472
    assert b.status(a).datagram_size == 1472
    for talk in (*large, *small):
        talk.stop()
    sim.run(1.0)
    assert [talk.lost(since=wide_again) for talk in large] == [0.0, 0.0]
    assert [talk.lost() for talk in small] == [0.0, 0.0]
    assert a.times(PeerDown) == b.times(PeerDown) == []


def _shrink(sim: Simulation, largest: int, *, both_ways: bool) -> None:
    a, b = sim.nodes
    sim.underlay.impair_path(a.name, b.name, largest=largest)
    if both_ways:
        sim.underlay.impair_path(b.name, a.name, largest=largest)


def test_jumbo_frames_are_used_when_interface_and_path_take_them() -> None:
    sim = Simulation(3, 2, start=False)
    for node in sim.nodes:
        node.path_limit = 8972
    sim.start()
    sim.run(2.0)
    a, b = sim.nodes
    assert a.status(b).datagram_size == 8972
    sim.underlay.impair(largest=1472)
    talk = sim.talk(a, b, size=FULL)
    sim.run(60.0)
    assert a.status(b).datagram_size == 1472
    assert talk.lost(since=sim.now - 50.0) < 0.01
