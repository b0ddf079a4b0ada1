"""A TCP segment that is larger than the path, and not part of a super-frame: every retransmission is one.

The guest sent it as one, so it arrives as one or not at all: it may be signed (MD5, AO), and whoever receives it may count
segments (AccECN, delayed acknowledgements). It travels in fragments.
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
from l2overlay.dataplane.wire import Record
from l2overlay.seams import TapFrame

from .super_frames import ACK, CWR, ECE, FIN, PSH, SYN, SuperFrame, super_frame

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


def delivered(reads: list[list[bytes]]) -> list[bytes]:
    """Without virtio headers."""
    inbox = Inbox(Counters())
    return [
        b"".join(frame)[VIRTIO_LEN:] for read in reads for frame in inbox.receive_untrusted(read, 0.0).frames
    ]


@given(
    kind=st.sampled_from(("tcp4", "tcp6")),
    length=st.integers(1500, 9000),
    tags=st.integers(0, 2),
    flags=st.sampled_from(
        (ACK, ACK | PSH, ACK | FIN | PSH, SYN, RST | ACK, URG | ACK, ACK | ECE | CWR, ACK | CWR)
    ),
    path_size=st.sampled_from((1200, 1420, 1472)),
    seed=st.integers(0, 1 << 32),
)
def test_large_segment_arrives_as_one_however_its_datagrams_are_read(
    kind: str, length: int, tags: int, flags: int, path_size: int, seed: int
) -> None:
    """Together, one by one as from a slow uplink, or in any order."""
    frame = alone(super_frame(kind, length, tags=tags, flags=flags, seed=length))
    plaintexts = packed(frame, path_size)
    shuffled = random.Random(seed).sample(plaintexts, len(plaintexts))
    for reads in ([plaintexts], [[one] for one in plaintexts], [[one] for one in shuffled]):
        assert delivered(reads) == [frame[VIRTIO_LEN:]]


def test_large_segment_keeps_its_partial_checksum() -> None:
    frame = alone(super_frame("tcp4", 5000))
    ((arrived,),) = Inbox(Counters()).receive_untrusted(packed(frame), 0.0).frames
    assert struct.unpack_from("<BBHHHH", arrived)[:2] == (1, 0)
    assert struct.unpack_from("<BBHHHH", arrived)[3:] == (0, *struct.unpack_from("<BBHHHH", frame)[4:])


@given(kind=st.sampled_from(("tcp4", "tcp6")), lost=st.integers(0, 6), one_by_one=st.booleans())
def test_lost_datagram_costs_the_segment_and_nothing_shorter_is_delivered(
    kind: str, lost: int, one_by_one: bool
) -> None:
    plaintexts = packed(alone(super_frame(kind, 8940, seed=lost)))
    assert len(plaintexts) == 7
    assert {plaintext[0] for plaintext in plaintexts} == {Record.FRAGMENT}
    arrived = plaintexts[:lost] + plaintexts[lost + 1 :]
    assert delivered([[one] for one in arrived] if one_by_one else [arrived]) == []


@pytest.mark.parametrize("kind", ["tcp4", "tcp6", "udp4"])
@given(at=st.integers(10, 75), value=st.integers(0, 255))
def test_segment_whose_headers_lie_arrives_as_it_is(kind: str, at: int, value: int) -> None:
    frame = bytearray(alone(super_frame(kind, 5000)))
    frame[at] = value
    assert delivered([packed(TapFrame(bytes(frame)))]) == [frame[VIRTIO_LEN:]]
