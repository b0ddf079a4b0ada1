"""The tests' own tools: the super-frames they make and the kernel they imagine agree with scapy."""

import pytest
from hypothesis import given

from l2overlay.dataplane.offload import segment_len

from .reference_kernel import check, check_with_scapy, payload_of, segments
from .super_frames import GSO_TYPES, SuperFrame, partial_frame, super_frame, super_frames


@given(super_frames(max_len=5000))
def test_reference_segments_of_any_super_frame_are_valid_to_scapy(whole: SuperFrame) -> None:
    made = segments([whole.frame])
    assert [payload_of(segment) for segment in made] == whole.units
    for segment in made:
        check(segment)
    for segment in (made[0], made[-1]):
        check_with_scapy(segment)


@pytest.mark.parametrize("kind", GSO_TYPES)
def test_a_wrong_partial_sum_is_noticed(kind: str) -> None:
    frame = bytearray(super_frame(kind).frame)
    frame[10 + int.from_bytes(frame[6:8], "little") + int.from_bytes(frame[8:10], "little")] ^= 1
    with pytest.raises(AssertionError):
        check(segments([bytes(frame)])[0])


@pytest.mark.parametrize("kind", GSO_TYPES)
def test_partial_checksum_is_completed(kind: str) -> None:
    (segment,) = segments([partial_frame(kind, 700, tags=1)])
    check(segment)
    check_with_scapy(segment)


@given(super_frames(max_len=5000))
def test_segment_len_is_that_of_the_longest_segment_or_of_one_that_may_be(whole: SuperFrame) -> None:
    longest = max(map(len, segments([whole.frame])))
    missing = max(0, whole.gso_size - len(whole.payload))
    assert segment_len(whole.frame) == segment_len(whole.virtio + whole.header) == longest + missing


def test_segment_len_of_a_lie_is_some_number() -> None:
    frame = super_frame().frame
    for length in range(10, 70):
        assert segment_len(frame[:length]) >= 0
    assert segment_len(b"\x01\x01\0\0\xff\xff\xff\xff\0\0" + frame[10:]) >= 0
