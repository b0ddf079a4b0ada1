"""What the outbox makes of frames: how they share datagrams, and that a lie in a virtio header packs nothing."""

import random
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from l2overlay.dataplane.outbox import MAX_PADDING, Outbox, frame_record
from l2overlay.dataplane.wire import Record, control_record
from l2overlay.errors import FrameError
from l2overlay.seams import TapFrame

from .super_frames import SuperFrame, partial_frame, super_frame, super_frames

PATH = 1472
CAPACITY = PATH - 32


def packed(*frames: TapFrame, path_size: int = PATH) -> list[bytes]:
    outbox = Outbox(path_size)
    assert outbox.add_all(frames) == []
    return outbox.take()


def plain_frame(length: int, fill: int = 0xAA) -> TapFrame:
    return TapFrame(bytes(10) + bytes([fill]) * length)


def with_virtio(frame: SuperFrame, **fields: int) -> TapFrame:
    names = ("flags", "gso_type", "hdr_len", "gso_size", "csum_start", "csum_offset")
    values = dict(zip(names, struct.unpack("<BBHHHH", frame.virtio), strict=True)) | fields
    return TapFrame(struct.pack("<BBHHHH", *values.values()) + frame.header + frame.payload)


def with_bytes(frame: SuperFrame, at: int, patch: bytes) -> TapFrame:
    header = frame.header[:at] + patch + frame.header[at + len(patch) :]
    assert len(header) == len(frame.header)
    return TapFrame(frame.virtio + header + frame.payload)


# -- sharing datagrams ---------------------------------------------------------------------------------------------


def test_small_frames_share_a_datagram() -> None:
    assert len(packed(*[plain_frame(60)] * 20)) == 1


def test_lone_frame_leaves_at_once_and_nothing_stays_behind() -> None:
    outbox = Outbox(PATH)
    outbox.add(plain_frame(60))
    assert outbox.take() == [b"\x01\0\x3c\0" + b"\xaa" * 60]
    assert outbox.take() == []


def test_order_is_kept_when_a_frame_does_not_fit_the_rest_of_a_datagram() -> None:
    first, second = packed(plain_frame(1000, 1), plain_frame(1000, 2), plain_frame(60, 3))
    assert first.count(b"\x01" * 1000) == 1
    assert second.index(b"\x02" * 1000) < second.index(b"\x03" * 60)


def test_datagrams_of_a_bulk_transfer_are_all_full_but_the_last() -> None:
    """UDP GSO wants equal sizes; each super-frame goes on where the one before ended."""
    plaintexts = packed(*(super_frame(length=60_000, seed=n).frame for n in range(4)))
    assert {len(plaintext) for plaintext in plaintexts[:-1]} == {CAPACITY}
    assert len(plaintexts) < 4 * 60_000 / (CAPACITY - 100) + 1


def test_datagram_that_is_nearly_full_is_padded_so_that_its_burst_goes_on() -> None:
    nearly = plain_frame(CAPACITY - 4 - MAX_PADDING)
    first, second = packed(nearly, plain_frame(1000))
    assert len(first) == CAPACITY
    assert first.endswith(bytes(MAX_PADDING))
    assert len(second) == 1004


def test_datagram_that_lacks_more_is_sent_short_instead() -> None:
    first, _ = packed(plain_frame(CAPACITY - 4 - MAX_PADDING - 1), plain_frame(1000))
    assert len(first) == CAPACITY - MAX_PADDING - 1


def test_resize_keeps_what_is_packed_and_fills_the_next_datagrams_to_the_new_size() -> None:
    outbox = Outbox(PATH)
    outbox.add(plain_frame(1400))
    outbox.resize(1200)
    assert outbox.datagram_size == 1200
    outbox.add(super_frame(length=5000).frame)
    assert [len(plaintext) + 32 for plaintext in outbox.take()][:3] == [1436, 1200, 1200]


def test_control_record_is_never_cut() -> None:
    outbox = Outbox(PATH)
    outbox.add(plain_frame(CAPACITY - 4 - 10))
    outbox.add_record(control_record(Record.PING, b"12345678"))
    outbox.add_record(control_record(Record.BYE))
    assert outbox.take()[1] == b"\x04\0\x08\0" + b"12345678" + b"\x0a\0\0\0"


def test_each_frame_in_parts_has_an_id_of_its_own() -> None:
    frames = [plain_frame(3000), super_frame(length=3000).frame, plain_frame(3000)]
    ids = [packed_id(plaintext) for frame in frames for plaintext in packed(frame)[:1]]
    outbox = Outbox(PATH)
    for frame in frames:
        outbox.add(frame)
        ids.append(packed_id(outbox.take()[0]))
    assert ids == [1, 1, 1, 1, 2, 3]


def packed_id(plaintext: bytes) -> int:
    """A SLICE and a FRAGMENT have their id at the same place."""
    return int.from_bytes(plaintext[6:10], "little")


def test_the_id_wraps_at_32_bits() -> None:
    outbox = Outbox(PATH)
    outbox._next_id = 0xFFFF_FFFF
    outbox.add(plain_frame(3000))
    assert packed_id(outbox.take()[0]) == 0


@pytest.mark.parametrize("rest", [1, 63])
def test_fragments_fill_what_is_left_of_a_datagram_and_share_their_last_one(rest: int) -> None:
    head_len = 12  # of a FRAGMENT
    first = plain_frame(CAPACITY - 4 - head_len - MAX_PADDING)
    body = plain_frame(MAX_PADDING + CAPACITY - head_len + rest)
    small = plain_frame(CAPACITY - head_len - rest - 4)
    assert [len(plaintext) for plaintext in packed(first, body, small)] == [CAPACITY] * 3


def test_short_super_frame_goes_into_what_is_left_however_little() -> None:
    short = super_frame(length=10, gso_size=5)
    record_len = 6 + 14 + len(short.header) + 10
    assert [len(p) for p in packed(plain_frame(CAPACITY - 4 - record_len), short.frame)] == [CAPACITY]


def test_record_of_one_frame_is_what_the_outbox_would_make() -> None:
    frame = plain_frame(1000)
    assert frame_record(frame, 1004) == packed(frame)[0]
    assert frame_record(frame, 1003) is None
    partial = partial_frame("udp4", 100)
    assert frame_record(partial, 1400) == packed(partial)[0]
    assert frame_record(super_frame(length=100, gso_size=50).frame, 1400) is None


# -- super-frames that are not cut -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["udp4", "udp6"])
@pytest.mark.parametrize("length", [1, 700, 1000])
def test_udp_super_frame_of_a_single_unit_is_one_slice(kind: str, length: int) -> None:
    """With a gso_size that the path could not carry even: the kernel says 'at most', not 'exactly'."""
    for gso_size in (1000, 1400, 65_535):
        (plaintext,) = packed(super_frame(kind, length, gso_size).frame)
        assert plaintext[0] == Record.SLICE


def test_udp_unit_larger_than_a_datagram_travels_in_fragments() -> None:
    plaintexts = packed(super_frame("udp4", 6000, 3000).frame)
    assert {plaintext[0] for plaintext in plaintexts} == {Record.FRAGMENT}
    assert plaintexts[0][1] == 1  # PARTIAL_CHECKSUM


# -- lies ----------------------------------------------------------------------------------------------------------

TCP4, TCP6, UDP4, UDP6 = (super_frame(kind, 9000) for kind in ("tcp4", "tcp6", "udp4", "udp6"))
TAGGED = super_frame("tcp4", 9000, tags=2)

LIES = {
    "no partial checksum": with_virtio(TCP4, flags=0),
    "DATA_VALID instead of a partial checksum": with_virtio(TCP4, flags=2),
    "a gso_type that virtio does not have": with_virtio(TCP4, gso_type=2),
    "UFO, which we never asked for": with_virtio(UDP4, gso_type=3),
    "the ECN bit alone": with_virtio(TCP4, gso_type=0x80),
    "the ECN bit on UDP": with_virtio(UDP4, gso_type=0x85),
    "TCPv6 over IPv4": with_virtio(TCP4, gso_type=4),
    "TCPv4 over IPv6": with_virtio(TCP6, gso_type=1),
    "TCP that is UDP": with_virtio(UDP4, gso_type=1),
    "TCP that is UDP over IPv6": with_virtio(UDP6, gso_type=4),
    "UDP that is TCP": with_virtio(TCP4, gso_type=5),
    "UDP that is TCP over IPv6": with_virtio(TCP6, gso_type=5),
    "a gso_size of 0": with_virtio(TCP4, gso_size=0),
    "a checksum that starts before the frame": with_virtio(TCP4, csum_start=0),
    "a checksum that starts in the IPv4 header": with_virtio(TCP4, csum_start=30),
    "a checksum that starts behind the IPv4 header's end": with_virtio(TCP4, csum_start=38),
    "a checksum that starts in the IPv6 header": with_virtio(TCP6, csum_start=50),
    "a checksum that starts past the end": with_virtio(TCP4, csum_start=65_535),
    "a checksum that starts at the last byte": with_virtio(UDP4, csum_start=len(UDP4.header) + 8999),
    "no payload": TapFrame(TCP4.virtio + TCP4.header),
    "headers that are cut off": TapFrame(TCP4.virtio + TCP4.header[:40]),
    "an Ethernet header alone": TapFrame(TCP4.virtio + TCP4.header[:14]),
    "two tags and nothing else": TapFrame(TAGGED.virtio + TAGGED.header[:20]),
    "an EtherType that is not IP": with_bytes(TCP4, 12, b"\x08\x06"),
    "three tags": TapFrame(
        struct.pack("<BBHHHH", 1, 1, 0, 1448, 46, 16)
        + TAGGED.header[:20]
        + b"\x81\0\0\1"
        + TAGGED.header[20:]
        + TAGGED.payload
    ),
    "an IPv4 header of version 6": with_bytes(TCP4, 14, b"\x65"),
    "an IPv4 header of 16 bytes": with_bytes(TCP4, 14, b"\x44"),
    "a TCP header of 16 bytes": with_bytes(TCP4, 34 + 12, b"\x40"),
    "an IPv4 length that is too small": with_bytes(TCP4, 16, b"\x05\xdc"),
    "an IPv4 length that is too large": with_bytes(TCP4, 16, b"\xff\xff"),
    "an IPv6 length that is too small": with_bytes(TCP6, 18, b"\x05\xdc"),
    "an IPv6 length that is too large": with_bytes(TCP6, 18, b"\xff\xff"),
    "a UDP length that is too small": with_bytes(UDP4, 34 + 4, b"\x05\xdc"),
    "a UDP length that is too large": with_bytes(UDP6, 54 + 4, b"\xff\xff"),
    "more than IP can carry": with_virtio(super_frame("udp4", 65_000), gso_size=1000) + bytes(535),
    "more payload than 16 bits can count": with_virtio(super_frame("tcp6", 65_000)) + bytes(1000),
    "headers longer than 16 bits can count": TapFrame(
        struct.pack("<BBHHHH", 1, 1, 0, 1448, 65_535, 16) + TCP4.header.ljust(65_535 + 200, b"\x50")
    ),
}


@pytest.mark.parametrize("name", LIES)
def test_virtio_header_that_lies_packs_nothing(name: str) -> None:
    outbox = Outbox(PATH)
    outbox.add(plain_frame(60))
    with pytest.raises(FrameError):
        outbox.add(TapFrame(LIES[name]))
    assert outbox.take() == packed(plain_frame(60))


@pytest.mark.parametrize(
    ("csum_start", "csum_offset"), [(0, 0), (13, 6), (34, 1000), (1000, 0), (65_535, 65_535), (95, 4)]
)
def test_partial_checksum_outside_its_frame_packs_nothing(csum_start: int, csum_offset: int) -> None:
    """The receiver would refuse it, and with it what shares its datagram."""
    outbox = Outbox(PATH)
    with pytest.raises(FrameError):
        outbox.add(TapFrame(struct.pack("<BBHHHH", 1, 0, 0, 0, csum_start, csum_offset) + bytes(100)))
    assert outbox.take() == []


def test_ipv4_length_left_for_the_segmenter_to_fill_in_is_no_lie() -> None:
    """Zero is what Windows guests (LSO) and Linux (BIG TCP) write there, and the kernel's segmenter never reads it."""
    assert packed(with_bytes(TCP4, 16, b"\0\0"))


def test_tcp_headers_that_leave_no_room_for_payload_pack_nothing() -> None:
    """IPv6 extension headers of 1.5 KiB: no kernel makes them, a guest may."""
    whole = super_frame("tcp6", 3000)
    chain = bytes([6, 191, 1, 0]).ljust(8 * 192, b"\0")
    ip = whole.header[14:54]
    ip = ip[:4] + (len(chain) + 32 + 3000).to_bytes(2, "big") + bytes([60]) + ip[7:]
    header = whole.header[:14] + ip + chain + whole.header[54:]
    frame = TapFrame(struct.pack("<BBHHHH", 1, 4, 0, 1000, 54 + len(chain), 16) + header + whole.payload)
    assert packed(frame, path_size=4000)
    outbox = Outbox(PATH)
    with pytest.raises(FrameError):
        outbox.add(frame)
    assert outbox.take() == []


@pytest.mark.parametrize(("kind", "length"), [("udp4", 65_507), ("udp6", 65_527)])
def test_udp_unit_longer_than_a_record_can_say_packs_nothing(kind: str, length: int) -> None:
    outbox = Outbox(PATH)
    with pytest.raises(FrameError):
        outbox.add(super_frame(kind, length, length - 1).frame)
    assert outbox.take() == []


def test_frame_as_long_as_a_record_can_say_is_packed() -> None:
    assert len(packed(plain_frame(65_535))) == 46


def test_frame_longer_than_a_record_can_say_packs_nothing() -> None:
    outbox = Outbox(PATH)
    with pytest.raises(FrameError):
        outbox.add(plain_frame(65_536))
    assert outbox.take() == []


@given(st.one_of(super_frames(), st.just(partial_frame("tcp4", 3000))), st.data())
def test_damaged_headers_are_packed_or_refused_and_never_half(
    whole: SuperFrame | TapFrame, data: st.DataObject
) -> None:
    """Any few bytes of virtio, Ethernet, IP or TCP header changed, and the end cut off anywhere."""
    frame = bytearray(whole.frame if isinstance(whole, SuperFrame) else whole)
    for _ in range(data.draw(st.integers(1, 4))):
        frame[data.draw(st.integers(0, min(100, len(frame) - 1)))] = data.draw(st.integers(0, 255))
    frame = frame[: data.draw(st.integers(24, len(frame)) | st.just(len(frame)))]
    outbox = Outbox(data.draw(st.integers(1200, 9000)))
    try:
        outbox.add(TapFrame(bytes(frame)))
    except FrameError:
        assert outbox.take() == []
    else:
        assert outbox.take()


@st.composite
def any_frames(draw: st.DrawFn) -> TapFrame:
    """Good ones of all sorts and sizes, and lies."""
    length = draw(st.sampled_from((14, 60, 200, 1000, 1434, 1435, 1436, 1437, 3000)))
    kind = draw(st.sampled_from(("plain", "plain", "partial", "valid", "super", "lie", "odd")))
    if kind == "partial":
        return partial_frame(draw(st.sampled_from(("tcp4", "udp6"))), length)
    if kind == "super":
        return draw(super_frames(max_len=5000)).frame
    if kind == "lie":
        return TapFrame(draw(st.sampled_from(list(LIES.values()))))
    if kind == "odd":  # a checksum somewhere, a hdr_len, other flags
        hdr_len, csum_start, csum_offset = (draw(st.sampled_from((0, 1, 14, 34, 3000))) for _ in range(3))
        virtio = struct.pack("<BBHHHH", draw(st.integers(0, 3)), 0, hdr_len, 0, csum_start, csum_offset)
        return TapFrame(virtio + bytes(length))
    return TapFrame((b"\x02" if kind == "valid" else b"\0") + bytes(9 + length))


@given(st.lists(any_frames(), max_size=12), st.integers(1200, 9000))
def test_frames_packed_together_are_packed_as_one_by_one(frames: list[TapFrame], path_size: int) -> None:
    """In one call or in two."""
    together, alone = Outbox(path_size), Outbox(path_size)
    refused = []
    for frame in frames:
        try:
            alone.add(frame)
        except FrameError:
            refused.append(frame)
    half = len(frames) // 2
    assert [
        frame for frame, _ in together.add_all(frames[:half]) + together.add_all(frames[half:])
    ] == refused
    assert together.take() == alone.take()


@given(st.binary(min_size=24, max_size=200), st.integers(0, 1 << 32))
def test_any_bytes_from_the_tap_are_packed_or_refused(head: bytes, seed: int) -> None:
    chance = random.Random(seed)
    frame = TapFrame(head + chance.randbytes(chance.choice((0, 0, 3000, 65_400))))
    outbox = Outbox(PATH)
    try:
        outbox.add(frame)
    except FrameError:
        assert outbox.take() == []
    else:
        assert outbox.take()
