"""The replay window: no counter of a session is accepted twice.

RFC 6479 keeps a bitmap behind the highest counter. In Python a list that holds the newest counter per slot is faster
(52 ns a check, design.md section 4) and exact: a counter is fresh if its slot holds a smaller one. A
counter that was accepted once stays at or below its slot for ever; one that never arrived is refused only when another,
at least a whole window newer, has taken its slot.
"""

WINDOW_SIZE = 8192
WINDOW_MASK = WINDOW_SIZE - 1


def new_window() -> list[int]:
    """The window of one receiving key: per slot the newest counter that was accepted. `Session` reads it inline.

    A look changes nothing, because the tag is not verified yet; a counter is committed to its slot after its tag verified.
    """
    return [-1] * WINDOW_SIZE
