"""The stamps of this node's INITs, kept over a restart: a clock that was set back must lock nobody out."""

from collections.abc import Callable

import trio

from l2overlay.control.run_dir import StampFile
from l2overlay.node.journal import Journal
from l2overlay.node.timer import boot_time
from l2overlay.overlay import Overlay


class Stamps:
    """Notes the highest stamp of one node.

    `stamp_clock` is the clock that stamps follow: the wall clock, unless somebody sets that while the node runs.
    """

    def __init__(
        self,
        file: StampFile,
        overlay: Overlay,
        journal: Journal,
        stamp_clock: Callable[[], float],
        wall_clock: Callable[[], float],
    ) -> None:
        self._file = file
        self._overlay = overlay
        self._journal = journal
        self._stamp_clock = stamp_clock
        self._wall_clock = wall_clock

    def note(self) -> None:
        """Write it down now."""
        self._complain(self._file.note(self._highest(), boot_time()))

    async def note_in_thread(self) -> None:
        """Write it down, and let the node go on meanwhile."""
        self._complain(await trio.to_thread.run_sync(self._file.note, self._highest(), boot_time()))

    def lead(self) -> float:
        """Seconds by which the stamps are ahead of the wall clock."""
        return max(0.0, self._overlay.stamp / 1e6 - self._wall_clock())

    def _highest(self) -> int:
        """Stamps follow their clock, in microseconds, unless they are ahead of it already."""
        return max(self._overlay.stamp, int(self._stamp_clock() * 1e6))

    def _complain(self, complaint: str | None) -> None:
        if complaint is not None:
            self._journal.say(complaint)
