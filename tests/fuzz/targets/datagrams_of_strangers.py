"""Datagrams of who has no key: genuine ones damaged, cut, mixed, trains and fragments too. Nothing comes of them."""

import random
from collections.abc import Callable

from l2overlay.seams import Burst
from tests.dataplane.insider import STRANGER_ADDRESS, Meeting
from tests.dataplane.test_inbox import fragment, frame_record
from tests.fuzz.corpus import GOOD, working
from tests.fuzz.mutation import mutate_bytes

MAX_ROUNDS = 100
"""Iterations with one node; then the next begins."""


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

    def burst(self, chance: random.Random) -> Burst:
        pieces = [piece for piece in self._pieces(chance) if piece not in self._known] or [b""]
        size = chance.choice((1, 16, 17, 32, 399, 400, 401, 1472)) if chance.random() < 0.3 else None
        return Burst(STRANGER_ADDRESS, size or max(1, *map(len, pieces)), pieces)

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
        counter = chance.choice((0, 1, 1000, 1 << 40, (1 << 64) - 1)).to_bytes(8, "little")
        length = chance.choice((0, 1, 16, 384))
        heads = [
            chance.choice(self._cars)[:4] + self._cars[0][4:8] + counter for _ in range(chance.randint(1, 40))
        ]
        return [head + chance.randbytes(length) for head in heads]

    def receive(self, bursts: list[Burst]) -> None:
        self.rounds += 1
        meeting = self.meeting
        meeting.node.receive_datagrams(bursts, meeting.now)
        assert (meeting.delivered(), meeting.sent(), meeting.events()) == ([], [], [])
        if self.rounds == MAX_ROUNDS:
            self._balance()

    def _balance(self) -> None:
        """What became a car waits; when the session ends, every datagram is counted under one reason."""
        meeting = self.meeting
        assert working(meeting)
