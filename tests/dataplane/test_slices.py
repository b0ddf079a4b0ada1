"""Super-frames through outbox and inbox: whatever is lost or reordered on the way, delivered is exactly what arrived.

Each property slices any super-frame for any path, loses and reorders datagrams, cuts the rest into bursts, joins, and has
the reference kernel segment every run. The segments tell by their own headers which bytes they claim to be.
"""

import random
import struct

from hypothesis import example, given
from hypothesis import strategies as st

from l2overlay.counters import Counters
from l2overlay.dataplane.inbox import Inbox
from l2overlay.dataplane.outbox import Outbox
from l2overlay.dataplane.wire import Record, control_record
from l2overlay.seams import Pieces, TapFrame

from .reference_kernel import (
    all_segments,
    check,
    check_with_scapy,
    payload_of,
    segments,
    sequence_of,
    tcp_flags_of,
)
from .super_frames import ACK, CWR, FIN, PSH, SuperFrame, ones_sum, partial_frame, super_frame, super_frames

Range = tuple[int, int]
Delivered = list[Pieces]

path_sizes = st.one_of(st.sampled_from((1200, 1420, 1452, 1472, 8972)), st.integers(1200, 9000))
TCP_FLAGS_OF_RUN = FIN | PSH | CWR


def pack(frames: list[TapFrame], path_size: int) -> list[bytes]:
    outbox = Outbox(path_size)
    assert outbox.add_all(frames) == []
    plaintexts = outbox.take()
    assert all(0 < len(plaintext) <= path_size - 32 for plaintext in plaintexts)
    return plaintexts


def deliver(bursts: list[list[bytes]]) -> tuple[Delivered, Counters]:
    counters = Counters()
    inbox = Inbox(counters)
    return [frame for burst in bursts for frame in inbox.receive_untrusted(burst, 0.0).frames], counters


@st.composite
def ways(draw: st.DrawFn) -> tuple[float, float, int]:
    """How bad a path is: share of datagrams lost, share moved elsewhere, seed."""
    loss = draw(st.sampled_from((0.0, 0.0, 0.05, 0.3, 0.8)))
    return loss, draw(st.sampled_from((0.0, 0.0, 0.1, 1.0))), draw(st.integers(0, 1 << 32))


def travel(plaintexts: list[bytes], way: tuple[float, float, int]) -> list[list[bytes]]:
    """What arrives, in the bursts in which it arrives."""
    loss, reorder, seed = way
    chance = random.Random(seed)
    arrived = [plaintext for plaintext in plaintexts if chance.random() >= loss]
    for place in range(len(arrived)):
        if chance.random() < reorder:
            arrived.insert(chance.randrange(len(arrived)), arrived.pop(place))
    cuts = sorted(chance.randrange(len(arrived) + 1) for _ in range(chance.randrange(4)))
    return [arrived[start:end] for start, end in zip([0, *cuts], [*cuts, len(arrived)], strict=True)]


def slices_in(plaintexts: list[bytes]) -> list[Range]:
    """The payload ranges of all SLICE records, read by the wire's definition and not by our code."""
    found = []
    for plaintext in plaintexts:
        at = 0
        while at + 4 <= len(plaintext) and plaintext[at]:
            kind, _, length = struct.unpack_from("<BBH", plaintext, at)
            if kind == 2:
                offset = struct.unpack_from("<H", plaintext, at + 4)[0]
                header_len = struct.unpack_from("<H", plaintext, at + 6 + 8)[0]
                found.append((offset, offset + length - 2 - 14 - header_len))
            at += 4 + length
    return found


def merged(ranges: list[Range]) -> list[Range]:
    """Sorted, adjacent ones made one; nothing may be there twice."""
    result: list[Range] = []
    for start, end in sorted(ranges):
        assert start < end
        assert not result or result[-1][1] <= start
        if result and result[-1][1] == start:
            result[-1] = (result[-1][0], end)
        else:
            result.append((start, end))
    return result


@given(super_frames(kinds=("tcp4", "tcp6")), path_sizes, ways())
@example(super_frame("tcp4", 64_000, flags=ACK | PSH | FIN | CWR), 1200, (0.3, 1.0, 5))
@example(super_frame("tcp6", 64_000, 48, ip_extra=3, tcp_options=40), 1200, (0.0, 0.0, 0))
def test_tcp_bytes_delivered_are_exactly_those_that_arrived(
    whole: SuperFrame, path_size: int, way: tuple[float, float, int]
) -> None:
    bursts = travel(pack([whole.frame], path_size), way)
    delivered, counters = deliver([*bursts, [control_record(Record.PING, bytes(8))]])
    assert counters.drops == {}
    original = whole.header
    first_sequence, sent_flags = sequence_of(original), tcp_flags_of(original)
    ranges: list[Range] = []
    for segment in all_segments(delivered):
        check(segment)
        payload = payload_of(segment)
        offset = (sequence_of(segment) - first_sequence) & 0xFFFFFFFF
        end = offset + len(payload)
        assert payload == whole.payload[offset:end]
        assert len(payload) <= whole.gso_size
        flags = sent_flags & ~TCP_FLAGS_OF_RUN
        flags |= sent_flags & CWR if offset == 0 else 0
        flags |= sent_flags & (FIN | PSH) if end == len(whole.payload) else 0
        assert tcp_flags_of(segment) == flags
        ranges.append((offset, end))
    assert merged(ranges) == merged([r for burst in bursts for r in slices_in(burst)])


@given(super_frames(kinds=("tcp4", "tcp6", "udp4", "udp6")), path_sizes, ways())
def test_every_run_is_valid_to_scapy(
    whole: SuperFrame, path_size: int, way: tuple[float, float, int]
) -> None:
    delivered, _ = deliver(travel(pack([whole.frame], path_size), way))
    for frame in delivered[:5]:
        made = segments(frame)
        check_with_scapy(made[0])
        check_with_scapy(made[-1])


@given(super_frames(kinds=("udp4", "udp6")), path_sizes, ways())
@example(super_frame("udp4", 100, 1000), 1200, (0.0, 0.0, 0))
@example(super_frame("udp6", 60_000, 1460), 1200, (0.05, 0.0, 1))
def test_udp_units_are_delivered_whole_or_not_at_all(
    whole: SuperFrame, path_size: int, way: tuple[float, float, int]
) -> None:
    plaintexts = pack([whole.frame], path_size)
    bursts = travel(plaintexts, way)
    delivered, counters = deliver(bursts)
    assert counters.drops == {}
    units = [payload_of(segment) for segment in all_segments(delivered)]
    for segment in all_segments(delivered):
        check(segment)
    ranges = merged([r for burst in bursts for r in slices_in(burst)])
    if slices_in(plaintexts):
        size = whole.gso_size
        wanted = [whole.payload[at : at + size] for start, end in ranges for at in range(start, end, size)]
        assert sorted(units) == sorted(wanted)
    if not way[0]:
        assert sorted(units) == sorted(whole.units)
    if not way[0] and not way[1]:
        assert units == whole.units
    assert not set(units) - set(whole.units)


@given(super_frames(), path_sizes)
def test_super_frame_that_arrives_whole_is_written_as_it_was_read(whole: SuperFrame, path_size: int) -> None:
    """One write, byte for byte; only the virtio header may be another way to say the same."""
    plaintexts = pack([whole.frame], path_size)
    delivered, _ = deliver([plaintexts])
    if not slices_in(plaintexts):
        return  # units too large for the path: frames of their own
    (frame,) = delivered
    written = b"".join(frame)
    assert written[10:] == whole.header + whole.payload
    flags, gso_type, hdr_len, gso_size, *checksum = struct.unpack_from("<BBHHHH", written)
    segmented = len(whole.payload) > whole.gso_size
    assert flags == 1
    assert (gso_type, gso_size) == ((whole.virtio[1], whole.gso_size) if segmented else (0, 0))
    assert hdr_len == len(whole.header)
    assert checksum == list(struct.unpack_from("<HH", whole.virtio, 6))


def test_ipv4_header_whose_checksum_comes_out_as_zero_is_valid() -> None:
    """The one sum in 65 535 where the complement has two ways to be written."""
    whole = super_frame("tcp4", 1000)
    blank = whole.header[:18] + b"\0\0" + whole.header[20:24] + b"\0\0" + whole.header[26:]
    ip_id = 0xFFFF - ones_sum(blank[14:34])
    header = blank[:18] + ip_id.to_bytes(2, "big") + blank[20:]
    (frame,), _ = deliver([pack([TapFrame(whole.virtio + header + whole.payload)], 1472)])
    assert b"".join(frame)[10:] == header + whole.payload
    check(segments(frame)[0])


@st.composite
def frames(draw: st.DrawFn) -> TapFrame:
    """Anything that a TAP may give: small and large frames, with and without checksum to do, super-frames."""
    kind = draw(st.sampled_from(("plain", "plain", "partial", "valid", "super")))
    if kind == "super":
        return draw(super_frames()).frame
    length = draw(st.one_of(st.integers(14, 200), st.integers(14, 9236)))
    seed = draw(st.integers(0, 1 << 32))
    if kind == "partial":
        sort = draw(st.sampled_from(("tcp4", "tcp6", "udp4", "udp6")))
        return partial_frame(sort, length, seed, draw(st.integers(0, 2)))
    frame = random.Random(seed).randbytes(length)
    return TapFrame(
        (b"\x02" if kind == "valid" else b"\0") + bytes(9) + frame
    )  # 2: VIRTIO_NET_HDR_F_DATA_VALID


def as_received(frame: TapFrame) -> list[bytes]:
    """DATA_VALID is what one kernel knows of its own; the other one looks for itself."""
    return [frame[10:]] if frame[0] == 2 else segments([frame])


@given(st.lists(frames(), max_size=12), path_sizes)
def test_frames_of_all_sorts_keep_their_order_and_their_bytes(
    given_frames: list[TapFrame], path_size: int
) -> None:
    delivered, counters = deliver([pack(given_frames, path_size)])
    assert all_segments(delivered) == [made for frame in given_frames for made in as_received(frame)]
    assert counters.drops == {}


@given(st.lists(frames() | st.binary(min_size=8, max_size=8), max_size=15), path_sizes)
def test_control_records_among_frames_keep_their_order_and_disturb_none(
    given_all: list[bytes], path_size: int
) -> None:
    outbox = Outbox(path_size)
    for one in given_all:
        if len(one) == 8:
            outbox.add_record(control_record(Record.PING, one))
        else:
            outbox.add(TapFrame(one))
    counters = Counters()
    plaintexts = outbox.take()
    assert all(0 < len(plaintext) <= path_size - 32 for plaintext in plaintexts)
    received = Inbox(counters).receive_untrusted(plaintexts, 0.0)
    assert received.controls == [(Record.PING, one) for one in given_all if len(one) == 8]
    wanted = [made for one in given_all if len(one) != 8 for made in as_received(TapFrame(one))]
    assert all_segments(received.frames) == wanted
    assert counters.drops == {}


@given(st.lists(frames(), max_size=12), path_sizes, ways())
def test_whatever_is_lost_or_reordered_nothing_is_delivered_that_was_not_sent(
    given_frames: list[TapFrame], path_size: int, way: tuple[float, float, int]
) -> None:
    """Frames whole and at most as often as sent; of TCP super-frames the bytes are the business of another test."""
    sent = [made for frame in given_frames if frame[1] & 0x7F not in (1, 4) for made in as_received(frame)]
    delivered, counters = deliver(travel(pack(given_frames, path_size), way))
    got = [made for frame in delivered if not is_tcp_with_partial_sum(frame) for made in segments(frame)]
    for frame in got:
        if not is_tcp_with_partial_sum((bytes(10) + frame,)):
            assert frame in sent
            sent.remove(frame)
    assert counters.drops == {}


def is_tcp_with_partial_sum(frame: Pieces) -> bool:
    return bytes(frame[0])[8:10] == b"\x10\0"
