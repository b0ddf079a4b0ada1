"""Start-up as a person follows it: one line a phase with the time since the process began, and READY at the end."""

import os
import time
from collections.abc import Callable
from pathlib import Path

LABEL_WIDTH = 10
TEXT_WIDTH = 72


class Progress:
    """Says phases through `say`."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._start = process_start_time()

    @property
    def elapsed(self) -> float:
        """Seconds since the process was started: the interpreter's own start is part of the wait."""
        return time.clock_gettime(time.CLOCK_BOOTTIME) - self._start

    def phase(self, name: str, text: str) -> None:
        """A phase is over."""
        self._say(f"{name:<{LABEL_WIDTH}}{text:<{TEXT_WIDTH}} {self.elapsed:.2f} s")


def process_start_time() -> float:
    """When this process began, in seconds of CLOCK_BOOTTIME (starttime of proc(5), to 10 ms)."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    return int(fields[19]) / os.sysconf("SC_CLK_TCK")
