"""The RFC 2544 search: the highest rate at which at most 0.1 % of the frames are lost. Pure; a trial is an argument.

From a first guess the rate is raised or lowered until one rate passes and one fails, then the bracket is halved (on a
logarithmic scale). A trial that fails is tried once more: on a virtual machine one stolen time slice loses more than 0.1 %.
"""

from collections.abc import Callable

LOSS_LIMIT = 0.001
PRECISION = 0.05
"""The search ends when the failing rate is this much above the passing one."""
STEP = 1.4
"""How far the bracket is pushed out while there is none."""
MAX_RATES = 12

PassFn = Callable[[float], bool]


def highest_passing(passes: PassFn, guess: float) -> float:
    """The highest rate that passed; 0.0 when none did among MAX_RATES."""
    good, bad, rate = 0.0, float("inf"), guess
    for _ in range(MAX_RATES):
        if passes(rate):
            good = rate
        else:
            bad = rate
        if bad <= good * (1 + PRECISION):
            break
        rate = next_rate(good, bad)
    return good


def next_rate(good: float, bad: float) -> float:
    """Between the two once both are near; else one step out from the one that is known."""
    if not good:
        return bad / STEP
    if bad > good * STEP:
        return good * STEP
    return float((good * bad) ** 0.5)


def twice(passes: PassFn) -> PassFn:
    """A rate passes if the first or the second trial does."""
    return lambda rate: passes(rate) or passes(rate)
