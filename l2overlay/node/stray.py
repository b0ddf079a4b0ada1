"""What libraries have to say goes to the node's log, line by line, like all else.

trio, asyncio and pyroute2 use `logging`, Python itself writes warnings and exceptions that nobody can catch to stderr. Left
alone, each of them waits for a stderr that is full, and so would the node; and trio tells a refused accept() with a
traceback ten times a second. Here each becomes one line, and one that repeats is told once a minute.
"""

import contextlib
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import TracebackType

REPEAT_INTERVAL = 60.0
"""Seconds until a line that was told is told again, with the number of those between."""
MAX_KNOWN = 64
"""Lines that are remembered; a library that says something new each time is held to as many a minute."""


class StrayLines(logging.Handler):
    """Writes log records by `write`, which never waits."""

    def __init__(self, write: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(logging.WARNING)
        self._write = write
        self._clock = clock
        self._told: dict[str, tuple[float, int]] = {}
        """When each line was told last, and how often it came since."""

    def emit(self, record: logging.LogRecord) -> None:
        """One line of a record. A record that cannot be formatted is told as it is."""
        try:
            text = record.getMessage()
        except Exception:  # noqa: BLE001 - a library's mistake in a log call is not the node's
            text = str(record.msg)
        error = record.exc_info[1] if record.exc_info else None
        self.tell(record.name, f"{text} ({_named(error)})" if error is not None else text)

    def tell(self, source: str, text: str) -> None:
        """One line about `source`, unless it was told within `REPEAT_INTERVAL`."""
        line, now = f"{source}: {' '.join(text.split())}", self._clock()
        told_time, held_back = self._told.pop(line, (-REPEAT_INTERVAL, 0))
        if now - told_time < REPEAT_INTERVAL:
            self._told[line] = (told_time, held_back + 1)
            return
        self._told = {k: v for k, v in self._told.items() if now - v[0] < REPEAT_INTERVAL}
        if len(self._told) < MAX_KNOWN:
            self._told[line] = (now, 0)
            self._write(f"{line} (and {held_back} times before)" if held_back else line)


@contextlib.contextmanager
def stray_lines(write: Callable[[str], None]) -> Iterator[StrayLines]:
    """All that libraries say within the block goes to `write`."""
    lines = StrayLines(write)
    old_hooks = sys.unraisablehook, threading.excepthook
    sys.unraisablehook = lambda said: lines.tell(
        "python", f"{said.err_msg or 'ignored'}: {_named(said.exc_value)}"
    )
    threading.excepthook = lambda said: lines.tell(
        said.thread.name if said.thread is not None else "a thread", _named(said.exc_value)
    )
    logging.getLogger().addHandler(lines)
    logging.captureWarnings(True)
    try:
        yield lines
    finally:
        logging.captureWarnings(False)
        logging.getLogger().removeHandler(lines)
        sys.unraisablehook, threading.excepthook = old_hooks


def _named(error: BaseException | None) -> str:
    """`OSError: Too many open files (in accept, _socket.py:7)`."""
    where = _last_frame(error.__traceback__ if error is not None else None)
    return f"{type(error).__name__}: {error}{where}"


def _last_frame(trace: TracebackType | None) -> str:
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return ""
    code = trace.tb_frame.f_code
    return f" (in {code.co_name}, {code.co_filename.rpartition('/')[2]}:{trace.tb_lineno})"
