"""Bulk transfers between nodes whose trains grow and shrink: every byte that is delivered is one that was sent, once.

They are TCP super-frames of one long stream, given to the TAP, and their sequence numbers say where its bytes belong.
"""

import random
import struct
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise

import pytest

from l2overlay.addresses import Address
from l2overlay.counters import DropReason
from l2overlay.seams import TapFrame

from .invariants import TRAIN_TYPE
from .simulator import STRANGER, Node, Simulation, started
from .test_hostile_datagrams import assert_nothing_happens
from .underlay import Conditions

DELAY = 0.01
PAYLOAD_LEN = 64_000
PERIOD = random.Random(0).randbytes(65_537)
"""The stream repeats itself after so many bytes, which no length here divides."""
STREAM = PERIOD * 3


def stream(at: int, length: int) -> bytes:
    at %= len(PERIOD)
    return STREAM[at : at + length]


@dataclass
class Transfer:
    """Guests of `sender` send to those of `receiver`, four super-frames at a time, 1 Gbit/s."""

    sim: Simulation
    sender: Node
    receiver: Node
    sent: int = 0
    ranges: list[tuple[int, int]] = field(default_factory=list)

    def run(self, super_frames: int) -> float:
        """Returns which share of the bytes arrived."""
        begin = self.sent
        for _ in range(super_frames // 4):
            self.sender.receive_frames([self._next() for _ in range(4)])
            self.sim.run(0.002)
        self.sim.run(2 * DELAY + 0.2)
        return self._take_delivered() / (self.sent - begin)

    def _next(self) -> TapFrame:
        at, self.sent = self.sent, self.sent + PAYLOAD_LEN
        addresses = bytes((10, 0, 0, 1, 10, 0, 0, 2))
        ip = struct.pack("!BBHHHBBH", 0x45, 0, 40 + PAYLOAD_LEN, 1, 0, 64, 6, 0) + addresses
        tcp = struct.pack("!HHIIBBHHH", 40_000, 42_000, at, 0, 5 << 4, 0x10, 500, 0, 0)
        ethernet = self.receiver.mac + self.sender.mac + b"\x08\0"
        virtio = struct.pack("<BBHHHH", 1, 1, 54, 1460, 34, 16)
        return TapFrame(virtio + ethernet + ip + tcp + stream(at, PAYLOAD_LEN))

    def _take_delivered(self) -> int:
        """Every byte is the right one, and none comes twice. Returns how many there are."""
        new = []
        for frame in self.receiver.strange:
            if frame[12:14] == b"\x08\0":
                (at,) = struct.unpack_from("!I", frame, 38)
                assert frame[54:] == stream(at, len(frame) - 54)
                new.append((at, at + len(frame) - 54))
        self.receiver.strange.clear()
        if self.sim.underlay.kept_order:
            assert new == sorted(new)
        self.ranges = sorted(self.ranges + new)
        assert all(end <= start for (_, end), (start, _) in pairwise(self.ranges))
        assert not self.ranges or self.ranges[-1][1] <= self.sent
        return sum(end - start for start, end in new)

    @property
    def cars(self) -> int:
        return self.sender.overlay._members.peers[self.receiver.key].paths.used.trains.cars


def a_transfer(seed: int, conditions: Conditions, *, capture: bool = False) -> Transfer:
    """Between two nodes whose paths have full size and whose stations know each other."""
    sim = started(seed, 2, conditions, capture=capture)
    sim.run(1.0)
    a, b = sim.nodes
    b.send(a)
    sim.run(0.5)
    return Transfer(sim, a, b)


@pytest.mark.parametrize(("loss", "least"), [(0.0, 1.0), (0.001, 0.985), (0.01, 0.97)])
@pytest.mark.parametrize("seed", range(2))
def test_bytes_delivered_of_a_bulk_transfer_are_the_right_ones_and_few_are_lost(
    seed: int, loss: float, least: float
) -> None:
    transfer = a_transfer(seed, Conditions(delay=DELAY))
    assert transfer.run(240) == 1.0
    assert transfer.cars >= 4
    transfer.sim.underlay.impair(loss=loss)
    assert least <= transfer.run(400) <= 1.0
    if loss == 0.01:
        assert transfer.cars == 1
        assert transfer.receiver.drops(DropReason.TRAIN_INCOMPLETE) > 0
    if loss == 0.0:
        transfer.sim.check_nothing_got_lost()
        assert transfer.cars >= 8
        assert sum(transfer.receiver.overlay.total_counters().drops.values()) == 0


@pytest.mark.parametrize("seed", range(2))
def test_repeated_and_late_datagrams_deliver_nothing_twice_and_damaged_ones_nothing(seed: int) -> None:
    transfer = a_transfer(seed, Conditions(delay=DELAY))
    transfer.run(160)
    cars = transfer.cars
    assert cars >= 4
    transfer.sim.underlay.impair(duplicate=0.05)
    assert transfer.run(80) == 1.0, "what comes twice costs nothing"
    assert transfer.cars >= cars
    transfer.sim.underlay.impair(reorder=0.01, late=0.004, corrupt=0.001)
    assert transfer.run(160) > 0.9
    drops = transfer.receiver.overlay.total_counters().drops
    assert drops[DropReason.REPLAYED] > 10


def test_a_whole_capture_of_trains_replayed_changes_nothing_and_delivers_nothing() -> None:
    transfer = a_transfer(3, Conditions(delay=DELAY), capture=True)
    transfer.run(120)
    captured = transfer.sim.captured
    assert captured is not None
    to_receiver = [c for c in captured if c.receiver is transfer.receiver]
    assert sum(c.kind == TRAIN_TYPE for c in to_receiver) > 1000
    assert_nothing_happens(
        transfer.receiver, [c.datagram for c in to_receiver[-2000:]], to_receiver[0].source
    )


# -- under a stranger's hand ---------------------------------------------------------------------------------------------

FAR_AHEAD = 1 << 40


def forged_car(like: bytes, counter: int, index: int = 0, count: int = 2) -> bytes:
    """One byte of ciphertext for the session of `like`: all that a stranger needs is the session's index."""
    return bytes((TRAIN_TYPE, index, count, 0)) + like[4:8] + counter.to_bytes(8, "little") + b"?"


def a_transfer_in_many_reads(seed: int) -> tuple[Transfer, bytes]:
    """Cars of one train rarely come at one instant. Also returns a car of it."""
    transfer = a_transfer(seed, Conditions(delay=DELAY, jitter=0.0005), capture=True)
    assert transfer.run(160) > 0.99
    assert transfer.cars >= 4
    assert transfer.sim.captured is not None
    return transfer, next(
        c.datagram
        for c in reversed(transfer.sim.captured)
        if c.kind == TRAIN_TYPE and c.receiver is transfer.receiver
    )


@pytest.mark.parametrize("source", ["a stranger's address", "the peer's own address"])
def test_forged_cars_that_came_once_cost_next_to_nothing(source: str) -> None:
    transfer, seen = a_transfer_in_many_reads(1)
    address = STRANGER if source == "a stranger's address" else transfer.sender.address
    for number in range(32):
        transfer.sim.inject(transfer.receiver, forged_car(seen, FAR_AHEAD + number), address)
    assert transfer.run(80) > 0.98
    assert transfer.cars >= 4, "nor do trains get short"


def test_a_stranger_who_never_stops_cannot_displace_what_comes_from_the_peers_address() -> None:
    transfer, seen = a_transfer_in_many_reads(2)
    flood(transfer, seen, STRANGER)
    assert transfer.run(80) > 0.98
    assert transfer.cars >= 4


def test_a_session_that_loses_its_trains_to_forged_ones_is_back_at_datagrams_within_a_second() -> None:
    """Somebody on the path, who sends as the peer and knows the counters."""
    transfer, seen = a_transfer_in_many_reads(3)
    flood(transfer, seen, transfer.sender.address, every=0.0001)
    transfer.run(16)
    transfer.sim.run(0.5)
    assert transfer.run(80) > 0.95


def flood(transfer: Transfer, seen: bytes, source: Address, every: float = 0.0005) -> None:
    """Forged cars without end, from now on, with counters that are about to be used."""
    sim = transfer.sim
    sent = 0

    def forge() -> None:
        nonlocal sent
        session = transfer.sender.overlay._members.peers[transfer.receiver.key].link.current
        assert session is not None
        for _ in range(8):
            sent += 1
            counter = session.send_counter + sent % 64
            sim.at(sim.now, partial(transfer.receiver.arrive, source, forged_car(seen, counter)), order=-1)
        sim.at(sim.now + every, forge)

    forge()
