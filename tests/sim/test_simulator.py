"""The simulator itself: same seed, same run; and each invariant can be violated, or it would prove nothing."""

import struct
from math import inf
from typing import Any

import pytest

from l2overlay.addresses import Address
from l2overlay.dataplane.forwarder import Forwarder
from l2overlay.dataplane.session import Session
from l2overlay.overlay import Overlay
from l2overlay.seams import Burst

from .frames import make_frame, number_of, station_mac
from .invariants import Watch
from .simulator import START, Simulation, as_bursts, started
from .snapshot import changes, snapshot
from .underlay import Conditions, Nat

BAD = Conditions(loss=0.2, duplicate=0.1, corrupt=0.1, reorder=0.1, jitter=0.02)


def transcript(seed: int) -> list[tuple[float, str, bytes]]:
    sim = Simulation(seed, 3, BAD, capture=True)
    sim.conversation(sim.nodes[0], sim.nodes[1])
    sim.run(10.0)
    assert sim.captured is not None
    return [(c.time, c.sender.name, c.datagram) for c in sim.captured]


def test_a_seed_gives_the_same_run_to_the_last_bit_and_another_seed_does_not() -> None:
    assert transcript(1) == transcript(1)
    assert transcript(1) != transcript(2)


def test_three_nodes_come_up_and_their_stations_hear_each_other() -> None:
    sim = Simulation(1, 3)
    a, b, c = sim.nodes
    sim.run_until(sim.all_up, within=1.0)
    everywhere = a.send()
    sim.run(0.1)
    assert everywhere in b.delivered
    assert everywhere in c.delivered
    back = b.send(a)
    sim.run(0.1)
    assert back in a.delivered
    assert back not in c.delivered, "a learned unicast goes to its station only"
    sim.check_nothing_got_lost()


def test_what_does_not_come_to_pass_fails_with_seed_and_moment() -> None:
    sim = Simulation(42, 2)
    sim.partition(sim.nodes[0])
    with pytest.raises(AssertionError, match=r"seed 42, at 1005\.000 s: after 5\.0 s .* all up"):
        sim.run_until(sim.all_up, within=5.0)


def test_a_run_moves_time_on_even_if_nothing_happens() -> None:
    sim = Simulation(1, 2, start=False)
    sim.run(5.0)
    assert sim.now == START + 5.0


# -- the underlay ------------------------------------------------------------------------------------------------


def test_datagrams_of_one_direction_keep_their_order_unless_told_otherwise() -> None:
    def arrivals(conditions: Conditions) -> list[bytes]:
        sim = Simulation(3, 2, conditions, start=False)
        planned = [sim.underlay.arrivals("a", "b", bytes([i]), START + i / 1000) for i in range(100)]
        return [datagram for _, datagram in sorted((p for each in planned for p in each), key=lambda p: p[0])]

    in_order = [bytes([i]) for i in range(100)]
    assert arrivals(Conditions(jitter=0.5)) == in_order
    assert arrivals(Conditions(reorder=0.2)) != in_order
    assert sorted(arrivals(Conditions(reorder=0.2))) == in_order


def test_a_nat_lets_in_only_who_was_called_and_nobody_after_it_forgot() -> None:
    inside, called, stranger = Address("10.0.0.2", 1), Address("192.0.2.1", 2), Address("192.0.2.9", 3)
    nat = Nat("203.0.113.1")
    outside = nat.outward(inside, called)
    assert outside.host == "203.0.113.1"
    assert nat.inward(outside, called) == inside
    assert nat.inward(outside, stranger) is None
    nat.rebind()
    assert nat.inward(outside, called) is None
    assert nat.outward(inside, called) != outside


def test_bursts_are_what_gro_would_join() -> None:
    one, two = Address("192.0.2.1", 1), Address("192.0.2.2", 2)
    waiting = [
        (one, b"aaa"),
        (one, b"bbb"),
        (one, b"c"),
        (one, b"d"),
        (two, b"eeee"),
        (two, b"fffff"),
        (one, b""),
    ]
    bursts = as_bursts(waiting)
    assert [(b.address, b.datagrams()) for b in bursts[:-1]] == [
        (one, [b"aaa", b"bbb", b"c"]),
        (one, [b"d"]),
        (two, [b"eeee"]),
        (two, [b"fffff"]),
    ]


# -- each invariant can fail -------------------------------------------------------------------------------------


def watched(seed: int = 7) -> tuple[Watch, bytes]:
    watch = Watch(seed)
    frame = make_frame(station_mac(1), station_mac(0), number=5)
    watch.frame_sent(5, frame, "a")
    return watch, frame


def test_a_frame_delivered_twice_fails() -> None:
    watch, frame = watched()
    assert watch.frame_delivered(frame, "b") == 5
    with pytest.raises(AssertionError, match=r"seed 7.*frame 5 twice"):
        watch.frame_delivered(frame, "b")


@pytest.mark.parametrize("position", [0, 6, 13, 40, 99])
def test_an_altered_frame_fails(position: int) -> None:
    watch, frame = watched()
    altered = frame[:position] + bytes([frame[position] ^ 1]) + frame[position + 1 :]
    with pytest.raises(AssertionError, match="altered"):
        watch.frame_delivered(altered, "b")


def test_a_frame_that_comes_back_to_its_sender_fails() -> None:
    watch, frame = watched()
    with pytest.raises(AssertionError, match="its own"):
        watch.frame_delivered(frame, "a")


def test_a_flow_out_of_order_fails_where_the_network_keeps_order() -> None:
    for keeps_order in (False, True):
        watch, frame = watched()
        watch.keeps_order = keeps_order
        later = make_frame(station_mac(1), station_mac(0), number=6)
        watch.frame_sent(6, later, "a")
        watch.frame_delivered(later, "b")
        if keeps_order:
            with pytest.raises(AssertionError, match="5 of a flow after frame 6"):
                watch.frame_delivered(frame, "b")
        else:
            watch.frame_delivered(frame, "b")


def test_plaintext_on_the_wire_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    sim = Simulation(1, 2)
    sim.run_until(sim.all_up, within=1.0)

    def unsealed(self: Session, plaintext: bytes, address: Address) -> Burst:
        return Burst(address, 16 + len(plaintext), [bytes(16), plaintext])

    monkeypatch.setattr(Session, "seal_alone", unsealed)
    with pytest.raises(AssertionError, match="plaintext"):
        sim.nodes[0].send()


def test_a_counter_used_twice_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    sim = Simulation(1, 2)
    sim.run_until(sim.all_up, within=1.0)
    sim.run(0.1)
    seal = Session.seal_alone

    def seal_and_forget(self: Session, plaintext: bytes, address: Address) -> Burst:
        sealed = seal(self, plaintext, address)
        self.send_counter -= 1
        return sealed

    monkeypatch.setattr(Session, "seal_alone", seal_and_forget)
    sim.nodes[0].send()
    with pytest.raises(AssertionError, match="used counter"):
        sim.nodes[0].send()


def a_car(index: int, count: int, counter: int) -> bytes:
    return struct.pack("<BBBBIQ", 5, index, count, 0, 7, counter) + b"x"


@pytest.mark.parametrize(
    "after",
    [a_car(2, 3, 5), a_car(1, 4, 5), a_car(1, 3, 6), struct.pack("<BBHIQ", 4, 0, 0, 7, 6) + bytes(16)],
    ids=["another index", "another count", "another counter", "DATA"],
)
def test_a_train_that_does_not_go_on_as_it_began_fails(after: bytes) -> None:
    watch = Watch(seed=1)
    watch.datagram_sent(struct.pack("<BBHII", 2, 1, 0, 7, 8), "a", 1)
    watch.datagram_sent(a_car(0, 3, 5), "a", 1)
    with pytest.raises(AssertionError, match="where its train wanted"):
        watch.datagram_sent(after, "a", 1)


def test_a_counter_used_again_for_another_train_fails() -> None:
    watch = Watch(seed=1)
    watch.datagram_sent(struct.pack("<BBHII", 2, 1, 0, 7, 8), "a", 1)
    for index in range(3):
        watch.datagram_sent(a_car(index, 3, 5), "a", 1)
    with pytest.raises(AssertionError, match="used counter"):
        watch.datagram_sent(a_car(0, 3, 5), "a", 1)


def test_a_session_that_is_too_old_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    sim = Simulation(1, 2)
    sim.run_until(sim.all_up, within=1.0)
    monkeypatch.setattr(Overlay, "next_timer", lambda _self: inf)
    sim.run(200.0)
    for node in sim.nodes:
        for session in node.overlay._local.links.sessions.values():
            session.created_time = sim.now
    with pytest.raises(AssertionError, match="session 200"):
        sim.nodes[0].send()


def test_a_frame_that_vanishes_without_a_reason_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    sim = Simulation(1, 2)
    sim.run_until(sim.all_up, within=1.0)

    def lose(*_: Any) -> None: ...

    monkeypatch.setattr(Forwarder, "_flood", lose)
    with pytest.raises(AssertionError, match="was given 1 frames and accounts for 0"):
        sim.nodes[0].send()


def test_numbers_are_found_in_tagged_frames_and_strangers_have_none() -> None:
    assert number_of(make_frame(station_mac(1), station_mac(0), 77, vlan=5)) == 77
    assert number_of(bytes(100)) is None


def test_a_snapshot_sees_every_change_and_only_changes() -> None:
    sim = started(1)
    a, b = sim.nodes
    first = snapshot(a.overlay)
    assert changes(first, snapshot(a.overlay)) == []
    peer = a.overlay._members.peers[b.key]
    assert peer.link.current is not None
    peer.link.current.window[5] = 5
    assert changes(first, snapshot(a.overlay)) != []
    second = snapshot(a.overlay)
    peer.paths.used.mtu._next_token += 1
    assert len(changes(second, snapshot(a.overlay))) == 1
