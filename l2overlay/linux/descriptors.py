"""File descriptors set aside, so that TAP and bridge can be repaired when the process has no others left (EMFILE)."""

import contextlib
import os
from collections.abc import Iterator

RESERVE = 16
"""One for the TAP, four for the sockets and the event loop of pyroute2, six for the pipes of a child, and some to spare."""


class Reserve:
    """Descriptors that are held until they are needed. `lent` blocks must not overlap."""

    def __init__(self, size: int = RESERVE) -> None:
        self._size = size
        self._held: list[int] = []
        self._fill()

    def close(self) -> None:
        """Give all of them back for good."""
        while self._held:
            os.close(self._held.pop())

    @contextlib.contextmanager
    def lent(self) -> Iterator[None]:
        """Free the descriptors for the block. After it, as many as there are are taken again."""
        self.close()
        try:
            yield
        finally:
            self._fill()

    def _fill(self) -> None:
        with contextlib.suppress(OSError):
            while len(self._held) < self._size:
                self._held.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
