"""A TCP segment that is larger than the path, and not part of a super-frame: every retransmission is one.

It travels in slices, as if it were a super-frame of one segment: whole when nothing is lost, and what arrived when
something is. What must not be taken apart travels in fragments.
"""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from l2overlay.counters import Counters
from l2overlay.dataplane.ethernet import VIRTIO_LEN
from l2overlay.dataplane.inbox import Inbox
from l2overlay.dataplane.outbox import Outbox
from l2overlay.dataplane.wire import Record
from l2overlay.seams import TapFrame

from .reference_kernel import check, payload_of, segments, sequence_of
from .super_frames import ACK, FIN, PSH, SYN, SuperFrame, super_frame

PATH = 1472
RST, URG = 0x04, 0x20


def alone(whole: SuperFrame) -> TapFrame:
    """The super-frame as the kernel hands over one segment: checksum to do, nothing to segment."""
    flags, _, hdr_len, _, csum_start, csum_offset = struct.unpack("<BBHHHH", whole.virtio)
    virtio = struct.pack("<BBHHHH", flags, 0, hdr_len, 0, csum_start, csum_offset)
    return TapFrame(virtio + whole.header + whole.payload)


def packed(frame: TapFrame, path_size: int = PATH) -> list[bytes]:
    outbox = Outbox(path_size)
    assert outbox.add_all([frame]) == []
    return outbox.take()


def delivered(plaintexts: list[bytes]) -> list[list[bytes]]:
    return Inbox(Counters()).receive_untrusted(plaintexts, 0.0).frames


@given(
    kind=st.sampled_from(("tcp4", "tcp6")),
    length=st.integers(1500, 9000),
    tags=st.integers(0, 2),
    flags=st.sampled_from((ACK, ACK | PSH, ACK | FIN | PSH)),
    path_size=st.sampled_from((1200, 1420, 1472)),
)
def test_large_segment_arrives_byte_for_byte_with_the_same_partial_checksum(
    kind: str, length: int, tags: int, flags: int, path_size: int
) -> None:
    frame = alone(super_frame(kind, length, tags=tags, flags=flags, seed=length))
    plaintexts = packed(frame, path_size)
    assert {plaintext[0] for plaintext in plaintexts} == {Record.SLICE}
    (pieces,) = delivered(plaintexts)
    arrived = b"".join(pieces)
    assert arrived[VIRTIO_LEN:] == frame[VIRTIO_LEN:]
    assert struct.unpack_from("<BBHHHH", arrived)[:2] == (1, 0)
    assert struct.unpack_from("<BBHHHH", arrived)[3:] == (0, *struct.unpack_from("<BBHHHH", frame)[4:])


@given(
    kind=st.sampled_from(("tcp4", "tcp6")),
    lost=st.integers(0, 6),
    flags=st.sampled_from((ACK, ACK | PSH | FIN)),
)
def test_lost_datagram_costs_its_own_bytes_and_the_rest_are_valid_segments(
    kind: str, lost: int, flags: int
) -> None:
    whole = super_frame(kind, 8940, flags=flags, seed=lost)
    plaintexts = packed(alone(whole))
    assert len(plaintexts) == 7
    found = [
        segment
        for frame in delivered(plaintexts[:lost] + plaintexts[lost + 1 :])
        for segment in segments(frame)
    ]
    first = sequence_of(whole.header + whole.payload)
    for segment in found:
        check(segment)
        payload, at = payload_of(segment), (sequence_of(segment) - first) & 0xFFFFFFFF
        assert payload == whole.payload[at : at + len(payload)]
    missing = len(whole.payload) - sum(len(payload_of(segment)) for segment in found)
    assert 0 < missing <= PATH


@pytest.mark.parametrize("flag", [SYN, RST | ACK, URG | ACK], ids=["SYN", "RST", "URG"])
def test_segment_that_means_something_as_a_whole_is_not_taken_apart(flag: int) -> None:
    frame = alone(super_frame("tcp4", 5000, flags=flag))
    plaintexts = packed(frame)
    assert {plaintext[0] for plaintext in plaintexts} == {Record.FRAGMENT}
    assert [b"".join(pieces)[VIRTIO_LEN:] for pieces in delivered(plaintexts)] == [frame[VIRTIO_LEN:]]
    assert delivered(plaintexts[1:]) == []


@given(kind=st.sampled_from(("tcp4", "tcp6", "udp4")), at=st.integers(10, 75), value=st.integers(0, 255))
def test_segment_whose_headers_lie_travels_in_fragments_as_it_is(kind: str, at: int, value: int) -> None:
    """Whatever the guest wrote: it arrives byte for byte, or in slices if it is a segment all the same."""
    frame = bytearray(alone(super_frame(kind, 5000)))
    frame[at] = value
    (pieces,) = delivered(packed(TapFrame(bytes(frame))))
    arrived = b"".join(pieces)
    assert len(arrived) == len(frame)
    assert arrived[-5000:] == frame[-5000:]
