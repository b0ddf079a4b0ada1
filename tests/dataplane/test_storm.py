"""Storm control as sentences: what is capped, what never is, and when a storm begins and ends."""

from functools import partial
from math import inf

import pytest

from l2overlay.config.types import StormConfig, StormLimit
from l2overlay.counters import DropReason
from l2overlay.dataplane.ethernet import BROADCAST, VIRTIO_LEN
from l2overlay.dataplane.fdb import LOCAL, Port
from l2overlay.dataplane.protect.storm import (
    BROADCASTS,
    PEER_MARGIN,
    QUIET_FRAMES,
    QUIET_LIMIT,
    RELEASE_TIME,
    StormControl,
)
from l2overlay.seams import TapFrame
from tests.frames import ARP, frame

PEER = Port(b"P" * 32)
LOUD = bytes.fromhex("525400000001")
MULTICAST, UNKNOWN = bytes.fromhex("01005e000001"), bytes.fromhex("525400000099")
AT_PEER = int(10 * PEER_MARGIN) + QUIET_FRAMES
"""Of a limit of 10."""
PLENTY = StormLimit(1e9, 1e12)


flooded = partial(frame, source=LOUD, kind=ARP)


def control(frames: float = 100, size: float = 1e9, burst: float = 1.0) -> StormControl:
    return StormControl(StormConfig(StormLimit(frames, size, burst), PLENTY, PLENTY))


def refused(storms: StormControl, sent: TapFrame, port: Port = LOCAL, now: float = 0.0) -> DropReason | None:
    return storms.refuse(sent, len(sent) - VIRTIO_LEN, port, now)


def passed(
    storms: StormControl, count: int, now: float, sent: TapFrame | None = None, port: Port = LOCAL
) -> int:
    return sum(refused(storms, sent or flooded(), port, now) is None for _ in range(count))


def test_a_burst_passes_at_once_and_then_the_rate() -> None:
    storms = control(frames=100, burst=2.0)
    assert passed(storms, 1000, 0.0) == 200 + QUIET_FRAMES
    assert passed(storms, 1000, 0.5) == 50
    assert passed(storms, 1000, 1000.0) == 200 + QUIET_FRAMES


def test_bytes_are_capped_as_frames_are() -> None:
    storms = control(frames=1e6, size=100_000, burst=1.0)
    assert passed(storms, 1000, 0.0, flooded(size=1000)) == 100 + QUIET_FRAMES


def test_a_super_frame_fits_into_the_smallest_bucket() -> None:
    storms = control(frames=1, size=1500, burst=0.001)
    assert refused(storms, flooded(size=65_549)) is None


def test_classes_and_ports_have_buckets_of_their_own() -> None:
    storms = control(frames=10)
    assert passed(storms, 100, 0.0) == 10 + QUIET_FRAMES
    assert passed(storms, 100, 0.0, port=PEER) == AT_PEER
    assert passed(storms, 100, 0.0, flooded(destination=MULTICAST)) == 100
    assert passed(storms, 100, 0.0, flooded(destination=UNKNOWN)) == 100


@pytest.mark.parametrize(
    ("destination", "reason"),
    [
        (BROADCAST, DropReason.STORM_BROADCAST),
        (MULTICAST, DropReason.STORM_MULTICAST),
        (UNKNOWN, DropReason.STORM_UNKNOWN_UNICAST),
    ],
)
def test_what_is_too_much_is_dropped_with_the_reason_of_its_class(
    destination: bytes, reason: DropReason
) -> None:
    limit = StormLimit(1, 1e9)
    storms = StormControl(StormConfig(limit, limit, limit))
    assert {refused(storms, flooded(destination=destination)) for _ in range(20)} == {None, reason}


def test_a_neighbour_of_the_storm_still_asks_for_addresses() -> None:
    storms = control(frames=10)
    passed(storms, 1000, 0.0)
    quiet = flooded(source=bytes.fromhex("525400000002"))
    assert passed(storms, 3, 0.0, quiet) == 3
    assert passed(storms, 1000, 0.05, quiet) < 10


def test_a_storm_of_ever_new_addresses_gains_next_to_nothing() -> None:
    storms = control(frames=10)
    through = sum(
        refused(storms, flooded(source=b"\x02" + n.to_bytes(5, "big"))) is None for n in range(5000)
    )
    assert through == 10 + QUIET_LIMIT


def test_a_storm_is_told_once_when_it_begins_and_once_when_it_is_over() -> None:
    storms = control(frames=10)
    assert storms.next_time() == inf
    passed(storms, 1000, 0.0)
    passed(storms, 1000, 1.0)
    (begun,) = storms.begun
    assert (begun.port, begun.kind, begun.began) == (LOCAL, BROADCASTS, 0.0)
    assert storms.next_time() == 1.0 + RELEASE_TIME
    assert storms.ended(1.0 + RELEASE_TIME - 0.01) == []
    (over,) = storms.ended(1.0 + RELEASE_TIME)
    assert over.dropped == 2000 - 20 - 2 * QUIET_FRAMES
    assert storms.next_time() == inf
    assert storms.ended(9.0) == []


def test_the_next_storm_is_another_one() -> None:
    storms = control(frames=10)
    passed(storms, 100, 0.0)
    storms.ended(10.0)
    passed(storms, 100, 20.0)
    assert [storm.began for storm in storms.begun] == [0.0, 20.0]


def test_a_port_that_is_gone_leaves_nothing() -> None:
    storms = control(frames=10)
    passed(storms, 100, 0.0, port=PEER)
    storms.forget(PEER)
    assert storms.next_time() == inf
    assert passed(storms, 100, 0.0, port=PEER) == AT_PEER


def test_what_a_peer_has_capped_already_is_not_capped_again() -> None:
    here, there = control(frames=1000), control(frames=1000)
    for turn in range(100):
        now = turn * 0.05
        through = passed(here, 500, now)
        assert passed(there, through, now, port=PEER) == through
    assert there.begun == []


def test_a_clock_that_stands_still_refills_nothing() -> None:
    storms = control(frames=10)
    passed(storms, 100, 5.0)
    assert passed(storms, 100, 5.0) == 0
