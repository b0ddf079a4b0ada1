"""Finds the word that a mistyped one was probably meant to be: "did you mean ..."."""

import difflib
from collections.abc import Iterable


def suggestion(word: str, known: Iterable[str]) -> str:
    """Return ` (did you mean 'endpoint'?)`, or an empty string if no known word is similar."""
    near = difflib.get_close_matches(word, list(known), n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""


class Hints:
    """`suggestion` for only the first few mistakes of a file, because each takes long when there are thousands of names."""

    def __init__(self, count: int = 20) -> None:
        self._left = count

    def of(self, word: str, known: Iterable[str]) -> str:
        """Like `suggestion`, but an empty string after `count` calls."""
        self._left -= 1
        return suggestion(word, known) if self._left >= 0 else ""
