"""Super-frames that are flooded: they count as what leaves, and those that no kernel makes are refused on both ways."""

import random
from dataclasses import replace

import pytest
from hypothesis import given

from l2overlay.config.types import ProtectConfig, StormConfig, StormLimit
from l2overlay.counters import DropReason
from l2overlay.dataplane.ethernet import BROADCAST, VIRTIO_LEN
from l2overlay.dataplane.fdb import LOCAL, Port
from l2overlay.dataplane.offload import MAX_TINY_UNITS, MIN_GSO_SIZE, count_segments
from l2overlay.dataplane.protect.storm import PEER_MARGIN, QUIET_FRAMES, StormControl
from l2overlay.seams import TapFrame

from .insider import Meeting
from .reference_kernel import segments
from .super_frames import SuperFrame, super_frame, super_frames
from .test_inbox import slice_record

PEER = Port(b"P" * 32)
KINDS = ("tcp4", "udp6")


def to_everybody(whole: SuperFrame) -> SuperFrame:
    return replace(whole, header=BROADCAST + whole.header[6:])


def control(frames: float, size: float = 1e9, burst: float = 1.0) -> StormControl:
    limit = StormLimit(frames, size, burst)
    return StormControl(StormConfig(limit, limit, limit))


def protected(**limits: StormLimit) -> Meeting:
    meeting = Meeting()
    config = replace(meeting.node._config, protect=ProtectConfig(storm=StormConfig(**limits)))
    meeting.node.reconfigure(config, meeting.now)
    meeting.settle()
    return meeting


def passed(storms: StormControl, frame: TapFrame, count: int, now: float = 0.0, port: Port = LOCAL) -> int:
    return sum(storms.refuse(frame, len(frame) - VIRTIO_LEN, port, now) is None for _ in range(count))


# -- what one is worth -----------------------------------------------------------------------------------------------


@given(super_frames())
def test_a_super_frame_counts_as_the_segments_that_a_kernel_makes_of_it(whole: SuperFrame) -> None:
    made = segments([whole.frame])
    count, size = count_segments(whole.frame, len(whole.frame) - VIRTIO_LEN)
    assert (count, size) == (len(made), sum(map(len, made)))


@given(super_frames())
def test_no_header_that_lies_hides_more_than_a_few_segments(whole: SuperFrame) -> None:
    size = len(whole.frame) - VIRTIO_LEN
    for lie in (0, 1, 40, 250, 60_000, 65_535):
        frame = whole.frame[:6] + lie.to_bytes(2, "little") + whole.frame[8:]
        count, _ = count_segments(frame, size)
        assert count >= (size - 256) // whole.gso_size


def test_the_rate_holds_for_segments_and_for_their_bytes() -> None:
    ten = to_everybody(super_frame(length=14_480)).frame
    assert passed(control(frames=100), ten, 50) == 10
    headers = len(super_frame().header)
    assert passed(control(frames=1e6, size=10 * (14_480 + 10 * headers)), ten, 50) == 10


@pytest.mark.parametrize("port", [LOCAL, PEER])
def test_one_larger_than_the_bucket_passes_when_it_is_full_and_the_debt_is_paid(port: Port) -> None:
    storms, ten = control(frames=4), to_everybody(super_frame(length=14_480)).frame
    sent = sum(passed(storms, ten, 100, now=turn / 10, port=port) for turn in range(1000))
    expected = 100 * 4 * (1.0 if port == LOCAL else PEER_MARGIN) / 10
    assert 0.9 * expected <= sent <= expected + 2


def test_super_frames_have_no_part_in_the_allowance_of_quiet_stations() -> None:
    storms = control(frames=10)
    passed(storms, to_everybody(super_frame(length=14_480)).frame, 1)
    for station in range(200):
        whole = to_everybody(super_frame(length=14_480))
        frame = whole.frame[:16] + bytes((2, 0, 0, 0, 1, station)) + whole.frame[22:]
        assert storms.refuse(TapFrame(frame), len(frame) - VIRTIO_LEN, LOCAL, 0.1) is not None


# -- on both ways ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gso_size", [MIN_GSO_SIZE, 536, 1448])
def test_a_storm_of_super_frames_from_the_tap_is_capped_in_segments(gso_size: int) -> None:
    limit = StormLimit(2_000, 1e9)
    meeting, whole = protected(broadcast=limit), to_everybody(super_frame(length=64_000, gso_size=gso_size))
    for _ in range(100):
        meeting.now += 0.01
        meeting.settle()
        meeting.read_from_tap(*[whole.frame] * 3)
    sent, dropped = meeting.counters().tx_frames, meeting.drops()["storm_broadcast"]
    assert sent + dropped == 300
    assert sent * len(whole.units) <= 2_000 * (limit.burst_time + 1)
    assert sent > 0


def test_a_storm_of_super_frames_from_a_peer_is_capped_in_segments() -> None:
    limit = StormLimit(2_000, 1e9)
    meeting, whole = protected(broadcast=limit), to_everybody(super_frame(length=57_920))
    delivered = []
    for _ in range(100):
        meeting.now += 0.01
        meeting.settle()
        for _ in range(3):
            delivered += meeting.say(slice_record(whole, 0, len(whole.payload)))
    made = sum(len(segments(frame)) for frame in delivered)
    assert 0 < made <= 2_000 * PEER_MARGIN * (limit.burst_time + 1)
    assert len(delivered) + meeting.drops()["storm_broadcast"] == 300


@pytest.mark.parametrize("protect", [True, False])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("flooded", [True, False])
def test_more_tiny_segments_than_a_kernel_makes_are_refused_from_the_tap(
    kind: str, protect: bool, flooded: bool
) -> None:
    meeting = protected() if protect else Meeting()
    absurd = super_frame(kind, length=MAX_TINY_UNITS + 1, gso_size=1)
    largest = super_frame(kind, length=60_000, gso_size=1)
    for whole in (absurd, largest):
        meeting.read_from_tap((to_everybody(whole) if flooded else whole).frame)
    assert meeting.drops() == {"tiny_segments": 2}
    assert meeting.counters().tx_frames == 0


@pytest.mark.parametrize("kind", KINDS)
def test_more_tiny_segments_than_a_kernel_makes_are_refused_from_an_insider(kind: str) -> None:
    meeting = Meeting()
    whole = super_frame(kind, length=60_000, gso_size=1)
    assert meeting.say(slice_record(whole, 0, 1000), slice_record(whole, 1000, 2000)) == []
    assert meeting.drops() == {"tiny_segments": 2}


@pytest.mark.parametrize("kind", KINDS)
def test_keystrokes_that_a_card_merged_pass(kind: str) -> None:
    meeting = protected()
    whole = super_frame(kind, length=MAX_TINY_UNITS, gso_size=1)
    meeting.read_from_tap(whole.frame)
    (frame,) = meeting.say(slice_record(whole, 0, MAX_TINY_UNITS))
    assert segments(frame) == segments([whole.frame])
    assert (meeting.drops(), meeting.counters().tx_frames) == ({}, 1)


def test_refused_tiny_segments_take_nothing_from_the_neighbours_allowance() -> None:
    storms = control(frames=100)
    absurd = to_everybody(super_frame(length=60_000, gso_size=1)).frame
    assert storms.refuse(absurd, len(absurd) - VIRTIO_LEN, LOCAL, 0.0) is DropReason.TINY_SEGMENTS
    plain = TapFrame(bytes(10) + BROADCAST + random.Random(1).randbytes(54))
    assert passed(storms, plain, 1000) == 100 + QUIET_FRAMES
