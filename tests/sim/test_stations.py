"""Stations that move, and members of the segment that misbehave: what one insider does harms nobody else."""

import tracemalloc
from itertools import chain, count

import pytest

from l2overlay.addresses import MacAddress, derive_macs
from l2overlay.controlplane.events import PeerDown, StationFrozen, StationMoved
from l2overlay.counters import DropReason
from l2overlay.dataplane.ethernet import ETHERNET_HEADER_LEN, plain
from l2overlay.dataplane.fdb import MAX_ENTRIES
from l2overlay.dataplane.wire import DATA_OVERHEAD, FRAGMENT, PART, RECORD, Record
from l2overlay.seams import Burst

from .frames import make_frame, station_mac
from .simulator import Node, Simulation, started
from .underlay import Conditions

BROADCAST = b"\xff" * 6


# -- stations that move ---------------------------------------------------------------------------------------------


def test_a_station_that_moves_is_found_by_every_node_50_ms_after_its_first_broadcast() -> None:
    sim = started(1, 5, Conditions(delay=0.02, jitter=0.02))
    a, b, c, d, e = sim.nodes
    vm = station_mac(99)
    b.send(source=vm)
    sim.run(0.05)
    assert [node.knows(vm) for node in (a, c, d, e)] == [b.key] * 4
    c.send(source=vm)
    sim.run(0.05)
    assert [node.knows(vm) for node in (a, b, d, e)] == [c.key] * 4
    assert c.knows(vm) is None
    assert [event for _, event in a.events if isinstance(event, StationMoved)] == [
        StationMoved(vm, 0, b.key, c.key)
    ]
    frame = a.send(vm)
    sim.run(0.05)
    assert frame in c.delivered
    assert all(frame not in node.delivered for node in (b, d, e))


def test_frames_sent_to_the_old_place_while_a_station_moves_are_the_only_ones_lost() -> None:
    sim = started(2, 3, Conditions(delay=0.02))
    a, b, c = sim.nodes
    vm = station_mac(99)
    b.send(source=vm)
    sim.run(0.1)
    moved = sim.now + 1.0
    sent = []
    for _ in range(200):
        if sim.now == pytest.approx(moved):
            c.send(source=vm)
        sent.append(a.send(vm))
        sim.run(0.01)
    sim.run(0.1)
    late = [number for number in sent if sim.watch.sent[number].time > moved + 0.02]
    assert all(number in c.delivered for number in late)
    assert all(number in b.delivered or number in c.delivered for number in sent)


def test_two_machines_with_one_address_are_frozen_at_one_place_and_nobody_else_is_touched() -> None:
    sim = started(3, 4)
    a, b, c, d = sim.nodes
    twin = station_mac(99)
    talks = sim.conversation(a, d)
    for _ in range(50):
        for node in (b, c):
            node.send(a, source=twin)
            sim.run(0.1)
    frozen = [event for _, event in a.events if isinstance(event, StationFrozen)]
    assert len(frozen) == 1
    assert {frozen[0].port, frozen[0].other} == {b.key, c.key}
    assert len(a.times(StationMoved)) < 10
    for talk in talks:
        talk.stop()
    sim.run(0.1)
    assert [talk.lost() for talk in talks] == [0.0, 0.0]


def test_a_tagged_station_and_an_untagged_one_of_the_same_address_are_two() -> None:
    sim = started(4, 3)
    a, b, c = sim.nodes
    mac = station_mac(99)
    b.send(source=mac)
    c.send(source=mac, vlan=7)
    sim.run(0.1)
    untagged, tagged = a.send(mac), a.send(mac, vlan=7)
    sim.run(0.1)
    assert (untagged in b.delivered, untagged in c.delivered) == (True, False)
    assert (tagged in b.delivered, tagged in c.delivered) == (False, True)


# -- an insider -----------------------------------------------------------------------------------------------------


class Insider:
    """A member with a good key whose program is not ours: it seals whatever it likes."""

    def __init__(self, node: Node, victim: Node) -> None:
        self.node, self.victim = node, victim
        self._session = node.overlay._members.peers[victim.key].link.current
        self._ids = count(1)

    def datagram(self, plaintext: bytes) -> bytes:
        assert self._session is not None
        return b"".join(self._session.seal([plaintext]))

    def send(self, plaintext: bytes) -> None:
        self.node.sim.inject(self.victim, self.datagram(plaintext), self.node.address)

    def send_frame(self, frame: bytes) -> None:
        self.send(frame_record(frame))

    def send_fragments(self, frame: bytes, total: int) -> None:
        """In parts of 1000 bytes, whatever it is."""
        frame_id = next(self._ids)
        for at in range(0, len(frame), 1000):
            part = FRAGMENT.pack(frame_id, total) + frame[at : at + 1000]
            self.send(PART.pack(Record.FRAGMENT, 0, len(part) + 2, at) + part)


def frame_record(frame: bytes) -> bytes:
    return RECORD.pack(Record.FRAME, 0, len(frame)) + frame


BOUND = MacAddress(bytes.fromhex("525400aabbcc"))
"""Bound to node c by configuration."""


@pytest.fixture
def insider() -> Insider:
    sim = started(5, 3, macs={2: (BOUND,)})
    sim.run(1.0)
    return Insider(sim.nodes[1], sim.nodes[0])


def assert_refused(insider: Insider, reason: DropReason, drops: int = 1) -> None:
    """Nothing of it came out, it was counted for what it was, and both are still on good terms."""
    victim, sim = insider.victim, insider.node.sim
    assert victim.strange == []
    assert victim.delivered == {}
    assert victim.status(insider.node).counters.drops == {reason: drops}
    good = insider.node.send(source=station_mac(1, 7))
    sim.run(0.1)
    assert good in victim.delivered
    assert victim.times(PeerDown) == []


def test_a_station_that_is_bound_to_another_peer_is_refused(insider: Insider) -> None:
    insider.send_frame(make_frame(BROADCAST, BOUND, 1))
    assert_refused(insider, DropReason.SPOOFED_STATION)
    assert insider.victim.knows(BOUND) == insider.node.sim.nodes[2].key


def test_the_victim_s_own_addresses_are_refused(insider: Insider) -> None:
    for mac in derive_macs(insider.victim.key):
        insider.send_frame(make_frame(BROADCAST, mac, 1))
    assert_refused(insider, DropReason.SPOOFED_STATION, drops=2)


@pytest.mark.parametrize("last", range(1, 16))
def test_reserved_group_addresses_are_refused(insider: Insider, last: int) -> None:
    insider.send_frame(make_frame(b"\x01\x80\xc2\x00\x00" + bytes([last]), station_mac(1), 1))
    assert_refused(insider, DropReason.RESERVED_ADDRESS)


@pytest.mark.parametrize(
    "source", [BROADCAST, b"\x33\x33\0\0\0\1", bytes(6)], ids=["broadcast", "multicast", "zero"]
)
def test_a_source_that_is_no_station_is_refused(insider: Insider, source: bytes) -> None:
    insider.send_frame(make_frame(BROADCAST, source, 1))
    assert_refused(insider, DropReason.GROUP_SOURCE)


@pytest.mark.parametrize("size", range(ETHERNET_HEADER_LEN))
def test_a_runt_is_refused(insider: Insider, size: int) -> None:
    insider.send_frame(make_frame(BROADCAST, station_mac(1), 1)[:size])
    assert_refused(insider, DropReason.BAD_RECORD)


def test_a_giant_in_fragments_is_refused_fragment_by_fragment(insider: Insider) -> None:
    giant = make_frame(BROADCAST, station_mac(1), 1, size=3000)
    insider.send_fragments(giant, total=len(giant))
    assert_refused(insider, DropReason.BAD_FRAGMENT, drops=3)


def test_fragments_that_lie_about_their_frame_are_refused(insider: Insider) -> None:
    frame = make_frame(BROADCAST, station_mac(1), 1, size=1400)
    insider.send_fragments(frame, total=1200)
    insider.node.sim.run(1.0)
    drops = insider.victim.status(insider.node).counters.drops
    assert set(drops) <= {DropReason.BAD_FRAGMENT, DropReason.FRAGMENT_TIMEOUT}
    assert insider.victim.strange == []
    assert insider.victim.delivered == {}


@pytest.mark.parametrize("kind", [*range(11, 20), 255])
def test_unknown_records_drop_the_rest_of_their_datagram_only(insider: Insider, kind: int) -> None:
    before = make_frame(BROADCAST, station_mac(1, 5), 1)
    insider.victim.sim.watch.sent.clear()
    insider.victim.sim.watch.frame_sent(1, before, insider.node.name)
    insider.send(
        frame_record(before) + bytes([kind, 0, 0, 0]) + frame_record(make_frame(BROADCAST, station_mac(1), 2))
    )
    assert list(insider.victim.delivered) == [1]
    assert insider.victim.status(insider.node).counters.drops == {DropReason.BAD_RECORD: 1}


def test_random_plaintexts_of_an_insider_never_raise_and_take_nobody_down(insider: Insider) -> None:
    sim, victim = insider.node.sim, insider.victim
    talks = sim.conversation(victim, sim.nodes[2])
    for length in chain(range(200), range(200, 1400, 13)):
        insider.send(sim.random.randbytes(length))
        insider.send(
            bytes([sim.random.randrange(10), 0]) + length.to_bytes(2, "little") + sim.random.randbytes(length)
        )
    for talk in talks:
        talk.stop()
    sim.run(1.0)
    assert [talk.lost() for talk in talks] == [0.0, 0.0]
    assert victim.times(PeerDown) == []


SOURCES = 42_000
PER_DATAGRAM = 30
MEBIBYTE = 1 << 20


def test_any_number_of_source_addresses_leaves_the_table_bounded_and_the_stations_of_others_in_it() -> None:
    sim = started(6, 3)
    a, b, c = sim.nodes
    for station in range(200):
        c.send(source=station_mac(2, station))
    a.send()
    sim.run(1.0)
    insider = Insider(b, a)
    flood = [insider.datagram(plaintext) for plaintext in _random_sources(sim, a)]
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for datagram in flood:
        a.overlay.receive_datagrams([Burst(b.address, len(datagram), [datagram])], sim.now)
        a.overlay.frames_to_deliver()
        a.overlay.bursts_to_send()
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    print(f"{(after - before) / MEBIBYTE:.1f} MiB")
    assert a.status(b).counters.rx_frames >= SOURCES
    assert len(a.overlay.stations(sim.now)) <= MAX_ENTRIES
    assert after - before <= 16 * MEBIBYTE
    assert all(a.knows(station_mac(2, station)) == c.key for station in range(0, 200, 20))
    assert a.status(c).stations == 200


def _random_sources(sim: Simulation, victim: Node) -> list[bytes]:
    def record() -> bytes:
        source = b"\x02" + sim.random.randbytes(5)
        return frame_record(victim.mac + source + b"\x88\xb5")

    plaintexts = [b"".join(record() for _ in range(PER_DATAGRAM)) for _ in range(SOURCES // PER_DATAGRAM)]
    assert all(len(plaintext) + DATA_OVERHEAD <= 1472 for plaintext in plaintexts)
    return plaintexts


def test_frames_that_the_local_side_must_not_send_are_refused_with_their_names() -> None:
    sim = started(7)
    a, b = sim.nodes
    refused = {
        DropReason.RUNT_FRAME: [make_frame(BROADCAST, a.mac, 1)[:13], b""],
        DropReason.GIANT_FRAME: [make_frame(BROADCAST, a.mac, 2, size=1523)],
        DropReason.RESERVED_ADDRESS: [make_frame(b"\x01\x80\xc2\0\0\x0e", a.mac, 3)],
        DropReason.GROUP_SOURCE: [make_frame(BROADCAST, BROADCAST, 4), make_frame(BROADCAST, bytes(6), 5)],
    }
    for frames in refused.values():
        a.receive_frames([plain(frame) for frame in frames])
    sim.run(0.1)
    assert {reason: a.drops(reason) for reason in refused} == {
        reason: len(frames) for reason, frames in refused.items()
    }
    assert b.delivered == {}
    assert b.strange == []
