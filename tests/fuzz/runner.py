"""Runs fuzz targets: one iteration after the other, until the time is over or a fault is found.

A target is a module in `targets/` with a docstring and `make(random)`. `make` is called once a run and returns one
iteration as a function, which raises when it finds a fault. The source of chance is seeded anew for each iteration, from
the run's seed and the iteration's number, so an iteration that depends on no earlier one can be repeated alone.
"""

import importlib
import pkgutil
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

from tests.fuzz import targets

Iteration = Callable[[], None]


class FuzzError(Exception):
    """A target found a fault; the text says how to see it again. Its cause is what the iteration raised."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """A run without a fault."""

    target: str
    iterations: int
    seconds: float

    @property
    def rate(self) -> float:
        """Iterations a second."""
        return self.iterations / self.seconds if self.seconds else 0.0


def target_names() -> list[str]:
    """All targets, in alphabetical order."""
    return sorted(module.name for module in pkgutil.iter_modules(targets.__path__))


def load(target: str) -> ModuleType:
    """The module of a target."""
    return importlib.import_module(f"{targets.__name__}.{target}")


def fuzz(
    target: str,
    seed: int,
    seconds: float,
    *,
    first: int = 0,
    last: int | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Outcome:
    """Run iterations from number `first` on, for `seconds` or up to number `last`. Raises FuzzError."""
    chance = random.Random(seed)
    iterate: Iteration = load(target).make(chance)
    begin = clock()
    number = first
    while (last is None or number <= last) and (number == first or clock() - begin < seconds):
        chance.seed((seed << 64) + number)
        try:
            iterate()
        except Exception as error:
            raise FuzzError(_failure(target, seed, number, error)) from error
        number += 1
    return Outcome(target, number - first, clock() - begin)


def _failure(target: str, seed: int, number: int, error: Exception) -> str:
    return (
        f"target {target}, seed {seed}, iteration {number}: {type(error).__name__}: {error}\n"
        f"repeat: python -m tests.fuzz {target} --seed {seed} --first {number} --last {number}\n"
        f"(without --first if that passes: then it takes the iterations before, too)"
    )
