"""Cables between the LANs of a segment: found, cut, survived and forgotten, whatever the number of sites.

LAN a --- TAP a ===== overlay ===== TAP b --- LAN b
  |                                             |
  +------------------- cable -------------------+           (`lans`)
"""

from dataclasses import replace

import pytest

from l2overlay.config.types import Party, ProtectConfig
from l2overlay.controlplane.events import LoopFound, LoopHealed, ProbeRepeated, StationFrozen
from l2overlay.controlplane.loop_guard import HOLD_TIME, PROBE_INTERVAL, probe_mac
from l2overlay.counters import DropReason
from l2overlay.dataplane.ethernet import PROBE_GROUP

from .lans import Echo, LanNode, LanSimulation
from .underlay import Conditions

SEEDS = range(3)
PROMISE = 3.0
"""Seconds until a second path is cut."""
HEALED = HOLD_TIME + PROBE_INTERVAL + 0.1


def joined(seed: int, count: int = 2, conditions: Conditions | None = None) -> LanSimulation:
    sim = LanSimulation(seed, count, conditions=conditions)
    sim.run_until(sim.all_up, within=10.0)
    sim.run(1.5)
    return sim


def copies_of(sim: LanSimulation, number: int) -> dict[str, int]:
    return {node.name: node.copies[number] for node in sim.nodes}


def each_once(sim: LanSimulation, speaker: LanNode) -> None:
    """A broadcast reaches the stations of every other LAN once, and never comes back."""
    number = speaker.say()
    sim.run(0.5)
    expected = {node.name: int(node is not speaker) for node in sim.nodes}
    assert copies_of(sim, number) == expected, f"seed {sim.seed}: a broadcast of {speaker.name}"


def talks_to(sim: LanSimulation, a: LanNode, b: LanNode) -> None:
    """A station of `a` asks one of `b`, which answers."""
    asked = a.say(b)
    sim.run(0.2)
    answered = b.say(a)
    sim.run(0.2)
    assert (b.copies[asked], a.copies[answered]) == (1, 1), f"seed {sim.seed}: {a.name} and {b.name}"


def found(node: LanNode) -> list[LoopFound]:
    return [event for _, event in node.events if isinstance(event, LoopFound)]


def healed(node: LanNode) -> list[LoopHealed]:
    return [event for _, event in node.events if isinstance(event, LoopHealed)]


# -- no cable --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
def test_without_a_second_path_no_probe_is_heard_and_nothing_is_blocked(seed: int) -> None:
    sim = joined(seed, 3, Conditions(loss=0.1, duplicate=0.1, reorder=0.1, jitter=0.02))
    sim.run(60.0)
    for node in sim.nodes:
        assert node.probes_heard == 0, "the overlay has carried a probe"
        assert found(node) == []
        assert node.drops(DropReason.LOOP_BLOCKED) == 0


def test_a_node_without_the_loop_guard_sends_no_probe_and_carries_none() -> None:
    sim = LanSimulation(1, 2, protect=ProtectConfig(loop_guard=False))
    sim.run_until(sim.all_up, within=10.0)
    a, b = sim.nodes
    sim.plug(a, b)
    sim.run(3.0)
    assert (a.probes_heard, b.probes_heard) == (0, 0)


# -- two sites -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
def test_a_cable_between_two_lans_is_cut_out_within_a_second_and_both_ends_name_each_other(seed: int) -> None:
    sim = joined(seed)
    a, b = sim.nodes
    sim.plug(a, b)
    number = a.say()
    took = sim.run_until(lambda: found(a) and found(b), within=PROMISE)
    assert took <= PROBE_INTERVAL + 0.1
    sim.run(0.1)
    assert b.copies[number] > 1, "until then the frame went in circles"
    went_round = copies_of(sim, number)
    sim.run(5.0)
    assert copies_of(sim, number) == went_round, "and then no more"
    assert {event.peer for event in found(a)} == {b.key}
    assert {event.peer for event in found(b)} == {a.key}
    first, second = sim.in_order_of_keys()
    assert found(first)[0].carrier is None
    assert found(second)[0].carrier == first.key
    assert len(found(a)) == len(found(b)) == 1


@pytest.mark.parametrize("seed", SEEDS)
def test_with_the_cable_there_everybody_is_reached_once_and_after_it_by_the_overlay_again(seed: int) -> None:
    sim = joined(seed)
    a, b = sim.nodes
    each_once(sim, a)
    sim.plug(a, b)
    sim.run(PROMISE)
    each_once(sim, a)
    each_once(sim, b)
    talks_to(sim, a, b)
    sim.unplug(a, b)
    took = sim.run_until(lambda: healed(a) and healed(b), within=HEALED)
    assert took <= HOLD_TIME + 0.1
    sim.run(0.1)
    talks_to(sim, a, b)
    each_once(sim, b)
    assert len(healed(a)) == len(healed(b)) == 1


def test_a_loop_that_has_traffic_is_cut_before_the_next_second() -> None:
    sim = joined(13)
    a, b = sim.nodes
    sim.run(0.1)
    sim.plug(a, b)
    for number in range(3):
        a.say(source=bytes((2, 0, 0, 0, 9, number)))
    took = sim.run_until(lambda: found(a) or found(b), within=PROMISE)
    assert took < 0.3, "stations that are in two places are reason enough to send a probe at once"


def test_a_cable_that_is_there_from_the_start_is_found_as_soon_as_the_peers_meet() -> None:
    sim = LanSimulation(4, 2)
    a, b = sim.nodes
    sim.plug(a, b)
    sim.run_until(sim.all_up, within=10.0)
    assert sim.run_until(lambda: found(a) or found(b), within=PROMISE) <= PROBE_INTERVAL + 0.2


@pytest.mark.parametrize("seed", SEEDS)
def test_a_cable_is_found_on_a_bad_network_too(seed: int) -> None:
    sim = joined(seed, 2, Conditions(loss=0.2, duplicate=0.1, reorder=0.1, jitter=0.02))
    a, b = sim.nodes
    sim.plug(a, b)
    sim.run_until(lambda: found(a) and found(b), within=PROMISE)
    sim.run(30.0)
    assert len(found(a)) == len(found(b)) == 1
    assert healed(a) == healed(b) == []


# -- more sites ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
def test_a_third_site_reaches_both_joined_lans_through_one_of_them_and_each_station_once(seed: int) -> None:
    sim = joined(seed, 3)
    a, b, c = sim.nodes
    for node in sim.nodes:
        each_once(sim, node)
    sim.plug(a, b)
    sim.run(PROMISE)
    for node in sim.nodes:
        each_once(sim, node)
    for one, other in ((c, a), (c, b), (a, b), (b, c)):
        talks_to(sim, one, other)
    sim.unplug(a, b)
    sim.run(HEALED)
    for one, other in ((c, a), (b, c), (a, b)):
        talks_to(sim, one, other)
    for node in sim.nodes:
        each_once(sim, node)


def test_a_station_is_reached_by_its_new_way_without_having_to_speak_first() -> None:
    sim = joined(5, 3)
    first, second, third = sim.in_order_of_keys()
    talks_to(sim, third, second)
    sim.plug(first, second)
    sim.run(PROMISE)
    asked = third.say(second)
    sim.run(0.2)
    assert second.copies[asked] == 1, "the table of the third site still led to the second node"
    sim.unplug(first, second)
    sim.run(HEALED)
    asked = third.say(second)
    sim.run(0.2)
    assert second.copies[asked] == 1, "the table of the third site still led to the first node"


@pytest.mark.parametrize("seed", SEEDS)
def test_lans_joined_in_groups_keep_one_link_between_each_two(seed: int) -> None:
    sim = joined(seed, 6)
    a, b, c, d, e, _ = sim.nodes
    sim.plug(a, b)
    sim.plug(b, c)
    sim.plug(d, e)
    sim.run(PROMISE)
    for node in sim.nodes:
        each_once(sim, node)
    talks_to(sim, c, e)
    talks_to(sim, a, d)


def test_all_lans_on_one_switch_leave_no_overlay_and_everybody_reached() -> None:
    sim = joined(6, 4)
    a, b, c, d = sim.nodes
    for one, other in ((a, b), (b, c), (c, d)):
        sim.plug(one, other)
    sim.run(PROMISE)
    for node in sim.nodes:
        each_once(sim, node)


# -- when the one that carries cannot --------------------------------------------------------------------------------


@pytest.mark.parametrize("gone", ["killed", "cut off", "cut off from the third"])
def test_when_the_carrier_does_not_reach_a_site_its_mate_does(gone: str) -> None:
    sim = joined(7, 3)
    first, second, third = sim.in_order_of_keys()
    sim.plug(first, second)
    sim.run(PROMISE)
    talks_to(sim, third, second)
    if gone == "killed":
        first.kill()
    elif gone == "cut off":
        sim.partition(first)
    else:
        sim.cut(first, third)
        sim.cut(third, first)
    sim.run(40.0)
    talks_to(sim, third, second)
    number = third.say()
    sim.run(0.5)
    assert (first.copies[number], second.copies[number]) == (1, 1)
    if gone == "killed":
        first.start()
    else:
        sim.heal()
    sim.run(20.0)
    for node in sim.nodes:
        each_once(sim, node)


def test_a_mate_that_restarts_is_believed_again() -> None:
    sim = joined(8, 3)
    a, b, _ = sim.nodes
    sim.plug(a, b)
    sim.run(PROMISE)
    b.kill()
    sim.run(1.0)
    b.start()
    sim.run(10.0)
    for node in sim.nodes:
        each_once(sim, node)


# -- stations --------------------------------------------------------------------------------------------------------


def test_a_station_that_the_loop_has_frozen_is_free_as_soon_as_the_loop_is_cut() -> None:
    sim = joined(9, 3)
    a, b, c = sim.nodes
    sim.plug(a, b)
    for _ in range(20):
        for node in sim.nodes:
            node.say()
        sim.run(0.04)
    sim.run(PROMISE)
    frozen = [event for node in sim.nodes for _, event in node.events if isinstance(event, StationFrozen)]
    assert frozen, "frames that go in circles move their stations"
    for one, other in ((c, a), (c, b), (a, b)):
        talks_to(sim, one, other)


# -- a ring in one LAN -----------------------------------------------------------------------------------------------


def test_a_lan_that_is_a_ring_floods_nothing_into_the_overlay_until_it_is_none() -> None:
    sim = joined(10, 2)
    a, b = sim.nodes
    talks_to(sim, a, b)
    a.ring = True
    sim.run_until(lambda: found(a), within=PROMISE)
    assert found(a)[0].peer is None
    number = a.say()
    sim.run(0.2)
    assert b.copies[number] == 0
    assert a.drops(DropReason.LOOP_BLOCKED) > 0
    a.ring = False
    sim.run_until(lambda: healed(a), within=HEALED)
    each_once(sim, a)
    assert found(b) == []


# -- a station that repeats what it hears ----------------------------------------------------------------------------


def is_probe(frame: bytes) -> bool:
    return frame[:6] == PROBE_GROUP


def is_group(frame: bytes) -> bool:
    return bool(frame[0] & 1)


@pytest.mark.parametrize("copies", [1, 20])
@pytest.mark.parametrize("delay", [0.0002, 0.3])
def test_a_station_that_repeats_the_probes_blocks_nothing_and_is_told_once_a_minute(
    copies: int, delay: float
) -> None:
    sim = joined(14, 3)
    a, b, c = sim.nodes
    a.echo = Echo(is_probe, delay, copies)
    for _ in range(20):
        each_once(sim, a)
        each_once(sim, b)
        sim.run(0.5)
    assert found(a) == found(b) == found(c) == []
    told = [event for _, event in a.events if isinstance(event, ProbeRepeated)]
    assert [event.probe for event in told] == [probe_mac(a.key)]
    assert a.drops(DropReason.LOOP_BLOCKED) == 0


def test_its_probes_kept_and_repeated_later_block_nothing_either() -> None:
    sim = joined(15, 2)
    a, _ = sim.nodes
    a.echo = Echo(is_probe, 30.0, 3)
    sim.run(60.0)
    assert found(a) == []
    assert [event for _, event in a.events if isinstance(event, ProbeRepeated)] == []


def test_a_station_that_repeats_all_that_is_flooded_is_a_ring_until_it_stops() -> None:
    sim = joined(16, 2)
    a, b = sim.nodes
    a.echo = Echo(is_group, 0.0002, 1)
    sim.run_until(lambda: found(a), within=PROMISE)
    assert found(a)[0].probe == probe_mac(a.key)
    a.echo = None
    sim.run_until(lambda: healed(a), within=HEALED)
    each_once(sim, a)
    each_once(sim, b)


def test_a_ring_is_found_with_every_guard_on() -> None:
    strict = ProtectConfig(
        dhcp_servers=Party(),
        router_advertisements=Party(),
        arp_spoof_guard=True,
        ethertypes_allow=frozenset({0x0800, 0x86DD}),
    )
    sim = LanSimulation(17, 2, protect=strict)
    sim.run_until(sim.all_up, within=10.0)
    sim.run(1.5)
    a, _ = sim.nodes
    a.ring = True
    sim.run_until(lambda: found(a), within=PROMISE)


# -- a change of configuration ---------------------------------------------------------------------------------------


def test_turning_the_guard_off_opens_the_link_and_turning_it_on_closes_it_again() -> None:
    sim = joined(11, 2)
    a, b = sim.nodes
    sim.plug(a, b)
    sim.run(PROMISE)
    a.reconfigure(replace(sim.config, protect=ProtectConfig(loop_guard=False)))
    assert len(healed(a)) == 1
    a.reconfigure(sim.config)
    sim.run(PROMISE)
    assert len(found(a)) == 2


def test_isolated_peers_do_not_hear_each_other_and_everybody_else_hears_both() -> None:
    sim = LanSimulation(12, 3)
    a, b, c = sim.nodes
    config = replace(sim.config, protect=ProtectConfig(isolation=Party(peers=frozenset({a.key, b.key}))))
    sim.run_until(sim.all_up, within=10.0)
    for node in sim.nodes:
        node.reconfigure(config)
    sim.run(1.0)
    number = a.say()
    sim.run(0.2)
    assert copies_of(sim, number) == {"a": 0, "b": 0, "c": 1}
    talks_to(sim, a, c)
    talks_to(sim, c, b)
    asked = a.say(b)
    sim.run(0.2)
    assert b.copies[asked] == 0
