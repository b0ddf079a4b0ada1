"""Frames that wait until their peer has a session, bounded in number, size and time."""

from collections import deque
from math import inf

from l2overlay.counters import DropReason
from l2overlay.seams import TapFrame

MAX_QUEUED_FRAMES = 64
MAX_QUEUED_BYTES = 128 * 1024
QUEUE_TIME = 1.0


class WaitingFrames:
    """The frames for one peer."""

    __slots__ = ("_frames", "_size")

    def __init__(self) -> None:
        self._frames: deque[tuple[float, TapFrame]] = deque()
        self._size = 0

    def __len__(self) -> int:
        return len(self._frames)

    def add(self, frame: TapFrame, now: float) -> DropReason | None:
        """Keep a frame. Returns the reason if there is no room for it."""
        if len(self._frames) >= MAX_QUEUED_FRAMES or self._size + len(frame) > MAX_QUEUED_BYTES:
            return DropReason.QUEUE_FULL
        self._frames.append((now, frame))
        self._size += len(frame)
        return None

    def take(self) -> list[TapFrame]:
        """All frames, in order; none waits any more."""
        frames = [frame for _, frame in self._frames]
        self._frames.clear()
        self._size = 0
        return frames

    def deadline(self) -> float:
        """When the oldest frame has waited too long."""
        return self._frames[0][0] + QUEUE_TIME if self._frames else inf

    def expire(self, now: float) -> list[TapFrame]:
        """Give up the frames that waited too long, and return them."""
        late = []
        while self.deadline() <= now:
            _, frame = self._frames.popleft()
            self._size -= len(frame)
            late.append(frame)
        return late
