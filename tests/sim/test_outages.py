"""Nodes that die, leave and come back; networks that are cut and healed, in both directions or in one."""

from itertools import chain

import pytest

from l2overlay.controlplane.dialling import REKEY_TIME
from l2overlay.controlplane.events import PeerDown, PeerUp

from .simulator import START, Simulation, Talk, percentile, started
from .underlay import Conditions

# -- a peer is killed ----------------------------------------------------------------------------------------------

KILL_TIMES = (5.0, 5.7, REKEY_TIME - 0.01, REKEY_TIME + 0.01, REKEY_TIME + 0.5, REKEY_TIME + 15.0)
"""Also while a session is being replaced: its retries must not be taken for an answer, nor hide the silence."""


@pytest.mark.parametrize("kill_time", KILL_TIMES)
@pytest.mark.parametrize("direction", ["both", "to it", "from it"])
def test_a_peer_killed_under_traffic_is_down_within_8_s_and_others_lose_nothing(
    kill_time: float, direction: str
) -> None:
    for seed in range(2):
        sim = started(seed, 3)
        a, b, c = sim.nodes
        sim.run(max(0.0, START + kill_time - 10.0 - sim.now))
        if direction != "from it":
            sim.talk(a, b)
        if direction != "to it":
            sim.talk(b, a)
        others = sim.conversation(a, c)
        sim.run(START + kill_time - sim.now)
        b.kill()
        sim.run(8.0)
        assert not a.up(b), f"seed {seed}"
        assert a.knows(b.mac) is None
        assert a.times(PeerDown, c) == []
        for talk in others:
            talk.stop()
        sim.run(1.0)
        assert [talk.lost() for talk in others] == [0.0, 0.0]


def test_an_idle_peer_that_is_killed_is_down_one_keepalive_later() -> None:
    for seed in range(5):
        sim = started(seed, keepalive=20.0)
        a, b = sim.nodes
        sim.run(30.0)
        b.kill()
        sim.run(20.0 + 8.0)
        assert not a.up(b)


def test_without_a_keepalive_an_idle_pair_is_silent_for_minutes() -> None:
    sim = started(1, keepalive=0.0, capture=True)
    sim.run(30.0)
    assert sim.captured is not None
    before = len(sim.captured)
    sim.run(60.0)
    assert len(sim.captured) == before
    assert sim.all_up()


# -- a peer comes back ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pause", [0.01, 0.5, 3.0, 6.5, 30.0])
def test_a_restarted_peer_is_usable_1_s_later_and_nothing_old_is_delivered(pause: float) -> None:
    for seed in range(5):
        sim = started(seed)
        a, b = sim.nodes
        sim.conversation(a, b)
        sim.run(5.0)
        b.kill()
        killed = sim.now
        sim.run(pause)
        ready = sim.now
        b.start()
        sim.run(1.0)
        there, back = a.send(b), b.send(a)
        sim.run(0.1)
        assert there in b.delivered, f"seed {seed}"
        assert back in a.delivered, f"seed {seed}"
        old = [n for n, time in b.delivered.items() if time > killed and sim.watch.sent[n].time < ready - 1.0]
        assert old == []


def test_a_peer_that_restarts_fast_keeps_the_stations_that_live_behind_it() -> None:
    sim = started(1)
    a, b = sim.nodes
    sim.conversation(a, b)
    sim.run(5.0)
    b.kill()
    b.start()
    sim.run(2.0)
    assert a.knows(b.mac) == b.key
    assert a.times(PeerDown, b) == []


def test_a_peer_that_leaves_is_flushed_within_100_ms_of_its_bye() -> None:
    sim = started(1, 3)
    a, b, c = sim.nodes
    b.send()
    sim.run(0.1)
    assert a.knows(b.mac) == c.knows(b.mac) == b.key
    b.leave()
    sim.run(0.1)
    for node in (a, c):
        assert not node.up(b)
        assert node.knows(b.mac) is None
        assert node.status(b).reason == "it left"
    assert a.up(c)


def test_a_peer_that_leaves_and_returns_is_up_1_s_later() -> None:
    for seed in range(5):
        sim = started(seed)
        a, b = sim.nodes
        b.leave()
        sim.run(0.3)
        b.start()
        sim.run_until(sim.all_up, within=1.0)
        assert len(a.times(PeerUp, b)) == 2


# -- nothing passes ------------------------------------------------------------------------------------------------


def recovery_time(seed: int, outage: float, natted: tuple[int, ...] = ()) -> float:
    """Seconds from the heal until frames arrive in both directions again."""
    sim = started(seed, 2, Conditions(delay=0.02, jitter=0.01), natted=natted)
    a, b = sim.nodes
    sim.conversation(a, b, every=0.5)
    sim.run(sim.random.uniform(3.0, 6.0))
    sim.partition(a)
    sim.run(outage)
    sim.heal()
    healed = sim.now
    both = sim.conversation(a, b, every=0.02)

    def both_directions_work() -> bool:
        return all(talk.first_arrival(healed) < sim.now + 1 for talk in both)

    return sim.run_until(both_directions_work, within=6.0)


@pytest.mark.parametrize(
    ("outage", "runs"), [(5.0, 40), (7.2, 40), (60.0, 30), (600.0, 3)], ids=lambda value: f"{value:g}"
)
@pytest.mark.parametrize("natted", [(), (1,)], ids=["both can call", "one can call"])
def test_a_partition_is_over_1500_ms_after_the_heal_and_6_s_at_most(
    outage: float, runs: int, natted: tuple[int, ...]
) -> None:
    times = [recovery_time(seed, outage, natted) for seed in range(runs)]
    print(f"p50 {percentile(times, 0.5):.2f} p95 {percentile(times, 0.95):.2f} max {max(times):.2f}")
    assert percentile(times, 0.95) <= 1.5
    assert max(times) <= 6.0


def test_both_halves_of_a_partition_go_on_by_themselves() -> None:
    sim = started(1, 4)
    a, b, c, d = sim.nodes
    inside = [*sim.conversation(a, b), *sim.conversation(c, d)]
    across = sim.conversation(a, c)
    sim.run(2.0)
    sim.partition(a, b)
    sim.run(30.0)
    assert [a.up(b), c.up(d), a.up(c), a.up(d), c.up(a), d.up(b)] == [True, True, False, False, False, False]
    for talk in (*inside, *across):
        talk.stop()
    sim.run(1.0)
    assert {talk.lost() for talk in inside} == {0.0}
    sim.heal()
    sim.run_until(sim.all_up, within=6.0)


# -- one direction only --------------------------------------------------------------------------------------------


def traffic(sim: Simulation, kind: str) -> list[Talk]:
    a, b = sim.nodes
    talks = {"from a": [(a, b)], "from b": [(b, a)], "both": [(a, b), (b, a)]}[kind]
    return [sim.talk(sender, receiver) for sender, receiver in talks]


@pytest.mark.parametrize("kind", ["from a", "from b", "both"])
@pytest.mark.parametrize("seed", range(8))
def test_one_way_loss_is_noticed_within_8_s_and_no_link_stays_half_open_for_10(kind: str, seed: int) -> None:
    sim = started(seed)
    a, b = sim.nodes
    traffic(sim, kind)
    sim.run(sim.random.uniform(1.0, 10.0))
    sim.cut(a, b)
    cut = sim.now
    sim.run(10.0)
    assert min(chain(a.times(PeerDown), b.times(PeerDown))) - cut <= 8.0
    assert not a.up(b), "what a sends does not arrive"
    assert not b.up(a), "nothing arrives at b"
    sim.run(20.0)
    assert not a.up(b)
    assert not b.up(a)
    sim.heal()
    sim.run_until(sim.all_up, within=6.0)


@pytest.mark.parametrize("seed", range(4))
def test_one_way_loss_on_an_idle_link_is_noticed_8_s_after_the_first_datagram_that_is_lost(seed: int) -> None:
    sim = started(seed, capture=True)
    a, b = sim.nodes
    sim.run(sim.random.uniform(15.0, 30.0))
    sim.cut(a, b)
    cut = sim.now
    sim.run(32.0)
    assert sim.captured is not None
    first_lost = next(c.time for c in sim.captured if c.time >= cut and c.sender is a)
    assert max(a.times(PeerDown)[0], b.times(PeerDown)[0]) - first_lost <= 8.0


def test_one_dead_peer_does_not_stop_a_flood() -> None:
    sim = started(1, 4)
    a, b, c, d = sim.nodes
    b.kill()
    sent = []
    for _ in range(100):
        sent.append(a.send())
        sim.run(0.1)
    for node in (c, d):
        assert all(number in node.delivered for number in sent)
