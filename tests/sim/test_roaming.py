"""Addresses that change under a session: NATs that forget, hosts that move, and strangers who want traffic to move."""

import pytest

from l2overlay.addresses import Address
from l2overlay.controlplane.events import PeerDown, PeerMoved, PeerOnTwoHosts
from l2overlay.controlplane.roaming import TWO_HOSTS_TIME

from .simulator import STRANGER, Captured, Simulation, started
from .underlay import Conditions

DELAY = 0.025
ROUND_TRIP = 2 * DELAY


def behind_nat(seed: int, **options: float) -> Simulation:
    """b is behind a NAT; its peers know it only from its own datagrams."""
    return started(seed, 2, Conditions(delay=DELAY), natted=(1,), **options)


@pytest.mark.parametrize("seed", range(5))
def test_after_a_nat_forgot_traffic_is_back_one_round_trip_after_the_next_datagram_from_behind_it(
    seed: int,
) -> None:
    sim = behind_nat(seed)
    a, b = sim.nodes
    to_b, from_b = sim.talk(a, b, every=0.01), sim.talk(b, a, every=0.1)
    sim.run(sim.random.uniform(2.0, 5.0))
    assert b.nat is not None
    b.nat.rebind()
    forgot = sim.now
    next_heard = min(number for number in from_b.numbers if sim.watch.sent[number].time >= forgot - 0.1)
    sim.run(1.0)
    back = sim.watch.sent[next_heard].time + 0.1 + DELAY + ROUND_TRIP
    to_b.stop()
    from_b.stop()
    sim.run(0.1)
    assert to_b.lost(since=back) == 0.0
    assert from_b.lost() == 0.0, "this direction needs nothing to change"
    assert a.times(PeerDown) == []
    assert len(a.times(PeerMoved)) == 1


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("last_word", ["from it", "to it"])
def test_an_idle_peer_behind_a_nat_that_forgot_is_back_within_20_s(seed: int, last_word: str) -> None:
    sim = behind_nat(seed, keepalive=20.0)
    a, b = sim.nodes
    talk = sim.talk(a, b) if last_word == "to it" else sim.talk(b, a)
    sim.run(5.0)
    talk.stop()
    sim.run(3.0 + 4.0 * seed)
    assert b.nat is not None
    b.nat.rebind()
    forgot = sim.now
    sim.run_until(lambda: a.times(PeerMoved), within=20.0 + 2 * ROUND_TRIP)
    assert a.times(PeerMoved)[-1] - forgot <= 20.0 + 2 * ROUND_TRIP
    frame = a.send(b)
    sim.run(0.1)
    assert frame in b.delivered
    assert a.times(PeerDown) == b.times(PeerDown) == []


def test_a_nat_that_forgets_every_few_seconds_takes_no_peer_down_and_little_traffic() -> None:
    sim = behind_nat(6)
    a, b = sim.nodes
    talks = sim.conversation(a, b)
    for _ in range(20):
        sim.run(sim.random.uniform(1.0, 4.0))
        assert b.nat is not None
        b.nat.rebind()
    sim.run(1.0)
    assert a.times(PeerDown) == b.times(PeerDown) == []
    assert talks[0].lost() < 0.12
    assert talks[1].lost() < 0.01


@pytest.mark.parametrize("seed", range(5))
def test_a_host_that_changes_its_address_keeps_its_session_and_its_stations(seed: int) -> None:
    sim = started(seed, 3, Conditions(delay=DELAY))
    a, b, _ = sim.nodes
    talks = sim.conversation(a, b)
    sim.run(2.0)
    b.address = Address("198.51.100.77", 7471)
    sim.run(0.05 + 2 * ROUND_TRIP)
    moved = sim.now
    sim.run(5.0)
    for talk in talks:
        talk.stop()
    sim.run(0.1)
    assert [talk.lost(since=moved) for talk in talks] == [0.0, 0.0]
    assert a.status(b).endpoint == b.address
    assert a.times(PeerDown) == []


def test_an_idle_host_whose_underlay_changed_is_found_at_once_when_its_shell_says_so() -> None:
    sim = started(1, 3, Conditions(delay=DELAY))
    a, b, c = sim.nodes
    sim.run(10.0)
    b.address = Address("198.51.100.77", 7471)
    b.probe_peers()
    sim.run(2 * ROUND_TRIP)
    frames = [a.send(b), c.send(b)]
    sim.run(0.1)
    assert all(frame in b.delivered for frame in frames)


def test_both_hosts_may_change_their_address_if_the_names_follow() -> None:
    sim = started(2, 2, Conditions(delay=DELAY))
    a, b = sim.nodes
    sim.conversation(a, b)
    sim.run(2.0)
    a.address, b.address = Address("198.51.100.1", 7470), Address("198.51.100.2", 7470)
    sim.run(9.0)
    assert not a.up(b)
    for node, peer in ((a, b), (b, a)):
        node.overlay.set_endpoint(peer.key, peer.address, sim.now)
    sim.run_until_all_up(within=2.0)


def test_a_host_that_restarts_at_another_address_is_usable_1_s_later() -> None:
    sim = started(3)
    a, b = sim.nodes
    sim.conversation(a, b)
    sim.run(2.0)
    b.kill()
    b.address = Address("198.51.100.9", 7470)
    b.start()
    sim.run(1.0)
    frame = a.send(b)
    sim.run(0.1)
    assert frame in b.delivered
    assert a.status(b).endpoint == b.address


def stolen(sim: Simulation) -> Captured:
    """A genuine datagram from a to b that did not arrive: the thief has it."""
    a, b = sim.nodes
    assert sim.captured is not None
    sim.cut(a, b)
    a.send(b)
    sim.heal()
    return sim.captured[-1]


def test_traffic_does_not_move_to_a_thief_who_sends_a_genuine_datagram_first() -> None:
    sim = started(4, 2, Conditions(delay=DELAY), capture=True)
    a, b = sim.nodes
    b.send()
    sim.run(2.0)
    for _ in range(20):
        sim.inject(b, stolen(sim).datagram, STRANGER)
        frame = b.send(a)
        sim.run(0.3)
        assert frame in a.delivered
        assert b.status(a).endpoint == a.address
    assert sim.captured is not None
    to_thief = [c.datagram for c in sim.captured if c.receiver is None]
    assert len(to_thief) == 20, "one question for each, which the thief cannot answer"
    assert b.times(PeerMoved) == []


def test_one_key_on_two_hosts_is_told_with_both_addresses() -> None:
    sim = started(1, 2)
    a, b = sim.nodes
    clone = sim.make_node(2, b.private_key)
    sim.nodes.append(clone)
    clone.start()
    sim.conversation(a, b)
    sim.talk(clone, a)
    sim.run(40.0)
    assert a.status(b).two_hosts == (b.address, clone.address)
    (told, *_) = a.times(PeerOnTwoHosts)
    assert told <= sim.now
    clone.kill()
    sim.run(TWO_HOSTS_TIME + 30.0)
    assert a.status(b).two_hosts is None


def test_one_key_on_two_hosts_is_told_though_no_guest_talks() -> None:
    sim = started(1, 2)
    a, b = sim.nodes
    clone = sim.make_node(2, b.private_key)
    sim.nodes.append(clone)
    clone.start()
    sim.run(120.0)
    assert a.status(b).two_hosts == (b.address, clone.address)
    assert len(a.times(PeerOnTwoHosts)) == 1


def test_a_host_that_goes_to_and_fro_between_two_uplinks_is_not_taken_for_two() -> None:
    sim = started(2, 2)
    a, b = sim.nodes
    sim.conversation(a, b)
    home, away = b.address, Address("198.51.100.77", 7471)
    for _ in range(6):
        for address in (away, home):
            b.address = address
            sim.run(4.0)
    assert len(a.times(PeerMoved)) >= 8
    assert a.times(PeerOnTwoHosts) == []
    assert a.status(b).two_hosts is None
