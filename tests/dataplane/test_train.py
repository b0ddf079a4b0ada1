"""Trains through a session: whole ones come out once, others not at all, and each datagram is accounted for.

What a network does to them (merging, splitting, losing, repeating, reordering) and what somebody on the path could.
"""

import gc
import random
import tracemalloc
from dataclasses import dataclass, field

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import example, given
from hypothesis import strategies as st

from l2overlay.config.types import Suite
from l2overlay.counters import Counters, DropReason
from l2overlay.dataplane.session import Session
from l2overlay.dataplane.train import (
    MAX_STRANGE_LEN,
    MAX_TRAIN_LAG,
    MAX_TRAINS,
    MAX_WAITING_LEN,
    TARGET_TRAIN_LEN,
    WAITING_TIME,
    cut,
    max_cars,
    plaintext_len,
    take_cars_untrusted,
)
from l2overlay.dataplane.wire import COUNTER_LIMIT, MAX_CARS, MAX_TRAIN_LEN, path_probe
from l2overlay.seams import Burst, burst_limit

from .test_session import (
    ADDRESS,
    LEFT_KEY,
    RIGHT_INDEX,
    both_suites,
    open_burst,
    seal,
    state_of,
    two_ends,
)

sizes = st.sampled_from((1200, 1472, 8972))
suites = st.sampled_from(list(Suite))
# Without steps nearly all that hypothesis draws is tiny; a train's plaintext leaves room for its tag.
lengths = st.one_of(
    st.integers(0, 60),
    st.sampled_from((1152, 1168, 1169, 1424, 1440, 1441, 8940, 8941, 29_584, 32_016, MAX_TRAIN_LEN - 16)),
    st.integers(1000, 10_000),
    st.integers(10_000, MAX_TRAIN_LEN - 16),
)


def cars_of(session: Session, plaintext: bytes, datagram_size: int) -> list[bytes]:
    """The train's datagrams."""
    train = bytes(session.seal_train(plaintext, datagram_size))
    return [train[at : at + datagram_size] for at in range(0, len(train), datagram_size)]


def a_car(
    index: int, count: int, piece: bytes, counter: int = 0, receiver: int = RIGHT_INDEX, reserved: int = 0
) -> bytes:
    """As the document draws it."""
    head = bytes((5, index, count, reserved))
    return head + receiver.to_bytes(4, "little") + counter.to_bytes(8, "little") + piece


def merge(datagrams: list[bytes], cuts: frozenset[int] = frozenset()) -> list[tuple[bytes, int]]:
    """Bursts as UDP GRO makes them: equal in size but for a shorter last one. Nothing is merged across `cuts`."""
    bursts: list[tuple[bytes, int]] = []
    is_open = False
    for place, datagram in enumerate(datagrams):
        size = len(datagram)
        if is_open and place not in cuts:
            data, full = bursts[-1]
            if size <= full and len(data) // full < burst_limit(full):
                bursts[-1] = (data + datagram, full)
                is_open = size == full
                continue
        bursts.append((datagram, max(1, size)))
        is_open = size > 0
    return bursts


@dataclass
class Receiver:
    """The end that opens, and all that it has been given."""

    session: Session
    counters: Counters = field(default_factory=Counters)
    plaintexts: list[bytes] = field(default_factory=list)
    strangers: list[bytes] = field(default_factory=list)
    datagrams: int = 0

    def receive(self, *bursts: tuple[bytes, int]) -> None:
        for data, size in bursts:
            plaintexts, strangers = open_burst(self.session, data, size, self.counters)
            self.plaintexts += plaintexts
            self.strangers += strangers
            self.datagrams += -(-len(data) // size)
            self.check_memory()

    def receive_each(self, *datagrams: bytes) -> None:
        self.receive(*((datagram, max(1, len(datagram))) for datagram in datagrams))

    def check_memory(self) -> None:
        waiting = self.session._arrivals._waiting.values()
        assert len(waiting) <= MAX_TRAINS
        for train in waiting:
            kept = [piece for _, piece in train.pieces.values()]
            assert sum(map(len, kept)) == train.size <= MAX_TRAIN_LEN
            assert len(kept) <= train.cars < train.count <= MAX_CARS

    def close(self, opened_datagrams: int) -> dict[DropReason, int]:
        """All books closed: each datagram led to a plaintext, was of somebody else, or has one reason."""
        self.session.close(self.counters)
        drops = {reason: count for reason, count in self.counters.drops.items() if count}
        assert self.datagrams == opened_datagrams + len(self.strangers) + sum(drops.values())
        return drops


def inside(session: Session) -> object:
    """What only a genuine datagram may change."""
    return state_of(session), session.opened_count, session.newest_opened


# -- sealing, and what kernels do ----------------------------------------------------------------------------------------


@st.composite
def splits(draw: st.DrawFn) -> frozenset[int] | None:
    """Where bursts are split besides; None is everywhere."""
    return draw(
        st.one_of(
            st.none(), st.just(frozenset()), st.frozensets(st.integers(0, 200), max_size=20).map(frozenset)
        )
    )


@given(st.lists(lengths, min_size=1, max_size=8), sizes, suites, splits())
@example([32_016] * 6, 1472, Suite.AESGCM, frozenset())
@example([1441, 1440, 1441, 0, 1441], 1472, Suite.AESGCM, frozenset())
def test_plaintexts_of_any_length_come_out_in_order_however_kernels_split_and_merge_them(
    plaintext_lens: list[int], datagram_size: int, suite: Suite, cuts: frozenset[int] | None
) -> None:
    left, right = two_ends(suite)
    chance = random.Random(1)
    # None begins as a PATH_PROBE does, which a train may not.
    plaintexts = [(b"\1" + chance.randbytes(length))[:length] for length in plaintext_lens]
    bursts, count = left.seal_bursts(plaintexts, ADDRESS, datagram_size)
    datagrams = [datagram for burst in bursts for datagram in burst.datagrams()]
    assert count == len(datagrams)
    for burst in bursts:
        check_burst(burst, any(length > datagram_size - 32 for length in plaintext_lens))
    receiver = Receiver(right)
    if cuts is None:
        receiver.receive_each(*datagrams)
    else:
        receiver.receive(*merge(datagrams, cuts))
    assert receiver.plaintexts == plaintexts
    assert receiver.close(count) == {}
    assert (right.opened_count, right.newest_opened) == (len(plaintexts), len(plaintexts) - 1)


def check_burst(burst: Burst, holds_trains: bool) -> None:
    """As UDP GSO wants it."""
    *full, last = map(len, burst.datagrams())
    assert set(full) <= {burst.datagram_size}
    assert 0 < last <= burst.datagram_size
    if holds_trains:
        assert len(full) < burst_limit(burst.datagram_size)


@given(st.integers(0, 3), sizes, st.integers(2, MAX_CARS))
def test_cars_are_full_but_the_last_and_their_headers_count_up(
    short: int, datagram_size: int, cars: int
) -> None:
    sealed = random.Random(0).randbytes(cars * (datagram_size - 16) - short)
    train = bytes(cut(b"receiver+ctr", sealed, datagram_size))
    parts = [train[at : at + datagram_size] for at in range(0, len(train), datagram_size)]
    assert [part[:16] for part in parts] == [bytes((5, i, cars, 0)) + b"receiver+ctr" for i in range(cars)]
    assert b"".join(part[16:] for part in parts) == sealed


@pytest.mark.parametrize("datagram_size", [1200, 1280, 1472, 8972, 40_000])
def test_longest_train_is_within_what_a_receiver_keeps(datagram_size: int) -> None:
    cars = max_cars(datagram_size)
    assert 1 <= cars <= MAX_CARS
    if cars > 1:
        assert cars * (datagram_size - 16) <= TARGET_TRAIN_LEN <= MAX_TRAIN_LEN
    left, right = two_ends()
    plaintext = bytes(plaintext_len(cars, datagram_size))
    bursts, count = left.seal_bursts([plaintext], ADDRESS, datagram_size)
    assert count == cars
    assert {len(d) for d in bursts[0].datagrams()} == {datagram_size}
    receiver = Receiver(right)
    receiver.receive(*merge([d for burst in bursts for d in burst.datagrams()]))
    assert receiver.plaintexts == [plaintext]


# -- what a network does -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Way:
    """How bad a path is."""

    loss: float
    twice: float
    late: int
    """By how many places a datagram may be overtaken."""
    seed: int

    def travel(self, count: int) -> list[int]:
        """The numbers of the datagrams that arrive, in their order."""
        chance = random.Random(self.seed)
        arrivals: list[tuple[float, int]] = []
        for number in range(count):
            for _ in range(1 + (chance.random() < self.twice)):
                if chance.random() >= self.loss:
                    arrivals.append((number + chance.uniform(0, self.late), number))
        return [number for _, number in sorted(arrivals)]


shares = st.sampled_from((0.0, 0.0, 0.02, 0.3))
ways = st.builds(
    Way, loss=shares, twice=shares, late=st.sampled_from((0, 0, 2, 30, 500)), seed=st.integers(0, 1 << 32)
)
in_order = st.builds(Way, loss=shares, twice=st.just(0.0), late=st.just(0), seed=st.integers(0, 1 << 32))


def check_journey(plaintext_lens: list[int], datagram_size: int, way: Way, cuts: frozenset[int]) -> None:
    """Send, let the way do what it does, and hold what comes out against what arrived."""
    left, right = two_ends()
    chance = random.Random(way.seed)
    # None begins as a PATH_PROBE does, which a train may not.
    plaintexts = [(b"\1" + chance.randbytes(length))[:length] for length in plaintext_lens]
    sent: list[tuple[bytes, int]] = []
    for number, plaintext in enumerate(plaintexts):
        bursts, _ = left.seal_bursts([plaintext], ADDRESS, datagram_size)
        sent += [(datagram, number) for burst in bursts for datagram in burst.datagrams()]
    arrived = way.travel(len(sent))
    receiver = Receiver(right)
    receiver.receive(*merge([sent[place][0] for place in arrived], cuts))
    there = set(arrived)
    whole = [
        number
        for number in range(len(plaintexts))
        if all(place in there for place, (_, of) in enumerate(sent) if of == number)
    ]
    assert sorted(receiver.plaintexts) == sorted(plaintexts[number] for number in whole)
    assert right.opened_count == len(whole)
    drops = receiver.close(sum(of in whole for _, of in sent))
    assert set(drops) <= {DropReason.TRAIN_INCOMPLETE, DropReason.REPLAYED}
    if not way.twice:
        assert DropReason.REPLAYED not in drops


cut_places = st.frozensets(st.integers(0, 150), max_size=10)


@given(st.lists(lengths, min_size=1, max_size=4), sizes, ways, cut_places)
@example([30_000] * 4, 1472, Way(0.0, 0.02, 0, 3), frozenset())
@example([30_000] * 4, 1472, Way(0.0, 1.0, 500, 3), frozenset())
def test_exactly_the_trains_that_are_whole_are_delivered_whatever_is_lost_repeated_or_late(
    plaintext_lens: list[int], datagram_size: int, way: Way, cuts: frozenset[int]
) -> None:
    """Of no more trains than may wait."""
    check_journey(plaintext_lens, datagram_size, way, cuts)


@given(st.lists(lengths, min_size=1, max_size=20), sizes, in_order, cut_places)
def test_on_a_path_that_keeps_order_any_number_of_trains_may_lose_cars(
    plaintext_lens: list[int], datagram_size: int, way: Way, cuts: frozenset[int]
) -> None:
    check_journey(plaintext_lens, datagram_size, way, cuts)


@pytest.mark.parametrize("repeated", range(5))
def test_one_car_that_comes_twice_costs_nothing(repeated: int) -> None:
    """The kernel hands over both in one burst, with the cars around them."""
    left, right = two_ends()
    cars = cars_of(left, bytes(5 * 84 - 16), 100)
    assert len(cars) == 5
    receiver = Receiver(right)
    receiver.receive(*merge([*cars[: repeated + 1], *cars[repeated:]]))
    assert receiver.plaintexts == [bytes(5 * 84 - 16)]
    assert receiver.close(5) == {DropReason.REPLAYED: 1}


def test_the_oldest_incomplete_train_is_given_up_when_too_many_wait() -> None:
    left, right = two_ends()
    trains = [cars_of(left, bytes([n + 64]) * 100, 100) for n in range(MAX_TRAINS + 1)]
    receiver = Receiver(right)
    for first, _ in trains:
        receiver.receive_each(first)
    assert receiver.counters.drops == {DropReason.TRAIN_INCOMPLETE: 1}
    for _, second in reversed(trains[1:]):
        receiver.receive_each(second)
    assert receiver.plaintexts == [bytes([n + 64]) * 100 for n in reversed(range(1, MAX_TRAINS + 1))]
    receiver.receive_each(trains[0][1])
    assert len(receiver.plaintexts) == MAX_TRAINS
    assert receiver.close(2 * MAX_TRAINS) == {DropReason.TRAIN_INCOMPLETE: 2}


def test_the_oldest_incomplete_train_is_given_up_when_what_waits_is_too_long() -> None:
    left, right = two_ends()
    plaintexts = [bytes([n + 64]) * 34_000 for n in range(5)]
    trains = [cars_of(left, plaintext, 30_000) for plaintext in plaintexts]
    receiver = Receiver(right)
    receiver.receive_each(*(first for first, _ in trains))
    assert receiver.counters.drops == {DropReason.TRAIN_INCOMPLETE: 1}
    assert right._arrivals._cost <= MAX_WAITING_LEN
    receiver.receive_each(*(second for _, second in trains))
    assert receiver.plaintexts == plaintexts[1:]
    assert receiver.close(8) == {DropReason.TRAIN_INCOMPLETE: 2}


def test_a_train_waits_until_one_65_younger_is_whole() -> None:
    left, right = two_ends()
    first = cars_of(left, bytes(100), 100)
    receiver = Receiver(right)
    receiver.receive_each(first[0])
    left.send_counter = MAX_TRAIN_LAG
    receiver.receive_each(*cars_of(left, b"x" * 100, 100))
    assert receiver.counters.drops == {}
    receiver.receive_each(*cars_of(left, b"y" * 100, 100))
    assert receiver.counters.drops == {DropReason.TRAIN_INCOMPLETE: 1}
    assert right._arrivals._waiting == {}


def test_trains_and_data_in_one_burst_are_opened_in_order() -> None:
    left, right = two_ends()
    plaintexts = [b"a" * (3 * 84 - 16), b"b" * 68, b"c" * (2 * 84 - 16), b"d" * 68, b"e" * 68]
    bursts, count = left.seal_bursts(plaintexts, ADDRESS, 100)
    assert (len(bursts), count) == (1, 8)
    receiver = Receiver(right)
    receiver.receive((b"".join(bursts[0].buffers), 100))
    assert receiver.plaintexts == plaintexts
    assert receiver.close(8) == {}


def test_cars_between_which_data_came_make_a_train() -> None:
    left, right = two_ends()
    first, second, third = cars_of(left, b"a" * (3 * 84 - 16), 100)
    (data,) = seal(left, b"b" * 68)
    receiver = Receiver(right)
    receiver.receive((first + data + second + third, 100))
    assert receiver.plaintexts == [b"b" * 68, b"a" * (3 * 84 - 16)]
    assert receiver.close(4) == {}


def test_cars_of_two_sessions_in_one_burst_find_their_own() -> None:
    """As `Demultiplexer._receive_run` does it: what one session does not take, the other is asked for."""
    left, right = two_ends()
    other_left, other_right = two_ends()
    other_right.local_index = other_left.remote_index = 77
    other_left._send_prefix = other_left._send_prefix[:4] + (77).to_bytes(4, "little")
    other_right._receive_index = (77).to_bytes(4, "little")
    cars = cars_of(left, b"a" * (3 * 84 - 16), 100)
    others = cars_of(other_left, b"b" * (3 * 84 - 16), 100)
    counters, at = Counters(), 0
    opened: dict[int, list[bytes]] = {RIGHT_INDEX: [], 77: []}
    burst = b"".join(car for both in zip(cars, others, strict=True) for car in both)
    while at < len(burst):
        session = right if burst[at + 4] != 77 else other_right
        plaintexts, end = session.open_untrusted(burst, at, 100, counters)
        assert end > at
        opened[session.local_index] += plaintexts
        at = end
    assert opened == {RIGHT_INDEX: [b"a" * (3 * 84 - 16)], 77: [b"b" * (3 * 84 - 16)]}
    assert counters.drops == {}


# -- what somebody on the path could -------------------------------------------------------------------------------------


def check_harmless(datagrams: list[bytes], left: Session, right: Session) -> dict[DropReason, int]:
    """They deliver nothing, change nothing and have one reason each; the next genuine train is delivered."""
    before = inside(right)
    receiver = Receiver(right)
    receiver.receive_each(*datagrams)
    receiver.receive(*merge(datagrams))
    assert receiver.plaintexts == []
    assert inside(right) == before
    drops = receiver.close(0)
    receiver.receive(*merge(cars_of(left, b"genuine" * 20, 60)))
    assert receiver.plaintexts == [b"genuine" * 20]
    return drops


@both_suites
def test_no_flipped_bit_of_any_car_delivers_anything(suite: Suite) -> None:
    left, right = two_ends(suite)
    for number in range(3):
        for bit in range(8 * 30):
            cars = cars_of(left, bytes(20), 30)
            assert len(cars) == 3
            forged = bytearray(cars[number])
            if bit // 8 >= len(forged):
                continue
            forged[bit // 8] ^= 1 << bit % 8
            cars[number] = bytes(forged)
            check_harmless(cars, left, right)


def test_no_truncated_or_prolonged_car_delivers_anything() -> None:
    left, right = two_ends()
    for number in range(3):
        for length in (*range(30), 31, 47, 60):
            cars = cars_of(left, bytes(26), 30)
            assert [len(car) for car in cars] == [30, 30, 30]
            cars[number] = cars[number].ljust(length, b"x")[:length]
            check_harmless([car for car in cars if car], left, right)


@pytest.mark.parametrize(
    ("index", "count"), [(0, 0), (0, 1), (0, 65), (0, 255), (2, 2), (3, 2), (255, 2), (64, 64), (255, 255)]
)
def test_index_or_count_that_no_train_has_is_refused(index: int, count: int) -> None:
    left, right = two_ends()
    forged = [a_car(index, count, bytes(50))] * 3
    assert check_harmless(forged, left, right) == {DropReason.BAD_TRAIN: 6}


@pytest.mark.parametrize("count", [65, 255])
def test_more_cars_than_a_train_has_are_refused_also_when_they_come_in_one_burst(count: int) -> None:
    left, right = two_ends()
    forged = [a_car(index, count, b"x") for index in range(count)]
    assert check_harmless(forged, left, right) == {DropReason.BAD_TRAIN: 2 * count}


@pytest.mark.parametrize("split", [True, False], ids=["one by one", "in one burst"])
def test_a_train_longer_than_any_is_refused_also_when_it_is_genuine(split: bool) -> None:
    """Else it would depend on the receiver's kernel whether it is delivered."""
    left, right = two_ends()
    longest, too_long = bytes(MAX_TRAIN_LEN - 16), bytes(MAX_TRAIN_LEN - 15)
    receiver = Receiver(right)
    for plaintext in (longest, too_long):
        datagrams = cars_of(left, plaintext, 1472)
        receiver.receive(*merge(datagrams, frozenset(range(100)) if split else frozenset()))
    assert receiver.plaintexts == [longest]
    drops = receiver.close(len(cars_of(left, longest, 1472)))
    assert set(drops) <= {DropReason.BAD_TRAIN, DropReason.TRAIN_INCOMPLETE}
    assert drops[DropReason.BAD_TRAIN] == (1 if split else len(datagrams))


def test_a_piece_that_is_too_long_alone_displaces_no_train_that_waits() -> None:
    left, right = two_ends()
    trains = [cars_of(left, bytes([n + 64]) * 100, 100) for n in range(MAX_TRAINS)]
    receiver = Receiver(right)
    receiver.receive_each(*(first for first, _ in trains))
    receiver.receive_each(a_car(0, 2, bytes(MAX_TRAIN_LEN + 1), counter=99))
    receiver.receive_each(*(second for _, second in trains))
    assert len(receiver.plaintexts) == MAX_TRAINS
    assert receiver.close(2 * MAX_TRAINS) == {DropReason.BAD_TRAIN: 1}


def test_a_car_without_a_piece_is_too_short_wherever_it_stands() -> None:
    """As last of a burst it would make another train of the same ciphertext."""
    left, right = two_ends()
    cars = [car[:2] + b"\4" + car[3:] for car in cars_of(left, bytes(3 * 84 - 16), 100)]
    empty = a_car(3, 4, b"")
    receiver = Receiver(right)
    receiver.receive((b"".join((*cars, empty)), 100))
    receiver.receive_each(empty)
    assert receiver.plaintexts == []
    assert receiver.close(0) == {DropReason.BAD_LENGTH: 2, DropReason.TRAIN_INCOMPLETE: 3}


def test_a_ciphertext_shorter_than_a_tag_does_not_verify() -> None:
    for suite in Suite:
        left, right = two_ends(suite)
        forged = [a_car(0, 2, b"x"), a_car(1, 2, b"y")]
        assert check_harmless(forged, left, right) == {DropReason.BAD_TAG: 4}


def test_a_car_that_says_another_count_than_the_first_is_refused() -> None:
    left, right = two_ends()
    first, second = cars_of(left, bytes(100), 100)
    receiver = Receiver(right)
    receiver.receive_each(first, second[:2] + b"\3" + second[3:], second)
    assert receiver.plaintexts == [bytes(100)]
    assert receiver.close(2) == {DropReason.BAD_TRAIN: 1}


def test_a_forged_first_car_spoils_its_train_and_no_other() -> None:
    left, right = two_ends()
    cars = cars_of(left, bytes(100), 100)
    receiver = Receiver(right)
    receiver.receive_each(a_car(0, 2, bytes(84)), *cars)
    assert receiver.plaintexts == []
    assert receiver.counters.drops == {DropReason.REPLAYED: 1, DropReason.BAD_TAG: 2}
    receiver.receive_each(*cars)
    assert receiver.plaintexts == [bytes(100)], "nothing of the forgery was kept"


@pytest.mark.parametrize("counter", [COUNTER_LIMIT, (1 << 64) - 1])
def test_counter_beyond_the_limit_is_refused(counter: int) -> None:
    left, right = two_ends()
    forged = [a_car(index, 2, bytes(50), counter) for index in (0, 1)]
    assert check_harmless(forged, left, right) == {DropReason.REPLAYED: 4}


def test_reserved_byte_makes_a_stranger_of_a_car_and_of_none_beside_it() -> None:
    left, right = two_ends()
    cars = cars_of(left, bytes(3 * 84 - 16), 100)
    receiver = Receiver(right)
    marked = cars[1][:3] + b"\1" + cars[1][4:]
    receiver.receive((b"".join((cars[0], marked, *cars[1:])), 100))
    assert receiver.plaintexts == [bytes(3 * 84 - 16)]
    assert receiver.strangers == [marked]
    assert receiver.close(3) == {}


headers = st.tuples(
    st.sampled_from((0, 1, 2, 3, 62, 63, 64, 255)),
    st.sampled_from((0, 1, 2, 3, 4, 64, 65, 255)),
    st.sampled_from((0, 0, 0, 1)),
    st.sampled_from((RIGHT_INDEX, RIGHT_INDEX, RIGHT_INDEX, RIGHT_INDEX + 1)),
    st.sampled_from((0, 1, 2, 3, 4, 5, 8192, 1 << 59, 1 << 60)),
)


@st.composite
def forgeries(draw: st.DrawFn) -> tuple[bytes, int]:
    """A burst of cars that contradict themselves and each other, or of anything at all."""
    if draw(st.booleans()):
        return draw(st.binary(max_size=300)), draw(st.integers(1, 120))
    piece_len = draw(st.integers(0, 40))
    data = b""
    for index, count, reserved, receiver, counter in draw(st.lists(headers, max_size=12)):
        run = draw(st.integers(1, 4))
        for step in range(run):
            data += a_car((index + step) & 255, count, bytes(piece_len), counter, receiver, reserved)
    return data[: len(data) - draw(st.integers(0, 30))], 16 + piece_len


@given(st.lists(forgeries(), max_size=6))
def test_any_bytes_never_raise_and_change_nothing(bursts: list[tuple[bytes, int]]) -> None:
    _, right = two_ends()
    before = inside(right)
    receiver = Receiver(right)
    receiver.receive(*((data, size) for data, size in bursts if data))
    assert receiver.plaintexts == []
    assert inside(right) == before
    receiver.close(0)


@given(forgeries())
def test_cars_taken_together_are_those_that_follow_one_another(forgery: tuple[bytes, int]) -> None:
    data, size = forgery
    for at in range(0, len(data) - 16, size):
        if size <= 16:
            return
        cars, piece = take_cars_untrusted(data, at, size)
        taken = [data[place : place + size] for place in range(at, at + cars * size, size)]
        assert piece == b"".join(each[16:] for each in taken)
        for number, each in enumerate(taken):
            assert each[1] == data[at + 1] + number
            assert each[:1] + each[2:16] == data[at : at + 1] + data[at + 2 : at + 16]
            assert len(each) > 16
        assert cars == 1 or data[at + 1] + cars <= data[at + 2]


# -- once is enough ------------------------------------------------------------------------------------------------------


def test_a_train_is_not_opened_twice_and_a_late_car_of_it_is_not_kept() -> None:
    left, right = two_ends()
    cars = cars_of(left, bytes(3 * 84 - 16), 100)
    receiver = Receiver(right)
    receiver.receive(*merge(cars), *merge(cars))
    receiver.receive_each(*cars, cars[1])
    assert receiver.plaintexts == [bytes(3 * 84 - 16)]
    assert right._arrivals._waiting == {}
    assert receiver.close(3) == {DropReason.REPLAYED: 7}


@pytest.mark.parametrize("train_first", [True, False])
def test_a_train_and_data_of_the_same_ciphertext_are_opened_once(train_first: bool) -> None:
    """Type, index and count are not authentic: who changes them on the path cuts anew what is delivered once anyhow."""
    left, right = two_ends()
    cars = cars_of(left, b"a plaintext" * 10, 70)
    data = b"\4\0\0\0" + cars[0][4:16] + b"".join(car[16:] for car in cars)
    receiver = Receiver(right)
    ways = [cars, [data]] if train_first else [[data], cars]
    for datagrams in ways:
        receiver.receive_each(*datagrams)
    assert receiver.plaintexts == [b"a plaintext" * 10]
    assert receiver.close(len(ways[0])) == {DropReason.REPLAYED: len(ways[1])}


def test_data_cut_into_cars_is_opened_once() -> None:
    left, right = two_ends()
    (data,) = seal(left, b"a plaintext")
    cars = [a_car(0, 3, data[16:17]), a_car(1, 3, data[17:30]), a_car(2, 3, data[30:])]
    receiver = Receiver(right)
    receiver.receive_each(*cars, data)
    assert receiver.plaintexts == [b"a plaintext"]
    assert receiver.close(3) == {DropReason.REPLAYED: 1}


def test_a_train_that_data_of_its_counter_overtook_is_not_opened() -> None:
    """A car waits when its ciphertext comes as DATA: the counter is used up."""
    left, right = two_ends()
    cars = cars_of(left, b"a plaintext" * 10, 70)
    data = b"\4\0\0\0" + cars[0][4:16] + b"".join(car[16:] for car in cars)
    receiver = Receiver(right)
    receiver.receive_each(cars[0], data, *cars[1:])
    assert receiver.plaintexts == [b"a plaintext" * 10]
    assert receiver.close(1) == {DropReason.TRAIN_INCOMPLETE: 1, DropReason.REPLAYED: len(cars) - 1}


def test_a_train_is_sealed_as_the_document_says() -> None:
    """Its own AEAD call over receiver and counter, and the next counter of the session."""
    left, _ = two_ends()
    left.send_counter = 7
    cars = cars_of(left, b"x" * 100, 60)
    nonce = RIGHT_INDEX.to_bytes(4, "little") + (7).to_bytes(8, "little")
    sealed = AESGCM(LEFT_KEY).encrypt(nonce, b"x" * 100, None)
    pieces = [sealed[at : at + 44] for at in range(0, len(sealed), 44)]
    assert cars == [a_car(index, 3, piece, 7) for index, piece in enumerate(pieces)]
    assert left.send_counter == 8
    left.send_counter = COUNTER_LIMIT
    with pytest.raises(OverflowError):
        left.seal_train(b"x" * 100, 60)


def test_a_probe_of_the_path_that_somebody_cut_anew_is_refused_and_the_probe_itself_is_not() -> None:
    """Otherwise who cuts a datagram of 1472 bytes in two makes a path of 1200 look like one of 1472."""
    left, right = two_ends()
    probe = path_probe(7, 1472)
    datagram = b"".join(left.seal([probe]))
    recut = bytes(cut(datagram[4:16], datagram[16:], 800))
    counters = Counters()
    assert right.open_untrusted(recut, 0, 800, counters) == ([], len(recut))
    assert counters.drops == {DropReason.BAD_TRAIN: 2}
    assert right.open_untrusted(datagram, 0, len(datagram), counters) == ([probe], len(datagram))


# -- what waits, under a stranger's hand -----------------------------------------------------------------------------------


def forge(
    right: Session, counters: list[int], *, now: float = 0.0, strange: bool = False, count: int = 64
) -> None:
    """Cars of one byte, the first of a train each."""
    for counter in counters:
        car = a_car(0, count, b"?", counter)
        right.open_untrusted(car, 0, len(car), Counters(), now=now, strange=strange)


def opened_one_by_one(left: Session, right: Session, trains: int, *, now: float = 0.0) -> int:
    """How many of so many genuine trains are opened whose cars come in a read of their own each."""
    opened = 0
    for _ in range(trains):
        for car in cars_of(left, bytes(200), 100):
            opened += len(right.open_untrusted(car, 0, len(car), Counters(), now=now)[0])
    return opened


@pytest.mark.parametrize("counter", [1, 100, 1 << 40, COUNTER_LIMIT - MAX_TRAINS - 1])
@pytest.mark.parametrize("strange", [True, False])
def test_forged_cars_give_way_to_genuine_ones_whatever_their_counters(counter: int, strange: bool) -> None:
    left, right = two_ends()
    left.send_counter = 1000
    opened_one_by_one(left, right, 1)
    forge(right, [counter + 1000 + n for n in range(2 * MAX_TRAINS)], strange=strange)
    left.send_counter += 500
    assert opened_one_by_one(left, right, 100) == 100


def test_cars_that_come_from_elsewhere_displace_none_that_come_from_the_peer() -> None:
    left, right = two_ends()
    first, *others = cars_of(left, bytes(200), 100)
    receiver = Receiver(right)
    receiver.receive_each(first)
    forge(right, list(range(1000, 3000)), strange=True)
    receiver.receive_each(*others)
    assert receiver.plaintexts == [bytes(200)]


def test_a_peer_that_moved_is_heard_by_trains_as_well() -> None:
    left, right = two_ends()
    plaintexts = []
    for car in cars_of(left, bytes(30_000), 1472):
        plaintexts += right.open_untrusted(car, 0, len(car), Counters(), strange=True)[0]
    assert plaintexts == [bytes(30_000)]


def test_a_train_waits_for_a_second_at_most() -> None:
    left, right = two_ends()
    counters = Counters()
    (early, _), (late, _) = cars_of(left, bytes(100), 100), cars_of(left, bytes(100), 100)
    right.open_untrusted(early, 0, 100, counters, now=10.0)
    right.open_untrusted(late, 0, 100, counters, now=10.0 + WAITING_TIME - 0.01)
    assert counters.drops == {}
    third, _ = cars_of(left, bytes(100), 100)
    right.open_untrusted(third, 0, 100, counters, now=10.0 + WAITING_TIME)
    assert counters.drops == {DropReason.TRAIN_INCOMPLETE: 1}


@pytest.mark.parametrize("piece_len", [1, 550])
def test_what_waits_costs_no_more_memory_than_is_documented(piece_len: int) -> None:
    _, right = two_ends()
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for strange in (True, False):
        for number in range(2 * MAX_TRAINS):
            for index in range(63):
                car = a_car(index, 64, bytes(piece_len), 1000 + number)
                right.open_untrusted(car, 0, len(car), NO_COUNTERS, strange=strange)
    gc.collect()
    used = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    print(f"pieces of {piece_len}: {used / 1024:.0f} KiB")
    assert used <= MAX_WAITING_LEN + MAX_STRANGE_LEN


def test_trains_that_the_peer_sent_and_lost_are_told_from_those_that_nobody_sent() -> None:
    left, right = two_ends()
    forge(right, list(range(2000, 2000 + 4 * MAX_TRAINS)))
    for _ in range(3):
        (first, *_) = cars_of(left, bytes(200), 100)
        right.open_untrusted(first, 0, 100, Counters(), now=0.0)
    opened_one_by_one(left, right, 70, now=WAITING_TIME)
    right.trains.settle(right.newest_opened)
    assert (right.trains.lost, right.trains.opened) == (3, 70)


NO_COUNTERS = Counters()
