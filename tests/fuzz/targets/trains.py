"""Cars forged by a stranger, from the peer's address or another: afterwards a genuine train is whole again."""

import random
from collections.abc import Callable

from l2overlay.counters import Counters
from l2overlay.dataplane.session import Session
from l2overlay.dataplane.wire import COUNTER_LIMIT
from tests.dataplane.test_session import RIGHT_INDEX, two_ends
from tests.dataplane.test_train import a_car, cars_of

MAX_ROUNDS = 100
"""Iterations with one session; then the next begins."""


def make(chance: random.Random) -> Callable[[], None]:
    """Forge some cars, then let a genuine train come whose cars arrive one by one."""
    left, right = two_ends()
    rounds, now = 0, 100.0

    def iterate() -> None:
        nonlocal left, right, rounds, now
        rounds += 1
        if rounds > MAX_ROUNDS:
            (left, right), rounds = two_ends(), 1
        now += chance.choice((0.0, 0.01, 0.5, 2.0))
        for _ in range(chance.randint(1, 40)):
            forge(chance, left, right, now)
        left.send_counter += (
            65  # those that the stranger could guess are spoiled; this one he did not see yet
        )
        plaintext = b"\1" * chance.choice((200, 2000, 30_000))
        cars = cars_of(left, plaintext, chance.choice((1200, 1472)) if len(plaintext) > 2000 else 100)
        opened = [right.open_untrusted(car, 0, len(car), Counters(), now=now)[0] for car in cars]
        assert [p for plaintexts in opened for p in plaintexts] == [plaintext]

    return iterate


def forge(chance: random.Random, left: Session, right: Session, now: float) -> None:
    """One car with any header but a counter that is not used up yet."""
    near = left.send_counter + chance.randrange(65)
    counter = chance.choice(
        (0, near, near, near + 1000 + (1 << 30), COUNTER_LIMIT - 1 - chance.randrange(99))
    )
    piece = chance.randbytes(chance.choice((0, 1, 16, 1000, 1456)))
    car = a_car(chance.randrange(256), chance.randrange(256), piece, counter, RIGHT_INDEX)
    assert right.open_untrusted(car, 0, len(car), Counters(), now=now, strange=chance.random() < 0.5)[0] == []
