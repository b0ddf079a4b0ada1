"""The loop guard by itself: what a probe is, which ones count, and who blocks whom (sim/test_loops.py: what comes of it)."""

from ipaddress import ip_address, ip_network
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.l2 import ARP, Ether

from l2overlay.addresses import PeerKey
from l2overlay.controlplane.loop_guard import (
    HOLD_TIME,
    PROBE_INTERVAL,
    PROBE_LEN,
    PROMPT_INTERVAL,
    REPEATS,
    LoopGuard,
    probe_mac,
    sender_of,
)
from l2overlay.controlplane.witness import WITNESS_TIME, Witnesses
from l2overlay.dataplane.ethernet import PROBE_GROUP, VIRTIO_LEN
from l2overlay.dataplane.wire import LAN
from l2overlay.seams import TapFrame

A, B, C, D = (PeerKey(bytes([n]) + bytes([n * 16] * 31)) for n in (1, 2, 3, 4))
"""In the order of their keys."""


def guard(own: PeerKey, *peers: PeerKey) -> LoopGuard:
    made = LoopGuard(own, bytes([own[0]] * 32), 0.0, enabled=True)
    made.set_peers(peers or [peer for peer in (A, B, C, D) if peer != own])
    return made


def acquainted(one: LoopGuard, *others: LoopGuard) -> None:
    """`one` knows the probe keys of the others."""
    for other in others:
        one.receive_lan(other._own, other.lan_records()[1])


def hears(one: LoopGuard, other: LoopGuard, now: float = 0.0, reached: tuple[PeerKey, ...] = ()) -> bool:
    return one.hear_untrusted(other.probe(reached, now), now)


# -- the probe -------------------------------------------------------------------------------------------------------


def test_a_probe_is_a_frame_of_its_own_kind_that_does_not_show_the_public_key() -> None:
    frame = guard(A).probe([B], 0.0)[VIRTIO_LEN:]
    assert len(frame) == PROBE_LEN
    assert frame[:6] == PROBE_GROUP
    assert frame[0] & 3 == 3, "a group address that is locally administered"
    assert frame[6] & 3 == 2, "a station's address that is locally administered"
    assert frame[12:14] == b"\x88\xb5"
    assert A[1:] not in frame
    assert probe_mac(A) != probe_mac(B)
    assert sender_of(A) != sender_of(B)


def test_probes_come_every_second_and_in_a_hurry_not_more_than_ten_a_second() -> None:
    made = guard(A)
    assert made.next_time() == 0.0
    made.probe([], 5.0)
    assert made.next_time() == 5.0 + PROBE_INTERVAL
    made.hurry(5.01)
    assert made.next_time() == 5.0 + PROMPT_INTERVAL
    made.probe([], 5.1)
    made.hurry(5.9)
    assert made.next_time() == 5.9


def test_a_guard_that_is_off_wants_no_time_and_hears_nothing() -> None:
    a, b = guard(A), guard(B)
    acquainted(a, b)
    a.enabled = False
    assert a.next_time() == inf
    assert not hears(a, b)


# -- which ones count ------------------------------------------------------------------------------------------------


def test_a_peer_s_probe_makes_a_mate_for_a_while() -> None:
    a, b = guard(A), guard(B)
    acquainted(a, b)
    assert hears(a, b, 1.0)
    assert a.mates[B].since == 1.0
    assert hears(a, b, 2.0)
    assert a.mates[B].since == 1.0
    a.expire(2.0 + HOLD_TIME - 0.01)
    assert B in a.mates
    a.expire(2.0 + HOLD_TIME)
    assert not a.mates


def test_a_probe_counts_once() -> None:
    a, b = guard(A), guard(B)
    acquainted(a, b)
    old, new = b.probe([], 0.0), b.probe([], 1.0)
    assert a.hear_untrusted(new, 1.0)
    assert not a.hear_untrusted(new, 1.0)
    assert not a.hear_untrusted(old, 1.0)


@given(st.integers(0, PROBE_LEN - 1).filter(lambda at: at not in range(6)), st.integers(1, 255))
def test_no_station_can_alter_a_probe(at: int, flip: int) -> None:
    a, b = guard(A), guard(B)
    acquainted(a, b)
    frame = bytearray(b.probe([C], 0.0))
    frame[VIRTIO_LEN + at] ^= flip
    assert not a.hear_untrusted(TapFrame(bytes(frame)), 0.0)
    assert not a.mates


@given(st.binary(max_size=700))
def test_no_bytes_of_a_station_raise_or_count(body: bytes) -> None:
    a, b = guard(A), guard(B)
    acquainted(a, b)
    for frame in (bytes(10) + PROBE_GROUP + body, b.probe([], 0.0)[: VIRTIO_LEN + len(body) % PROBE_LEN]):
        assert not a.hear_untrusted(TapFrame(frame), 0.0)


def test_padding_behind_a_probe_does_no_harm() -> None:
    a, b = guard(A), guard(B)
    acquainted(a, b)
    assert a.hear_untrusted(TapFrame(b.probe([], 0.0) + bytes(10)), 0.0)


def test_nobody_is_believed_who_is_no_peer_or_has_not_told_its_key() -> None:
    a, b, c = guard(A, B), guard(B), guard(C)
    assert not hears(a, b)
    acquainted(a, b, c)
    assert hears(a, b)
    assert not hears(a, c)


def test_a_peer_that_is_removed_is_no_mate_any_more() -> None:
    a, b = guard(A), guard(B)
    acquainted(a, b)
    hears(a, b)
    a.set_peers([C])
    assert not a.mates
    assert not hears(a, b)


def test_a_peer_that_was_started_anew_begins_to_count_anew() -> None:
    a, b = guard(A), guard(B)
    acquainted(a, b)
    for _ in range(5):
        hears(a, b)
    again = LoopGuard(B, bytes(range(32)), 0.0, enabled=True)
    assert not hears(a, again)
    acquainted(a, again)
    assert hears(a, again)


def test_our_own_probe_raises_a_suspicion_only_while_it_is_new_and_once() -> None:
    a = guard(A)
    frames = [a.probe([], float(n)) for n in range(10)]
    a.hear_untrusted(frames[0], 9.0)
    assert not a.suspects, "somebody has kept it"
    a.hear_untrusted(frames[9], 9.0)
    assert a.suspects
    assert a.ring is None
    a.suspects = False
    a.hear_untrusted(frames[9], 9.0)
    assert not a.suspects


def test_a_witness_that_comes_back_shows_a_ring_for_a_while() -> None:
    a = guard(A)
    a.heard_witness(1.0)
    a.heard_witness(2.0)
    assert a.ring is not None
    assert a.ring.since == 1.0
    a.expire(2.0 + HOLD_TIME - 0.01)
    assert a.ring is not None
    a.expire(2.0 + HOLD_TIME)
    assert a.ring is None


# -- witnesses -------------------------------------------------------------------------------------------------------


def test_a_witness_is_an_arp_probe_that_nobody_answers_or_learns_from() -> None:
    witnesses = Witnesses(b"k" * 32)
    for chance in range(0, 1 << 16, 251):
        made = witnesses.make(chance.to_bytes(2, "big"), 0.0)[VIRTIO_LEN:]
        frame = Ether(made)
        assert bytes(frame) == made
        assert (frame.dst, frame.src, frame[ARP].op) == ("ff:ff:ff:ff:ff:ff", frame[ARP].hwsrc, 1)
        assert frame[ARP].psrc == "0.0.0.0"
        assert ip_address(frame[ARP].pdst) in ip_network("169.254.0.0/16")
        assert 1 <= int(frame[ARP].pdst.split(".")[2]) <= 254, "RFC 3927, section 2.1"
        assert made[6] & 3 == 2
        assert probe_mac(A) != made[6:12]


def test_a_witness_counts_once_whole_in_time_and_padded_too() -> None:
    witnesses = Witnesses(b"k" * 32)
    sent = [witnesses.make(bytes((0, n)), 0.0)[VIRTIO_LEN:] for n in range(3)]
    assert not witnesses.heard(sent[0][:-1], 0.1)
    assert not witnesses.heard(sent[0][:-1] + b"\xff", 0.1)
    assert witnesses.heard(sent[0], 0.1)
    assert not witnesses.heard(sent[0], 0.1)
    assert witnesses.heard(sent[1] + bytes(18), 0.1)
    assert not witnesses.heard(sent[2], WITNESS_TIME)


def test_a_witness_that_does_not_come_back_is_noticed_and_leaves_nothing() -> None:
    witnesses = Witnesses(b"k" * 32)
    witnesses.make(b"ab", 0.0)
    witnesses.expire(WITNESS_TIME - 0.01)
    assert not witnesses.repeated
    witnesses.expire(WITNESS_TIME)
    assert witnesses.repeated
    assert not witnesses.waiting


# -- who blocks whom -------------------------------------------------------------------------------------------------


def test_mates_forward_nothing_to_each_other() -> None:
    a, b = guard(A), guard(B)
    acquainted(a, b)
    acquainted(b, a)
    hears(a, b)
    hears(b, a)
    assert a.blocks(B)
    assert b.blocks(A)


def test_of_two_mates_the_smaller_key_forwards_to_the_others() -> None:
    a, b = guard(A), guard(B)
    acquainted(a, b)
    acquainted(b, a)
    hears(a, b, reached=(C, D))
    hears(b, a, reached=(C, D))
    assert not a.blocks(C)
    assert b.blocks(C)
    assert (a.carrier(), b.carrier()) == (A, A)


def test_the_larger_key_forwards_to_whom_the_smaller_does_not_reach() -> None:
    a, b = guard(A), guard(B)
    acquainted(b, a)
    hears(b, a, reached=(C,))
    assert b.blocks(C)
    assert not b.blocks(D)


@given(st.permutations([A, B, C, D]), st.data())
def test_of_any_number_of_mates_exactly_one_forwards_to_a_peer_that_any_reaches(
    order: list[PeerKey], data: st.DataObject
) -> None:
    """A few rounds of probes settle it, whoever reaches what."""
    outside = PeerKey(b"\xee" * 32)
    guards = {key: guard(key, A, B, C, D, outside) for key in order}
    for one in guards.values():
        acquainted(one, *(other for other in guards.values() if other is not one))
    up = {key for key in order if data.draw(st.booleans())}
    for turn in range(4):
        for key in order:
            forwards = [outside] if key in up and not guards[key].blocks(outside) else []
            frame = guards[key].probe(forwards, float(turn))
            for other in order:
                if other != key:
                    guards[other].hear_untrusted(frame, float(turn))
    forwarding = [key for key in order if key in up and not guards[key].blocks(outside)]
    assert forwarding == ([min(up)] if up else [])


# -- LAN records -----------------------------------------------------------------------------------------------------


def test_a_lan_record_is_sent_a_few_times_to_who_is_to_have_it() -> None:
    a = guard(A)
    a.tell(B)
    assert [a.lan_records()[0] for _ in range(REPEATS + 1)] == [[B]] * REPEATS + [[]]


def test_only_a_change_makes_a_peer_forget() -> None:
    a = guard(A)
    assert not a.receive_lan(B, LAN.pack(bytes(32), 0)), "nothing was known of it"
    assert not a.receive_lan(B, LAN.pack(bytes(32), 0))
    assert a.receive_lan(B, LAN.pack(bytes(32), 1))
    assert not a.receive_lan(B, LAN.pack(bytes(32), 1))
    assert a.receive_lan(B, LAN.pack(b"x" * 32, 0))


def test_a_change_of_the_lan_is_told_to_all() -> None:
    a, b = guard(A), guard(B)
    acquainted(b, a)
    a.lan_changed([B, C])
    peers, body = a.lan_records()
    assert peers == [B, C]
    assert b.receive_lan(A, body)


@pytest.mark.parametrize("now", [0.0, 1e9])
def test_the_timer_is_never_behind_after_its_work(now: float) -> None:
    a, b = guard(A), guard(B)
    acquainted(a, b)
    hears(a, b, now)
    for _ in range(20):
        due = max(now, a.next_time())
        a.expire(due)
        if a.next_probe <= due:
            a.probe([], due)
        assert a.next_time() > due
        now = due
