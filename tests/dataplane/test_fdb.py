"""The filtering database against a plain model, and its rules one by one."""

from collections import Counter
from dataclasses import dataclass
from math import inf

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from l2overlay.dataplane.ethernet import StationKey, split_station_key, station_key
from l2overlay.dataplane.fdb import LOCAL, MAX_ENTRIES, FilteringDatabase, Port

PEER_A, PEER_B, PEER_C = (Port(letter * 32) for letter in (b"A", b"B", b"C"))
AGEING = 300.0


def station(number: int, vlan: int = 0) -> StationKey:
    return station_key(b"\x52\x54\0" + number.to_bytes(3, "big"), vlan)


# -- one by one ----------------------------------------------------------------------------------------------------------


def test_station_is_found_where_it_was_heard() -> None:
    fdb = FilteringDatabase(AGEING)
    assert fdb.lookup(station(1), 0.0) is None
    assert fdb.learn(station(1), PEER_A, 0.0) is None
    assert fdb.lookup(station(1), 0.0) == PEER_A


def test_entry_older_than_ageing_time_is_not_found_though_no_sweep_came() -> None:
    fdb = FilteringDatabase(AGEING)
    fdb.learn(station(1), PEER_A, 0.0)
    assert fdb.lookup(station(1), 299.9) == PEER_A
    assert fdb.lookup(station(1), 300.0) is None
    assert list(fdb.entries(300.0)) == []
    assert len(fdb) == 1
    fdb.sweep(300.0)
    assert len(fdb) == 0


def test_every_frame_heard_makes_an_entry_young_again() -> None:
    fdb = FilteringDatabase(AGEING)
    for now in (0.0, 200.0, 400.0, 600.0):
        fdb.learn(station(1), PEER_A, now)
    assert fdb.lookup(station(1), 899.0) == PEER_A


def test_station_moves_with_its_first_frame_from_elsewhere() -> None:
    fdb = FilteringDatabase(AGEING)
    fdb.learn(station(1), PEER_A, 0.0)
    assert fdb.learn(station(1), LOCAL, 1.0) == PEER_A
    assert fdb.lookup(station(1), 1.0) == LOCAL
    assert (fdb.count(PEER_A), fdb.count(LOCAL)) == (0, 1)


def test_station_that_was_forgotten_has_not_moved() -> None:
    fdb = FilteringDatabase(AGEING)
    fdb.learn(station(1), PEER_A, 0.0)
    assert fdb.learn(station(1), PEER_B, 300.0) is None
    assert fdb.lookup(station(1), 300.0) == PEER_B


def test_same_mac_in_another_vlan_is_another_station() -> None:
    fdb = FilteringDatabase(AGEING)
    fdb.learn(station(1), PEER_A, 0.0)
    fdb.learn(station(1, vlan=7), PEER_B, 0.0)
    assert (fdb.lookup(station(1), 0.0), fdb.lookup(station(1, vlan=7), 0.0)) == (PEER_A, PEER_B)
    mac, vlan = split_station_key(station(1, vlan=4094))
    assert (bytes(mac), vlan) == (bytes(station(1)), 4094)


def test_static_station_never_ages_and_never_moves() -> None:
    fdb = FilteringDatabase(AGEING)
    fdb.learn(station(1), PEER_A, 0.0)
    fdb.add_static(station(1), PEER_B, 0.0)
    assert fdb.learn(station(1), PEER_A, 1.0) is None
    fdb.sweep(1e9)
    assert fdb.lookup(station(1), 1e9) == fdb.owner(station(1)) == PEER_B


def test_flush_leaves_static_stations_unless_told_otherwise() -> None:
    fdb = FilteringDatabase(AGEING)
    fdb.learn(station(1), PEER_A, 0.0)
    fdb.learn(station(2), PEER_B, 0.0)
    fdb.add_static(station(3), PEER_A, 0.0)
    assert fdb.flush(PEER_A) == 1
    assert [fdb.lookup(station(n), 0.0) for n in (1, 2, 3)] == [None, PEER_B, PEER_A]
    assert fdb.flush(PEER_A, static=True) == 1
    assert fdb.lookup(station(3), 0.0) is None


def test_flood_of_addresses_from_one_port_costs_the_others_nothing() -> None:
    fdb = FilteringDatabase(AGEING)
    for number in range(1000):
        fdb.learn(station(number), PEER_A, 0.0)
    for number in range(50_000):
        fdb.learn(station(1_000_000 + number), PEER_B, 1.0)
    assert len(fdb) == MAX_ENTRIES
    assert fdb.count(PEER_A) == 1000
    assert fdb.evicted == 51_000 - MAX_ENTRIES


def test_station_that_speaks_outlives_those_that_were_heard_once() -> None:
    """Least recently heard goes first: a loop that floods addresses from a port does not push out who works there."""
    fdb = FilteringDatabase(AGEING, max_entries=100)
    for number in range(1000):
        fdb.learn(station(0), PEER_A, number / 10)
        fdb.learn(station(1 + number), PEER_A, number / 10)
    assert fdb.lookup(station(0), 100.0) == PEER_A


def test_static_stations_never_give_way_and_do_not_make_their_port_the_fullest() -> None:
    fdb = FilteringDatabase(AGEING, max_entries=10)
    for number in range(5):
        fdb.add_static(station(number), PEER_A, 0.0)
    fdb.learn(station(10), PEER_A, 0.0)
    for number in range(20, 40):
        fdb.learn(station(number), PEER_B, 1.0)
    assert fdb.count(PEER_A) == 6
    assert fdb.lookup(station(39), 1.0) == PEER_B


def test_table_full_of_static_stations_still_learns_one() -> None:
    fdb = FilteringDatabase(AGEING, max_entries=3)
    for number in range(4):
        fdb.add_static(station(number), PEER_A, 0.0)
    for number in (10, 11):
        fdb.learn(station(number), PEER_B, 0.0)
    assert [fdb.lookup(station(n), 0.0) for n in (10, 11)] == [None, PEER_B]


# -- against a model -----------------------------------------------------------------------------------------------------


@dataclass
class Known:
    """What the model knows of one station."""

    port: Port
    heard: float
    expiry: float
    turn: int
    """Counts up with every frame heard, and every change: who was heard first when the clock stood still."""
    frozen_until: float = 0.0


keys = st.builds(station, st.integers(0, 9), st.sampled_from((0, 0, 7)))
ports = st.sampled_from((LOCAL, PEER_A, PEER_B, PEER_C))


class FdbMachine(RuleBasedStateMachine):
    """A small table, a clock, and a dict that does the same by the letter of the file's docstring."""

    @initialize(max_entries=st.integers(4, 9))
    def start(self, max_entries: int) -> None:
        self.max_entries, self.ageing_time = max_entries, 10.0
        self.fdb = FilteringDatabase(self.ageing_time, max_entries)
        self.model: dict[StationKey, Known] = {}
        self.now = 1000.0
        self.turn = self.evicted = 0
        self.candidates: set[StationKey] = set()

    @rule(seconds=st.sampled_from((0.0, 0.5, 3.0, 9.5, 10.0, 30.0)))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(ageing_time=st.sampled_from((5.0, 10.0, 20.0)))
    def reload_changes_the_ageing_time(self, ageing_time: float) -> None:
        self.fdb.ageing_time = self.ageing_time = ageing_time

    @rule(key=keys, port=ports)
    def learn(self, key: StationKey, port: Port) -> None:
        known = self.model.get(key)
        if known is None:
            self.make_room()
        moved_from = self.fdb.learn(key, port, self.now)
        self.turn += 1
        if known is not None and known.expiry == inf:
            assert moved_from is None
            known.heard = self.now
            return
        alive = known is not None and known.expiry > self.now
        assert moved_from == (known.port if known is not None and alive and known.port != port else None)
        frozen_until = known.frozen_until if known is not None else 0.0
        self.model[key] = Known(port, self.now, self.now + self.ageing_time, self.turn, frozen_until)

    @rule(key=keys, port=ports)
    def refresh(self, key: StationKey, port: Port) -> None:
        known = self.model.get(key)
        is_usual = known is not None and known.port == port and self.now < known.expiry < inf
        assert self.fdb.refresh(key, port, self.now) == is_usual
        if known is not None and is_usual:
            self.turn += 1
            known.heard, known.expiry, known.turn = self.now, self.now + self.ageing_time, self.turn

    @rule(key=keys, port=ports, seconds=st.sampled_from((0.0, 1.0, 60.0)))
    def freeze(self, key: StationKey, port: Port, seconds: float) -> None:
        self.fdb.freeze(key, port, self.now + seconds)
        known = self.model.get(key)
        if known is not None and known.expiry < inf:
            self.turn += 1
            known.port, known.frozen_until, known.turn = port, self.now + seconds, self.turn

    @rule(key=keys)
    def lock(self, key: StationKey) -> None:
        self.fdb.lock(key)
        if key in self.model:
            self.model[key].expiry = inf

    @rule(key=keys)
    def unlock(self, key: StationKey) -> None:
        self.fdb.unlock(key, self.now)
        known = self.model.get(key)
        if known is not None:
            self.turn += 1
            known.heard, known.expiry, known.turn = self.now, self.now + self.ageing_time, self.turn

    @rule(key=keys, port=ports)
    def add_static(self, key: StationKey, port: Port) -> None:
        self.model.pop(key, None)
        self.make_room()
        self.fdb.add_static(key, port, self.now)
        self.model[key] = Known(port, self.now, inf, 0)

    def make_room(self) -> None:
        """Who must go before one more is listed: the least recently heard station of a port that has most."""
        learned = {key: known for key, known in self.model.items() if known.expiry < inf}
        if len(self.model) < self.max_entries or not learned:
            return
        sizes = Counter(known.port for known in learned.values())
        fullest = [port for port, size in sizes.items() if size == max(sizes.values())]
        self.candidates = {
            min((k for k in learned if learned[k].port == port), key=lambda k: learned[k].turn)
            for port in fullest
        }
        self.evicted += 1

    @rule(key=keys)
    def remove(self, key: StationKey) -> None:
        self.fdb.remove(key)
        self.model.pop(key, None)

    @rule(port=ports, static=st.booleans())
    def flush(self, port: Port, static: bool) -> None:
        gone = [k for k, known in self.model.items() if known.port == port and (static or known.expiry < inf)]
        assert self.fdb.flush(port, static=static) == len(gone)
        for key in gone:
            del self.model[key]

    @rule()
    def sweep(self) -> None:
        self.fdb.sweep(self.now)
        self.model = {key: known for key, known in self.model.items() if known.expiry > self.now}

    @invariant()
    def both_know_the_same(self) -> None:
        if not hasattr(self, "fdb"):
            return
        if self.candidates:
            listed = {key for key, _ in self.fdb.entries(-inf)}
            (gone,) = self.model.keys() - listed
            assert gone in self.candidates
            del self.model[gone]
            self.candidates = set()
        assert len(self.fdb) == len(self.model)
        assert self.fdb.evicted == self.evicted
        alive = {key: known for key, known in self.model.items() if known.expiry > self.now}
        assert {key: (e.port, e.heard, e.expiry) for key, e in self.fdb.entries(self.now)} == {
            key: (known.port, known.heard, known.expiry) for key, known in alive.items()
        }
        for number in range(10):
            for vlan in (0, 7):
                key = station(number, vlan)
                assert self.fdb.lookup(key, self.now) == (alive[key].port if key in alive else None)
                known = self.model.get(key)
                static = known is not None and known.expiry == inf
                frozen = known is not None and known.frozen_until > self.now
                assert self.fdb.owner(key) == (known.port if known is not None and static else None)
                held = known.port if known is not None and (static or frozen) else None
                assert self.fdb.owner(key, self.now) == held
        for port in (LOCAL, PEER_A, PEER_B, PEER_C):
            assert self.fdb.count(port) == sum(known.port == port for known in self.model.values())


TestFdb = FdbMachine.TestCase
