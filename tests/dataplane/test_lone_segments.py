"""A TCP segment that is larger than the path, and not part of a super-frame: every retransmission is one.

The guest sent it as one, so it arrives as one when nothing is lost: whoever receives it may count segments (AccECN, delayed
acknowledgements). When something is lost the rest arrives, or TCP would stop on a lossy link. One that means something as a
whole only (signed by MD5 or AO, SYN, RST, URG) arrives whole or not at all.
"""

import random
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from l2overlay.counters import Counters
from l2overlay.dataplane.ethernet import VIRTIO_LEN
from l2overlay.dataplane.inbox import Inbox
from l2overlay.dataplane.outbox import Outbox
from l2overlay.dataplane.wire import Record, control_record
from l2overlay.seams import TapFrame

from .reference_kernel import all_segments, check, payload_of, sequence_of
from .super_frames import ACK, CWR, ECE, FIN, PSH, SYN, SuperFrame, super_frame

PATH = 1472
RST, URG = 0x04, 0x20
MD5 = b"\x01\x01\x13\x12" + bytes(range(16))
AO = b"\x1d\x10\x01\x01" + bytes(range(12))
ANOTHER = control_record(Record.PING, bytes(8))
"""Ends a run that waits for more."""


def alone(whole: SuperFrame) -> TapFrame:
    """The super-frame as the kernel hands over one segment: checksum to do, nothing to segment."""
    flags, _, hdr_len, _, csum_start, csum_offset = struct.unpack("<BBHHHH", whole.virtio)
    virtio = struct.pack("<BBHHHH", flags, 0, hdr_len, 0, csum_start, csum_offset)
    return TapFrame(virtio + whole.header + whole.payload)


def packed(frame: TapFrame, path_size: int = PATH) -> list[bytes]:
    outbox = Outbox(path_size)
    assert outbox.add_all([frame]) == []
    return outbox.take()


def delivered(reads: list[list[bytes]]) -> list[bytes]:
    """Without virtio headers."""
    inbox = Inbox(Counters())
    return [
        b"".join(frame)[VIRTIO_LEN:] for read in reads for frame in inbox.receive_untrusted(read, 0.0).frames
    ]


def signed(kind: str, length: int, options: bytes, seed: int = 0) -> TapFrame:
    """A segment whose TCP header ends with these options."""
    whole = super_frame(kind, length, tcp_options=len(options), seed=seed)
    header = whole.header[: -len(options)] + options
    return alone(SuperFrame(kind, whole.gso_size, header, whole.payload, whole.virtio))


@given(
    kind=st.sampled_from(("tcp4", "tcp6")),
    length=st.integers(1500, 9000),
    tags=st.integers(0, 2),
    flags=st.sampled_from(
        (ACK, ACK | PSH, ACK | FIN | PSH, SYN, RST | ACK, URG | ACK, ACK | ECE | CWR, ACK | CWR)
    ),
    path_size=st.sampled_from((1200, 1420, 1472)),
)
def test_large_segment_arrives_as_one_however_its_datagrams_are_read(
    kind: str, length: int, tags: int, flags: int, path_size: int
) -> None:
    """Together, or one by one as from a slow uplink."""
    frame = alone(super_frame(kind, length, tags=tags, flags=flags, seed=length))
    plaintexts = packed(frame, path_size)
    for reads in ([plaintexts], [[one] for one in plaintexts]):
        assert delivered(reads) == [frame[VIRTIO_LEN:]]


@given(
    kind=st.sampled_from(("tcp4", "tcp6")),
    length=st.integers(1500, 9000),
    options=st.sampled_from((MD5, AO)),
    path_size=st.sampled_from((1200, 1420, 1472)),
    seed=st.integers(0, 1 << 32),
)
def test_signed_segment_arrives_as_one_in_any_order(
    kind: str, length: int, options: bytes, path_size: int, seed: int
) -> None:
    frame = signed(kind, length, options, seed=length)
    plaintexts = packed(frame, path_size)
    shuffled = random.Random(seed).sample(plaintexts, len(plaintexts))
    assert delivered([[one] for one in shuffled]) == [frame[VIRTIO_LEN:]]


def test_large_segment_keeps_its_partial_checksum() -> None:
    frame = alone(super_frame("tcp4", 5000))
    (pieces,) = Inbox(Counters()).receive_untrusted(packed(frame), 0.0).frames
    arrived = b"".join(pieces)
    assert struct.unpack_from("<BBHHHH", arrived)[:2] == (1, 0)
    assert struct.unpack_from("<BBHHHH", arrived)[3:] == (0, *struct.unpack_from("<BBHHHH", frame)[4:])


@given(kind=st.sampled_from(("tcp4", "tcp6")), lost=st.integers(0, 6), one_by_one=st.booleans())
def test_lost_datagram_costs_a_segment_its_own_bytes_and_the_rest_are_valid_segments(
    kind: str, lost: int, one_by_one: bool
) -> None:
    whole = super_frame(kind, 8940, seed=lost)
    plaintexts = packed(alone(whole))
    assert len(plaintexts) == 7
    arrived = [*plaintexts[:lost], *plaintexts[lost + 1 :], ANOTHER]
    inbox, found = Inbox(Counters()), []
    for read in [[one] for one in arrived] if one_by_one else [arrived]:
        found += all_segments(inbox.receive_untrusted(read, 0.0).frames)
    first = sequence_of(whole.header + whole.payload)
    for segment in found:
        check(segment)
        payload, at = payload_of(segment), (sequence_of(segment) - first) & 0xFFFFFFFF
        assert payload == whole.payload[at : at + len(payload)]
    missing = len(whole.payload) - sum(len(payload_of(segment)) for segment in found)
    assert 0 < missing <= PATH


@pytest.mark.parametrize("options", [MD5, AO], ids=["MD5", "AO"])
@given(kind=st.sampled_from(("tcp4", "tcp6")), lost=st.integers(0, 6), one_by_one=st.booleans())
def test_lost_datagram_costs_a_signed_segment_and_nothing_shorter_is_delivered(
    options: bytes, kind: str, lost: int, one_by_one: bool
) -> None:
    plaintexts = packed(signed(kind, 8940, options, seed=lost))
    assert {plaintext[0] for plaintext in plaintexts} == {Record.FRAGMENT}
    arrived = [*plaintexts[:lost], *plaintexts[lost + 1 :], ANOTHER]
    assert delivered([[one] for one in arrived] if one_by_one else [arrived]) == []


@pytest.mark.parametrize("flag", [SYN, RST | ACK, URG | ACK], ids=["SYN", "RST", "URG"])
def test_segment_that_means_something_as_a_whole_is_not_taken_apart(flag: int) -> None:
    plaintexts = packed(alone(super_frame("tcp4", 5000, flags=flag)))
    assert {plaintext[0] for plaintext in plaintexts} == {Record.FRAGMENT}
    assert delivered([[*plaintexts[1:], ANOTHER]]) == []


@pytest.mark.parametrize("kind", ["tcp4", "tcp6", "udp4"])
@given(at=st.integers(10, 75), value=st.integers(0, 255))
def test_segment_whose_headers_lie_arrives_as_one_with_its_payload(kind: str, at: int, value: int) -> None:
    """Byte for byte, or with the length and checksum of IP corrected if it is a segment all the same."""
    frame = bytearray(alone(super_frame(kind, 5000)))
    frame[at] = value
    (arrived,) = delivered([packed(TapFrame(bytes(frame)))])
    assert len(arrived) == len(frame) - VIRTIO_LEN
    assert arrived[-5000:] == frame[-5000:]
