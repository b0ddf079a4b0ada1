"""`did you mean`: what a mistyped word was probably meant to be."""

import difflib
from collections.abc import Iterable


def suggestion(word: str, known: Iterable[str]) -> str:
    """` (did you mean 'endpoint'?)`, or nothing when no known word is near."""
    near = difflib.get_close_matches(word, list(known), n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""


class Hints:
    """`suggestion` for the first few mistakes of a file: with thousands of names to choose from, each takes long."""

    def __init__(self, count: int = 20) -> None:
        self._left = count

    def of(self, word: str, known: Iterable[str]) -> str:
        """As `suggestion`; nothing when there were enough."""
        self._left -= 1
        return suggestion(word, known) if self._left >= 0 else ""
