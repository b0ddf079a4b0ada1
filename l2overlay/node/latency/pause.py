"""The pauses of trio's loop: while no task can run, frames are moved right there, and no task is woken for one.

    trio    tasks run | before_io_wait(timeout) | trio's own epoll | tasks run | ...
                        `-> move(timeout): the frames' epoll, in which trio's epoll is registered as well

`move` comes back when one of trio's descriptors is ready, when a task became runnable, or after `timeout`. In the last
two cases trio would still sleep for as long as it had meant to before; so a descriptor of ours is made ready for it.

Instruments and `wait_readable` are trio's public interface. Its epoll has no name there: it is found as the one that
watches a descriptor of ours (proc(5), "tfd" in fdinfo).

In tests a task waits for the frames' epoll as for anything else: of two nodes in one loop the second, and all of them on a
clock that jumps, which must see when nothing happens.
"""

import os
import select
from collections.abc import Callable
from pathlib import Path

import trio

_taken = trio.lowlevel.RunVar("taken", default=False)
"""One can wait in trio's place: it would not see what comes for another."""


class Pause(trio.abc.Instrument):
    """Calls `move` whenever trio is about to sleep, from `use` until that is cancelled.

    `move` gets the seconds that trio would sleep and says whether trio has to look again at what it waits for. It must
    return soon after `ended` has become true, or `epoll` has told that `trio_fd` is ready.
    """

    def __init__(self, epoll: select.epoll, move: Callable[[float], bool]) -> None:
        self._epoll = epoll
        self._move = move
        self._nudge = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._error: BaseException | None = None
        self.trio_fd = -1
        """Of the epoll in which trio waits; registered in `epoll` once it is known."""
        self.ended = False
        """A task can run."""

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self._nudge)

    async def use(self) -> None:
        """Until cancelled, or until `move` fails: its error comes out here."""
        if _taken.get() or _clock_stands():
            await self._wait_as_task()
            return
        _taken.set(True)
        trio.lowlevel.add_instrument(self)
        try:
            while self._error is None:
                await trio.lowlevel.wait_readable(self._nudge)
                os.eventfd_read(self._nudge)
            raise self._error
        finally:
            _taken.set(False)
            trio.lowlevel.remove_instrument(self)
            if self.trio_fd >= 0:
                self._epoll.unregister(self.trio_fd)
                self.trio_fd = -1

    async def _wait_as_task(self) -> None:
        while True:
            await trio.lowlevel.wait_readable(self._epoll.fileno())
            self._move(0)

    def task_scheduled(self, task: trio.lowlevel.Task) -> None:
        """For trio."""
        self.ended = True

    def before_io_wait(self, timeout: float) -> None:
        """For trio. An instrument that raises is only logged, and used no more."""
        self.ended = False
        try:
            if self.trio_fd < 0:
                self._find_trio()
            look_again = self._move(timeout)
        except BaseException as error:  # noqa: BLE001 - `use` raises it
            self._error, look_again = error, True
        if look_again:
            os.eventfd_write(self._nudge, 1)

    def _find_trio(self) -> None:
        self.trio_fd = watcher_of(self._nudge)
        self._epoll.register(self.trio_fd, select.EPOLLIN)


def _clock_stands() -> bool:
    clock = trio.lowlevel.current_clock()
    return clock.deadline_to_sleep_time(clock.current_time() + 1.0) > 1.0


def watcher_of(fd: int) -> int:
    """The descriptor of the epoll of this process that watches `fd`."""
    for info in Path("/proc/self/fdinfo").iterdir():
        try:
            lines = info.read_text().splitlines()
        except FileNotFoundError:  # the one that lists the directory
            continue
        if any(line.split()[:2] == ["tfd:", str(fd)] for line in lines):
            return int(info.name)
    raise RuntimeError("trio does not wait in an epoll")
