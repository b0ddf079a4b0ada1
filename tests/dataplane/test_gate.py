"""The gate between the switch and the kernel's rules: no frame is judged as another peer's."""

from functools import partial

import pytest

from l2overlay.addresses import MacAddress
from l2overlay.counters import DropReason
from l2overlay.dataplane.fdb import Port
from l2overlay.dataplane.gate import HELD, MAX_HELD, MAX_WAITING, FilterGate
from tests.frames import frame

BETA, GAMMA, DELTA = (Port(name * 32) for name in (b"b", b"g", b"d"))
STATION, GUEST = MacAddress(b"\x52\x54\x00\x00\x00\x01"), MacAddress(b"\x52\x54\x00\x00\x00\x02")
IPV4, ARP, VLAN, PPPOE = b"\x08\x00", b"\x08\x06", b"\x81\x00", b"\x88\x64"


from_station = partial(frame, source=STATION, destination=GUEST)


def gate(known: dict[MacAddress, Port] | None = None, *, out: bool = True) -> tuple[FilterGate, list[None]]:
    calls: list[None] = []
    made = FilterGate(lambda: calls.append(None))
    made.configure((BETA, GAMMA), known or {}, out=out, refuse_tagged=True)
    return made, calls


@pytest.mark.parametrize("kind", [IPV4, ARP])
def test_a_new_station_of_a_followed_peer_waits_until_the_kernel_knows_it(kind: bytes) -> None:
    it, calls = gate()
    assert it.admit_in(from_station(kind=kind), BETA) is HELD
    assert it.hold([from_station(kind=kind)], STATION, BETA) is None
    assert (it.waiting, len(calls)) == ({STATION: BETA}, 1)
    assert it.loaded({STATION: BETA}) == ([(BETA, [from_station(kind=kind)])], [])
    assert it.admit_in(from_station(kind=kind), BETA) is None


def test_one_list_is_asked_for_however_many_frames_wait() -> None:
    it, calls = gate()
    for _ in range(5):
        it.admit_in(from_station(), BETA)
    assert len(calls) == 1


def test_a_station_that_moved_waits_also_when_its_new_peer_is_in_no_rule() -> None:
    it, _ = gate({STATION: BETA})
    assert it.admit_in(from_station(), BETA) is None
    assert it.admit_in(from_station(), GAMMA) is HELD
    assert it.admit_in(from_station(), DELTA) is HELD
    assert it.waiting == {STATION: None}


def test_a_peer_in_no_rule_is_not_followed() -> None:
    it, calls = gate()
    assert it.admit_in(from_station(), DELTA) is None
    assert calls == []


def test_a_frame_of_a_station_that_moved_on_while_it_was_held_is_dropped() -> None:
    it, _ = gate()
    it.admit_in(from_station(), BETA)
    it.hold([b"old"], STATION, BETA)
    it.admit_in(from_station(), GAMMA)
    it.hold([b"new"], STATION, GAMMA)
    assert it.loaded({STATION: GAMMA}) == ([(GAMMA, [b"new"])], [(BETA, [b"old"])])


def test_what_came_while_a_list_was_written_waits_for_the_next() -> None:
    it, calls = gate()
    it.admit_in(from_station(), BETA)
    it.hold([b"one"], STATION, BETA)
    it.admit_in(from_station(source=GUEST), BETA)
    it.hold([b"two"], GUEST, BETA)
    calls.clear()
    assert it.loaded({STATION: BETA}) == ([(BETA, [b"one"])], [])
    assert len(calls) == 1
    assert it.loaded({STATION: BETA, GUEST: BETA}) == ([(BETA, [b"two"])], [])


def test_a_frame_to_a_station_that_the_kernel_has_elsewhere_was_judged_wrongly_and_is_dropped() -> None:
    it, calls = gate({GUEST: BETA})
    assert it.admit_out(from_station(), BETA) is None
    assert it.admit_out(from_station(), GAMMA) is DropReason.FILTER_PENDING
    assert len(calls) == 1


def test_ip_to_a_station_that_nobody_knows_is_dropped_and_arp_is_flooded() -> None:
    it, _ = gate()
    assert it.admit_out(from_station(), None) is DropReason.FILTER_PENDING
    assert it.admit_out(from_station(kind=ARP), None) is None
    assert it.admit_out(from_station(destination=b"\xff" * 6), None) is None


def test_without_rules_that_name_a_peer_outward_nothing_outward_waits() -> None:
    it, _ = gate(out=False)
    assert it.admit_out(from_station(), GAMMA) is None
    assert it.admit_out(from_station(), None) is None


@pytest.mark.parametrize("kind", [VLAN, PPPOE])
def test_what_iptables_does_not_look_into_is_dropped_unless_the_configuration_says_otherwise(
    kind: bytes,
) -> None:
    it, _ = gate()
    assert it.admit_in(from_station(kind=kind), DELTA) is DropReason.FILTER_TAGGED
    assert it.admit_out(from_station(kind=kind), DELTA) is DropReason.FILTER_TAGGED
    it.refuse_tagged = False
    assert it.admit_in(from_station(kind=kind), DELTA) is None
    assert it.admit_out(from_station(kind=kind), DELTA) is None


def test_while_the_rules_are_broken_nothing_passes() -> None:
    it, _ = gate({STATION: BETA})
    it.closed = True
    assert it.admit_in(from_station(), BETA) is DropReason.FILTER_CLOSED
    assert it.admit_out(from_station(), DELTA) is DropReason.FILTER_CLOSED


def test_a_flood_of_addresses_fills_neither_memory_nor_the_kernel() -> None:
    it, _ = gate()
    sources = [MacAddress(b"\x02\x00" + n.to_bytes(4, "big")) for n in range(MAX_WAITING + 1)]
    verdicts = [it.admit_in(from_station(source=source), BETA) for source in sources]
    assert verdicts[-1] is DropReason.FILTER_PENDING
    assert len(it.waiting) == MAX_WAITING
    reasons = [it.hold([b""], source, BETA) for source in sources[: MAX_HELD + 1]]
    assert reasons[-1] is DropReason.FILTER_PENDING
    assert [peer for peer, _ in it.give_up()] == [BETA] * MAX_HELD
    assert it.waiting == {}
