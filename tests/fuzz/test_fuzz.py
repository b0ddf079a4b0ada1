"""Every fuzz target for a moment, with a seed of its own each time; `make fuzz` runs them for long."""

import random
import secrets
import types
from collections.abc import Callable

import pytest

from tests.fuzz import runner
from tests.fuzz.runner import FuzzError, fuzz, load, target_names

SECONDS = 1.5


@pytest.mark.parametrize("target", target_names())
def test_target_finds_no_fault(target: str) -> None:
    seed = secrets.randbits(32)
    print(f"seed {seed}")
    assert fuzz(target, seed, SECONDS).iterations > 0


@pytest.mark.parametrize("target", target_names())
def test_target_says_what_it_does(target: str) -> None:
    assert load(target).__doc__


def faulty(chance: random.Random) -> Callable[[], None]:
    def iterate() -> None:
        assert chance.randrange(20) != 7, "a seven"

    return iterate


def test_fault_is_told_with_what_repeats_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "load", lambda _: types.SimpleNamespace(make=faulty))
    with pytest.raises(
        FuzzError, match=r"target some, seed 5, iteration [0-9]+: AssertionError: a seven"
    ) as caught:
        fuzz("some", 5, 60.0)
    number = int(str(caught.value).split("--first ")[1].split()[0])
    with pytest.raises(FuzzError, match=f"iteration {number}: "):
        fuzz("some", 5, 60.0, first=number, last=number)
    assert fuzz("some", 5, 60.0, last=number - 1).iterations == number
