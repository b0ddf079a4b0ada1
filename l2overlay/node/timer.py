"""Time for the overlay: its clock, its timer, and how late this loop runs.

The clock is CLOCK_BOOTTIME, which goes on while the machine sleeps: a session that grew old during a suspend is old.
"""

import time
from collections import deque
from collections.abc import Callable
from functools import partial
from math import inf

import trio

from l2overlay.overlay import Overlay

HEARTBEAT = 0.25
"""Seconds between two looks at the loop's lag, and the longest delay after a suspend: trio's own clock stands still then."""
LATE_TIME = 0.1
"""Seconds. Of a timer that is so late answers may wait in the socket; they are read before anybody is taken for silent."""
LAG_SAMPLES = 240
"""One minute of heartbeats."""


boot_time: Callable[[], float] = partial(time.clock_gettime, time.CLOCK_BOOTTIME)
"""Seconds since boot, suspend included. No function of ours: the pump asks for each read."""


class OverlayTimer:
    """Calls `overlay.handle_timer` when it is due, and `flush` after it; when it is late, `read_waiting` before it."""

    def __init__(
        self,
        overlay: Overlay,
        clock: Callable[[], float],
        flush: Callable[[], None],
        read_waiting: Callable[[], None] = lambda: None,
    ) -> None:
        self._overlay = overlay
        self._clock = clock
        self._flush = flush
        self._read_waiting = read_waiting
        self._due = inf
        self._pause = trio.CancelScope()

    def moved(self, due: float) -> None:
        """The overlay wants its timer at `due`; only an earlier moment than we sleep for needs a new alarm."""
        if due < self._due:
            self._due = due
            self._pause.deadline = trio.current_time() + due - self._clock()

    async def run(self) -> None:
        """Wait for the timer, again and again."""
        while True:
            self._due = self._overlay.next_timer()
            left = self._due - self._clock()
            with trio.CancelScope(deadline=trio.current_time() + left) as self._pause:
                await trio.sleep_forever()
            self.check()

    def check(self) -> None:
        """Handle the timer now if it is due; also for the heartbeat, which notices that the machine slept."""
        now, due = self._clock(), self._overlay.next_timer()
        if due + LATE_TIME <= now:
            self._read_waiting()
        if due <= now:
            self._overlay.handle_timer(now)
            self._flush()


class LoopLag:
    """How late a task runs that had asked for a moment, over the last minute."""

    def __init__(self, beat: Callable[[], None] = lambda: None) -> None:
        self._beat = beat
        self._samples: deque[float] = deque(maxlen=LAG_SAMPLES)

    async def run(self) -> None:
        """Measure until cancelled, and call `beat` each time."""
        while True:
            wanted = trio.current_time() + HEARTBEAT
            await trio.sleep_until(wanted)
            self._samples.append(trio.current_time() - wanted)
            self._beat()

    def percentile(self, fraction: float) -> float:
        """Seconds; 0 before the first heartbeat."""
        samples = sorted(self._samples)
        return samples[min(len(samples) - 1, int(len(samples) * fraction))] if samples else 0.0
