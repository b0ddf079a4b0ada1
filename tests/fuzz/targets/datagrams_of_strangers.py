"""Datagrams of who has no key: genuine ones damaged, cut, mixed, trains and fragments too. Nothing comes of them."""

import random
from collections.abc import Callable

from l2overlay.controlplane.events import Event
from l2overlay.seams import Burst
from tests.dataplane.insider import INSIDER_ADDRESS, STRANGER_ADDRESS, Meeting
from tests.dataplane.test_inbox import fragment, frame_record
from tests.fuzz.corpus import GOOD
from tests.fuzz.mutation import mutate_bytes

MAX_ROUNDS = 100
"""Iterations with one node; then the next begins."""
CHECK_ROUNDS = 20
"""Iterations after which what is genuine must still pass."""
SESSION_TIME = 200.0
"""Seconds after which no session of today is left."""


def make(chance: random.Random) -> Callable[[], None]:
    """Receive a few bursts, then see that nothing is different but the counters."""
    victim = _Victim()

    def iterate() -> None:
        nonlocal victim
        if victim.rounds == MAX_ROUNDS:
            victim = _Victim()
        victim.receive([victim.burst(chance) for _ in range(chance.randint(1, 3))])

    return iterate


class _Victim:
    def __init__(self) -> None:
        self.meeting = meeting = Meeting()
        self.rounds = 0
        meeting.read_from_tap(bytes(10) + GOOD)
        whole = [*meeting.sent(), *meeting.sealed(frame_record(GOOD))]
        parts = meeting.sealed(fragment(GOOD, 0, 30), fragment(GOOD, 30, len(GOOD)))
        train = bytes(meeting.session.seal_train(frame_record(GOOD) * 30, 400))
        self._cars = [train[at : at + 400] for at in range(0, len(train), 400)]
        self._genuine = [*whole, *parts, *self._cars]
        self._known = set(self._genuine)
        meeting.settle()
        self._before = self._books()
        self._given = 0
        self._opened = 0

    def burst(self, chance: random.Random) -> Burst:
        pieces = [piece for piece in self._pieces(chance) if piece not in self._known] or [b""]
        size = chance.choice((1, 16, 17, 32, 399, 400, 401, 1472)) if chance.random() < 0.3 else None
        address = chance.choice((STRANGER_ADDRESS, INSIDER_ADDRESS))
        return Burst(address, size or max(1, *map(len, pieces)), pieces)

    def _pieces(self, chance: random.Random) -> list[bytes]:
        if chance.random() < 0.3:
            return self._forged_cars(chance)
        return [self._piece(chance) for _ in range(chance.randint(1, 6))]

    def _piece(self, chance: random.Random) -> bytes:
        piece = bytearray(mutate_bytes(chance, chance.choice(self._genuine), self._genuine))
        if chance.random() < 0.3:
            piece[:1] = bytes([chance.randrange(7)])
        return bytes(piece)

    def _forged_cars(self, chance: random.Random) -> list[bytes]:
        """Genuine headers, with counters far ahead, and anything behind them."""
        same = chance.choice((0, 1, 1000, 1 << 40, (1 << 64) - 1))
        highest = chance.choice((0, 0, 1 << 18, 1 << 59))
        length = chance.choice((0, 1, 16, 384))
        heads = []
        for _ in range(chance.randint(1, 40)):
            counter = chance.randrange(highest) if highest else same
            car = chance.choice(self._cars)
            heads.append(car[:4] + self._cars[0][4:8] + counter.to_bytes(8, "little"))
        return [head + chance.randbytes(length) for head in heads]

    def receive(self, bursts: list[Burst]) -> None:
        self.rounds += 1
        assert self._receive(bursts) == ([], [], [])
        if self.rounds % CHECK_ROUNDS == 0:
            self._check_frame()
            assert any(self._train_passes() for _ in range(3))  # one or two that somebody guessed are spoiled
        if self.rounds == MAX_ROUNDS:
            self._balance()

    def _receive(self, bursts: list[Burst]) -> tuple[list[list[bytes]], list[bytes], list[Event]]:
        meeting = self.meeting
        self._given += sum(max(1, -(-sum(map(len, b.buffers)) // b.datagram_size)) for b in bursts)
        meeting.node.receive_datagrams(bursts, meeting.now)
        return meeting.delivered(), meeting.sent(), meeting.events()

    def _check_frame(self) -> None:
        (datagram,) = self.meeting.sealed(frame_record(GOOD))
        delivered, _, _ = self._receive([Burst(INSIDER_ADDRESS, len(datagram), [datagram])])
        assert delivered == [[bytes(10) + GOOD]]
        self._opened += 1

    def _train_passes(self) -> bool:
        """Cars one by one, so that they have to wait for each other. No stranger has seen a counter so high."""
        session = self.meeting.session
        session.send_counter += 1000
        train = bytes(session.seal_train(frame_record(GOOD) * 30, 400))
        cars = [train[at : at + 400] for at in range(0, len(train), 400)]
        delivered = [
            frame for car in cars for frame in self._receive([Burst(INSIDER_ADDRESS, 400, [car])])[0]
        ]
        assert delivered in ([], [[bytes(10) + GOOD]] * 30)
        self._opened += len(cars) if delivered else 0
        return bool(delivered)

    def _balance(self) -> None:
        """Cars wait; when the session has ended, every datagram that was not opened is counted under one reason."""
        self.meeting.now += SESSION_TIME
        self.meeting.settle()
        received, dropped = (now - before for now, before in zip(self._books(), self._before, strict=True))
        assert received == self._given
        assert dropped == self._given - self._opened, self.meeting.drops()

    def _books(self) -> tuple[int, int]:
        counters = self.meeting.counters()
        return counters.rx_datagrams, sum(counters.drops.values())
