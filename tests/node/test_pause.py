"""The pauses of trio's loop, on trio's own clock: what is moved there, and what ends them."""

import os
import select
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
import trio

from l2overlay.node.latency.pause import Pause, watcher_of


class Mover:
    """Reads a pipe whenever it may."""

    def __init__(self) -> None:
        self.epoll = select.epoll()
        self.pipe, self.far_end = os.pipe()
        self.epoll.register(self.pipe, select.EPOLLIN)
        self.pause = Pause(self.epoll, self.move)
        self.found: list[bytes] = []
        self.timeouts: list[float] = []
        self.error: Exception | None = None

    def move(self, timeout: float) -> bool:
        self.timeouts.append(timeout)
        if self.error is not None:
            raise self.error
        while ready := self.epoll.poll(min(timeout, 5.0), 2):
            if (self.pause.trio_fd, select.EPOLLIN) in ready:
                return False
            self.found.append(os.read(self.pipe, 100))
            if self.pause.ended:
                break
        return True

    def close(self) -> None:
        self.pause.close()
        self.epoll.close()
        os.close(self.pipe)
        os.close(self.far_end)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.pause.use)
            yield
            nursery.cancel_scope.cancel()


@pytest.fixture
def mover() -> Iterator[Mover]:
    made = Mover()
    yield made
    made.close()


class Steps(trio.abc.Instrument):
    """Counts how often any task runs."""

    def __init__(self) -> None:
        self.count = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.count += 1


def write_ten_times(fd: int) -> None:
    for _ in range(10):
        os.write(fd, b"x")
        time.sleep(0.005)


async def test_what_comes_is_moved_and_no_task_is_woken_for_it(mover: Mover) -> None:
    steps = Steps()
    async with mover.running():
        await trio.sleep(0.01)
        trio.lowlevel.add_instrument(steps)
        await trio.to_thread.run_sync(write_ten_times, mover.far_end)
        trio.lowlevel.remove_instrument(steps)
    assert mover.found == [b"x"] * 10
    assert steps.count < 10


async def test_a_timer_of_trio_is_on_time_while_the_pause_waits(mover: Mover) -> None:
    async with mover.running():
        await trio.sleep(0.01)
        started = time.monotonic()
        await trio.sleep(0.05)
        assert 0.05 <= time.monotonic() - started < 0.5


async def test_a_thread_that_ends_is_noticed_at_once(mover: Mover) -> None:
    async with mover.running():
        await trio.sleep(0.01)
        started = time.monotonic()
        await trio.to_thread.run_sync(time.sleep, 0.02)
        assert time.monotonic() - started < 0.5


async def test_a_task_that_becomes_runnable_meanwhile_runs_at_once(mover: Mover) -> None:
    reached = trio.Event()
    real_move = mover.move

    def move(timeout: float) -> bool:
        if timeout > 1:
            reached.set()
        return real_move(timeout)

    mover.pause._move = move
    with trio.fail_after(3):
        async with mover.running():
            os.write(mover.far_end, b"x")
            await reached.wait()


async def test_what_fails_in_a_pause_comes_out_of_use(mover: Mover) -> None:
    mover.error = ValueError("broken")
    with pytest.raises(ValueError, match="broken"):
        await mover.pause.use()


async def test_of_two_in_one_loop_both_move(mover: Mover) -> None:
    other = Mover()
    async with mover.running(), other.running():
        for one in (mover, other, mover, other):
            os.write(one.far_end, b"x")
            await trio.sleep(0.01)
    other.close()
    assert mover.found == other.found == [b"x", b"x"]


async def test_afterwards_trio_waits_as_before(mover: Mover) -> None:
    async with mover.running():
        await trio.sleep(0.01)
    asked = len(mover.timeouts)
    await trio.sleep(0.01)
    assert len(mover.timeouts) == asked
    assert mover.pause.trio_fd < 0


def test_a_descriptor_that_no_epoll_watches_has_no_watcher() -> None:
    reader, writer = os.pipe()
    try:
        with pytest.raises(RuntimeError, match="epoll"):
            watcher_of(reader)
    finally:
        os.close(reader)
        os.close(writer)
