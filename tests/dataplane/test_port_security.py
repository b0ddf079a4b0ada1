"""Port security as sentences: whose address is whose, how many, how restless, and who does not talk to whom."""

from l2overlay.addresses import MacAddress, PeerKey, parse_mac
from l2overlay.config.types import Config, Learn, Party, PeerConfig, ProtectConfig, SegmentConfig
from l2overlay.counters import DropReason
from l2overlay.dataplane.ethernet import BROADCAST, station_key
from l2overlay.dataplane.fdb import LOCAL, FilteringDatabase, Port
from l2overlay.dataplane.protect.port_security import (
    FREEZE_TIME,
    MAX_MOVERS,
    MOVE_LIMIT,
    MOVE_WINDOW,
    Freeze,
    MoveDamping,
    PortRules,
    PortSecurity,
    isolated_peers,
    port_security,
)
from l2overlay.dataplane.reserved import neighbourly
from l2overlay.dataplane.switch import FLOOD, Switch
from tests.frames import frame

A, B, OWN = Port(b"A" * 32), Port(b"B" * 32), PeerKey(b"O" * 32)
ONE, TWO, THREE = (parse_mac(f"52:54:00:00:00:0{n}") for n in (1, 2, 3))
VLAN_5 = b"\x81\x00\x00\x05"


def switch(**rules: PortRules) -> Switch:
    made = Switch(FilteringDatabase(300.0))
    made.security = PortSecurity({{"a": A, "b": B, "own": LOCAL}[name]: rule for name, rule in rules.items()})
    return made


# -- moves ---------------------------------------------------------------------------------------------------------


def flap(made: Switch, times: int, start: float = 0.0, every: float = 1.0) -> list[DropReason | None]:
    """ONE is heard at A and at B by turns."""
    return [made.forward_from_peer(frame(ONE), B if n % 2 else A, start + n * every) for n in range(times)]


def test_the_fifth_move_in_ten_seconds_freezes_a_station_where_it_was() -> None:
    made = Switch(FilteringDatabase(300.0))
    verdicts = flap(made, MOVE_LIMIT + 1)
    assert verdicts[:MOVE_LIMIT] == [None] * MOVE_LIMIT
    assert verdicts[MOVE_LIMIT] is DropReason.FROZEN_STATION
    assert made.freezes == [Freeze(station_key(ONE, 0), A, B)]
    assert len(made.moves) == MOVE_LIMIT - 1
    assert made.fdb.lookup(station_key(ONE, 0), 6.0) == A


def test_a_frozen_station_is_heard_where_it_is_and_nowhere_else_for_a_minute() -> None:
    made = Switch(FilteringDatabase(300.0))
    flap(made, MOVE_LIMIT + 1)
    frozen_at = float(MOVE_LIMIT)
    assert made.forward_from_peer(frame(ONE), A, 30.0) is None
    assert made.forward_from_tap(frame(ONE), 30.0) is DropReason.FROZEN_STATION
    assert made.forward_from_peer(frame(ONE), B, frozen_at + FREEZE_TIME - 0.1) is DropReason.FROZEN_STATION
    assert made.forward_from_peer(frame(ONE), B, frozen_at + FREEZE_TIME) is None
    assert made.fdb.lookup(station_key(ONE, 0), frozen_at + FREEZE_TIME) == B
    assert len(made.freezes) == 1


def test_a_station_that_moves_slowly_is_never_frozen() -> None:
    made = Switch(FilteringDatabase(300.0))
    pace = MOVE_WINDOW / (MOVE_LIMIT - 1)
    assert flap(made, 50, every=pace) == [None] * 50
    assert made.freezes == []


def test_a_flush_of_its_port_thaws_a_station() -> None:
    made = Switch(FilteringDatabase(300.0))
    flap(made, MOVE_LIMIT + 1)
    made.fdb.flush(A)
    assert made.forward_from_peer(frame(ONE), B, 6.0) is None


def test_another_station_is_not_touched_by_a_freeze() -> None:
    made = Switch(FilteringDatabase(300.0))
    flap(made, MOVE_LIMIT + 1)
    assert made.forward_from_peer(frame(TWO), B, 6.0) is None


def test_the_memory_of_moves_is_bounded() -> None:
    damping = MoveDamping()
    for n in range(MAX_MOVERS + 10):
        damping.moved(station_key(n.to_bytes(6, "big"), 0), A, B, 0.0)
    assert len(damping._movers) == MAX_MOVERS


# -- learn, max_macs, macs -------------------------------------------------------------------------------------------


def test_with_learn_off_only_static_stations_may_send_and_in_every_vlan() -> None:
    made = switch(a=PortRules(Learn.OFF))
    made.fdb.add_static(station_key(ONE, 0), A, 0.0)
    assert made.forward_from_peer(frame(ONE), A, 1.0) is None
    assert made.forward_from_peer(frame(ONE, tag=VLAN_5), A, 1.0) is None
    assert made.forward_from_peer(frame(TWO), A, 1.0) is DropReason.UNKNOWN_STATION
    assert made.fdb.lookup(station_key(TWO, 0), 1.0) is None
    assert made.forward_from_peer(frame(TWO), B, 1.0) is None


def test_nobody_else_may_use_a_static_address_in_any_vlan() -> None:
    made = Switch(FilteringDatabase(300.0))
    made.fdb.add_static(station_key(ONE, 0), A, 0.0)
    assert made.forward_from_peer(frame(ONE), B, 1.0) is DropReason.SPOOFED_STATION
    assert made.forward_from_peer(frame(ONE, tag=VLAN_5), B, 1.0) is DropReason.SPOOFED_STATION
    assert made.forward_from_tap(frame(ONE, tag=VLAN_5), 1.0) is DropReason.SPOOFED_STATION


def test_one_station_more_than_max_macs_is_refused_until_another_has_gone() -> None:
    made = switch(a=PortRules(max_macs=2))
    assert [made.forward_from_peer(frame(mac), A, 0.0) for mac in (ONE, TWO)] == [None, None]
    assert made.forward_from_peer(frame(THREE), A, 0.0) is DropReason.STATION_LIMIT
    assert made.forward_from_peer(frame(ONE), A, 200.0) is None, "who is there already is never refused"
    made.fdb.sweep(400.0)
    assert made.forward_from_peer(frame(THREE), A, 400.0) is None


def test_the_rules_of_our_own_stanza_hold_for_the_tap() -> None:
    made = switch(own=PortRules(max_macs=1))
    assert made.forward_from_tap(frame(ONE), 0.0) is FLOOD
    assert made.forward_from_tap(frame(TWO), 0.0) is DropReason.STATION_LIMIT


def test_a_station_learned_at_a_locked_port_never_ages_and_never_moves() -> None:
    made = switch(a=PortRules(Learn.LOCKED, 1))
    assert made.forward_from_peer(frame(ONE), A, 0.0) is None
    assert made.forward_from_peer(frame(TWO), A, 0.0) is DropReason.STATION_LIMIT
    made.fdb.flush(A)
    made.fdb.sweep(1e6)
    assert made.forward_from_peer(frame(ONE), B, 1e6) is DropReason.SPOOFED_STATION
    assert made.forward_from_peer(frame(ONE), A, 1e6) is None


def test_a_locked_port_cannot_lock_what_is_elsewhere() -> None:
    made = switch(a=PortRules(Learn.LOCKED, 9))
    made.forward_from_peer(frame(ONE), B, 0.0)
    assert made.forward_from_peer(frame(ONE), A, 1.0) is None
    assert made.forward_from_peer(frame(ONE), B, 2.0) is None, "it moved to A as any station moves, and back"


def test_a_new_configuration_keeps_what_is_still_locked_and_frees_the_rest() -> None:
    made = switch(a=PortRules(Learn.LOCKED, 9), b=PortRules(Learn.LOCKED, 9))
    made.forward_from_peer(frame(ONE), A, 0.0)
    made.forward_from_peer(frame(TWO), B, 0.0)
    old, new = made.security, PortSecurity({A: PortRules(Learn.LOCKED, 9)})
    assert old is not None
    new.inherit(old, made.fdb, 10.0)
    made.security = new
    assert made.forward_from_tap(frame(ONE), 11.0) is DropReason.SPOOFED_STATION
    assert made.forward_from_tap(frame(TWO), 11.0) is FLOOD


# -- isolation -------------------------------------------------------------------------------------------------------


def test_isolated_stations_do_not_reach_each_other_and_reach_everybody_else() -> None:
    made = Switch(FilteringDatabase(300.0))
    made.security = PortSecurity(apart_macs=frozenset({ONE, TWO}))
    made.forward_from_peer(frame(TWO), A, 0.0)
    made.forward_from_peer(frame(THREE), A, 0.0)
    assert made.forward_from_tap(frame(ONE, TWO), 1.0) is DropReason.ISOLATED
    assert made.forward_from_tap(frame(ONE, THREE), 1.0) == A
    assert made.forward_from_tap(frame(THREE, TWO), 1.0) == A
    assert made.forward_from_peer(frame(TWO, ONE), A, 1.0) is DropReason.ISOLATED
    assert made.forward_from_peer(frame(TWO, BROADCAST), A, 1.0) is None


def test_an_isolated_station_does_not_reach_those_behind_an_isolated_peer() -> None:
    made = Switch(FilteringDatabase(300.0))
    made.security = PortSecurity(apart_ports=frozenset({A}), apart_macs=frozenset({ONE}))
    made.forward_from_peer(frame(THREE), A, 0.0)
    assert made.forward_from_tap(frame(ONE, THREE), 1.0) is DropReason.ISOLATED
    assert made.forward_from_peer(frame(THREE, ONE), A, 1.0) is DropReason.ISOLATED
    assert made.forward_from_tap(frame(TWO, THREE), 1.0) == A


# -- spanning tree and LLDP ---------------------------------------------------------------------------------------


def test_bpdus_pass_unless_they_are_to_be_dropped_and_lldp_the_other_way_round() -> None:
    made = Switch(FilteringDatabase(300.0))
    bpdu, pvst = bytes.fromhex("0180c2000000"), bytes.fromhex("01000ccccccd")
    lldp = frame(ONE, bytes.fromhex("0180c200000e"), kind=b"\x88\xcc")
    pause = frame(ONE, bytes.fromhex("0180c2000001"), kind=b"\x88\x08")
    assert made.forward_from_tap(frame(ONE, bpdu), 0.0) is FLOOD
    assert made.forward_from_tap(frame(ONE, pvst), 0.0) is FLOOD
    assert made.forward_from_tap(lldp, 0.0) is DropReason.RESERVED_ADDRESS
    made.bpdu_passes, made.reserved_passes = False, neighbourly(["lldp"])
    assert made.forward_from_tap(frame(ONE, bpdu), 0.0) is DropReason.BPDU_REFUSED
    assert made.forward_from_peer(frame(ONE, pvst), A, 0.0) is DropReason.BPDU_REFUSED
    assert made.forward_from_tap(lldp, 0.0) is FLOOD
    assert made.forward_from_tap(pause, 0.0) is DropReason.RESERVED_ADDRESS


# -- from the configuration ------------------------------------------------------------------------------------------


def configured(protect: ProtectConfig | None, *peers: PeerConfig) -> Config:
    return Config(SegmentConfig("lan", "br-lan", "tap-lan"), peers, protect=protect)


def test_a_configuration_that_asks_for_nothing_costs_nothing() -> None:
    assert port_security(configured(ProtectConfig(), PeerConfig("a", PeerKey(A))), OWN) is None


def test_our_own_name_means_the_tap() -> None:
    isolation = Party(frozenset({OWN, PeerKey(A)}), frozenset({MacAddress(ONE)}))
    config = configured(
        ProtectConfig(isolation=isolation), PeerConfig("own", OWN, max_macs=5), PeerConfig("a", PeerKey(A))
    )
    made = port_security(config, OWN)
    assert made is not None
    assert made.rules == {LOCAL: PortRules(Learn.ON, 5)}
    assert made.apart_ports == {LOCAL, A}
    assert isolated_peers(config, OWN) == {A}
    assert isolated_peers(config, PeerKey(B)) == set()
