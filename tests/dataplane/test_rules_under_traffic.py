"""Every key of `[[peers]]` and `[protect]` that judges frames: a reload holds for the next frame of a flow that is known.

The flow runs before the reload, so the station is in the FDB and its addresses are a microflow.
"""

from dataclasses import fields, replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from l2overlay.addresses import MacAddress
from l2overlay.config.tables import PeerTable, ProtectTable
from l2overlay.config.types import (
    Config,
    Learn,
    Party,
    PeerConfig,
    ProtectConfig,
    SegmentConfig,
    StormConfig,
    StormLimit,
)
from l2overlay.dataplane.fdb import LOCAL
from l2overlay.dataplane.protect.snooping import BINDING_TIME
from l2overlay.keys import public_key

from .insider import INSIDER_KEY, NODE_KEY, Meeting
from .test_inbox import frame_record

ROOT = Path(__file__).parents[2]
HERE, THERE = MacAddress(bytes.fromhex("52540000bb01")), MacAddress(bytes.fromhex("52540000bb02"))
UNICAST = HERE + THERE + b"\x08\x00" + b"a frame".ljust(46)
ARP = (
    HERE
    + THERE
    + bytes.fromhex("0806 0001 0800 06 04 0002")
    + THERE
    + b"\x0a\0\0\x07"
    + HERE
    + b"\x0a\0\0\x01"
)
BPDU = bytes.fromhex("0180c2000000") + THERE + b"\x00\x26" + b"\x42\x42\x03".ljust(46)
LLDP = bytes.fromhex("0180c200000e") + THERE + b"\x88\xcc" + bytes(46)
BROADCAST = b"\xff" * 6 + THERE + b"\x08\x00" + bytes(46)
DHCP = (
    HERE + THERE + b"\x08\x00" + bytes.fromhex("4500 0124 0000 0000 40 11 0000") + b"\x0a\0\0\x02\x0a\0\0\x01"
    + bytes.fromhex("0043 0044 0110 0000") + b"\x02".ljust(264, b"\0")
)  # fmt: skip
ADVERTISEMENT = (
    bytes.fromhex("333300000001") + THERE + b"\x86\xdd" + bytes.fromhex("6000 0000 0010 3a ff")
    + bytes.fromhex("fe80") + bytes(13) + b"\x02" + bytes.fromhex("ff02") + bytes(13) + b"\x01"
    + bytes.fromhex("8600 0000 40 00 0708") + bytes(8)
)  # fmt: skip
ACK = (
    DHCP[:42] + b"\x02\x01\x06" + DHCP[45:58] + b"\x0a\0\0\x07" + DHCP[62:70] + THERE + DHCP[76:278]
    + bytes.fromhex("63825363 350105 3304 00015180 ff")
)  # fmt: skip
NOBODY, INSIDERS = Party(), Party(peers=frozenset([INSIDER_KEY]))
TIGHT = StormConfig(broadcast=StormLimit(1, 1500, 0.001))


def config(peer: dict[str, Any] | None = None, protect: dict[str, Any] | None = None) -> Config:
    plain = SegmentConfig("lan", "br-lan", "tap-lan", mtu=1500)
    insider = replace(PeerConfig("insider", INSIDER_KEY), **(peer or {}))
    return Config(plain, (PeerConfig("node", NODE_KEY), insider), None, ProtectConfig(**(protect or {})))


CASES: list[tuple[str, dict[str, Any], bytes, str]] = [
    ("learn", {"learn": Learn.OFF}, UNICAST, "unknown_station"),
    ("dhcp_servers", {"dhcp_servers": NOBODY}, DHCP, "rogue_dhcp"),
    ("router_advertisements", {"router_advertisements": NOBODY}, ADVERTISEMENT, "rogue_router"),
    ("ethertypes_allow", {"ethertypes_allow": frozenset([0x0806])}, UNICAST, "ethertype_refused"),
    ("ethertypes_deny", {"ethertypes_deny": frozenset([0x0800])}, UNICAST, "ethertype_refused"),
    ("bpdu_passes", {"bpdu_passes": False}, BPDU, "bpdu_refused"),
    ("isolation", {"isolation": Party(macs=frozenset([HERE, THERE]))}, UNICAST, "isolated"),
    ("reserved_passes", {"reserved_passes": frozenset()}, LLDP, "reserved_address"),
    (
        "bindings",
        {"arp_spoof_guard": True, "bindings": {HERE: (ip_address("10.0.0.7"),)}},
        ARP,
        "spoofed_address",
    ),
    ("arp_spoof_guard", {"arp_spoof_guard": True}, ARP[:27] + b"\x77" + ARP[28:], "spoofed_address"),
    ("storm", {"storm": TIGHT}, BROADCAST, "storm_broadcast"),
    ("isolation", {"isolation": Party(peers=frozenset([NODE_KEY, INSIDER_KEY]))}, UNICAST, "isolated"),
]


SIMULATED = "tests/sim/test_reload.py::"
OTHERS = {
    "macs": "test_station_that_a_reload_puts_elsewhere_is_refused_and_found_there_at_once",
    "max_macs": "test_port_whose_max_macs_a_reload_lowers_keeps_those_that_were_heard_last",
    "loop_guard": "tests/sim/test_loops.py::"
    "test_turning_the_guard_off_opens_the_link_and_turning_it_on_closes_it_again",
    "endpoint": SIMULATED
    + "test_a_live_peer_is_asked_at_its_new_endpoint_at_once_and_traffic_moves_when_it_answers",
    "persistent_keepalive": SIMULATED
    + "test_keepalives_that_are_switched_on_begin_and_those_switched_off_end",
    "name": "test_name_that_a_reload_changes_is_told_at_once_and_costs_no_frame",
    "uplink": "tests/host/test_gateway.py::test_a_reload_adds_the_gateway_changes_it_and_takes_it_away",
    "public_key": "test_frames_under_a_key_that_a_reload_takes_away_are_refused_at_once",
}
"""Keys that `CASES` does not have, and the test that shows them."""
FIELDS = {
    "bpdu": "bpdu_passes",
    "lldp": "reserved_passes",
    "reserved": "reserved_passes",
    "storm_control": "storm",
}
"""Keys of the file that are another field of the configuration."""


def test_every_key_of_a_peer_and_of_protect_is_tried() -> None:
    keys = PeerTable.model_fields.keys() | ProtectTable.model_fields.keys()
    tried = {case[0] for case in CASES} | OTHERS.keys()
    assert {FIELDS.get(key, key) for key in keys} == tried


@pytest.mark.parametrize("where", OTHERS.values(), ids=OTHERS.keys())
def test_test_that_shows_a_key_is_there(where: str) -> None:
    file, _, name = where.rpartition("::")
    text = (ROOT / file if file else Path(__file__)).read_text()
    assert f"def {name}(" in text


def base() -> Config:
    """What lets everything pass."""
    return config(protect={"reserved_passes": frozenset(["lldp"]), "storm": None})


def send(meeting: Meeting, frame: bytes) -> bool:
    """Whether a frame of the peer reaches the TAP."""
    return bool(meeting.say(frame_record(frame)))


def from_tap(meeting: Meeting, frame: bytes) -> None:
    meeting.read_from_tap(bytes(10) + frame)


def leaves(meeting: Meeting, frame: bytes) -> bool:
    """Whether a frame of the TAP is sent."""
    before = meeting.counters().tx_frames
    from_tap(meeting, frame)
    return meeting.counters().tx_frames > before


@pytest.mark.parametrize(
    ("key", "changes", "frame", "reason"),
    CASES,
    ids=[f"{case[0]}-{case[3]}-{i}" for i, case in enumerate(CASES)],
)
def test_refusal_that_comes_by_reload_holds_for_the_next_frame_and_its_end_too(
    key: str, changes: dict[str, Any], frame: bytes, reason: str
) -> None:
    meeting = Meeting()
    of_peer = key in {field.name for field in fields(PeerConfig)}
    new = config(peer=changes) if of_peer else config(protect=changes)
    meeting.node.reconfigure(base(), meeting.now)
    assert [send(meeting, frame) for _ in range(30)] == [True] * 30
    meeting.node.reconfigure(new, meeting.now)
    passed = [send(meeting, frame) for _ in range(30)]
    if key == "storm":  # so many pass in any case
        assert not passed[-1]
    else:
        assert not any(passed)
    assert meeting.drops() == {reason: passed.count(False)}
    meeting.node.reconfigure(base(), meeting.now)
    assert send(meeting, frame)


@pytest.mark.parametrize(
    ("key", "changes", "frame", "reason"),
    [case for case in CASES if case[0] in {field.name for field in fields(ProtectConfig)}],
)
def test_refusal_that_comes_by_reload_holds_on_the_way_out_of_the_tap_too(
    key: str, changes: dict[str, Any], frame: bytes, reason: str
) -> None:
    meeting = Meeting()
    if key == "bindings":
        changes = changes | {"bindings": {THERE: changes["bindings"][HERE]}}
    frame = frame.replace(HERE, bytes(6)).replace(THERE, HERE).replace(bytes(6), THERE, 1)
    meeting.node.reconfigure(base(), meeting.now)
    assert send(meeting, UNICAST)
    assert [leaves(meeting, frame) for _ in range(30)] == [True] * 30
    meeting.node.reconfigure(config(protect=changes), meeting.now)
    passed = [leaves(meeting, frame) for _ in range(30)]
    assert not (passed[-1] if key == "storm" else any(passed))
    assert meeting.drops() == {reason: passed.count(False)}
    meeting.node.reconfigure(base(), meeting.now)
    assert leaves(meeting, frame)


def test_name_that_a_reload_changes_is_told_at_once_and_costs_no_frame() -> None:
    meeting = Meeting()
    assert send(meeting, UNICAST)
    meeting.node.reconfigure(config(peer={"name": "renamed"}), meeting.now)
    assert meeting.node.peers(meeting.now)[0].name == "renamed"
    assert send(meeting, UNICAST)
    assert leaves(meeting, THERE + HERE + UNICAST[12:])
    assert meeting.drops() == {}


def test_frames_under_a_key_that_a_reload_takes_away_are_refused_at_once() -> None:
    meeting = Meeting()
    assert send(meeting, UNICAST)
    meeting.node.reconfigure(config(peer={"public_key": public_key(b"\x09" * 32)}), meeting.now)
    assert not send(meeting, UNICAST)
    assert not leaves(meeting, THERE + HERE + UNICAST[12:])
    assert meeting.drops() == {"unknown_session": 1, "no_peer": 1}


GUARDED = {"arp_spoof_guard": True}
OTHER_ARP = THERE + HERE + ARP[12:22] + HERE + ARP[28:]
"""Another station claims the same address."""


def test_address_that_was_claimed_is_free_for_the_station_to_which_a_reload_gives_it() -> None:
    meeting = Meeting()
    meeting.node.reconfigure(config(protect=GUARDED), meeting.now)
    assert send(meeting, ARP)
    assert not leaves(meeting, OTHER_ARP)
    bound = GUARDED | {"bindings": {HERE: (ip_address("10.0.0.7"),)}}
    meeting.node.reconfigure(config(protect=bound), meeting.now)
    assert not send(meeting, ARP)
    assert leaves(meeting, OTHER_ARP)
    assert meeting.drops() == {"spoofed_address": 2}


def test_address_that_was_claimed_behind_a_peer_is_free_when_a_reload_removes_the_peer() -> None:
    meeting = Meeting()
    meeting.node.reconfigure(config(protect=GUARDED), meeting.now)
    assert send(meeting, ARP)
    without = config(protect=GUARDED)
    meeting.node.reconfigure(replace(without, peers=without.peers[:1]), meeting.now)
    assert not leaves(meeting, OTHER_ARP)
    assert meeting.drops() == {"no_peer": 1}


def test_lease_of_a_server_that_a_reload_no_longer_trusts_holds_no_longer_than_a_claim() -> None:
    meeting = Meeting()
    meeting.node.reconfigure(config(protect=GUARDED | {"dhcp_servers": INSIDERS}), meeting.now)
    assert send(meeting, ACK)
    assert not leaves(meeting, OTHER_ARP)
    meeting.node.reconfigure(config(protect=GUARDED | {"dhcp_servers": NOBODY}), meeting.now)
    assert not leaves(meeting, OTHER_ARP)
    guard = meeting.node._protection.guards
    assert guard is not None
    assert guard.bindings is not None
    assert not guard.bindings.allows(OTHER_ARP[28:32], HERE, LOCAL, meeting.now + BINDING_TIME - 1)
    assert guard.bindings.allows(OTHER_ARP[28:32], HERE, LOCAL, meeting.now + BINDING_TIME)


@pytest.mark.parametrize("tag", [b"", b"\x81\x00\x00\x05"])
def test_station_that_a_reload_puts_elsewhere_is_refused_and_found_there_at_once(tag: bytes) -> None:
    meeting = Meeting()
    assert send(meeting, UNICAST[:12] + tag + UNICAST[12:])
    new = config()
    own, insider = new.peers
    meeting.node.reconfigure(replace(new, peers=(replace(own, macs=(THERE,)), insider)), meeting.now)
    assert not send(meeting, UNICAST[:12] + tag + UNICAST[12:])
    assert meeting.drops() == {"spoofed_station": 1}
    from_tap(meeting, THERE + HERE + tag + UNICAST[12:])
    assert meeting.drops() == {"spoofed_station": 1, "local_destination": 1}


def test_port_whose_max_macs_a_reload_lowers_keeps_those_that_were_heard_last() -> None:
    meeting = Meeting()
    frames = [UNICAST[:11] + bytes([n]) + UNICAST[12:] for n in range(10, 15)]
    assert [send(meeting, frame) for frame in frames] == [True] * 5
    meeting.node.reconfigure(config(peer={"max_macs": 2}), meeting.now)
    assert [send(meeting, frame) for frame in frames] == [False] * 3 + [True] * 2
    assert meeting.drops() == {"station_limit": 3}


def test_station_that_is_known_when_a_reload_locks_its_port_cannot_move() -> None:
    meeting = Meeting()
    assert send(meeting, UNICAST)
    meeting.node.reconfigure(config(peer={"learn": Learn.LOCKED}), meeting.now)
    from_tap(meeting, HERE + THERE + UNICAST[12:])
    assert meeting.drops() == {"spoofed_station": 1}
    assert send(meeting, UNICAST)
    meeting.node.reconfigure(config(), meeting.now)
    from_tap(meeting, HERE + THERE + UNICAST[12:])
    assert meeting.drops() == {"spoofed_station": 1}


@pytest.mark.parametrize("learn", [Learn.ON, Learn.LOCKED])
def test_station_that_was_locked_or_learned_is_unknown_when_a_reload_ends_learning(learn: Learn) -> None:
    meeting = Meeting()
    meeting.node.reconfigure(config(peer={"learn": learn}), meeting.now)
    assert send(meeting, UNICAST)
    from_tap(meeting, THERE + HERE + UNICAST[12:])
    meeting.node.reconfigure(config(peer={"learn": Learn.OFF}), meeting.now)
    assert not send(meeting, UNICAST)
    assert meeting.drops() == {"unknown_station": 1}
