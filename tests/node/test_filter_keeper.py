"""The filter's keeper on fakes: what waits, what is closed, what is told, when iptables does not do as it should."""

from typing import Any, cast

import pytest
import trio
from trio.testing import MockClock

from l2overlay.addresses import MacAddress, PeerKey
from l2overlay.config.read import parse_config
from l2overlay.dataplane.fdb import Port
from l2overlay.dataplane.gate import HELD
from l2overlay.errors import HostSetupError
from l2overlay.linux.firewall import Counted
from l2overlay.linux.iptables import FilterSpec
from l2overlay.node.filter_keeper import CHECK_INTERVAL, RETRY_TIME, FilterKeeper
from tests.filter.writing import HEAD, OWN, filter_of

TABLE = (
    '[filter]\ndefault_in = "drop"\n[[filter.rules]]\ndirection = "in"\naction = "accept"\nsource = "beta"\n'
)
CONFIG = parse_config(HEAD + TABLE, "p", base_dir=None)
BETA = next(peer.public_key for peer in CONFIG.peers if peer.name == "beta")
STATION = MacAddress(b"\x52\x54\x00\x00\x00\x01")
FRAME = bytes(16) + STATION + b"\x08\x00" + bytes(46)


class FakeFirewall:
    """`Firewall` whose iptables refuses while `refuses` is set."""

    def __init__(self) -> None:
        self.spec: FilterSpec | None = FilterSpec("lab", "tap-lab", "br-lab", OWN, filter_of(TABLE))
        self.stations: dict[MacAddress, str] = {}
        self.variant = "nf_tables"
        self.damage: list[str] = []
        self.refuses = False
        self.repairs = 0

    def _work(self) -> None:
        if self.refuses:
            raise HostSetupError("iptables-restore says no")

    def move(self, stations: dict[MacAddress, str]) -> None:
        self._work()
        self.stations = stations

    def look(self) -> tuple[list[str], dict[int, dict[str, Counted]]]:
        return list(self.damage), {4: {"in default in": Counted(3, 180), "in established": Counted(9, 900)}}

    def repair(self) -> None:
        self._work()
        self.repairs += 1
        self.damage.clear()


class FakeOverlay:
    def __init__(self) -> None:
        self.gate: Any = None
        self.delivered: list[Any] = []
        self.dropped = 0

    def filter_loaded(self, known: dict[MacAddress, PeerKey]) -> None:
        if self.gate is not None:
            free, late = self.gate.loaded({mac: Port(key) for mac, key in known.items()})
            self.delivered += [frame for _, frame in free]
            self.dropped += len(late)

    def filter_failed(self) -> None:
        self.dropped += len(self.gate.give_up())

    def stations(self, now: float) -> list[Any]:
        return []


class FakeJournal:
    def __init__(self) -> None:
        self.told: list[str] = []

    def tell(self, kind: str, text: str, **fields: Any) -> None:
        self.told.append(kind)


class Kept:
    """A keeper with all its fakes."""

    def __init__(self) -> None:
        self.firewall, self.overlay, self.journal = FakeFirewall(), FakeOverlay(), FakeJournal()
        self.keeper = FilterKeeper(
            cast(Any, self.firewall),
            cast(Any, self.overlay),
            cast(Any, self.journal),
            lambda: 0.0,
            lambda: None,
            trio.lowlevel.checkpoint,
        )
        self.keeper.configure(CONFIG)

    def receive(self) -> Any:
        verdict = self.overlay.gate.admit_in(FRAME, Port(BETA))
        if verdict is HELD:
            self.overlay.gate.hold([FRAME], STATION, Port(BETA))
        return verdict


@pytest.fixture
def kept(autojump_clock: MockClock) -> Kept:
    """Time jumps only while nothing runs: a thread at work is waited for."""
    autojump_clock.autojump_threshold = 0.05
    return Kept()


async def test_a_new_station_is_told_to_the_kernel_and_then_its_frames_go_on(
    kept: Kept, nursery: trio.Nursery
) -> None:
    nursery.start_soon(kept.keeper.run)
    assert kept.receive() is HELD
    await trio.sleep(0.2)
    assert kept.firewall.stations == {STATION: "beta"}
    assert kept.overlay.delivered == [[FRAME]]
    assert kept.receive() is None


async def test_when_the_kernel_cannot_be_told_frames_are_dropped_and_it_is_tried_again(
    kept: Kept, nursery: trio.Nursery
) -> None:
    nursery.start_soon(kept.keeper.run)
    await trio.sleep(0.1)
    kept.firewall.refuses = True
    kept.receive()
    await trio.sleep(0.2)
    assert (kept.overlay.delivered, kept.overlay.dropped) == ([], 1)
    assert "filter_trouble" in kept.journal.told
    kept.firewall.refuses = False
    kept.receive()
    await trio.sleep(2 * RETRY_TIME)
    assert kept.overlay.delivered == [[FRAME]]
    assert list(kept.keeper.troubles) == []


async def test_lost_rules_close_the_gate_until_they_are_back(kept: Kept, nursery: trio.Nursery) -> None:
    nursery.start_soon(kept.keeper.run)
    await trio.sleep(0.1)
    kept.firewall.damage, kept.firewall.refuses = ["iptables: FORWARD has lost our hook"], True
    await trio.sleep(CHECK_INTERVAL + 0.5)
    assert kept.overlay.gate.closed
    assert kept.keeper.troubles == ("the filter cannot be kept: iptables-restore says no",)
    kept.firewall.refuses = False
    await trio.sleep(RETRY_TIME + 0.5)
    assert not kept.overlay.gate.closed
    assert kept.firewall.repairs == 1
    assert kept.journal.told[-1] == "filter_repaired"
    assert list(kept.keeper.troubles) == []


async def test_a_filter_that_is_removed_lets_go_of_what_it_held(kept: Kept) -> None:
    kept.receive()
    kept.firewall.spec, kept.firewall.stations = None, {}
    kept.keeper.configure(CONFIG)
    assert kept.overlay.delivered == [[FRAME]]
    assert kept.overlay.gate is None
    assert kept.keeper.status() is None


async def test_status_has_what_was_dropped_by_rule(kept: Kept, nursery: trio.Nursery) -> None:
    nursery.start_soon(kept.keeper.run)
    await trio.sleep(0.1)
    status = kept.keeper.status()
    assert status is not None
    assert status["dropped"] == {"in: default in": 3}
    assert status["ok"]


async def test_before_other_rules_are_installed_the_stations_that_they_follow_wait(kept: Kept) -> None:
    gamma = next(peer.public_key for peer in CONFIG.peers if peer.name == "gamma")
    assert kept.overlay.gate.admit_in(FRAME, Port(gamma)) is None
    kept.keeper.prepare(FilterSpec("lab", "t", "b", OWN, filter_of(TABLE.replace("beta", "gamma"))))
    assert kept.overlay.gate.admit_in(FRAME, Port(gamma)) is HELD
