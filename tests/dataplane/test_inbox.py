"""What the inbox does with records: in order, byte-identical, and every malformed one counted under exactly one reason.

A record's sender is authentic and still not trusted. The records here are packed by hand, from the layouts at the head of
`wire.py`, so that they can lie.
"""

import struct
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from l2overlay.counters import Counters, DropReason
from l2overlay.dataplane.inbox import MAX_REASSEMBLIES, REASSEMBLY_TIME, Inbox, Received
from l2overlay.dataplane.wire import Record

from .reference_kernel import all_segments, check, payload_of, segments
from .super_frames import SuperFrame, super_frame

PLAIN = bytes(10)
FRAME_A, FRAME_B = b"A" * 60, b"B" * 60
ENDING = struct.pack("<BBH", 4, 0, 8) + bytes(8)
"""A PING: no unit waits any longer for its rest."""
W = super_frame(length=3000)
U = super_frame("udp4", length=3000, gso_size=1000)


class Door:
    """An inbox, and what has come out of it so far."""

    def __init__(self, max_frame_len: int = 65_535) -> None:
        self.counters = Counters()
        self.inbox = Inbox(self.counters, max_frame_len)

    def receive(self, *plaintexts: bytes, now: float = 0.0) -> Received:
        return self.inbox.receive_untrusted(list(plaintexts), now)

    def frames(self, *plaintexts: bytes, now: float = 0.0) -> list[bytes]:
        """With what waited for the rest of its unit: another datagram, without frames, ends that."""
        found = self.receive(*plaintexts, now=now).frames + self.receive(ENDING, now=now).frames
        return [b"".join(frame) for frame in found]


def record(kind: int, body: bytes = b"", flags: int = 0) -> bytes:
    return struct.pack("<BBH", kind, flags, len(body)) + body


def frame_record(frame: bytes) -> bytes:
    return record(1, frame)


def template(whole: SuperFrame, frame_id: int = 1, **fields: int) -> bytes:
    names = ("id", "gso_type", "reserved", "gso_size", "header_len", "csum_start", "total")
    csum_start = int.from_bytes(whole.virtio[6:8], "little")
    values = (frame_id, whole.virtio[1], 0, whole.gso_size, len(whole.header), csum_start, len(whole.payload))
    changed = dict(zip(names, values, strict=True)) | fields
    return struct.pack("<IBBHHHH", *changed.values()) + whole.header


def slice_record(whole: SuperFrame, start: int, end: int, head: bytes | None = None, flags: int = 0) -> bytes:
    head = template(whole) if head is None else head
    return record(2, struct.pack("<H", start) + head + whole.payload[start:end], flags)


def fragment(body: bytes, start: int, end: int, frame_id: int = 1, flags: int = 0, total: int = -1) -> bytes:
    total = len(body) if total < 0 else total
    return record(3, struct.pack("<HIH", start, frame_id, total) + body[start:end], flags)


# -- order and bytes -------------------------------------------------------------------------------------------------


def test_frames_controls_and_padding_of_one_datagram_come_out_in_order() -> None:
    plaintext = (
        frame_record(FRAME_A) + record(4, b"12345678") + frame_record(FRAME_B) + record(10) + bytes(40)
    )
    received = Door().receive(plaintext)
    assert received.frames == [(PLAIN + FRAME_A,), (PLAIN + FRAME_B,)]
    assert received.controls == [(Record.PING, b"12345678"), (Record.BYE, b"")]


def test_keepalive_holds_nothing() -> None:
    door = Door()
    received = door.receive(b"")
    assert (received.frames, received.controls, door.counters.drops) == ([], [], {})


@pytest.mark.parametrize("padding", [1, 2, 3, 4, 5, 64])
def test_padding_of_any_length_ends_a_datagram(padding: int) -> None:
    door = Door()
    assert door.frames(frame_record(FRAME_A) + bytes(padding), frame_record(FRAME_B)) == [
        PLAIN + FRAME_A,
        PLAIN + FRAME_B,
    ]
    assert door.counters.drops == {}


def test_path_probe_gives_its_token_and_leaves_its_zeros() -> None:
    assert Door().receive(record(6, b"1234" + bytes(1000))).controls == [(Record.PATH_PROBE, b"1234")]


@pytest.mark.parametrize(
    ("kind", "body"), [(4, b"12345678"), (5, b"12345678"), (7, b"1234"), (8, b"12345678"), (9, b"12345678")]
)
def test_control_record_is_handed_on_with_its_body(kind: int, body: bytes) -> None:
    assert Door().receive(record(kind, body)).controls == [(Record(kind), body)]


def test_frame_with_partial_checksum_says_so_to_the_kernel() -> None:
    (frame,) = Door().frames(record(1, struct.pack("<HH", 34, 16) + FRAME_A, flags=1))
    assert frame == struct.pack("<BBHHHH", 1, 0, 0, 0, 34, 16) + FRAME_A


def test_small_frame_between_two_slices_cuts_the_run_and_keeps_its_place() -> None:
    whole = super_frame(length=3000)
    frames = Door().frames(
        slice_record(whole, 0, 1000),
        frame_record(FRAME_A) + slice_record(whole, 1000, 2000),
        frame_record(FRAME_B),
    )
    assert [len(frame) - 10 for frame in frames] == [1066, 60, 66 + 448, 66 + 552, 60]


def test_slices_that_share_a_datagram_with_others_are_joined_all_the_same() -> None:
    first, second = super_frame(length=3000, seed=1), super_frame(length=3000, seed=2)
    tail = slice_record(first, 2000, 3000) + slice_record(second, 0, 10, template(second, 2))
    more = slice_record(second, 10, 3000, template(second, 2)) + frame_record(FRAME_A)
    frames = Door().receive(slice_record(first, 0, 2000), tail, more).frames
    assert [len(frame) - 1 for frame in frames] == [2, 2, 0]
    assert [segments(frame) for frame in frames] == [
        segments([f]) for f in (first.frame, second.frame, PLAIN + FRAME_A)
    ]


def test_slices_of_unequal_length_are_joined() -> None:
    whole = super_frame(length=5000)
    edges = [0, 1000, 2000, 2500, 3500, 4500, 5000]
    (frame,) = Door().receive(*(slice_record(whole, *edge) for edge in pairwise(edges))).frames
    assert segments(frame) == segments([whole.frame])


def test_slice_of_the_expected_length_with_a_record_behind_it_is_joined_and_the_record_comes_next() -> None:
    whole = super_frame(length=3000)
    behind = slice_record(whole, 1000, 2000) + frame_record(FRAME_A)
    frames = Door().receive(slice_record(whole, 0, 1000), behind, slice_record(whole, 2000, 3000)).frames
    payloads = [b"".join(map(payload_of, all_segments(some))) for some in (frames[:1], frames[2:])]
    assert payloads == [whole.payload[:2000], whole.payload[2000:]]
    assert frames[1] == (PLAIN + FRAME_A,)


@pytest.mark.parametrize("padding", [1, 4, 64])
def test_padding_behind_a_slice_is_no_payload(padding: int) -> None:
    datagrams = [slice_record(W, at, at + 1000) + bytes(padding) for at in (0, 1000, 2000)]
    (frame,) = Door().receive(*datagrams).frames
    assert segments(frame) == segments([W.frame])


def test_datagrams_of_one_shape_with_two_slices_each_are_joined() -> None:
    whole = super_frame(length=6000)
    edges = [0, 100, 1500, 1600, 3000, 3100, 4500, 4600, 6000]
    slices = [slice_record(whole, *edge) for edge in pairwise(edges)]
    (frame,) = Door().receive(*(a + b for a, b in zip(slices[::2], slices[1::2], strict=True))).frames
    assert segments(frame) == segments([whole.frame])


def test_slice_of_the_expected_length_in_a_datagram_cut_short_is_malformed() -> None:
    whole = super_frame(length=3000)
    door = Door()
    frames = door.receive(slice_record(whole, 0, 1000), slice_record(whole, 1000, 2000)[:-1], ENDING).frames
    assert b"".join(map(payload_of, all_segments(frames))) == whole.payload[:1000]
    assert door.counters.drops == {DropReason.BAD_RECORD: 1}


def test_gap_makes_two_valid_runs() -> None:
    whole = super_frame(length=6000)
    door = Door()
    frames = door.receive(*(slice_record(whole, at, at + 1000) for at in (0, 1000, 3000, 4000, 5000))).frames
    # The second run begins in a unit, 2896 to 4344: that part of it is a segment of its own.
    assert [len(b"".join(frame)) - len(b"".join(frame[:1])) for frame in frames] == [2000, 1344, 1656]
    for segment in all_segments(frames):
        check(segment)
    assert b"".join(map(payload_of, all_segments(frames))) == whole.payload[:2000] + whole.payload[3000:]
    assert door.counters.drops == {}


def test_run_ends_with_the_last_whole_unit_of_its_burst() -> None:
    whole = super_frame(length=3000)
    door = Door()
    (frame,) = door.receive(slice_record(whole, 0, 1000), slice_record(whole, 1000, 2000)).frames
    assert sum(map(len, frame[1:])) == 1448
    assert len(door.receive(slice_record(whole, 2000, 3000)).frames) == 1


def test_segments_of_different_units_have_different_ipv4_ids() -> None:
    whole = super_frame(length=9000, gso_size=1000)
    slices = [slice_record(whole, at, at + 1500) for at in range(0, 9000, 3000)]
    ids = [segment[18:20] for segment in all_segments(Door().receive(*slices, ENDING).frames)]
    sent = [segment[18:20] for segment in segments([whole.frame])]
    assert ids == [sent[at] for at in (0, 1, 3, 4, 6, 7)]


# -- malformed records -------------------------------------------------------------------------------------------------

BAD_RECORDS = {
    "cut short": b"\x01\0\x3c",
    "one byte": b"\x01",
    "longer than its datagram": b"\x01\0\x3d\0" + FRAME_A,
    "a frame of 13 bytes": frame_record(bytes(13)),
    "a frame of nothing": frame_record(b""),
    "an unknown kind": record(11, FRAME_A),
    "kind 255": record(255),
    "an unknown flag": record(1, FRAME_A, flags=2),
    "an unknown flag on a slice": slice_record(W, 0, 1000, flags=4),
    "a flag that slices do not have": slice_record(W, 0, 1000, flags=1),
    "an unknown flag on a fragment": fragment(FRAME_A, 0, 60, flags=0x80),
    "a partial checksum in the Ethernet header": record(1, struct.pack("<HH", 13, 16) + FRAME_A, flags=1),
    "a partial checksum past the end": record(1, struct.pack("<HH", 34, 25) + FRAME_A, flags=1),
    "a partial checksum far past the end": record(1, b"\xff\xff\xff\xff" + FRAME_A, flags=1),
    "a partial checksum and no frame": record(1, struct.pack("<HH", 14, 0), flags=1),
    "half a partial checksum": record(1, b"\x0e\0", flags=1),
    "a PING of 7 bytes": record(4, bytes(7)),
    "a PING of 9 bytes": record(4, bytes(9)),
    "a PONG with a flag": record(5, bytes(8), flags=1),
    "a PATH_PROBE without token": record(6, bytes(3)),
    "a PATH_PROBE with a flag": record(6, bytes(8), flags=1),
    "a PATH_ACK of 5 bytes": record(7, bytes(5)),
    "a BYE with a body": record(10, b"\0"),
    "a fragment without data": fragment(FRAME_A, 60, 60),
    "a fragment without its head": record(3, bytes(7)),
}

BAD_SLICES = {
    "no template": record(2, b"\0\0"),
    "nothing": record(2),
    "one byte": record(2, b"\0"),
    "a template cut short": record(2, b"\0\0" + template(W)[:13]),
    "a header cut short": record(2, b"\0\0" + template(W)[:40]),
    "no data": slice_record(W, 1000, 1000),
    "an offset at the end": record(2, struct.pack("<H", 3000) + template(W) + b"x"),
    "an offset past the end": record(2, struct.pack("<H", 65_535) + template(W) + b"x"),
    "data past the end": record(2, struct.pack("<H", 2999) + template(W) + b"xx"),
    "a reserved byte": slice_record(W, 0, 1000, template(W, reserved=1)),
    "a gso_size of 0": slice_record(W, 0, 1000, template(W, gso_size=0)),
    "a total of 0": slice_record(W, 0, 1000, template(W, total=0)),
    "a total that IP denies": slice_record(W, 0, 1000, template(W, total=3001)),
    "a total that UDP denies": slice_record(U, 0, 1000, template(U, total=2999)),
    "a total larger than IP": slice_record(W, 0, 1000, template(W, total=65_535)),
    "a header_len of 0": slice_record(W, 0, 1000, template(W, header_len=0)),
    "a header_len past the record": slice_record(W, 0, 1000, template(W, header_len=1100)),
    "a header_len past the datagram": slice_record(W, 0, 1000, template(W, header_len=65_535)),
    "a header_len inside the header": slice_record(W, 0, 1000, template(W, header_len=len(W.header) - 1)),
    "a csum_start of 0": slice_record(W, 0, 1000, template(W, csum_start=0)),
    "a csum_start past the header": slice_record(W, 0, 1000, template(W, csum_start=65_535)),
    "an unknown gso_type": slice_record(W, 0, 1000, template(W, gso_type=2)),
    "a gso_type of none": slice_record(W, 0, 1000, template(W, gso_type=0)),
    "a gso_type of another family": slice_record(W, 0, 1000, template(W, gso_type=4)),
    "a gso_type of another protocol": slice_record(W, 0, 1000, template(W, gso_type=5)),
    "a UDP unit begun in its middle": slice_record(U, 500, 1000),
    "a UDP unit ended in its middle": slice_record(U, 0, 1500),
}

BAD_FRAGMENTS = {
    "past the end": fragment(bytes(3000), 2000, 3000, total=2999),
    "an offset past the end": fragment(bytes(3000), 2000, 3000, total=100),
    "a frame of 13 bytes": fragment(bytes(13), 0, 13),
    "a frame longer than allowed": fragment(bytes(3001), 0, 1000),
    "a sliver from the middle": fragment(bytes(3000), 100, 163),
}


@pytest.mark.parametrize(
    ("reason", "bad"),
    [
        *(
            pytest.param(DropReason.BAD_RECORD, bad, id=f"record: {name}")
            for name, bad in BAD_RECORDS.items()
        ),
        *(pytest.param(DropReason.BAD_SLICE, bad, id=f"slice: {name}") for name, bad in BAD_SLICES.items()),
    ],
)
def test_malformed_record_ends_its_datagram_under_one_reason(reason: DropReason, bad: bytes) -> None:
    """What stands before it in the datagram, and the other datagrams of the burst, are not touched."""
    door = Door()
    frames = door.frames(frame_record(FRAME_A) + bad, frame_record(FRAME_B))
    assert frames == [PLAIN + FRAME_A, PLAIN + FRAME_B]
    assert door.counters.drops == {reason: 1}


@pytest.mark.parametrize("name", BAD_FRAGMENTS)
def test_fragment_that_does_not_fit_its_frame_is_dropped_alone(name: str) -> None:
    door = Door(max_frame_len=3000)
    assert door.frames(BAD_FRAGMENTS[name] + frame_record(FRAME_A)) == [PLAIN + FRAME_A]
    assert door.counters.drops == {DropReason.BAD_FRAGMENT: 1}


@pytest.mark.parametrize("bad", [*BAD_RECORDS.values(), *BAD_SLICES.values()])
def test_run_goes_on_after_a_malformed_datagram_in_its_middle(bad: bytes) -> None:
    """Whether as one run or two: the bytes around it are delivered, each once."""
    door = Door()
    frames = door.receive(slice_record(W, 0, 1000), bad, slice_record(W, 1000, 2000), ENDING).frames
    assert b"".join(map(payload_of, all_segments(frames))) == W.payload[:2000]
    assert sum(door.counters.drops.values()) == 1


# -- slices that contradict each other -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("start", "end"), [(0, 1000), (500, 1500), (1999, 2500), (0, 3000), (1000, 2000), (1500, 1600)]
)
def test_slice_that_overlaps_the_run_before_it_is_dropped(start: int, end: int) -> None:
    door = Door()
    frames = door.receive(
        slice_record(W, 0, 1000),
        slice_record(W, 1000, 2000),
        slice_record(W, start, end) + frame_record(FRAME_A),
        slice_record(W, 2000, 3000),
    ).frames
    assert b"".join(map(payload_of, all_segments(frames))) == W.payload
    assert door.counters.drops == {DropReason.BAD_SLICE: 1}


def test_run_never_mixes_two_super_frames_of_one_id() -> None:
    """Same id, another template: what the second says of its bytes is not true of the first's."""
    other = super_frame(length=3000, seed=9)
    frames = Door().receive(slice_record(W, 0, 1000), slice_record(other, 1000, 2000), ENDING).frames
    assert [payload_of(segment) for segment in all_segments(frames)] == [
        W.payload[:1000],
        other.payload[1000:1448],
        other.payload[1448:2000],
    ]


@pytest.mark.parametrize("field", ["frame_id", "gso_size"])
def test_run_ends_where_any_field_of_the_template_changes(field: str) -> None:
    changed = template(W, **{field: 777})
    assert len(Door().receive(slice_record(W, 0, 1000), slice_record(W, 1000, 2000, changed)).frames) == 2


def test_slice_whose_template_continues_in_the_next_record_is_refused() -> None:
    """Its record ends inside the template, and what follows in the datagram happens to complete it."""
    whole = slice_record(W, 1000, 2000)
    cut = struct.pack("<BBH", 2, 0, 2 + len(template(W))) + whole[4:]
    door = Door()
    frames = door.receive(slice_record(W, 0, 1000), cut).frames
    assert b"".join(map(payload_of, all_segments(frames))) == W.payload[:1000]
    assert door.counters.drops == {DropReason.BAD_SLICE: 1}


# -- fragments -----------------------------------------------------------------------------------------------------------

BODY = bytes(range(250)) * 12
PARTS = ((0, 1000), (1000, 2000), (2000, 3000))


def test_fragments_in_any_order_make_the_frame() -> None:
    for order in ((0, 1, 2), (2, 1, 0), (1, 2, 0)):
        door = Door()
        assert door.frames(*(fragment(BODY, *PARTS[n]) for n in order)) == [PLAIN + BODY]
        assert door.counters.drops == {}


def test_fragments_of_several_frames_and_bursts_do_not_mix() -> None:
    door = Door()
    other = BODY[::-1]
    assert door.frames(fragment(BODY, 0, 1500), fragment(other, 0, 1500, frame_id=2), now=0.0) == []
    assert door.frames(fragment(other, 1500, 3000, frame_id=2), now=0.1) == [PLAIN + other]
    assert door.frames(fragment(BODY, 1500, 3000), now=0.2) == [PLAIN + BODY]


def test_fragmented_frame_keeps_its_partial_checksum() -> None:
    body = struct.pack("<HH", 34, 16) + BODY
    door = Door()
    assert door.frames(fragment(body, 0, 1500, flags=1), fragment(body, 1500, len(body), flags=1)) == [
        struct.pack("<BBHHHH", 1, 0, 0, 0, 34, 16) + BODY
    ]


def test_fragmented_frame_whose_partial_checksum_lies_is_dropped() -> None:
    body = struct.pack("<HH", 34, 3000) + BODY
    door = Door()
    assert door.frames(fragment(body, 0, 1500, flags=1), fragment(body, 1500, len(body), flags=1)) == []
    assert door.counters.drops == {DropReason.BAD_RECORD: 1}


def test_frame_of_which_a_fragment_is_missing_is_given_up_in_time() -> None:
    door = Door()
    door.receive(fragment(BODY, 0, 1000), now=5.0)
    assert door.inbox.expire(5.1) == 5.0 + REASSEMBLY_TIME
    assert door.counters.drops == {}
    assert door.inbox.expire(5.0 + REASSEMBLY_TIME) is None
    assert door.counters.drops == {DropReason.FRAGMENT_TIMEOUT: 1}


def test_late_fragment_does_not_complete_a_frame_even_when_no_timer_came_between() -> None:
    """Ids begin anew with the peer's process: what is too old must not mix with a frame of now."""
    door = Door()
    door.receive(fragment(BODY, 0, 1500), now=5.0)
    assert door.frames(fragment(BODY, 1500, 3000), now=5.0 + REASSEMBLY_TIME) == []
    assert door.counters.drops == {DropReason.FRAGMENT_TIMEOUT: 1}


def test_same_id_serves_again_after_its_frame_was_given_up() -> None:
    door = Door()
    other = BODY[::-1]
    door.receive(fragment(BODY, 0, 1500), now=5.0)
    assert door.frames(fragment(other, 1500, 3000), fragment(other, 0, 1500), now=6.0) == [PLAIN + other]


def test_oldest_frame_gives_way_when_too_many_wait() -> None:
    door = Door()
    for frame_id in range(MAX_REASSEMBLIES + 1):
        door.receive(fragment(BODY, 0, 1500, frame_id), now=frame_id / 1000)
    assert door.counters.drops == {DropReason.FRAGMENT_LIMIT: 1}
    rest = [fragment(BODY, 1500, 3000, frame_id) for frame_id in range(1, MAX_REASSEMBLIES + 1)]
    assert len(door.frames(*rest, now=0.1)) == MAX_REASSEMBLIES


@pytest.mark.parametrize(
    "hostile",
    [
        (fragment(BODY, 0, 1500), fragment(BODY, 1000, 2500), fragment(BODY, 2500, 3000)),
        (fragment(BODY, 0, 2000), fragment(BODY, 1000, 3000)),
        (fragment(BODY, 0, 1500), fragment(BODY, 1500, 3000, total=3001)),
        (fragment(BODY, 0, 1500), fragment(BODY, 1500, 3000, flags=1)),
        (fragment(BODY, 0, 1500), fragment(BODY, 0, 1500)),
    ],
    ids=["overlap", "overlap of the whole length", "another total", "other flags", "a duplicate"],
)
def test_fragments_that_contradict_each_other_make_no_frame(hostile: tuple[bytes, ...]) -> None:
    door = Door()
    assert door.frames(*hostile) == []
    assert door.counters.drops == {DropReason.BAD_FRAGMENT: 1}


def test_reassembly_is_bounded_in_pieces() -> None:
    """A fragment shorter than 64 bytes that is not the last is not ours: 32 frames in slivers would be 20 MB."""
    door = Door()
    door.receive(*(fragment(BODY, at, at + 8) for at in range(0, 2900, 8)))
    assert door.counters.drops == {DropReason.BAD_FRAGMENT: 363}
    assert door.frames(fragment(BODY, 0, 64), fragment(BODY, 64, 2990), fragment(BODY, 2990, 3000)) == [
        PLAIN + BODY
    ]


# -- anything ------------------------------------------------------------------------------------------------------------


def whole_records() -> st.SearchStrategy[bytes]:
    return st.sampled_from(
        [
            *BAD_RECORDS.values(),
            *BAD_SLICES.values(),
            *BAD_FRAGMENTS.values(),
            *(slice_record(W, at, at + 500) for at in range(0, 3000, 500)),
            *(slice_record(U, at, at + 1000) for at in range(0, 3000, 1000)),
            *(fragment(BODY, *part) for part in PARTS),
            frame_record(FRAME_A),
            record(1, struct.pack("<HH", 34, 16) + FRAME_A, flags=1),
            record(4, bytes(8)),
            record(0),
            bytes(3),
        ]
    )


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A few good records with a few bytes changed, cut off anywhere."""
    plaintext = bytearray(b"".join(draw(st.lists(whole_records(), min_size=1, max_size=6))))
    for _ in range(draw(st.integers(0, 3))):
        if plaintext:
            plaintext[draw(st.integers(0, min(len(plaintext) - 1, 150)))] = draw(st.integers(0, 255))
    return bytes(plaintext[: draw(st.just(len(plaintext)) | st.integers(0, len(plaintext)))])


@given(st.lists(st.one_of(st.binary(max_size=300), damaged(), damaged()), max_size=8))
def test_any_bytes_never_raise_and_every_frame_delivered_fits_its_lengths(plaintexts: list[bytes]) -> None:
    door = Door()
    received = door.receive(*plaintexts)
    for frame in received.frames:
        assert all(frame)
        written = b"".join(frame)
        assert len(written) >= 24
        flags, gso_type, hdr_len, gso_size, csum_start, csum_offset = struct.unpack_from("<BBHHHH", written)
        assert flags in (0, 1)
        assert (gso_type == 0) == (gso_size == 0)
        if flags:
            assert csum_start >= 14
            assert csum_start + csum_offset + 2 <= len(written) - 10
        if gso_type:
            assert csum_start < hdr_len < len(written) - 10 - gso_size + 1
            check_lengths(written[10:], csum_start)
    assert sum(door.counters.drops.values()) <= len(b"".join(plaintexts)) + len(plaintexts)


def check_lengths(frame: bytes, transport: int) -> None:
    """The IP length of a run is that of the run, whatever else its sender put into its headers."""
    ip = next(at for at in (14, 18, 22) if frame[at - 2 : at] in (b"\x08\0", b"\x86\xdd"))
    claimed = int.from_bytes(frame[ip + 2 : ip + 4], "big")
    if frame[ip - 2 : ip] == b"\x86\xdd":
        claimed = int.from_bytes(frame[ip + 4 : ip + 6], "big") + 40
    assert claimed == len(frame) - ip
    assert transport >= ip + 20
