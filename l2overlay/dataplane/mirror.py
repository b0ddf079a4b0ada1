"""What a mirror sees: each frame of both directions, once, with what became of it (for captures and traces).

A frame from the TAP is seen when it is packed for its peer or dropped; one that waits for a session or for the kernel's
filter is seen when the wait ends. A frame from a peer is seen when it is whole, never as slices or fragments: records that
do not become a frame are not seen. Neither are the node's own probes, nor what the kernel refuses afterwards.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import Enum
from typing import NamedTuple, TypeVar

from l2overlay.counters import DropReason
from l2overlay.dataplane.fdb import Port
from l2overlay.seams import Gather


class Direction(Enum):
    """Which way a frame goes."""

    OUT = "out"
    """From the TAP to peers."""
    IN = "in"
    """From a peer to the TAP."""


class Sight(NamedTuple):
    """One frame, as a mirror sees it."""

    direction: Direction
    peer: Port | None
    """The peer that the frame comes from or goes to. None: it is flooded, or was dropped for a reason that names no peer."""
    frame: Gather
    """In pieces, with its virtio header: a super-frame is one frame (`offload.is_super_frame`)."""
    reason: DropReason | None
    """Why it was dropped; None if it passed."""


Mirror = Callable[[Sight], None]

_Frame = TypeVar("_Frame")


def missing(frames: Iterable[_Frame], kept: Sequence[_Frame]) -> Iterator[_Frame]:
    """The frames that are not in `kept`, which holds some of them, the same objects in the same order."""
    rest = iter(kept)
    next_kept = next(rest, None)
    for frame in frames:
        if frame is next_kept:
            next_kept = next(rest, None)
        else:
            yield frame
