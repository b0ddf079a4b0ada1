"""Loss, long ways, reordering, duplicates, damage: what a segment promises on a network that is bad but there."""

import pytest

from .simulator import Simulation, percentile
from .underlay import Conditions


def handshake_time(seed: int, conditions: Conditions, natted: tuple[int, ...] = ()) -> float:
    """Seconds from the start of both ends until both are up."""
    return Simulation(seed, 2, conditions, natted=natted).run_until_all_up(within=60.0)


HANDSHAKE_LIMITS = {0.01: 2.0, 0.10: 3.0, 0.30: 6.0, 0.50: 12.0}


@pytest.mark.parametrize("loss", HANDSHAKE_LIMITS)
@pytest.mark.parametrize("natted", [(), (1,)], ids=["both can call", "one can call"])
def test_a_handshake_over_a_lossy_path_is_done_in_time_in_99_of_100_cases(
    loss: float, natted: tuple[int, ...]
) -> None:
    conditions = Conditions(delay=0.02, jitter=0.02, loss=loss)
    times = [handshake_time(seed, conditions, natted) for seed in range(300)]
    print(
        f"loss {loss}: p50 {percentile(times, 0.5):.2f} p99 {percentile(times, 0.99):.2f} max {max(times):.2f}"
    )
    assert percentile(times, 0.99) <= HANDSHAKE_LIMITS[loss]


@pytest.mark.parametrize("delay", [0.3, 0.55, 0.9, 1.1])
@pytest.mark.parametrize("natted", [(), (1,)], ids=["both can call", "one can call"])
def test_a_round_trip_longer_than_the_time_between_two_tries_is_no_obstacle(
    delay: float, natted: tuple[int, ...]
) -> None:
    for seed in range(10):
        time = handshake_time(seed, Conditions(delay=delay, jitter=0.05), natted)
        assert time <= 3 * (delay + 0.05)
