"""What a frame's way costs, counted in calls: a figure that no busy machine changes. `tests/bench/test_micro.py` has times.

The bounds are what was counted at commit 0ed39b7 and a twentieth more. Whoever needs more says in the commit what it buys.
"""

import sys
from collections.abc import Callable
from types import FrameType

import pytest

from l2overlay.counters import Counters
from l2overlay.dataplane.inbox import Inbox
from l2overlay.dataplane.outbox import Outbox
from l2overlay.seams import TapFrame

from .super_frames import partial_frame, super_frame

LARGE = [super_frame("tcp4", 64_000).frame]
MANY = [super_frame("tcp4", 2896, seed=seed).frame for seed in range(16)]
SMALL = [partial_frame("tcp4", 52, seed=seed) for seed in range(64)]


def calls(work: Callable[[], object]) -> int:
    """Of functions, ours and C's."""
    count = 0

    def note(_frame: FrameType, event: str, _argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count - 2  # `work` itself, and the end of counting


@pytest.mark.parametrize(
    ("frames", "cars", "out", "back"),
    [
        (LARGE, 1, 138, 236),
        (LARGE, 22, 48, 56),
        (MANY, 1, 795, 866),
        (MANY, 22, 529, 528),
        (SMALL, 1, 515, 341),
        (SMALL, 22, 455, 326),
    ],
    ids=["64 KB", "64 KB in trains", "16 x 3 KB", "16 x 3 KB in trains", "64 small", "64 small in trains"],
)
def test_packing_and_unpacking_take_no_more_calls_than_they_did(
    frames: list[TapFrame], cars: int, out: int, back: int
) -> None:
    outbox, inbox = Outbox(1472), Inbox(Counters())
    outbox.resize(1472, cars)
    assert calls(lambda: outbox.add_all(frames)) <= out * 1.05
    plaintexts = outbox.take()
    assert calls(lambda: inbox.receive_untrusted(plaintexts, 0.0)) <= back * 1.05
