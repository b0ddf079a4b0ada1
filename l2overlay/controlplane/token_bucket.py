"""A rate: at most so many a second, and so many at once."""


class TokenBucket:
    """At most `rate` a second, and `burst` at once."""

    __slots__ = ("_burst", "_rate", "_since", "level")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate, self._burst, self._since = rate, burst, now
        self.level = burst

    def take(self, now: float) -> bool:
        """Whether one more may pass now."""
        if not self.has_one(now):
            return False
        self.level -= 1
        return True

    def has_one(self, now: float) -> bool:
        """Whether `take` would say yes."""
        self.level = min(self._burst, self.level + (now - self._since) * self._rate)
        self._since = now
        return self.level >= 1
