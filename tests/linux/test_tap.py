"""A real TAP in a namespace; the other end is a packet socket on the same link.

test --LinuxTap--> [tap0] <--AF_PACKET-- test
"""

import errno
import select
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from l2overlay.counters import DropReason
from l2overlay.errors import HostSetupError
from l2overlay.linux.tap import OFFLOAD_CHOICES, VNET_HEADER_LEN, LinuxTap
from l2overlay.seams import TapFrame
from l2overlay.testing.lab import Namespace

from .conftest import inside

NO_OFFLOAD = bytes(VNET_HEADER_LEN)
ETHERNET = bytes.fromhex("020000000002 020000000001")
ETHERTYPE_TEST = b"\x88\xb5"  # IEEE 802 local experimental
SOL_PACKET, PACKET_VNET_HDR = 263, 15
TSO_SIZE = 1448


def frame(number: int, length: int = 60) -> bytes:
    return (ETHERNET + ETHERTYPE_TEST + number.to_bytes(2, "big")).ljust(length, b"\xaa")


def super_frame(payload_len: int) -> bytes:
    """TCP over IPv4 with its virtio header, checksum and segmentation still to do."""
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 40 + payload_len, 1, 0x4000, 64, 6, 0, bytes(4), bytes(4))
    tcp = struct.pack("!HHIIBBHHH", 1, 2, 3, 4, 0x50, 0x10, 1000, 0, 0)
    header = struct.pack("<BBHHHH", 1, 1, 54, TSO_SIZE, 34, 16)
    return header + ETHERNET + b"\x08\x00" + ip + tcp + bytes(payload_len)


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


class Wire:
    """An open TAP, and a packet socket that sees and sends what the host side of the link does."""

    def __init__(self, namespace: Namespace, tap: LinuxTap, packets: socket.socket) -> None:
        self.namespace, self.tap, self.packets = namespace, tap, packets

    def send(self, data: bytes) -> None:
        self.packets.send(data)

    def received(self) -> list[bytes]:
        frames = []
        while select.select([self.packets], [], [], 0.2)[0]:
            data, (_, _, direction, *_) = self.packets.recvfrom(70_000)
            if direction != socket.PACKET_OUTGOING:
                frames.append(data)
        return frames


@pytest.fixture
def open_wire(namespace: Callable[[], Namespace]) -> Iterator[Callable[..., Wire]]:
    def make(*, offload: bool = True, vnet: bool = False) -> Wire:
        host = namespace()
        with inside(host):
            tap = LinuxTap.open("tap0", offload=offload)
            stack.callback(tap.close)
            Path("/proc/sys/net/ipv6/conf/tap0/disable_ipv6").write_text("1")
            host.ip("link set tap0 up")
            packets = stack.enter_context(socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0))
            if vnet:
                packets.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
            packets.bind(("tap0", 0 if vnet else 0x0003))
        return Wire(host, tap, packets)

    with ExitStack() as stack:
        yield make


def test_frames_are_read_whole_behind_an_empty_header(open_wire: Callable[..., Wire]) -> None:
    wire = open_wire()
    tagged = ETHERNET + bytes.fromhex("8100 0064") + ETHERTYPE_TEST + b"x" * 46
    sent = [frame(1), frame(2, 1514), tagged]
    for data in sent:
        wire.send(data)
    assert wire.tap.receive_frames(10) == [NO_OFFLOAD + data for data in sent]


def test_a_read_takes_no_more_than_its_limit_and_leaves_the_rest(open_wire: Callable[..., Wire]) -> None:
    wire = open_wire()
    for number in range(5):
        wire.send(frame(number))
    assert wire.tap.receive_frames(3) == [NO_OFFLOAD + frame(n) for n in (0, 1, 2)]
    assert wire.tap.receive_frames(3) == [NO_OFFLOAD + frame(n) for n in (3, 4)]
    assert wire.tap.receive_frames(3) == []


def test_frames_arrive_in_order_in_one_piece_or_in_many(open_wire: Callable[..., Wire]) -> None:
    wire = open_wire()
    whole, pieces = NO_OFFLOAD + frame(1), (NO_OFFLOAD, frame(2)[:20], memoryview(frame(2))[20:])
    many = (NO_OFFLOAD, *(frame(3, 1300)[i : i + 1] for i in range(1300)))
    assert wire.tap.deliver_frames([[whole], pieces, many]) == {}
    assert wire.received() == [frame(1), frame(2), frame(3, 1300)]


def test_a_refused_frame_is_counted_and_the_others_arrive(open_wire: Callable[..., Wire]) -> None:
    wire = open_wire()
    lying_header = struct.pack("<BBHHHH", 1, 1, 54, 0, 34, 16) + frame(2)  # TSO with segments of 0 bytes
    runt = NO_OFFLOAD + bytes(13)
    frames = [[NO_OFFLOAD + frame(1)], [lying_header], [runt], [NO_OFFLOAD + frame(3)]]
    assert wire.tap.deliver_frames(frames) == {DropReason.TAP_REFUSED: 2}
    assert wire.received() == [frame(1), frame(3)]


def test_a_tap_that_is_down_refuses_frames_and_reads_as_drained(open_wire: Callable[..., Wire]) -> None:
    wire = open_wire()
    wire.namespace.ip("link set tap0 down")
    assert wire.tap.deliver_frames([[NO_OFFLOAD + frame(n)] for n in range(3)]) == {DropReason.TAP_REFUSED: 3}
    assert wire.tap.receive_frames(10) == []
    wire.namespace.ip("link set tap0 up")
    assert wire.tap.deliver_frames([[NO_OFFLOAD + frame(4)]]) == {}


def test_a_deleted_tap_raises_on_read_and_on_write(open_wire: Callable[..., Wire]) -> None:
    wire = open_wire()
    wire.namespace.ip("link del tap0")
    with pytest.raises(OSError) as read_error:  # noqa: PT011
        wire.tap.receive_frames(10)
    with pytest.raises(OSError) as write_error:  # noqa: PT011
        wire.tap.deliver_frames([[NO_OFFLOAD + frame(1)]])
    assert read_error.value.errno == write_error.value.errno == errno.EBADFD


def test_with_offload_a_super_frame_comes_and_goes_as_one(open_wire: Callable[..., Wire]) -> None:
    wire = open_wire(vnet=True)
    assert wire.tap.offloads in OFFLOAD_CHOICES
    wire.send(super_frame(60_000))
    (received,) = wire.tap.receive_frames(100)
    assert len(received) == len(super_frame(60_000))
    assert struct.unpack_from("<BBHH", received)[1::2] == (1, TSO_SIZE)
    assert wire.tap.deliver_frames([[received]]) == {}


def test_without_offload_the_kernel_cuts_what_it_gives(open_wire: Callable[..., Wire]) -> None:
    wire = open_wire(offload=False, vnet=True)
    assert wire.tap.offloads == ()
    wire.send(super_frame(60_000))
    received = wire.tap.receive_frames(100)
    assert sum(len(f) - VNET_HEADER_LEN - 54 for f in received) == 60_000
    assert max(len(f) for f in received) == VNET_HEADER_LEN + 54 + TSO_SIZE
    assert {f[:VNET_HEADER_LEN] for f in received} == {TapFrame(NO_OFFLOAD)}


def test_a_tap_held_elsewhere_a_bridge_and_an_impossible_name_are_refused(
    namespace: Callable[[], Namespace],
) -> None:
    host = namespace()
    host.ip("link add br0 type bridge")
    with inside(host):
        held = LinuxTap.open("tap0", offload=True)
        for name, reason in {
            "tap0": "held by another process",
            "br0": "not a plain TAP",
            "x" * 16: "cannot name a link",
            "": "cannot name a link",
        }.items():
            with pytest.raises(HostSetupError, match=reason):
                LinuxTap.open(name, offload=True)
        held.close()


def test_a_tap_of_ours_goes_when_it_is_closed_and_a_persistent_one_stays(
    namespace: Callable[[], Namespace],
) -> None:
    host = namespace()
    host.ip("tuntap add kept mode tap")
    with inside(host):
        taps = [LinuxTap.open(name, offload=True) for name in ("kept", "ours")]
        before = open_files()
        for tap in (*taps, *taps):
            tap.close()
        assert open_files() == before - 2
        deadline = time.monotonic() + 1
        while (
            "ours" in (links := [name for _, name in socket.if_nameindex()]) and time.monotonic() < deadline
        ):
            pass
    assert sorted(links) == ["kept", "lo"]
