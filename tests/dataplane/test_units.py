"""Units of a super-frame, which become the guest's segments: where nothing is lost, those that the other guest meant arrive.

A run ends where a read ends, and on a slow uplink each datagram is a read. Slices are cut to the path and not to the unit,
so a unit that has begun waits for its rest.
"""

import struct
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from l2overlay.counters import Counters, DropReason
from l2overlay.dataplane.inbox import REASSEMBLY_TIME, Inbox
from l2overlay.dataplane.outbox import Outbox
from l2overlay.dataplane.wire import Record, control_record
from l2overlay.seams import TapFrame

from .reference_kernel import all_segments, check, layout, payload_of, segments, sequence_of, tcp_flags_of
from .super_frames import ACK, CWR, ECE, PSH, SuperFrame, super_frame, super_frames
from .test_slices import pack, path_sizes, slices_in, travel, ways

URG = 0x20
MD5 = b"\x01\x01\x13\x12" + bytes(range(16))
AO = b"\x1d\x10\x01\x01" + bytes(range(12))
TIMESTAMPS = b"\x01\x01\x08\x0a" + bytes(range(8))
SACK = b"\x01\x01\x05\x0a" + bytes(range(8))
ANOTHER = control_record(Record.PING, bytes(8))


def with_options(
    options: bytes, length: int = 20_000, gso_size: int = 1000, kind: str = "tcp4"
) -> SuperFrame:
    """A super-frame whose TCP header ends with these options."""
    whole = super_frame(kind, length, gso_size, tcp_options=len(options))
    return SuperFrame(kind, gso_size, whole.header[: -len(options)] + options, whole.payload, whole.virtio)


def read(inbox: Inbox, *plaintexts: bytes, now: float = 0.0) -> list[bytes]:
    """The segments that come of one read."""
    return all_segments(inbox.receive_untrusted(list(plaintexts), now).frames)


@given(super_frames(), path_sizes, st.integers(1, 7))
def test_segments_are_those_of_the_super_frame_however_its_datagrams_are_read(
    whole: SuperFrame, path_size: int, at_once: int
) -> None:
    plaintexts, inbox = pack([whole.frame], path_size), Inbox(Counters())
    found = []
    for at in range(0, len(plaintexts), at_once):
        found += read(inbox, *plaintexts[at : at + at_once])
    assert found == segments([whole.frame])


@given(st.sampled_from((536, 1000, 1448)), st.sampled_from((1, 3, 22)))
def test_trains_read_one_by_one_give_the_segments_too(gso_size: int, cars: int) -> None:
    whole, outbox, inbox = super_frame("tcp4", 60_000, gso_size), Outbox(1472), Inbox(Counters())
    outbox.resize(1472, cars)
    assert outbox.add_all([whole.frame]) == []
    assert [s for plaintext in outbox.take() for s in read(inbox, plaintext)] == segments([whole.frame])


@pytest.mark.parametrize(
    "options", [MD5, AO, TIMESTAMPS + AO, SACK + MD5], ids=["MD5", "AO", "TS AO", "SACK MD5"]
)
@pytest.mark.parametrize("gso_size", [1000, 1448, 8900])
@given(way=ways())
def test_signed_segments_arrive_whole_or_not_at_all_whatever_is_lost_or_reordered(
    options: bytes, gso_size: int, way: tuple[float, float, int]
) -> None:
    """Also where a unit is larger than a datagram of the path."""
    whole, inbox = with_options(options, gso_size=gso_size), Inbox(Counters())
    sent = segments([whole.frame])
    found = [s for burst in travel(pack([whole.frame], 1472), way) for s in read(inbox, *burst)]
    found += read(inbox, ANOTHER)
    assert set(found) <= set(sent)
    if not way[0]:
        assert sorted(found) == sorted(sent)


@pytest.mark.parametrize(
    "options", [TIMESTAMPS, SACK, b"\x01" * 4, b"\0\x13\x12\x01"], ids=["TS", "SACK", "NOP", "EOL"]
)
def test_slices_of_what_is_not_signed_fill_their_datagrams(options: bytes) -> None:
    plaintexts = pack([with_options(options).frame], 1472)
    assert {len(plaintext) for plaintext in plaintexts[:-1]} == {1440}


@pytest.mark.parametrize(
    "options", [b"\x08\x01\x13\x12", b"\x08\0\x13\x12", b"\x01\x01\x01\x13", b"\xfe\xff\x13\x12"]
)
def test_options_that_lie_harm_nothing(options: bytes) -> None:
    whole, inbox = with_options(options), Inbox(Counters())
    assert read(inbox, *pack([whole.frame], 1472)) == segments([whole.frame])


def test_accecn_and_psh_stay_with_their_segments() -> None:
    """Read one by one: the first segment keeps CWR, the last PSH, and all keep ECE."""
    whole, inbox = super_frame("tcp4", 10_000, flags=ACK | ECE | CWR | PSH), Inbox(Counters())
    found = [s for plaintext in pack([whole.frame], 1472) for s in read(inbox, plaintext)]
    assert [tcp_flags_of(s) for s in found] == [ACK | ECE | CWR, *[ACK | ECE] * 5, ACK | ECE | PSH]


def test_urgent_pointer_counts_from_the_segment_that_has_it() -> None:
    whole = super_frame("tcp4", 6000, 1000, flags=ACK | URG)
    at = layout(whole.header + whole.payload).transport + 18
    header = whole.header[:at] + (2500).to_bytes(2, "big") + whole.header[at + 2 :]
    plaintexts = pack([TapFrame(whole.virtio + header + whole.payload)], 1200)
    inbox = Inbox(Counters())
    first = sequence_of(whole.header + whole.payload)
    for plaintext in plaintexts:
        for frame in inbox.receive_untrusted([plaintext], 0.0).frames:
            made = segments(frame)[0]
            offset = (sequence_of(made) - first) & 0xFFFFFFFF
            (pointer,) = struct.unpack_from("!H", made, at)
            assert (bool(tcp_flags_of(made) & URG), pointer) == (offset <= 2500, max(0, 2500 - offset))


def test_unit_that_has_begun_waits_for_its_rest_and_then_is_one_segment() -> None:
    whole, inbox = super_frame("tcp4", 3000, 1400), Inbox(Counters())
    plaintexts = pack([whole.frame], 1200)
    assert [len(read(inbox, plaintext)) for plaintext in plaintexts] == [0, 1, 2]


def test_another_record_ends_the_wait_and_what_came_is_delivered() -> None:
    whole, inbox = super_frame("tcp4", 3000, 1400), Inbox(Counters())
    first, *_ = pack([whole.frame], 1200)
    assert read(inbox, first) == []
    (part,) = read(inbox, ANOTHER)
    check(part)
    assert payload_of(part) == whole.payload[: slices_in([first])[0][1]]


def test_rest_that_does_not_come_in_time_costs_what_has_come() -> None:
    counters = Counters()
    inbox = Inbox(counters)
    first, *_ = pack([super_frame("tcp4", 3000, 1400).frame], 1200)
    for expire in (inbox.expire, lambda now: read(inbox, ANOTHER, now=now)):
        assert read(inbox, first) == []
        expire(REASSEMBLY_TIME)
        assert read(inbox, ANOTHER, now=REASSEMBLY_TIME) == []
    assert counters.drops == {DropReason.FRAGMENT_TIMEOUT: 2}


def test_after_a_loss_segments_begin_where_those_of_the_sender_did() -> None:
    whole, inbox = super_frame("tcp4", 30_000, 1400), Inbox(Counters())
    plaintexts = pack([whole.frame], 1472)
    first = sequence_of(whole.header + whole.payload)
    found = read(inbox, *plaintexts[:5], *plaintexts[6:])
    gap = slices_in(plaintexts)[5]
    starts = {(sequence_of(s) - first) & 0xFFFFFFFF for s in found}
    assert {start for start in starts if start % 1400} == {gap[1]}


def test_what_waits_is_no_larger_than_its_unit() -> None:
    """One byte of a plaintext must not keep the whole of it."""
    whole, inbox = super_frame("tcp4", 60_000, 60_000), Inbox(Counters())
    template = pack([whole.frame], 1472)[0][6 : 6 + 14 + len(whole.header)]
    for offset in range(100):
        body = struct.pack("<H", offset) + template + whole.payload[offset : offset + 1]
        plaintext = struct.pack("<BBH", 2, 0, len(body)) + body + bytes(30_000)
        assert read(inbox, plaintext) == []
        before = sys.getrefcount(plaintext)
        assert before == 2
