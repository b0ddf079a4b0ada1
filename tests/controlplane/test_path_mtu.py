"""The search for the largest datagram, alone: a path is a number, and every probe up to it is acknowledged."""

from itertools import pairwise
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from l2overlay.controlplane.path_mtu import (
    COMMON_SIZES,
    PROBE_TIMEOUT,
    RAISE_TIME,
    TRIES,
    VERIFY_TIME,
    PathMtu,
)
from l2overlay.dataplane.wire import BASE_SIZE

START = 100.0


class Path:
    """Drives one `PathMtu` through time; datagrams larger than `carries` vanish."""

    def __init__(self, limit: int, carries: int, round_trip: float = 0.02) -> None:
        self.path = PathMtu(limit, START)
        self.carries, self.round_trip, self.now = carries, round_trip, START
        self.probes: list[tuple[float, int]] = []
        self._acks: list[tuple[float, int]] = []

    def run(self, seconds: float, *, busy: bool = False) -> None:
        """Let time pass; with `busy`, large datagrams are sent all the time."""
        end = self.now + seconds
        while True:
            if busy:
                self.path.used_large()
            ack = self._acks[0][0] if self._acks else inf
            due = max(self.path.deadline(), self.now)
            if min(ack, due) > end:
                break
            self.now = min(ack, due)
            if ack <= due:
                self.path.acknowledged(self._acks.pop(0)[1], self.now)
            elif probe := self.path.due_probe(self.now):
                self._sent(*probe)
        self.now = end

    def _sent(self, token: int, size: int) -> None:
        self.probes.append((self.now, size))
        if size <= self.carries:
            self._acks.append((self.now + self.round_trip, token))

    @property
    def size(self) -> int:
        return self.path.size


def test_until_something_larger_was_acknowledged_the_base_is_used() -> None:
    path = Path(limit=1472, carries=1472, round_trip=0.3)
    path.run(0.29)
    assert path.size == BASE_SIZE
    path.run(0.02)
    assert path.size == 1472


def test_a_path_that_takes_what_the_interface_takes_costs_one_probe_and_is_left_alone() -> None:
    path = Path(limit=1472, carries=1472)
    path.run(1000.0)
    assert [size for _, size in path.probes] == [1472]


@pytest.mark.parametrize("carries", [size for size in COMMON_SIZES if BASE_SIZE < size <= 1472])
def test_a_smaller_path_is_found_from_the_largest_common_size_down(carries: int) -> None:
    path = Path(limit=1472, carries=carries)
    path.run(len(COMMON_SIZES) * TRIES * PROBE_TIMEOUT)
    assert path.size == carries
    sizes = [size for _, size in path.probes]
    assert sizes == sorted(sizes, reverse=True)


def test_each_size_is_tried_three_times_half_a_second_apart_and_three_losses_in_a_row_are_needed() -> None:
    path = Path(limit=1280, carries=0)
    path.run(TRIES * PROBE_TIMEOUT - 0.01)
    assert [round(later - earlier, 6) for (earlier, _), (later, _) in pairwise(path.probes)] == [
        PROBE_TIMEOUT
    ] * (TRIES - 1)
    assert path.size == BASE_SIZE


def test_a_path_that_takes_only_the_base_is_tried_again_every_minute() -> None:
    path = Path(limit=1472, carries=BASE_SIZE)
    path.run(300.0)
    begins = [time for time, size in path.probes if size == 1472][::TRIES]
    assert 4 <= len(begins) <= 6
    assert all(RAISE_TIME <= later - earlier <= RAISE_TIME + 10.0 for earlier, later in pairwise(begins))


@pytest.mark.parametrize("carries", [0, BASE_SIZE - 1])
def test_a_path_that_does_not_take_the_base_is_told_and_tried_again_until_it_does(carries: int) -> None:
    path = Path(limit=1472, carries=carries)
    path.run(len(COMMON_SIZES) * TRIES * PROBE_TIMEOUT)
    assert path.path.is_too_small
    path.run(300.0)
    assert path.path.is_too_small
    assert len(path.probes) < 5 * len(COMMON_SIZES) * TRIES
    path.carries = 1280
    path.run(RAISE_TIME + 10.0)
    assert (path.size, path.path.is_too_small) == (1280, False)
    path.carries = BASE_SIZE - 1
    path.run(60.0, busy=True)
    assert path.path.is_too_small


def test_a_path_that_takes_the_base_and_no_more_is_not_too_small() -> None:
    path = Path(limit=1472, carries=BASE_SIZE)
    path.run(300.0)
    assert (path.size, path.path.is_too_small) == (BASE_SIZE, False)


def test_an_interface_below_the_base_is_too_small_at_once_and_costs_no_probe() -> None:
    path = Path(limit=872, carries=872)
    path.run(300.0)
    assert (path.path.is_too_small, path.probes) == (True, [])
    path.path.set_limit(1472, path.now)
    path.carries = 1472
    path.run(1.0)
    assert (path.size, path.path.is_too_small) == (1472, False)


def test_an_idle_path_is_not_probed_and_a_busy_one_every_one_and_a_half_seconds() -> None:
    path = Path(limit=1472, carries=1472)
    path.run(1.0)
    path.run(100.0)
    assert len(path.probes) == 1
    path.run(30.0, busy=True)
    assert len(path.probes) - 1 == pytest.approx(30.0 / (VERIFY_TIME + path.round_trip), abs=1)


@pytest.mark.parametrize("since_verified", [0.01, 0.7, 1.4, 1.51])
def test_a_black_hole_under_traffic_is_found_within_5_s(since_verified: float) -> None:
    path = Path(limit=1472, carries=1472)
    path.run(10.0 + since_verified, busy=True)
    path.carries = 1300
    path.run(5.0, busy=True)
    assert path.size <= 1300
    path.run(30.0, busy=True)
    assert path.size == 1280


def test_a_black_hole_that_opens_while_larger_sizes_are_tried_is_found_within_5_s_too() -> None:
    path = Path(limit=8972, carries=1472)
    path.run(20.0, busy=True)
    assert path.size == 1472
    while not path.probes or path.probes[-1][1] <= 1472:
        path.run(0.1, busy=True)
    path.carries = 1300
    path.run(5.0, busy=True)
    assert path.size <= 1300


def test_a_path_that_grew_is_used_within_little_more_than_a_minute() -> None:
    path = Path(limit=1472, carries=1300)
    path.run(20.0)
    assert path.size == 1280
    path.carries = 1472
    path.run(RAISE_TIME + 1.0)
    assert path.size == 1472


def test_an_interface_that_takes_less_is_obeyed_at_once_and_one_that_takes_more_is_searched() -> None:
    path = Path(limit=1472, carries=9000)
    path.run(1.0)
    path.path.set_limit(1400, path.now)
    assert path.size == 1400
    path.run(300.0, busy=True)
    assert max(size for time, size in path.probes if time > START + 1.0) <= 1400
    path.path.set_limit(8972, path.now)
    path.run(1.0)
    assert path.size == 8972


def test_an_interface_below_the_base_leaves_the_base() -> None:
    path = Path(limit=1000, carries=1000)
    path.run(10.0)
    assert path.size == BASE_SIZE
    assert path.probes == []


def test_the_same_limit_again_changes_nothing() -> None:
    path = Path(limit=1472, carries=1472)
    path.run(1.0)
    path.path.set_limit(1472, path.now)
    path.run(10.0)
    assert len(path.probes) == 1


def test_another_path_starts_from_the_base() -> None:
    path = Path(limit=1472, carries=1472)
    path.run(1.0)
    path.path.restart(path.now)
    assert path.size == BASE_SIZE
    path.run(1.0)
    assert path.size == 1472


def test_an_acknowledgement_of_an_earlier_try_of_the_same_size_counts_and_of_another_probe_does_not() -> None:
    path = PathMtu(1472, START)
    first = path.due_probe(START)
    second = path.due_probe(START + PROBE_TIMEOUT)
    assert first is not None
    assert second is not None
    assert first[0] != second[0]
    assert not path.acknowledged(second[0] + 1, START + 0.6)
    assert not path.acknowledged(first[0] - 1, START + 0.6)
    assert path.acknowledged(first[0], START + 0.7)
    assert path.size == 1472
    assert not path.acknowledged(second[0], START + 0.8), "it is answered already"


@given(
    limit=st.integers(1200, 9000),
    carries=st.integers(1200, 9000),
    changes=st.lists(st.tuples(st.integers(1200, 9000), st.floats(0.1, 100.0), st.booleans()), max_size=8),
)
def test_no_datagram_is_larger_than_the_interface_takes_and_a_quiet_path_never_stays_above_what_it_carries(
    limit: int, carries: int, changes: list[tuple[int, float, bool]]
) -> None:
    path = Path(limit, carries)
    path.run(20.0)
    for carried, seconds, busy in changes:
        path.carries = carried
        path.run(seconds, busy=busy)
        assert BASE_SIZE <= path.size <= limit
    path.run(5.0, busy=True)
    assert path.size <= max(path.carries, BASE_SIZE)
    assert all(size <= limit for _, size in path.probes)
