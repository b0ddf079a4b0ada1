"""Two ends of a session and everything that a network can do between them."""

import random
import struct
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from l2overlay.addresses import Address, PeerKey
from l2overlay.config.types import Suite
from l2overlay.counters import Counters, DropReason
from l2overlay.dataplane.replay import WINDOW_SIZE
from l2overlay.dataplane.session import Session, to_bursts
from l2overlay.dataplane.wire import COUNTER_LIMIT

ADDRESS = Address("192.0.2.1", 7470)
LEFT_KEY, RIGHT_KEY = b"\x01" * 32, b"\x02" * 32
LEFT_INDEX, RIGHT_INDEX = 0x01020304, 0xA0B0C0D0

both_suites = pytest.mark.parametrize("suite", list(Suite), ids=lambda s: s.name)


def two_ends(suite: Suite = Suite.AESGCM) -> tuple[Session, Session]:
    left = Session(
        PeerKey(b"R" * 32),
        suite,
        send_key=LEFT_KEY,
        receive_key=RIGHT_KEY,
        local_index=LEFT_INDEX,
        remote_index=RIGHT_INDEX,
        initiator=True,
        created_time=0.0,
        address=ADDRESS,
    )
    right = Session(
        PeerKey(b"L" * 32),
        suite,
        send_key=RIGHT_KEY,
        receive_key=LEFT_KEY,
        local_index=RIGHT_INDEX,
        remote_index=LEFT_INDEX,
        initiator=False,
        created_time=0.0,
        address=ADDRESS,
    )
    return left, right


def seal(session: Session, *plaintexts: bytes) -> list[bytes]:
    sealed = session.seal(plaintexts)
    return [bytes(header + ciphertext) for header, ciphertext in zip(sealed[::2], sealed[1::2], strict=True)]


def open_one(session: Session, datagram: bytes) -> tuple[list[bytes], list[bytes], dict[DropReason, int]]:
    """Plaintexts, strangers, drops."""
    counters = Counters()
    plaintexts, strangers = open_burst(session, datagram, max(1, len(datagram)), counters)
    return plaintexts, strangers, counters.drops


def open_burst(
    session: Session, data: bytes, size: int, counters: Counters
) -> tuple[list[bytes], list[bytes]]:
    """Plaintexts and strangers of a whole burst; a stranger does not end it."""
    plaintexts: list[bytes] = []
    strangers: list[bytes] = []
    at = 0
    while at < len(data):
        opened, end = session.open_untrusted(data, at, size, counters)
        plaintexts += opened
        if end == at:
            strangers.append(data[at : at + size])
            end += size
        at = end
    return plaintexts, strangers


def state_of(session: Session) -> tuple[list[int], int]:
    return list(session.window), session.send_counter


# -- one by one ----------------------------------------------------------------------------------------------------------


@both_suites
def test_what_one_end_seals_the_other_opens(suite: Suite) -> None:
    left, right = two_ends(suite)
    for sender, receiver in ((left, right), (right, left)):
        for plaintext in (b"", b"x", bytes(65_000)):
            (datagram,) = seal(sender, plaintext)
            assert len(datagram) == 32 + len(plaintext)
            assert open_one(receiver, datagram) == ([plaintext], [], {})


@both_suites
def test_every_flipped_bit_is_refused_and_changes_nothing(suite: Suite) -> None:
    left, right = two_ends(suite)
    (genuine,) = seal(left, b"a frame of some length")
    before = state_of(right)
    for bit in range(8 * len(genuine)):
        forged = bytearray(genuine)
        forged[bit // 8] ^= 1 << bit % 8
        plaintexts, strangers, drops = open_one(right, bytes(forged))
        assert plaintexts == []
        assert len(strangers) + sum(drops.values()) == 1
        # Type, reserved bytes and index: not of this session. But one bit makes a car of it, without a train.
        assert bool(strangers) == (0 < bit < 64)
        assert state_of(right) == before
    assert open_one(right, genuine)[0] == [b"a frame of some length"]


@both_suites
def test_every_truncation_and_prolongation_is_refused_and_changes_nothing(suite: Suite) -> None:
    left, right = two_ends(suite)
    (genuine,) = seal(left, bytes(100))
    before = state_of(right)
    for length in range(len(genuine)):
        plaintexts, strangers, drops = open_one(right, genuine[:length])
        assert plaintexts == []
        assert len(strangers) + sum(drops.values()) == (1 if length else 0)
        reason = DropReason.BAD_LENGTH if length < 32 else DropReason.BAD_TAG
        assert drops == ({} if length < 8 else {reason: 1})
    assert open_one(right, genuine + b"\0") == ([], [], {DropReason.BAD_TAG: 1})
    assert state_of(right) == before
    assert open_one(right, genuine)[0] == [bytes(100)]


def test_each_direction_counts_from_0_one_up_a_datagram() -> None:
    for session in two_ends():
        counters = [
            int.from_bytes(d[8:16], "little") for d in (*seal(session, b"", b""), *seal(session, b""))
        ]
        assert counters == [0, 1, 2]


def test_datagram_is_not_opened_twice() -> None:
    left, right = two_ends()
    (datagram,) = seal(left, b"once")
    assert open_one(right, datagram)[0] == [b"once"]
    assert open_one(right, datagram) == ([], [], {DropReason.REPLAYED: 1})


def test_own_datagram_reflected_is_a_stranger() -> None:
    left, _ = two_ends()
    (datagram,) = seal(left, b"hello")
    assert open_one(left, datagram) == ([], [datagram], {})


def test_own_datagram_reflected_under_our_index_does_not_verify() -> None:
    left, _ = two_ends()
    (datagram,) = seal(left, b"hello")
    forged = datagram[:4] + LEFT_INDEX.to_bytes(4, "little") + datagram[8:]
    assert open_one(left, forged) == ([], [], {DropReason.BAD_TAG: 1})


def test_forged_counter_ahead_does_not_close_the_window() -> None:
    left, right = two_ends()
    (datagram,) = seal(left, b"late")
    for counter in (WINDOW_SIZE, 1 << 59):
        forged = datagram[:8] + counter.to_bytes(8, "little") + datagram[16:]
        assert open_one(right, forged) == ([], [], {DropReason.BAD_TAG: 1})
    assert open_one(right, datagram)[0] == [b"late"]


@pytest.mark.parametrize("counter", [COUNTER_LIMIT, (1 << 64) - 1])
def test_counter_beyond_the_limit_is_refused(counter: int) -> None:
    left, right = two_ends()
    left.send_counter = 0
    (datagram,) = seal(left, b"x")
    forged = datagram[:8] + counter.to_bytes(8, "little") + datagram[16:]
    assert open_one(right, forged) == ([], [], {DropReason.REPLAYED: 1})


def test_last_counter_is_used_and_none_after_it() -> None:
    left, right = two_ends()
    left.send_counter = COUNTER_LIMIT - 1
    (datagram,) = seal(left, b"last")
    assert open_one(right, datagram)[0] == [b"last"]
    for _ in range(2):
        with pytest.raises(OverflowError):
            left.seal([b"more"])


def test_burst_is_opened_datagram_by_datagram() -> None:
    """One forged, one replayed, one stranger and a short one at the end: each is judged alone."""
    left, right = two_ends()
    datagrams = seal(left, *(bytes([n]) * 50 for n in range(6)), b"short")
    open_one(right, datagrams[1])
    datagrams[2] = datagrams[2][:-1] + bytes([datagrams[2][-1] ^ 1])
    datagrams[3] = b"\x01" + datagrams[3][1:]
    counters = Counters()
    plaintexts, strangers = open_burst(right, b"".join(datagrams), 82, counters)
    assert plaintexts == [*(bytes([n]) * 50 for n in (0, 4, 5)), b"short"]
    assert strangers == [datagrams[3]]
    assert counters.drops == {DropReason.REPLAYED: 1, DropReason.BAD_TAG: 1}


def test_short_datagram_in_the_middle_of_a_burst_costs_what_follows_and_no_more() -> None:
    """No kernel coalesces so; if one did, what is cut at the wrong place does not verify."""
    left, right = two_ends()
    datagrams = seal(left, bytes(50), bytes(20), bytes(50), bytes(50))
    counters = Counters()
    plaintexts, strangers = open_burst(right, b"".join(datagrams), 82, counters)
    assert plaintexts == [bytes(50)]
    assert len(strangers) + sum(counters.drops.values()) == 3
    assert [open_one(right, datagram)[0] for datagram in datagrams[1:]] == [
        [bytes(20)],
        [bytes(50)],
        [bytes(50)],
    ]


@given(st.binary(max_size=200), st.integers(1, 250), st.booleans())
def test_any_bytes_never_raise_and_change_nothing(data: bytes, datagram_size: int, with_prefix: bool) -> None:
    _, right = two_ends()
    if with_prefix:
        data = struct.pack("<BBHI", 4, 0, 0, RIGHT_INDEX) + data
    before = state_of(right)
    counters = Counters()
    plaintexts, strangers = open_burst(right, data, datagram_size, counters)
    assert plaintexts == []
    assert len(strangers) + sum(counters.drops.values()) == -(-len(data) // datagram_size)
    assert state_of(right) == before


# -- bursts --------------------------------------------------------------------------------------------------------------


@given(st.lists(st.sampled_from((0, 1, 50, 51, 1000)), max_size=40))
def test_bursts_hold_what_was_sealed_in_order_and_only_the_last_of_each_is_shorter(
    lengths: list[int],
) -> None:
    left, _ = two_ends()
    sealed = left.seal([bytes(length) for length in lengths])
    bursts = to_bursts(ADDRESS, list(sealed))
    assert [piece for burst in bursts for piece in burst.buffers] == sealed
    assert [len(d) - 32 for burst in bursts for d in burst.datagrams()] == lengths
    for burst in bursts:
        sizes = [len(datagram) for datagram in burst.datagrams()]
        assert set(sizes[:-1]) <= {burst.datagram_size}
        assert 0 < sizes[-1] <= burst.datagram_size
    for burst, following in pairwise(bursts):
        last = len(burst.datagrams()[-1])
        assert last < burst.datagram_size or following.datagram_size > burst.datagram_size  # none could go on


# -- against a model -----------------------------------------------------------------------------------------------------


class SessionMachine(RuleBasedStateMachine):
    """Two ends that seal as they like, and a network that holds, repeats, reorders, damages and forgets datagrams."""

    @initialize(suite=st.sampled_from(list(Suite)))
    def start(self, suite: Suite) -> None:
        self.ends = two_ends(suite)
        self.sent: list[tuple[int, int, bytes, bytes]] = []
        """Of every datagram ever sealed: receiving end, counter, plaintext, bytes."""
        self.opened: tuple[set[int], set[int]] = (set(), set())
        self.chance = random.Random(0)

    @rule(sender=st.sampled_from((0, 1)), count=st.integers(0, 5), length=st.sampled_from((0, 1, 60, 1400)))
    def seal(self, sender: int, count: int, length: int) -> None:
        plaintexts = [self.chance.randbytes(length) for _ in range(count)]
        first = self.ends[sender].send_counter
        for number, (plaintext, datagram) in enumerate(
            zip(plaintexts, seal(self.ends[sender], *plaintexts), strict=True)
        ):
            self.sent.append((1 - sender, first + number, plaintext, datagram))

    @rule(sender=st.sampled_from((0, 1)), count=st.sampled_from((10, WINDOW_SIZE - 1, WINDOW_SIZE)))
    def many_are_lost(self, sender: int, count: int) -> None:
        """As if they had been sealed and never arrived."""
        self.ends[sender].send_counter += count

    def is_fresh(self, end: int, counter: int) -> bool:
        return not any(seen >= counter and (seen - counter) % WINDOW_SIZE == 0 for seen in self.opened[end])

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def some_arrive(self, data: st.DataObject) -> None:
        """Any that were ever sealed, in any order, perhaps again: as one burst when their sizes allow it."""
        chosen = data.draw(st.lists(st.sampled_from(self.sent), min_size=1, max_size=4))
        for end, counter, plaintext, datagram in chosen:
            plaintexts, strangers, drops = open_one(self.ends[end], datagram)
            assert strangers == []
            if self.is_fresh(end, counter):
                assert (plaintexts, drops) == ([plaintext], {})
                self.opened[end].add(counter)
            else:
                assert (plaintexts, drops) == ([], {DropReason.REPLAYED: 1})

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def a_damaged_one_arrives(self, data: st.DataObject) -> None:
        end, _, _, datagram = data.draw(st.sampled_from(self.sent))
        damaged = bytearray(datagram)
        for _ in range(data.draw(st.integers(1, 3))):
            damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= data.draw(st.integers(1, 255))
        damaged = damaged[: data.draw(st.just(len(damaged)) | st.integers(0, len(damaged)))]
        if damaged == datagram or not damaged:
            return
        before = state_of(self.ends[end])
        counters = Counters()
        plaintexts, strangers = open_burst(self.ends[end], bytes(damaged), len(damaged), counters)
        # Three bytes make a car of it, which would wait for others.
        self.ends[end].close(counters)
        assert plaintexts == []
        assert len(strangers) + sum(counters.drops.values()) == 1
        assert state_of(self.ends[end]) == before

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def one_arrives_at_the_wrong_end(self, data: st.DataObject) -> None:
        end, _, _, datagram = data.draw(st.sampled_from(self.sent))
        assert open_one(self.ends[1 - end], datagram) == ([], [datagram], {})

    @invariant()
    def no_counter_was_used_twice_under_one_key(self) -> None:
        if hasattr(self, "sent"):
            used = [(end, datagram[8:16]) for end, _, _, datagram in self.sent]
            assert len(used) == len(set(used))


TestSession = SessionMachine.TestCase
