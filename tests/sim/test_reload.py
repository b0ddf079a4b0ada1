"""peers.toml changes while everything runs: who is gone is refused at once, the others notice nothing."""

from dataclasses import replace

import pytest

from l2overlay.addresses import Address, MacAddress
from l2overlay.config.types import Config, Endpoint
from l2overlay.controlplane.events import PeerDown
from l2overlay.counters import DropReason
from l2overlay.errors import ConfigError
from l2overlay.keys import public_key

from .frames import station_mac
from .simulator import Node, Simulation, started
from .underlay import Conditions

BOUND = MacAddress(bytes.fromhex("525400aabbcc"))


def with_peer(config: Config, node: Node, **changes: object) -> Config:
    """The file with `node`'s stanza changed."""
    peers = tuple(replace(p, **changes) if p.public_key == node.key else p for p in config.peers)  # type: ignore[arg-type]
    return replace(config, peers=peers)


def test_a_peer_that_is_removed_is_told_refused_and_flushed_at_once() -> None:
    sim = started(1, 3)
    a, b, c = sim.nodes
    talks = sim.conversation(a, c)
    b.send()
    sim.run(1.0)
    a.reconfigure(sim.config_without(b))
    assert a.knows(b.mac) is None
    sim.run(0.1)
    assert not b.up(a)
    assert b.status(a).reason == "it left"
    sim.run(20.0)
    assert not b.up(a)
    assert a.drops(DropReason.UNKNOWN_PEER) > 0
    frame = b.send()
    for talk in talks:
        talk.stop()
    sim.run(1.0)
    assert frame not in a.delivered
    assert frame in c.delivered
    assert [talk.lost() for talk in talks] == [0.0, 0.0]
    assert a.times(PeerDown, c) == []


def test_a_peer_that_comes_back_into_the_file_is_up_again() -> None:
    sim = started(2)
    a, b = sim.nodes
    a.reconfigure(sim.config_without(b))
    sim.run(5.0)
    a.reconfigure(sim.config)
    a.resolve()
    sim.run_until_all_up(within=2.0)
    assert a.send(b) is not None


def test_a_peer_whose_key_is_changed_is_refused_until_it_has_the_new_one() -> None:
    sim = started(3, 3)
    a, b, c = sim.nodes
    old_key, b.private_key = b.key, sim.random.randbytes(32)
    new = with_peer(sim.config, b, public_key=public_key(b.private_key))
    sim.config = new
    for node in (a, c):
        node.reconfigure(new)
        node.resolve()
    sim.run(1.0)
    assert old_key not in a.up_keys
    b.kill()
    b.key = public_key(b.private_key)
    sim.run(3.0)
    b.start()
    sim.run_until_all_up(within=1.0)


def test_the_others_lose_no_frame_while_a_file_is_reloaded_again_and_again() -> None:
    sim = started(4, 3)
    a, b, c = sim.nodes
    talks = sim.conversation(a, c, every=0.01)
    for _ in range(10):
        a.reconfigure(sim.config_without(b))
        sim.run(0.3)
        a.reconfigure(sim.config)
        a.resolve()
        sim.run(0.7)
    for talk in talks:
        talk.stop()
    sim.run(0.1)
    assert [talk.lost() for talk in talks] == [0.0, 0.0]
    assert sim.all_up()


def test_a_station_that_is_bound_anew_moves_and_one_that_is_freed_is_learned_again() -> None:
    sim = started(5, 3, macs={1: (BOUND,)})
    a, b, c = sim.nodes
    assert a.knows(BOUND) == b.key
    moved = with_peer(with_peer(sim.config, b, macs=()), c, macs=(BOUND,))
    a.reconfigure(moved)
    assert a.knows(BOUND) == c.key
    a.reconfigure(with_peer(moved, c, macs=()))
    assert a.knows(BOUND) is None
    b.send(source=BOUND)
    sim.run(0.1)
    assert a.knows(BOUND) == b.key


def test_frames_that_wait_for_a_peer_are_counted_when_it_is_removed() -> None:
    """`Watch` counts with us: 10 frames in, 10 accounted for, at every call."""
    sim = Simulation(6, 2, macs={1: (BOUND,)}, start=False)
    a, b = sim.nodes
    a.start()
    a.send_many(10, BOUND)
    assert a.status(b).queued_frames == 10
    a.reconfigure(sim.config_without(b))
    assert a.drops(DropReason.PEER_DOWN) == 10


def test_what_a_removed_peer_has_counted_is_still_in_the_totals() -> None:
    sim = started(7, 3)
    a, b, _ = sim.nodes
    b.send_many(5)
    sim.run(0.1)
    before = a.overlay.total_counters()
    assert before.rx_frames == 5
    a.reconfigure(sim.config_without(b))
    assert a.overlay.total_counters().rx_frames == 5
    assert a.overlay.total_counters().rx_bytes == before.rx_bytes


def test_another_ageing_time_holds_from_the_next_frame_on() -> None:
    sim = started(8)
    a, b = sim.nodes
    b.send()
    sim.run(0.1)
    a.reconfigure(replace(sim.config, segment=replace(sim.config.segment, ageing_time=10.0)))
    b.send(source=station_mac(1, 1))
    sim.run(11.0)
    assert a.knows(station_mac(1, 1)) is None
    assert a.knows(b.mac) == b.key


def test_keepalives_that_are_switched_on_begin_and_those_switched_off_end() -> None:
    sim = started(9, keepalive=0.0, capture=True)
    a, b = sim.nodes
    sim.run(5.0)
    for node, peer in ((a, b), (b, a)):
        node.reconfigure(with_peer(sim.config, peer, persistent_keepalive=10.0))
    assert sim.captured is not None
    quiet = len(sim.captured)
    sim.run(30.0)
    assert 5 <= len(sim.captured) - quiet <= 20
    for node in sim.nodes:
        node.reconfigure(sim.config)
    quiet = len(sim.captured)
    sim.run(60.0)
    assert len(sim.captured) == quiet


def test_a_file_without_the_node_itself_is_refused_and_changes_nothing() -> None:
    sim = started(10)
    a, _ = sim.nodes
    with pytest.raises(ConfigError, match="own key"):
        a.overlay.reconfigure(sim.config_without(a), sim.now)
    sim.run(1.0)
    assert sim.all_up()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("delay", [0.01, 0.3])
def test_a_live_peer_is_asked_at_its_new_endpoint_at_once_and_traffic_moves_when_it_answers(
    seed: int, delay: float
) -> None:
    """b has got a second address, and the first one stops working a while after the file was changed."""
    sim = started(seed, 2, Conditions(delay=delay))
    a, b = sim.nodes
    sim.run(5.0)
    talk = sim.talk(a, b, every=0.02)
    sim.run(1.0)
    old, new = b.address, Address("198.51.100.77", 7471)
    sim.also_at(b, new)
    a.reconfigure(with_peer(sim.config, b, endpoint=Endpoint(new.host, new.port)))
    a.resolve()
    sim.run(2 * delay + 0.05)
    assert a.status(b).endpoint == new
    sim.run(2.0)
    assert a.status(b).endpoint == new, f"what comes from {old} meanwhile does not bring it back"
    talk.stop()
    sim.run(1.0)
    assert talk.lost() == 0.0
    assert a.times(PeerDown) == b.times(PeerDown) == []


def test_a_new_endpoint_that_does_not_answer_costs_a_live_peer_nothing() -> None:
    sim = started(1, 2)
    a, b = sim.nodes
    talk = sim.talk(a, b, every=0.02)
    a.reconfigure(with_peer(sim.config, b, endpoint=Endpoint("198.51.100.77", 7471)))
    a.resolve()
    sim.run(10.0)
    assert a.status(b).endpoint == b.address
    talk.stop()
    sim.run(0.1)
    assert talk.lost() == 0.0


def test_a_new_endpoint_is_asked_again_when_the_question_was_lost() -> None:
    sim = started(2, 2)
    a, b = sim.nodes
    sim.run(5.0)
    new = Address("198.51.100.77", 7471)
    sim.also_at(b, new)
    sim.cut(a, b)
    a.reconfigure(with_peer(sim.config, b, endpoint=Endpoint(new.host, new.port)))
    a.resolve()
    sim.run(0.3)
    sim.heal()
    sim.run(0.5)
    assert a.status(b).endpoint == new
