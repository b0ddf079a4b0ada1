"""When the kernel is to drop what strangers send."""

from l2overlay.controlplane.shield import CALM_TIME, OFF_RATE, ON_RATE, STEP, Shield


def run(shield: Shield, rate: float, seconds: float, start: float, total: int) -> tuple[float, int]:
    """A steady rate of failing datagrams; returns time and total at the end."""
    for _ in range(int(seconds / STEP)):
        start, total = start + STEP, total + int(rate * STEP)
        shield.step(total, 0, start)
    return start, total


def test_a_flood_puts_the_filter_on_within_two_looks_and_a_trickle_never_does() -> None:
    shield = Shield()
    now, total = run(shield, ON_RATE * 0.9, 60.0, 0.0, 0)
    assert not shield.on
    run(shield, ON_RATE * 1.1, 2 * STEP, now, total)
    assert shield.on


def test_a_burst_of_less_than_a_second_s_worth_is_no_flood() -> None:
    shield = Shield()
    now, total = run(shield, 0, 5.0, 0.0, 0)
    for _ in range(10):
        total, now = total + int(ON_RATE * 0.9), now + STEP
        assert not shield.step(total, 0, now)
        now, total = run(shield, 0, 2 * STEP, now, total)


def test_it_stays_on_while_the_kernel_drops_and_goes_off_after_a_calm() -> None:
    shield = Shield()
    now, total = run(shield, 50_000, 1.0, 0.0, 0)
    filtered = 0
    for _ in range(100):
        now, filtered = now + STEP, filtered + 20_000
        assert shield.step(total, filtered, now)
    calm = now
    while shield.step(total, filtered, now):
        now += STEP
        assert now < calm + CALM_TIME + 3 * STEP
    assert now >= calm + CALM_TIME


def test_a_pause_shorter_than_the_calm_does_not_take_it_off() -> None:
    shield = Shield()
    now, total = run(shield, 50_000, 1.0, 0.0, 0)
    for _ in range(5):
        now, total = run(shield, OFF_RATE / 2, CALM_TIME - 2 * STEP, now, total)
        assert shield.on
        now, total = run(shield, 50_000, STEP, now, total)


def test_the_first_look_decides_nothing() -> None:
    assert not Shield().step(1_000_000, 0, 100.0)
