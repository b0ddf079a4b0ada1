"""When the kernel is to drop what strangers send: a decision by rates, with hysteresis. No I/O; the shell sets the filter.

Python pays some ten microseconds for each datagram that fails, the kernel a fraction of one. So when too many fail, the
kernel lets DATA through only from addresses where peers are known to be, and a small share of the rest, by which a peer that
has moved is still heard. Handshakes from other addresses wait apart, and are read in the time that is left.
"""

from math import inf

ON_RATE = 3_000.0
"""Failing datagrams a second. Loss and reordering on a path cause a few; a scan some hundreds."""
OFF_RATE = 500.0
"""A second: of those that fail and those that the kernel drops together."""
CALM_TIME = 5.0
"""Seconds below `OFF_RATE` before the filter is taken off."""
STEP = 0.5
"""Seconds between two looks."""


class Shield:
    """Of one node. `step` is told running totals."""

    def __init__(self) -> None:
        self.on = False
        self._seen: tuple[int, float] | None = None
        self._last_count = 0
        """Of the step before."""
        self._quiet_since = inf

    def trip(self) -> None:
        """Turn on at once: so many failed in a moment that no step need be waited for."""
        self.on, self._quiet_since = True, inf

    def step(self, failed: int, filtered: int, now: float) -> bool:
        """Whether the filter should be on. `failed` datagrams were refused so far, `filtered` dropped by the kernel."""
        total, before = failed + filtered, self._seen
        self._seen = (total, now)
        if before is None or now <= before[1]:
            return self.on
        count, seconds = total - before[0], now - before[1]
        rate = count / seconds
        # A burst is no flood: the filter would keep out a peer that moves. So a second's worth of failures must have come.
        if rate >= ON_RATE and count + self._last_count >= ON_RATE:
            self.on = True
        self._last_count = count
        self._quiet_since = min(self._quiet_since, now) if rate < OFF_RATE else inf
        if self._quiet_since + CALM_TIME <= now:
            self.on = False
        return self.on
