"""The overlay's timer is neither late nor called without need, and a sleeping machine is noticed."""

from typing import cast

import trio
from trio.testing import MockClock

from l2overlay.node.timer import HEARTBEAT, LoopLag, OverlayTimer
from l2overlay.overlay import Overlay

from .fakes import CopyingOverlay


class SleepyClock:
    """CLOCK_BOOTTIME beside trio's clock: goes on during a suspend."""

    def __init__(self) -> None:
        self.slept = 0.0

    def __call__(self) -> float:
        return trio.current_time() + self.slept


async def test_timer_is_handled_when_due_and_not_before(autojump_clock: MockClock) -> None:
    overlay, flushed = CopyingOverlay(), []
    timer = OverlayTimer(
        cast(Overlay, overlay), trio.current_time, lambda: flushed.append(trio.current_time())
    )
    start = trio.current_time()
    overlay.timer = start + 5
    with trio.move_on_after(100):
        await timer.run()
    assert overlay.timer_calls == flushed == [start + 5]


async def test_earlier_moment_told_meanwhile_counts(autojump_clock: MockClock) -> None:
    overlay = CopyingOverlay()
    timer = OverlayTimer(cast(Overlay, overlay), trio.current_time, lambda: None)
    start = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(timer.run)
        await trio.sleep(1)
        overlay.timer = start + 3
        timer.moved(overlay.timer)
        await trio.sleep(10)
        nursery.cancel_scope.cancel()
    assert overlay.timer_calls == [start + 3]


async def test_timer_that_came_due_during_a_suspend_is_handled_at_the_next_heartbeat(
    autojump_clock: MockClock,
) -> None:
    overlay, clock = CopyingOverlay(), SleepyClock()
    timer = OverlayTimer(cast(Overlay, overlay), clock, lambda: None)
    overlay.timer = clock() + 1000
    async with trio.open_nursery() as nursery:
        nursery.start_soon(timer.run)
        nursery.start_soon(LoopLag(timer.check).run)
        await trio.sleep(1)
        clock.slept = 3600
        assert overlay.timer_calls == []
        await trio.sleep(HEARTBEAT + 0.001)
        assert len(overlay.timer_calls) == 1
        nursery.cancel_scope.cancel()


async def test_lag_is_zero_when_nothing_is_in_the_way(autojump_clock: MockClock) -> None:
    lag = LoopLag()
    assert lag.percentile(0.99) == 0.0
    with trio.move_on_after(10):
        await lag.run()
    assert lag.percentile(0.5) < 1e-6


async def test_task_that_holds_the_loop_shows_as_lag() -> None:
    import time

    lag = LoopLag()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lag.run)
        await trio.sleep(HEARTBEAT - 0.02)
        time.sleep(0.07)  # noqa: ASYNC251 - the fault under test
        await trio.sleep(0.01)
        nursery.cancel_scope.cancel()
    assert 0.03 < lag.percentile(0.99) < 0.5
