"""The mirror sees every frame of both directions once: forwarded, flooded, and dropped for each reason of the forwarder."""

from collections import Counter
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import pytest

from l2overlay.config.types import Party, PeerConfig
from l2overlay.counters import DropReason
from l2overlay.dataplane.fdb import Port
from l2overlay.dataplane.gate import FilterGate
from l2overlay.dataplane.mirror import Direction, Sight
from l2overlay.dataplane.own_datagrams import OwnDatagrams
from l2overlay.dataplane.waiting import MAX_QUEUED_FRAMES, QUEUE_TIME
from l2overlay.seams import TapFrame

from .insider import INSIDER_ADDRESS, INSIDER_KEY, NODE_KEY, OWN_MAC, Meeting
from .super_frames import super_frame
from .test_inbox import frame_record
from .test_microflows import Net, acquainted, frame, quick
from .test_rules_under_traffic import CASES, HERE, THERE, TIGHT, UNICAST, config

__all__ = ["quick"]  # a fixture

IN, OUT = Direction.IN, Direction.OUT
INSIDER = Port(INSIDER_KEY)
PLAIN = bytes(10)


class Watched(Meeting):
    """A node with a mirror. `books` compares what the mirror saw with what the node has counted."""

    def __init__(self) -> None:
        super().__init__()
        self.node.reconfigure(config(protect={"storm": None}), self.now)
        self.sights: list[Sight] = []
        self.node.mirror = self.sights.append

    def seen(self) -> list[tuple[Direction, Port | None, bytes, DropReason | None]]:
        return [(s.direction, s.peer, b"".join(s.frame), s.reason) for s in self.sights]

    def balance(self) -> None:
        reasons = Counter(s.reason for s in self.sights if s.reason is not None)
        assert reasons == {reason: n for reason, n in self.counters().drops.items() if n}
        passed = Counter(s.direction for s in self.sights if s.reason is None)
        counters = self.counters()
        assert (passed[OUT], passed[IN]) == (counters.tx_frames, counters.rx_frames)


def from_tap(meeting: Meeting, *frames: bytes) -> None:
    meeting.read_from_tap(*(PLAIN + frame for frame in frames))


def test_a_frame_of_each_direction_is_seen_once_with_its_peer() -> None:
    net, sights = acquainted(), list[Sight]()
    net.hub.mirror = sights.append
    (peer,) = net.hub.peers(net.now)
    net.send(0, frame(0, 1))
    net.send(1, frame(1, 0))
    port = Port(peer.key)
    assert sights == [(OUT, port, (frame(0, 1),), None), (IN, port, (frame(1, 0),), None)]


def test_a_flooded_frame_is_seen_once_for_all_peers() -> None:
    net, sights = Net(3), list[Sight]()
    net.hub.mirror = sights.append
    large = frame(0, 9, b"\x08\x00" + bytes(1450))  # too large for one record on the smallest path
    for each in (frame(0, 9), large):
        net.send(0, each)
    assert sights == [(OUT, None, (frame(0, 9),), None), (OUT, None, (large,), None)]


def test_the_quick_way_is_taken_again_when_nobody_looks(quick: list[str]) -> None:
    net, sights = acquainted(), list[Sight]()
    net.hub.mirror = sights.append
    quick.clear()
    net.send(0, frame(0, 1))
    assert "out" not in quick
    net.hub.mirror = None
    seen = len(sights)
    net.send(0, frame(0, 1))
    net.send(0, frame(0, 1))
    assert quick.count("out") == 1
    assert len(sights) == seen


def test_each_frame_of_a_batch_from_the_tap_is_seen_once() -> None:
    meeting = Watched()
    meeting.say(frame_record(UNICAST))  # THERE is behind the insider
    from_tap(meeting, THERE + HERE + bytes(48))
    del meeting.sights[:]
    before = meeting.counters()
    to_insider = PLAIN + THERE + HERE
    tiny = super_frame("tcp4", 4000, gso_size=4).frame
    lying = b"\x00\x01" + bytes(8) + to_insider[10:] + b"\x08\x00" + bytes(100)
    batch = [
        to_insider + b"\x08\x00one",
        PLAIN + b"short",
        PLAIN + THERE + b"\x01" * 6 + bytes(48),
        to_insider + b"\x08\x00two",
        PLAIN + bytes.fromhex("0180c2000001") + HERE + bytes(48),
        PLAIN + HERE + b"\x02\0\0\0\0\x07" + bytes(48),
        to_insider + b"\x08\x00" + bytes(1600),
        tiny[:10] + THERE + HERE + tiny[22:],
        lying,
        lying,
        PLAIN + b"\xff" * 6 + HERE + bytes(48),
        to_insider + b"\x08\x00one",
    ]
    meeting.read_from_tap(*batch)
    sights = meeting.sights
    assert Counter(b"".join(s.frame) for s in sights) == Counter(batch)
    reasons = Counter(s.reason for s in sights if s.reason is not None)
    assert reasons == meeting.counters().drops
    assert reasons.keys() == {
        DropReason.RUNT_FRAME,
        DropReason.GROUP_SOURCE,
        DropReason.RESERVED_ADDRESS,
        DropReason.LOCAL_DESTINATION,
        DropReason.GIANT_FRAME,
        DropReason.TINY_SEGMENTS,
        DropReason.BAD_OFFLOAD_HEADER,
    }
    assert meeting.counters().tx_frames - before.tx_frames == 4
    passed = [b"".join(s.frame) for s in sights if s.reason is None and s.peer == INSIDER]
    assert passed == [batch[0], batch[3], batch[-1]]


def test_each_frame_of_a_batch_from_a_peer_is_seen_once() -> None:
    meeting = Watched()
    batch = [
        UNICAST,
        HERE + b"\x01" * 6 + bytes(48),
        HERE + OWN_MAC + bytes(48),
        HERE + THERE + b"\x08\x00" + bytes(1600),
        UNICAST,
        bytes.fromhex("0180c2000001") + THERE + bytes(48),
    ]
    for each in batch[:3], batch[3:4], batch[4:]:
        meeting.receive(*meeting.sealed(b"".join(map(frame_record, each))))
    expected = [
        None,
        DropReason.GROUP_SOURCE,
        DropReason.SPOOFED_STATION,
        DropReason.GIANT_FRAME,
        None,
        DropReason.RESERVED_ADDRESS,
    ]
    assert meeting.seen() == [(IN, INSIDER, PLAIN + f, why) for f, why in zip(batch, expected, strict=True)]
    meeting.balance()


PEER_KEYS = {field.name for field in fields(PeerConfig)}


@pytest.mark.parametrize(
    ("key", "changes", "refused", "reason"), CASES, ids=[c[0] + " " + c[3] for c in CASES]
)
def test_a_frame_of_a_peer_that_a_rule_refuses_is_seen_once(
    key: str, changes: dict[str, Any], refused: bytes, reason: str
) -> None:
    meeting = Watched()
    changes = {"storm": None} | changes if key not in PEER_KEYS else changes
    peer, protect = (changes, {}) if key in PEER_KEYS else ({}, changes)
    meeting.node.reconfigure(config(peer, protect), meeting.now)
    for _ in range(30):
        meeting.say(frame_record(refused))
    assert (IN, INSIDER, PLAIN + refused, DropReason(reason)) in meeting.seen()
    assert [b"".join(s.frame) for s in meeting.sights] == [PLAIN + refused] * 30
    meeting.balance()


@pytest.mark.parametrize(
    ("protect", "refused", "reason"),
    [
        ({"ethertypes_deny": frozenset([0x0800])}, UNICAST, "ethertype_refused"),
        ({"bpdu_passes": False}, bytes.fromhex("0180c2000000") + HERE + bytes(48), "bpdu_refused"),
        ({"storm": TIGHT}, b"\xff" * 6 + HERE + bytes(48), "storm_broadcast"),
        ({"isolation": Party(peers=frozenset([NODE_KEY, INSIDER_KEY]))}, b"\xff" * 6 + HERE + bytes(48), "isolated"),
    ],
)  # fmt: skip
def test_a_frame_of_the_tap_that_a_rule_refuses_is_seen_once(
    protect: dict[str, Any], refused: bytes, reason: str
) -> None:
    meeting = Watched()
    meeting.node.reconfigure(config(protect={"storm": None} | protect), meeting.now)
    from_tap(meeting, *[refused] * 30)
    assert (OUT, None, PLAIN + refused, DropReason(reason)) in meeting.seen()
    assert [b"".join(s.frame) for s in meeting.sights] == [PLAIN + refused] * 30
    meeting.balance()


def test_an_own_datagram_is_seen_once() -> None:
    meeting = Watched()
    meeting.node.look_for_own(OwnDatagrams(7470, [("192.0.2.1", INSIDER_ADDRESS)]))
    ip = bytes.fromhex("4500 0030 0000 0000 40 11 0000 c0000201 c0000202 1d2e 1d2e 001c 0000")
    own = THERE + HERE + b"\x08\x00" + ip + bytes(40)
    from_tap(meeting, own, b"\xff" * 6 + HERE + bytes(48))
    assert [(s.reason, len(s.frame)) for s in meeting.sights] == [(DropReason.OWN_DATAGRAM, 1), (None, 1)]
    meeting.balance()


def test_a_ring_refuses_floods_of_both_directions_and_each_is_seen_once() -> None:
    meeting = Watched()
    meeting.node._protection.loop.heard_witness(meeting.now)
    meeting.node._ports.follow_loops(meeting.now)
    meeting.say(frame_record(b"\xff" * 6 + THERE + bytes(48)))
    from_tap(meeting, b"\xff" * 6 + HERE + bytes(48))
    assert [(s.direction, s.reason) for s in meeting.sights] == [
        (IN, DropReason.LOOP_BLOCKED),
        (OUT, DropReason.LOOP_BLOCKED),
    ]
    meeting.balance()


def test_a_probe_of_the_loop_guard_and_a_witness_are_seen_once() -> None:
    meeting = Watched()
    witnesses = meeting.node._witnesses
    witness = witnesses.make(b"12", meeting.now)
    meeting.node.receive_frames([TapFrame(witness)], meeting.now)
    assert [(s.direction, s.reason) for s in meeting.sights] == [(OUT, DropReason.LOOP_PROBE)]
    meeting.balance()


# -- frames that wait ----------------------------------------------------------------------------------------------------


def waiting() -> tuple[Watched, bytes]:
    """A node whose peer is down, and a frame to a station that is always behind this peer."""
    meeting = Watched()
    meeting.node.reconfigure(config({"macs": (THERE,)}, {"storm": None}), meeting.now)
    meeting.node.set_endpoint(INSIDER_KEY, INSIDER_ADDRESS, meeting.now)
    (peer,) = meeting.node._members
    peer.go_down("a test", meeting.now)
    meeting.settle()
    return meeting, THERE + HERE + b"\x08\x00" + bytes(46)


def test_a_frame_that_waits_is_seen_when_it_leaves() -> None:
    meeting, to_peer = waiting()
    from_tap(meeting, to_peer)
    assert meeting.sights == []
    meeting.handshake()
    assert meeting.seen() == [(OUT, INSIDER, PLAIN + to_peer, None)]
    meeting.balance()


def test_a_frame_that_waits_in_vain_is_seen_once() -> None:
    meeting, to_peer = waiting()
    from_tap(meeting, *[to_peer] * (MAX_QUEUED_FRAMES + 1))
    assert [s.reason for s in meeting.sights] == [DropReason.QUEUE_FULL]
    meeting.now += QUEUE_TIME
    meeting.settle()
    late = (OUT, INSIDER, PLAIN + to_peer, DropReason.QUEUE_TIMEOUT)
    assert meeting.seen()[1:] == [late] * MAX_QUEUED_FRAMES
    meeting.balance()


def test_a_frame_for_a_peer_that_a_reload_removes_is_seen_once() -> None:
    meeting, to_peer = waiting()
    from_tap(meeting, to_peer)
    counters = meeting.node.peers(meeting.now)[0].counters
    alone = config()
    meeting.node.reconfigure(replace(alone, peers=alone.peers[:1]), meeting.now)
    assert meeting.seen() == [(OUT, INSIDER, PLAIN + to_peer, DropReason.PEER_DOWN)]
    assert counters.drops == {DropReason.PEER_DOWN: 1}


def test_a_flood_without_peers_is_seen_once() -> None:
    meeting, _ = waiting()
    from_tap(meeting, b"\xff" * 6 + HERE + bytes(48))
    assert [(s.peer, s.reason) for s in meeting.sights] == [(None, DropReason.NO_PEER)]
    meeting.balance()


# -- the filter ----------------------------------------------------------------------------------------------------------


def filtered() -> tuple[Watched, FilterGate]:
    meeting, gate = Watched(), FilterGate(lambda: None)
    gate.configure([INSIDER], {}, out=True, refuse_tagged=True)
    meeting.node.gate = gate
    return meeting, gate


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        (lambda node: node.filter_loaded({THERE: INSIDER_KEY}), None),
        (lambda node: node.filter_failed(), DropReason.FILTER_PENDING),
    ],
    ids=["the kernel knows its station", "the kernel could not be told"],
)
def test_a_frame_that_is_held_for_the_filter_is_seen_when_that_ends(
    end: Callable[[Any], None], reason: DropReason | None
) -> None:
    meeting, _ = filtered()
    meeting.say(frame_record(UNICAST))
    assert meeting.sights == []
    end(meeting.node)
    assert meeting.seen() == [(IN, INSIDER, PLAIN + UNICAST, reason)]
    meeting.balance()


def test_frames_that_the_filter_refuses_are_seen_once() -> None:
    meeting, gate = filtered()
    tagged = b"\x81\x00\x00\x05\x08\x00" + bytes(46)
    meeting.say(frame_record(HERE + THERE + tagged))
    from_tap(meeting, THERE + HERE + tagged)
    from_tap(meeting, b"\x02" * 6 + HERE + b"\x08\x00" + bytes(46))
    gate.closed = True
    from_tap(meeting, THERE + HERE + bytes(48))
    meeting.say(frame_record(UNICAST))
    assert [(s.direction, s.reason) for s in meeting.sights] == [
        (IN, DropReason.FILTER_TAGGED),
        (OUT, DropReason.FILTER_TAGGED),
        (OUT, DropReason.FILTER_PENDING),
        (OUT, DropReason.FILTER_CLOSED),
        (IN, DropReason.FILTER_CLOSED),
    ]
    meeting.balance()


# -- super-frames --------------------------------------------------------------------------------------------------------


def test_a_super_frame_is_one_frame_in_both_directions() -> None:
    net, sights = acquainted(), list[Sight]()
    whole = super_frame("tcp4", 20_000).frame
    whole = TapFrame(whole[:10] + frame(0, 1)[10:22] + whole[22:])
    for node in net.nodes:
        node.mirror = sights.append
    assert net.send(0, whole)[1] != []
    assert [(s.direction, s.reason) for s in sights] == [(OUT, None), (IN, None)]
    assert all(s.frame[0][1] for s in sights), "the virtio header tells that it is cut later"
    assert sum(map(len, sights[1].frame)) == len(whole)
