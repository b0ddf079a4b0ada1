"""The switch as sentences of its specification (IEEE 802.1Q-2018, clauses 8.6 and 8.8; split horizon)."""

import pytest

from l2overlay.addresses import MacAddress
from l2overlay.counters import DropReason
from l2overlay.dataplane.ethernet import (
    BROADCAST,
    is_group,
    plain,
    station_key,
    vlan_id,
)
from l2overlay.dataplane.fdb import LOCAL, FilteringDatabase, Port
from l2overlay.dataplane.reserved import RESERVED_PROTOCOLS, is_reserved, neighbourly
from l2overlay.dataplane.switch import FLOOD, Decision, Switch
from l2overlay.seams import TapFrame
from tests.frames import frame

HERE, THERE, ELSEWHERE = (bytes.fromhex(f"52540000000{n}") for n in (1, 2, 3))
OWN_BRIDGE = MacAddress(bytes.fromhex("fe0000000001"))
MULTICAST, ALL_NODES = bytes.fromhex("01005e000001"), bytes.fromhex("333300000001")
PEER_A, PEER_B = Port(b"A" * 32), Port(b"B" * 32)
AGEING = 300.0


class Bench:
    """A switch, a clock, and frames made of two addresses."""

    def __init__(self) -> None:
        self.fdb = FilteringDatabase(AGEING)
        self.switch = Switch(self.fdb, [OWN_BRIDGE])
        self.now = 0.0

    def from_tap(self, source: bytes, destination: bytes, tag: bytes = b"") -> Decision:
        return self.switch.forward_from_tap(frame(source, destination, tag), self.now)

    def from_peer(self, peer: Port, source: bytes, destination: bytes, tag: bytes = b"") -> DropReason | None:
        return self.switch.forward_from_peer(frame(source, destination, tag), peer, self.now)


def c_tag(vlan: int, priority: int = 0) -> bytes:
    return b"\x81\x00" + (priority << 13 | vlan).to_bytes(2, "big")


@pytest.fixture
def bench() -> Bench:
    return Bench()


# -- learning and forwarding ---------------------------------------------------------------------------------------------


def test_unknown_unicast_is_flooded(bench: Bench) -> None:
    assert bench.from_tap(HERE, THERE) is FLOOD


@pytest.mark.parametrize("destination", [BROADCAST, MULTICAST, ALL_NODES])
def test_group_destination_is_flooded_and_never_learned(bench: Bench, destination: bytes) -> None:
    bench.from_peer(PEER_A, THERE, HERE)
    assert bench.from_tap(HERE, destination) is FLOOD
    assert {key for key, _ in bench.fdb.entries(0.0)} == {HERE, THERE}


def test_station_is_learned_from_a_peer_and_frames_to_it_go_there_alone(bench: Bench) -> None:
    assert bench.from_peer(PEER_A, THERE, BROADCAST) is None
    assert bench.from_tap(HERE, THERE) == PEER_A


def test_frame_from_a_peer_goes_to_the_tap_whether_its_destination_is_known_or_not(bench: Bench) -> None:
    bench.from_tap(HERE, BROADCAST)
    assert bench.from_peer(PEER_A, THERE, HERE) is None
    assert bench.from_peer(PEER_A, THERE, ELSEWHERE) is None


def test_frame_from_a_peer_never_goes_to_another_peer(bench: Bench) -> None:
    """Split horizon: the answer names no port, only whether the TAP gets it; the sender's table may be the older one."""
    bench.from_peer(PEER_B, ELSEWHERE, BROADCAST)
    assert bench.from_peer(PEER_A, THERE, ELSEWHERE) is None
    assert bench.from_peer(PEER_A, THERE, BROADCAST) is None


def test_frame_between_two_stations_of_this_side_is_filtered(bench: Bench) -> None:
    bench.from_tap(THERE, BROADCAST)
    assert bench.from_tap(HERE, THERE) is DropReason.LOCAL_DESTINATION


def test_frame_to_its_own_source_is_filtered(bench: Bench) -> None:
    assert bench.from_tap(HERE, HERE) is DropReason.LOCAL_DESTINATION


def test_filtered_frame_has_taught_its_source_all_the_same(bench: Bench) -> None:
    bench.from_tap(THERE, BROADCAST)
    bench.from_tap(HERE, THERE)
    assert bench.fdb.lookup(station_key(HERE, 0), 0.0) == LOCAL


# -- moving and ageing ---------------------------------------------------------------------------------------------------


def test_station_that_moved_between_peers_is_found_at_the_new_one_with_its_first_frame(bench: Bench) -> None:
    bench.from_peer(PEER_A, THERE, BROADCAST)
    bench.from_peer(PEER_B, THERE, BROADCAST)
    assert bench.from_tap(HERE, THERE) == PEER_B
    assert bench.switch.moves == [(THERE, PEER_A, PEER_B)]


def test_station_that_moved_here_is_filtered_at_once(bench: Bench) -> None:
    bench.from_peer(PEER_A, THERE, BROADCAST)
    bench.from_tap(THERE, BROADCAST)
    assert bench.from_tap(HERE, THERE) is DropReason.LOCAL_DESTINATION
    assert bench.switch.moves == [(THERE, PEER_A, LOCAL)]


def test_station_that_left_this_side_is_followed_to_its_peer(bench: Bench) -> None:
    bench.from_tap(THERE, BROADCAST)
    bench.from_peer(PEER_A, THERE, BROADCAST)
    assert bench.from_tap(HERE, THERE) == PEER_A


def test_expired_entry_between_sweeps_is_flooded_again(bench: Bench) -> None:
    bench.from_peer(PEER_A, THERE, BROADCAST)
    bench.now = AGEING - 0.1
    assert bench.from_tap(HERE, THERE) == PEER_A
    bench.now = AGEING
    assert bench.from_tap(HERE, THERE) is FLOOD


def test_being_sent_to_does_not_keep_a_station_alive(bench: Bench) -> None:
    bench.from_peer(PEER_A, THERE, BROADCAST)
    for bench.now in range(0, 300, 10):
        bench.from_tap(HERE, THERE)
    bench.now = AGEING
    assert bench.from_tap(HERE, THERE) is FLOOD


# -- VLANs ---------------------------------------------------------------------------------------------------------------


def test_vlans_are_kept_apart(bench: Bench) -> None:
    bench.from_peer(PEER_A, THERE, BROADCAST, c_tag(7))
    assert bench.from_tap(HERE, THERE, c_tag(7)) == PEER_A
    assert bench.from_tap(HERE, THERE, c_tag(8)) is FLOOD
    assert bench.from_tap(HERE, THERE, c_tag(0x107)) is FLOOD
    assert bench.from_tap(HERE, THERE) is FLOOD


def test_one_address_in_two_vlans_is_two_stations(bench: Bench) -> None:
    bench.from_peer(PEER_A, THERE, BROADCAST, c_tag(7))
    bench.from_peer(PEER_B, THERE, BROADCAST, c_tag(8))
    assert bench.from_tap(HERE, THERE, c_tag(7)) == PEER_A
    assert bench.from_tap(HERE, THERE, c_tag(8)) == PEER_B
    assert bench.switch.moves == []


@pytest.mark.parametrize("priority", [0, 5, 7])
def test_vid_0_tag_is_untagged(bench: Bench, priority: int) -> None:
    """A priority tag (802.1Q, table 9-2) says nothing of a VLAN."""
    bench.from_peer(PEER_A, THERE, BROADCAST, c_tag(0, priority))
    assert bench.from_tap(HERE, THERE) == PEER_A
    bench.from_peer(PEER_B, ELSEWHERE, BROADCAST)
    assert bench.from_tap(HERE, ELSEWHERE, c_tag(0, priority)) == PEER_B


def test_priority_and_drop_bit_are_no_part_of_the_vlan(bench: Bench) -> None:
    bench.from_peer(PEER_A, THERE, BROADCAST, c_tag(7))
    assert bench.from_tap(HERE, THERE, b"\x81\x00\xf0\x07") == PEER_A


def test_service_tag_names_a_vlan_too(bench: Bench) -> None:
    bench.from_peer(PEER_A, THERE, BROADCAST, b"\x88\xa8\0\x07")
    assert bench.from_tap(HERE, THERE, b"\x88\xa8\0\x07") == PEER_A
    assert bench.from_tap(HERE, THERE) is FLOOD


def test_outer_tag_decides() -> None:
    assert vlan_id(frame(HERE, THERE, b"\x88\xa8\0\x63" + c_tag(7))) == 0x63
    assert vlan_id(frame(HERE, THERE)) == 0
    assert vlan_id(frame(HERE, THERE, b"\x91\x00\0\x07")) == 0  # a TPID that 802.1Q does not know


def test_tag_cut_off_after_its_tpid_is_vlan_0() -> None:
    assert vlan_id(plain(THERE + HERE + b"\x81\x00")) == 0


# -- what is refused -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("last", range(1, 16))
def test_reserved_address_is_dropped_in_both_directions_and_teaches_nothing(bench: Bench, last: int) -> None:
    reserved = bytes.fromhex("0180c20000") + bytes([last])
    assert bench.from_tap(HERE, reserved) is DropReason.RESERVED_ADDRESS
    assert bench.from_peer(PEER_A, THERE, reserved) is DropReason.RESERVED_ADDRESS
    assert len(bench.fdb) == 0


@pytest.mark.parametrize("address", ["0180c2000000", "0180c2000010", "0180c2000021", "0180c2000100"])
def test_bpdu_and_the_addresses_next_to_the_reserved_ones_pass(bench: Bench, address: str) -> None:
    """01:80:c2:00:00:00 is a BPDU, which a bridge with STP off forwards; ..10 and up are ordinary multicast."""
    destination = bytes.fromhex(address)
    assert not is_reserved(destination)
    assert bench.from_tap(HERE, destination) is FLOOD
    assert bench.from_peer(PEER_A, THERE, destination) is None


@pytest.mark.parametrize("source", [BROADCAST, MULTICAST, ALL_NODES, bytes.fromhex("010000000000"), bytes(6)])
def test_group_or_zero_source_is_dropped_in_both_directions_and_never_learned(
    bench: Bench, source: bytes
) -> None:
    assert is_group(source) or source == bytes(6)
    assert bench.from_tap(source, THERE) is DropReason.GROUP_SOURCE
    assert bench.from_peer(PEER_A, source, HERE) is DropReason.GROUP_SOURCE
    assert len(bench.fdb) == 0


def test_own_address_from_a_peer_is_spoofed_and_stays_ours(bench: Bench) -> None:
    bench.from_tap(OWN_BRIDGE, BROADCAST)
    assert bench.from_peer(PEER_A, OWN_BRIDGE, BROADCAST) is DropReason.SPOOFED_STATION
    assert bench.from_peer(PEER_A, OWN_BRIDGE, BROADCAST, c_tag(7)) is DropReason.SPOOFED_STATION
    assert bench.from_tap(HERE, OWN_BRIDGE) is DropReason.LOCAL_DESTINATION


def test_static_station_never_moves_and_is_not_heard_elsewhere(bench: Bench) -> None:
    bench.fdb.add_static(station_key(THERE, 0), PEER_A, 0.0)
    assert bench.from_peer(PEER_B, THERE, HERE) is DropReason.SPOOFED_STATION
    assert bench.from_tap(THERE, BROADCAST) is DropReason.SPOOFED_STATION
    assert bench.from_peer(PEER_A, THERE, HERE) is None
    bench.now = 1e6
    assert bench.from_tap(HERE, THERE) == PEER_A
    assert bench.switch.moves == []


def test_static_address_belongs_to_its_station_in_every_vlan(bench: Bench) -> None:
    bench.fdb.add_static(station_key(THERE, 0), PEER_A, 0.0)
    assert bench.from_peer(PEER_B, THERE, HERE, c_tag(7)) is DropReason.SPOOFED_STATION
    assert bench.from_peer(PEER_A, THERE, HERE, c_tag(7)) is None
    assert bench.from_peer(PEER_B, ELSEWHERE, HERE, c_tag(7)) is None


@pytest.mark.parametrize("tag", [b"", c_tag(7)], ids=["untagged", "tagged"])
def test_frozen_station_is_named_frozen_and_not_spoofed(bench: Bench, tag: bytes) -> None:
    for bench.now in range(6):
        verdict = bench.from_peer(PEER_B if bench.now % 2 else PEER_A, THERE, HERE, tag)
    assert verdict is DropReason.FROZEN_STATION
    assert bench.from_peer(PEER_B, THERE, HERE, tag) is DropReason.FROZEN_STATION
    assert bench.from_peer(PEER_A, THERE, HERE, tag) is None


def test_frame_for_a_static_station_goes_to_its_peer_in_a_vlan_in_which_it_never_sent(bench: Bench) -> None:
    bench.fdb.add_static(station_key(THERE, 0), PEER_A, 0.0)
    assert bench.from_tap(HERE, THERE, c_tag(5)) == PEER_A
    assert bench.from_tap(HERE, ELSEWHERE, c_tag(5)) is FLOOD


def test_frame_for_a_static_station_of_this_side_is_not_flooded_in_any_vlan(bench: Bench) -> None:
    bench.fdb.add_static(station_key(HERE, 0), LOCAL, 0.0)
    assert bench.from_tap(ELSEWHERE, HERE, c_tag(5)) is DropReason.LOCAL_DESTINATION
    assert not bench.switch.is_flooded(frame(THERE, HERE, c_tag(5)), 0.0)


def test_learned_station_is_known_in_its_own_vlan_only(bench: Bench) -> None:
    bench.from_peer(PEER_A, THERE, HERE)
    assert bench.from_tap(HERE, THERE) == PEER_A
    assert bench.from_tap(HERE, THERE, c_tag(5)) is FLOOD


def test_static_station_of_this_side_is_not_heard_from_a_peer(bench: Bench) -> None:
    bench.fdb.add_static(station_key(HERE, 0), LOCAL, 0.0)
    assert bench.from_peer(PEER_A, HERE, BROADCAST) is DropReason.SPOOFED_STATION
    assert bench.from_tap(HERE, BROADCAST) is FLOOD


# -- reserved addresses -------------------------------------------------------------------------------------------------


def to_neighbour(kind: bytes, end: int) -> TapFrame:
    return plain(bytes.fromhex("0180c20000") + bytes([end]) + HERE + kind + bytes(46))


@pytest.mark.parametrize("name", RESERVED_PROTOCOLS)
def test_a_reserved_protocol_passes_both_ways_only_when_it_is_named(bench: Bench, name: str) -> None:
    ethertype, ends = RESERVED_PROTOCOLS[name]
    for end in ends:
        sent = to_neighbour(ethertype, end)
        assert bench.switch.forward_from_tap(sent, 0.0) is DropReason.RESERVED_ADDRESS
        assert bench.switch.forward_from_peer(sent, PEER_A, 0.0) is DropReason.RESERVED_ADDRESS
    bench.switch.reserved_passes = neighbourly([name])
    for end in ends:
        assert bench.switch.forward_from_tap(to_neighbour(ethertype, end), 0.0) is FLOOD
        assert bench.switch.forward_from_peer(to_neighbour(ethertype, end), PEER_A, 1.0) is None


def test_what_is_not_named_stays_out_and_pause_frames_always_do(bench: Bench) -> None:
    bench.switch.reserved_passes = neighbourly(RESERVED_PROTOCOLS)
    for sent in (to_neighbour(b"\x88\x08", 1), to_neighbour(b"\x88\xcc", 1), to_neighbour(b"\x08\x00", 0x0E)):
        assert bench.switch.forward_from_tap(sent, 0.0) is DropReason.RESERVED_ADDRESS
    bench.switch.reserved_passes = neighbourly(["eapol"])
    assert bench.switch.forward_from_tap(to_neighbour(b"\x88\xcc", 3), 0.0) is DropReason.RESERVED_ADDRESS
