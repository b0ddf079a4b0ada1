"""The replay window: no counter of a session is accepted twice.

RFC 6479 keeps a bitmap behind the highest counter. In Python a list that holds the newest counter per slot is faster
(52 ns a check, design.md section 4) and exact: a counter is fresh if its slot holds a smaller one. A
counter that was accepted once stays at or below its slot for ever; one that never arrived is refused only when another,
at least a whole window newer, has taken its slot.
"""

WINDOW_SIZE = 8192
WINDOW_MASK = WINDOW_SIZE - 1


class ReplayWindow:
    """Which counters of one receiving key have been seen. `Session.open` reads `newest` inline; tests use the methods."""

    __slots__ = ("newest",)

    def __init__(self) -> None:
        self.newest = [-1] * WINDOW_SIZE

    def is_fresh(self, counter: int) -> bool:
        """Whether `counter` may be opened. Changes nothing: the tag is not verified yet."""
        return counter > self.newest[counter & WINDOW_MASK]

    def commit(self, counter: int) -> None:
        """Remember `counter`; only after its tag verified."""
        self.newest[counter & WINDOW_MASK] = counter
