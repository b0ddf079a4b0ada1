"""Any bytes at either door of a node, from strangers and from insiders: nothing raises, nothing false comes out.

A node's two doors are `receive_frames` and `receive_datagrams`. Whatever is said there, afterwards the node does its work,
every frame and datagram is accounted for, and no frame reaches the TAP that contradicts its own lengths.
"""

import random
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from l2overlay.counters import DropReason
from l2overlay.seams import Burst

from .insider import INSIDER_ADDRESS, MTU, OWN_MAC, STRANGER_ADDRESS, Meeting
from .reference_kernel import segments
from .super_frames import DESTINATION, SOURCE, SuperFrame, super_frame, super_frames
from .test_inbox import damaged, fragment, frame_record, record, slice_record
from .test_outbox import LIES

LIMIT = MTU + 22
GOOD = DESTINATION + SOURCE + b"\x08\x00" + b"a good frame".ljust(46)


def works(meeting: Meeting) -> bool:
    """Whether a frame still goes through in either direction."""
    meeting.settle()
    if not meeting.node.peers(meeting.now)[0].up:
        meeting.session = meeting.handshake()
    # A run that waited for the rest of a unit is delivered first.
    if meeting.say(frame_record(GOOD))[-1:] != [[bytes(10) + GOOD]]:
        return False
    meeting.sent()
    meeting.read_from_tap(bytes(10) + SOURCE + DESTINATION + GOOD[12:])
    return any(GOOD[12:] in plaintext for plaintext in meeting.opened())


# -- the TAP's door --------------------------------------------------------------------------------------------------------


@st.composite
def tap_frames(draw: st.DrawFn) -> bytes:
    kind = draw(st.sampled_from(("bytes", "addressed", "super", "lie")))
    if kind == "bytes":
        return draw(st.binary(max_size=80))
    if kind == "super":
        return draw(super_frames()).frame
    if kind == "lie":
        return draw(st.sampled_from(list(LIES.values())))
    virtio = draw(st.sampled_from((bytes(10), b"\x01" + bytes(9))) | st.binary(min_size=10, max_size=10))
    length = draw(st.sampled_from((0, 14, 60, 1514, 1522, 1523, 9000, 65_536)))
    return virtio + (DESTINATION + SOURCE + random.Random(length).randbytes(length))[:length]


@given(st.lists(tap_frames(), max_size=10))
def test_any_bytes_from_the_tap_never_raise_and_every_frame_is_accounted_for(frames: list[bytes]) -> None:
    meeting = Meeting()
    meeting.read_from_tap(*frames)
    counters = meeting.counters()
    assert counters.tx_frames + sum(counters.drops.values()) == len(frames)
    meeting.opened()
    assert works(meeting)


@pytest.mark.parametrize("length", range(24))
def test_runt_is_dropped_as_such(length: int) -> None:
    meeting = Meeting()
    meeting.read_from_tap(bytes(length))
    assert meeting.drops() == {"runt_frame": 1}


@pytest.mark.parametrize("name", LIES)
def test_lying_virtio_header_is_dropped_under_one_reason(name: str) -> None:
    meeting = Meeting()
    meeting.read_from_tap(LIES[name])
    (count,) = meeting.drops().values()
    assert count == 1
    assert set(meeting.drops()) <= {"bad_offload_header", "giant_frame"}
    assert meeting.opened() == []


def test_frame_longer_than_the_mtu_allows_is_a_giant() -> None:
    meeting = Meeting()
    for length in (LIMIT, LIMIT + 1):
        meeting.read_from_tap(bytes(10) + (DESTINATION + SOURCE).ljust(length, b"x"))
    assert meeting.drops() == {"giant_frame": 1}


@pytest.mark.parametrize("kind", ["tcp4", "tcp6", "udp4", "udp6"])
def test_super_frame_whose_segments_are_longer_than_the_mtu_allows_is_a_giant(kind: str) -> None:
    header_len = len(super_frame(kind).header)
    for gso_size in (LIMIT - header_len, LIMIT - header_len + 1):
        meeting = Meeting()
        meeting.read_from_tap(super_frame(kind, 9000, gso_size).frame)
        assert meeting.drops() == ({} if gso_size == LIMIT - header_len else {"giant_frame": 1})


def test_super_frame_of_one_short_segment_is_no_giant_whatever_it_says_the_largest_may_be() -> None:
    meeting = Meeting()
    meeting.read_from_tap(super_frame("udp4", 1000, 65_535).frame)
    assert meeting.drops() == {}


# -- the underlay's door: strangers ------------------------------


@given(st.data())
def test_any_bytes_from_strangers_never_raise_and_change_nothing(data: st.DataObject) -> None:
    """Any bytes, and genuine datagrams damaged, repeated, reflected, and cut into bursts at wrong places."""
    meeting = Meeting()
    meeting.read_from_tap(bytes(10) + GOOD)
    genuine = [*meeting.sent(), *meeting.sealed(frame_record(GOOD))]
    before = meeting.counters()
    pieces: list[bytes] = []
    for _ in range(data.draw(st.integers(1, 8))):
        piece = bytearray(data.draw(st.sampled_from(genuine) | st.binary(max_size=200)))
        for _ in range(data.draw(st.integers(1, 3))):
            if piece:
                piece[data.draw(st.integers(0, len(piece) - 1))] ^= data.draw(st.integers(1, 255))
        if data.draw(st.booleans()):
            piece[:1] = bytes([data.draw(st.integers(0, 5))])
        if bytes(piece) not in genuine:
            pieces.append(bytes(piece))
    size = data.draw(st.integers(1, 300))
    meeting.node.receive_datagrams([Burst(STRANGER_ADDRESS, size, pieces)], meeting.now)
    for session in meeting.node._local.links.sessions.values():
        session.close(meeting.node.counters)  # what became a car would wait for others
    after = meeting.counters()
    assert meeting.delivered() == []
    assert meeting.sent() == []
    assert meeting.events() == []
    received = after.rx_datagrams - before.rx_datagrams
    assert received == max(1, -(-len(b"".join(pieces)) // size))  # an empty datagram is one, too
    assert sum(after.drops.values()) == received
    assert works(meeting)


def test_every_flipped_bit_of_a_datagram_is_dropped_under_one_reason_and_answered_by_nothing() -> None:
    meeting = Meeting()
    (genuine,) = meeting.sealed(frame_record(GOOD))
    seen = set[DropReason]()
    for bit in range(8 * len(genuine)):
        forged = bytearray(genuine)
        forged[bit // 8] ^= 1 << bit % 8
        before = sum(meeting.counters().drops.values())
        meeting.receive(bytes(forged))
        assert sum(meeting.counters().drops.values()) == before + 1
        seen |= meeting.counters().drops.keys()
    assert (meeting.delivered(), meeting.sent(), meeting.events()) == ([], [], [])
    assert seen >= {
        DropReason.BAD_TAG,
        DropReason.BAD_RESERVED,
        DropReason.BAD_TYPE,
        DropReason.UNKNOWN_SESSION,
    }
    meeting.receive(genuine)
    assert meeting.delivered() == [[bytes(10) + GOOD]]


def test_every_truncation_of_a_datagram_is_dropped_under_one_reason() -> None:
    meeting = Meeting()
    (genuine,) = meeting.sealed(frame_record(GOOD))
    for length in range(1, len(genuine)):
        meeting.receive(genuine[:length])
        assert sum(meeting.counters().drops.values()) == length
    assert (meeting.delivered(), meeting.sent(), meeting.events()) == ([], [], [])


def test_burst_that_mixes_sessions_strangers_and_handshakes_gives_each_its_own() -> None:
    meeting = Meeting()
    second = meeting.handshake()
    old, new = meeting.sealed(frame_record(GOOD)), meeting.sealed(frame_record(GOOD), session=second)
    size = len(old[0])
    noise = [bytes([kind]) * size for kind in (0, 1, 2, 3, 9)] + [b"\x04" + bytes(size - 1)]
    meeting.node.receive_datagrams(
        [Burst(INSIDER_ADDRESS, size, [noise[0], *old, *noise[1:4], *new, *noise[4:], b"\x04"])], meeting.now
    )
    assert meeting.delivered() == [[bytes(10) + GOOD]] * 2
    assert meeting.drops() == {"bad_type": 2, "bad_length": 3, "unknown_session": 2}


def test_gro_burst_with_a_short_datagram_in_its_middle_delivers_nothing_false() -> None:
    meeting = Meeting()
    datagrams = meeting.sealed(*(frame_record(GOOD[:-n] if n else GOOD) for n in (0, 7, 0, 0)))
    meeting.node.receive_datagrams([Burst(INSIDER_ADDRESS, len(datagrams[0]), datagrams)], meeting.now)
    assert meeting.delivered() == [[bytes(10) + GOOD]]
    assert sum(meeting.drops().values()) == 3
    assert works(meeting)


# -- the underlay's door: insiders ------------------------------


def check_delivered(frame: list[bytes]) -> None:
    """What reaches the TAP is a frame of the segment's size, or says truly how the kernel is to make such ones."""
    written = b"".join(frame)
    flags, gso_type, hdr_len, gso_size, csum_start, csum_offset = struct.unpack_from("<BBHHHH", written)
    length = len(written) - 10
    assert length >= 14
    if flags:
        assert csum_start + csum_offset + 2 <= length
    if gso_type == 0:
        assert length <= LIMIT
        return
    assert hdr_len + gso_size <= LIMIT
    assert hdr_len + gso_size < length
    ip = next(at for at in (14, 18, 22) if written[10 + at - 2 : 10 + at] in (b"\x08\0", b"\x86\xdd"))
    v6 = written[10 + ip] >> 4 == 6
    claimed = int.from_bytes(written[14 + ip : 16 + ip] if v6 else written[12 + ip : 14 + ip], "big")
    assert claimed + (40 if v6 else 0) == length - ip


@given(st.lists(st.one_of(damaged(), damaged(), st.binary(max_size=200)), max_size=10), st.integers(0, 3))
def test_any_records_of_an_insider_never_raise_and_deliver_only_what_fits_its_lengths(
    plaintexts: list[bytes], seconds: int
) -> None:
    meeting = Meeting()
    for frame in meeting.say(*plaintexts):
        check_delivered(frame)
    meeting.now += seconds
    meeting.node.handle_timer(meeting.now)
    assert works(meeting)


@given(super_frames(), st.integers(1, 5))
def test_super_frames_of_an_insider_become_segments_of_the_segments_size_or_nothing(
    whole: SuperFrame, parts: int
) -> None:
    meeting = Meeting()
    step = max(1, len(whole.payload) // parts) if not whole.is_udp else whole.gso_size
    cuts = range(0, len(whole.payload), step)
    delivered = meeting.say(*(slice_record(whole, at, min(at + step, len(whole.payload))) for at in cuts))
    for frame in delivered:
        check_delivered(frame)
        assert all(len(segment) <= LIMIT for segment in segments(frame))
    fits = len(whole.header) + min(whole.gso_size, step, len(whole.payload)) <= LIMIT
    assert bool(delivered) == fits or "giant_frame" in meeting.drops()


@pytest.mark.parametrize(
    ("plaintexts", "reason"),
    [
        ([frame_record(GOOD.ljust(LIMIT + 1))], "giant_frame"),
        ([record(1, struct.pack("<HH", 34, 16) + GOOD.ljust(LIMIT + 1), flags=1)], "giant_frame"),
        (
            [fragment(GOOD.ljust(LIMIT + 1), 0, 800), fragment(GOOD.ljust(LIMIT + 1), 800, LIMIT + 1)],
            "giant_frame",
        ),
        ([fragment(GOOD.ljust(9000), 0, 1400)], "bad_fragment"),
        ([slice_record(super_frame(length=9000, gso_size=8000), 0, 9000)], "giant_frame"),
        ([slice_record(super_frame(length=9000, gso_size=9000), 0, 9000)], "giant_frame"),
        ([slice_record(super_frame("udp6", length=9000, gso_size=3000), 0, 9000)], "giant_frame"),
        ([frame_record(GOOD[:13])], "bad_record"),
        ([frame_record(DESTINATION + OWN_MAC + GOOD[12:])], "spoofed_station"),
        ([frame_record(DESTINATION + b"\x01" + GOOD[7:])], "group_source"),
        ([frame_record(bytes.fromhex("0180c2000002") + GOOD[6:])], "reserved_address"),
    ],
)
def test_giants_runts_and_foreign_addresses_of_an_insider_are_dropped_and_named(
    plaintexts: list[bytes], reason: str
) -> None:
    meeting = Meeting()
    assert meeting.say(*plaintexts) == []
    assert meeting.drops() == {reason: 1}


def test_largest_frame_of_an_insider_passes_whole_in_fragments_and_with_a_partial_checksum() -> None:
    meeting = Meeting()
    frame = GOOD.ljust(LIMIT)
    partial = struct.pack("<HH", 34, 16) + frame
    delivered = meeting.say(
        frame_record(frame),
        fragment(frame, 0, 1000),
        fragment(frame, 1000, LIMIT),
        fragment(partial, 0, 1000, 2, flags=1),
        fragment(partial, 1000, LIMIT + 4, 2, flags=1),
    )
    assert [piece[0][10:] for piece in delivered] == [frame] * 3


def test_controls_after_a_bye_of_one_burst_are_harmless() -> None:
    meeting = Meeting()
    controls = [record(kind, bytes(8)) for kind in (4, 5, 8, 9)] + [record(7, bytes(4)), record(6, bytes(4))]
    assert meeting.say(record(10) + b"".join(controls) + record(10), b"".join(controls)) == []
    assert not meeting.node.peers(meeting.now)[0].up
    assert works(meeting)
