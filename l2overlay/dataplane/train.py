"""Trains: one sealed plaintext, its ciphertext cut into datagrams that follow one another, the cars.

    car       type 5 | index u8 | count u8 | 0 | receiver u32 | counter u64 | its piece of the ciphertext

Sealing costs a call whatever the length, and so does every other step of a datagram's way: a super-frame of 65 KB takes
72 us out and 95 in when each of its 45 datagrams is sealed alone, in trains 30 and 40 (tests/bench/test_micro.py). The price
is that a lost car costs the whole train. So trains are for paths that lose next to nothing, and `controlplane.reception`
decides from what the peer reports how long they may be. A train of one car is a DATA datagram.

Type, index and count of a car are not authentic. Who changes them gets another ciphertext, which does not verify, or the
same one cut in other places, which is opened once as it would have been. Until it verifies, cars are only kept, and only a
bounded number of them.

Whoever knows a session's index can send cars for it, so what waits is a stranger's to fill. Three things keep room for
the genuine ones. Cars from another address than the peer's wait in a small place of their own (`Arrivals.strange`). Where
there is no more room the train gives way whose counter is beyond any that the peer can have reached, and then the one that
has waited longest, whatever its counter: a new train always gets a place. And a train waits for `WAITING_TIME` at most. Who
sends from the peer's address, knows its counters and does not stop can still spoil trains; `TrainTally` finds that out, and
the peer then goes back to datagrams.
"""

from collections import deque
from dataclasses import dataclass, field
from functools import lru_cache
from struct import Struct

from l2overlay.counters import Counters, DropReason
from l2overlay.dataplane.replay import WINDOW_MASK
from l2overlay.dataplane.wire import DATA_HEADER_LEN, MAX_CARS, MAX_TRAIN_LEN, TAG_LEN, TRAIN_TYPE

MAX_TRAINS = 32
"""Of one session that wait for a car at the same time; then one gives way ..."""
MAX_WAITING_LEN = 4 * MAX_TRAIN_LEN
"""... and also when all that waits takes more memory: three trains that carry much, or many short ones on a path that
reorders."""
PIECE_COST = 224
"""Bytes of memory that a piece takes beside its own: two objects, an entry, its part of the train."""
MAX_STRANGE_TRAINS = 8
MAX_STRANGE_LEN = 2 * MAX_TRAIN_LEN
"""Both for cars that come from elsewhere than the peer: those of one that has just moved, or a stranger's."""
WAITING_TIME = 1.0
"""Seconds after its first car that a train waits. The longest takes 0.27 s through an uplink of 1 Mbit/s."""
MAX_LEAD = 1 << 20
"""Counters above the newest that verified: a peer whose datagrams were all lost for seconds may be so far ahead."""
MAX_DOUBTFUL = 64
"""Trains that failed, and of which it is not known yet whether the peer ever sent them."""
MAX_TRAIN_LAG = 64
"""A train that waits while one that much younger is complete will not be complete any more."""
TARGET_TRAIN_LEN = 32_768
"""Bytes in the longest train: what it saves grows little from there, what a loss costs grows on."""

_INDEXES = bytes(range(MAX_CARS))


def max_cars(datagram_size: int) -> int:
    """How many cars the longest train has whose datagrams are `datagram_size` bytes."""
    return max(1, min(MAX_CARS, TARGET_TRAIN_LEN // (datagram_size - DATA_HEADER_LEN)))


def plaintext_len(cars: int, datagram_size: int) -> int:
    """How much plaintext fills this many datagrams to the byte."""
    return cars * (datagram_size - DATA_HEADER_LEN) - TAG_LEN


def cut(nonce: bytes, sealed: bytes, datagram_size: int) -> bytearray:
    """The cars, one after the other: all of `datagram_size` bytes but the last. `nonce` is receiver and counter."""
    step = datagram_size - DATA_HEADER_LEN
    full = len(sealed) // step
    pieces = _layout(full, 0, step, 0).unpack_from(sealed)
    if full * step < len(sealed):
        pieces += (sealed[full * step :],)
    # The same header before every piece, and then the indexes into all of them at once.
    header = bytearray((TRAIN_TYPE, 0, len(pieces), 0)) + nonce
    cars = header.join((b"", *pieces))
    cars[1::datagram_size] = _INDEXES[: len(pieces)]
    return cars


def take_cars_untrusted(data: bytes, at: int, datagram_size: int) -> tuple[int, bytes]:
    """How many datagrams of a burst, from byte `at` on, are the next cars of one train; and what they carry, joined.

    Either as many as the train or the burst still has, or 1: what comes in another way is taken one by one.
    """
    header = data[at : at + DATA_HEADER_LEN]
    index, wanted = header[1], header[2] - header[1]
    full = min(wanted, (len(data) - at) // datagram_size)
    end = at + full * datagram_size
    if full < 2 or not _are_alike(data, at, end, header, datagram_size):
        return 1, data[at + DATA_HEADER_LEN : at + datagram_size]
    pieces = _layout(full, DATA_HEADER_LEN, datagram_size - DATA_HEADER_LEN, 0).unpack_from(data, at)
    last = header[:1] + bytes((index + full & 0xFF,)) + header[2:]
    if full < wanted and DATA_HEADER_LEN < len(data) - end < datagram_size and data.startswith(last, end):
        return full + 1, b"".join((*pieces, data[end + DATA_HEADER_LEN :]))
    return full, b"".join(pieces)


def _are_alike(data: bytes, at: int, end: int, header: bytes, datagram_size: int) -> bool:
    """Whether the datagrams from `at` to `end` have this header but for the index, which counts up."""
    count = (end - at) // datagram_size
    # Byte 0 of them all, byte 1 of them all, and then the other fourteen.
    return (
        data[at:end:datagram_size] == header[:1] * count
        and data[at + 1 : end : datagram_size] == _INDEXES[header[1] : header[1] + count]
        and _layout(count, 2, DATA_HEADER_LEN - 2, datagram_size - DATA_HEADER_LEN)
        .unpack_from(data, at)
        .count(header[2:])
        == count
    )


@lru_cache(maxsize=256)
def _layout(count: int, skipped: int, taken: int, skipped_after: int) -> Struct:
    """So many fields of `taken` bytes, in one call: 22 of 1456 bytes in 2.2 us, as slices in a comprehension 2.9."""
    return Struct(f"{skipped}x{taken}s{skipped_after}x" * count)


@dataclass(slots=True)
class _Waiting:
    """A train of which cars have come. `pieces` has for each run of cars its first index, how many they are, their bytes."""

    count: int
    deadline: float
    pieces: dict[int, tuple[int, bytes]] = field(default_factory=dict)
    cars: int = 0
    size: int = 0

    def has_some_of(self, index: int, cars: int) -> bool:
        return any(first < index + cars and index < first + n for first, (n, _) in self.pieces.items())

    @property
    def cost(self) -> int:
        """What it takes of memory."""
        return self.size + PIECE_COST * len(self.pieces)


class TrainTally:
    """What became of the trains of one session, as far as it is certain that the peer sent them.

    A counter is certain once a newer one has verified. What is not is kept until it is, within bounds.
    """

    __slots__ = ("_doubtful", "_newest", "lost", "opened")

    def __init__(self, newest: list[int]) -> None:
        """`newest` is the session's replay window: it tells what was opened."""
        self.opened = 0
        self.lost = 0
        self._newest = newest
        self._doubtful: deque[int] = deque(maxlen=MAX_DOUBTFUL)

    def failed_untrusted(self, counter: int) -> None:
        """Cars with this counter came, and no train."""
        self._doubtful.append(counter)

    def settle(self, newest_opened: int) -> None:
        """`newest_opened` verified: the peer has used all counters below it."""
        if not self._doubtful:
            return
        for counter in dict.fromkeys(self._doubtful):
            if counter < newest_opened:
                self.lost += self._newest[counter & WINDOW_MASK] < counter
        self._doubtful = deque((c for c in self._doubtful if c > newest_opened), maxlen=MAX_DOUBTFUL)


class Arrivals:
    """The trains of one session that wait for a car. What comes in is not authentic."""

    __slots__ = ("_cost", "_max_cost", "_max_trains", "_tally", "_waiting", "strange")

    def __init__(self, tally: TrainTally, *, strange: bool = False) -> None:
        """`strange`: a place for what comes from elsewhere than the peer."""
        self._waiting: dict[int, _Waiting] = {}
        self._cost = 0
        self._max_trains = MAX_STRANGE_TRAINS if strange else MAX_TRAINS
        self._max_cost = MAX_STRANGE_LEN if strange else MAX_WAITING_LEN
        self._tally = tally
        self.strange = None if strange else Arrivals(tally, strange=True)

    def has_some_of(self, header: bytes, cars: int) -> bool:
        """Whether one of these cars, of which the first has this header, is here already."""
        train = self._waiting.get(int.from_bytes(header[8:], "little"))
        return train is not None and train.has_some_of(header[1], cars)

    def arrive_untrusted(
        self,
        header: bytes,
        cars: int,
        piece: bytes,
        counters: Counters,
        newest_opened: int,
        now: float,
    ) -> bytes | None:
        """So many cars of a train came, the first with this header. Returns the whole ciphertext once it is there."""
        index, count, counter = header[1], header[2], int.from_bytes(header[8:], "little")
        self._expire(counters, now)
        train = self._waiting.get(counter)
        if train is None:
            train = self._waiting[counter] = _Waiting(count, now + WAITING_TIME)
        if train.count == count and train.has_some_of(index, cars):
            counters.drop(DropReason.REPLAYED, cars)
            return None
        if train.count != count or train.size + len(piece) > MAX_TRAIN_LEN:
            counters.drop(DropReason.BAD_TRAIN, cars)
            return None
        before = train.cost
        train.pieces[index] = (cars, piece)
        train.cars += cars
        train.size += len(piece)
        self._cost += train.cost - before
        if train.cars < count:
            self._make_room(counters, counter, newest_opened + MAX_LEAD)
            return None
        self._take(counter)
        return b"".join([piece for _, (_, piece) in sorted(train.pieces.items())])

    def departed(self, counter: int, counters: Counters) -> None:
        """The train `counter` verified: what is still here of it came twice, and trains long before it have lost a car."""
        if counter in self._waiting:
            counters.drop(DropReason.REPLAYED, self._take(counter).cars)
        for old in [c for c in self._waiting if c + MAX_TRAIN_LAG < counter]:
            self._give_up(old, counters)
        if self.strange is not None:
            self.strange.departed(counter, counters)

    def close(self, counters: Counters) -> None:
        """The session ends, and with it all that waits."""
        for counter in list(self._waiting):
            self._give_up(counter, counters)
        if self.strange is not None:
            self.strange.close(counters)

    def _expire(self, counters: Counters, now: float) -> None:
        while self._waiting:
            counter, oldest = next(iter(self._waiting.items()))
            if oldest.deadline > now:
                return
            self._give_up(counter, counters)

    def _make_room(self, counters: Counters, newcomer: int, reachable: int) -> None:
        while len(self._waiting) > self._max_trains or self._cost > self._max_cost:
            oldest = next(iter(self._waiting))
            beyond = (c for c in self._waiting if c > reachable and c != newcomer)
            self._give_up(next(beyond, oldest), counters)

    def _give_up(self, counter: int, counters: Counters) -> None:
        counters.drop(DropReason.TRAIN_INCOMPLETE, self._take(counter).cars)
        self._tally.failed_untrusted(counter)

    def _take(self, counter: int) -> _Waiting:
        train = self._waiting.pop(counter)
        self._cost -= train.cost
        return train
