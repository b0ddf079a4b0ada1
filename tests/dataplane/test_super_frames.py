"""The tests' own tools: the super-frames they make and the kernel they imagine agree with scapy."""

import pytest
from hypothesis import given, settings

from .reference_kernel import check, check_with_scapy, payload_of, segments
from .super_frames import GSO_TYPES, SuperFrame, partial_frame, super_frame, super_frames


@settings(max_examples=60)
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
