"""DSCP and ECN between the guests' packets and the outer header: two overlays, and a path that may mark (RFC 6040)."""

import random
from collections.abc import Sequence
from dataclasses import replace

import pytest

from l2overlay.addresses import Address
from l2overlay.config.types import Config, PeerConfig, SegmentConfig, Tos
from l2overlay.counters import DropReason
from l2overlay.dataplane.ethernet import VIRTIO_LEN
from l2overlay.dataplane.marks import CE, ECT_0, ECT_1, NOT_ECT, combined_ecn, tos_of, with_ecn
from l2overlay.keys import public_key
from l2overlay.overlay import Overlay
from l2overlay.seams import Burst, MarkedBurst, TapFrame

from .super_frames import ones_sum, partial_frame, super_frame

EF, AF11 = 46 << 2, 10 << 2
KINDS = ("tcp4", "tcp6", "udp4", "udp6")


def marked(frame: bytes, tos: int) -> TapFrame:
    """The frame with this TOS byte. The IPv4 checksum is computed anew."""
    at = 24
    while frame[at - 2 : at] in (b"\x81\0", b"\x88\xa8"):
        at += 4
    changed = bytearray(frame)
    if frame[at] >> 4 == 6:
        changed[at], changed[at + 1] = 0x60 | tos >> 4, tos << 4 & 0xF0 | frame[at + 1] & 0x0F
        return TapFrame(bytes(changed))
    changed[at + 1], changed[at + 10 : at + 12] = tos, bytes(2)
    header = bytes(changed[at : at + (changed[at] & 15) * 4])
    changed[at + 10 : at + 12] = (~ones_sum(header) & 0xFFFF).to_bytes(2, "big")
    return TapFrame(bytes(changed))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tags", [0, 1, 2])
def test_ecn_is_set_where_the_ip_header_is_and_the_checksum_stays_right(kind: str, tags: int) -> None:
    plain = partial_frame(kind, 100, tags=tags, seed=tags)
    for tos in range(0, 256, 5):
        frame = marked(plain, tos)
        assert tos_of(frame) == tos
        for ecn in range(4):
            assert with_ecn(frame, ecn) == marked(plain, tos & 0xFC | ecn)


@pytest.mark.parametrize(
    "frame", [bytes(24), bytes(22) + b"\x08\0\x45", bytes(22) + b"\x08\x06" + b"\xff" * 46, b""]
)
def test_what_is_no_whole_ip_packet_has_no_mark(frame: bytes) -> None:
    assert tos_of(frame) == 0
    assert with_ecn(frame, CE) == frame


def test_outer_and_inner_ecn_combine_as_in_figure_4_of_rfc_6040() -> None:
    table = {
        inner: [combined_ecn(inner, outer) for outer in (NOT_ECT, ECT_0, ECT_1, CE)] for inner in range(4)
    }
    assert table == {
        NOT_ECT: [NOT_ECT, NOT_ECT, NOT_ECT, None],
        ECT_0: [ECT_0, ECT_0, ECT_1, CE],
        ECT_1: [ECT_1, ECT_1, ECT_1, CE],
        CE: [CE, CE, CE, CE],
    }


class Pair:
    """a -> b. What a sends stays in `sent`; `mark` is the ECN field that a router on the way gives to ECT datagrams."""

    def __init__(self, a_tos: Tos = Tos.COPY, b_tos: Tos = Tos.COPY) -> None:
        self.now, self.mark, chance = 1000.0, -1, random.Random(1)
        self.addresses = {"a": Address("192.0.2.1", 7470), "b": Address("192.0.2.2", 7470)}
        private = {name: chance.randbytes(32) for name in "ab"}
        peers = tuple(PeerConfig(name, public_key(private[name])) for name in "ab")
        self.config = Config(SegmentConfig("lan", "br-lan", "tap-lan"), peers)
        self.a, self.b = (
            Overlay(self.with_tos(tos), private[n], now=self.now, wall_clock=1.8e9, random=chance.randbytes)
            for n, tos in (("a", a_tos), ("b", b_tos))
        )
        self.a.set_endpoint(peers[1].public_key, self.addresses["b"], self.now)
        self.sent: list[Burst] = []
        for _ in range(20):
            self.now += 0.1
            for overlay in (self.a, self.b):
                if overlay.next_timer() <= self.now:
                    overlay.handle_timer(self.now)
            self.carry()
        self.sent.clear()
        self.b.frames_to_deliver()

    def with_tos(self, tos: Tos) -> Config:
        return replace(self.config, segment=replace(self.config.segment, tos=tos))

    def carry(self) -> None:
        while bursts := self.a.bursts_to_send():
            self.sent += bursts
            self._give(self.b, [self._travelled(burst) for burst in bursts])
            if back := self.b.bursts_to_send():
                self._give(
                    self.a, [Burst(self.addresses["b"], b.datagram_size, [b"".join(b.buffers)]) for b in back]
                )

    @staticmethod
    def outer(burst: Burst) -> int:
        return burst.tos if isinstance(burst, MarkedBurst) else 0

    def _travelled(self, burst: Burst) -> Burst:
        tos, data = self.outer(burst), [b"".join(burst.buffers)]
        if self.mark >= 0 and tos & 3:
            tos = tos & 0xFC | self.mark
        return MarkedBurst(self.addresses["a"], burst.datagram_size, data, tos)

    def _give(self, overlay: Overlay, bursts: Sequence[Burst]) -> None:
        if overlay.marks is None:
            overlay.receive_datagrams(bursts, self.now)
        else:
            overlay.receive_marked_datagrams(bursts, self.now)

    def send(self, *frames: TapFrame) -> list[bytes]:
        """Frames of a's guests; returns what b delivers."""
        if self.a.marks is None:
            self.a.receive_frames(frames, self.now)
        else:
            self.a.receive_marked_frames(frames, self.now)
        self.carry()
        return [b"".join(frame) for frame in self.b.frames_to_deliver()]


SMALL = partial_frame("tcp4", 100)
LARGE = super_frame("tcp4", 40_000).frame


@pytest.mark.parametrize("kind", KINDS)
def test_frames_of_different_marks_share_no_datagram_and_each_outer_header_has_its_mark(kind: str) -> None:
    pair = Pair()
    frames = [
        marked(partial_frame(kind, 100, seed=n), tos) for n, tos in enumerate((EF, EF, 0, AF11 | ECT_0, EF))
    ]
    assert pair.send(*frames) == frames
    assert [pair.outer(burst) for burst in pair.sent] == [EF, 0, AF11 | ECT_0, EF]


def test_dscp_alone_leaves_the_outer_ecn_field_at_zero() -> None:
    pair = Pair(Tos.DSCP, Tos.DSCP)
    pair.send(marked(SMALL, EF | ECT_0))
    assert [pair.outer(burst) for burst in pair.sent] == [EF]


def test_a_node_without_marks_marks_nothing() -> None:
    pair = Pair(Tos.OFF, Tos.OFF)
    frame = marked(SMALL, EF | ECT_0)
    assert pair.send(frame) == [frame]
    assert all(type(burst) is Burst for burst in pair.sent)


@pytest.mark.parametrize("ecn", [ECT_0, ECT_1])
def test_congestion_on_the_way_reaches_the_guest(ecn: int) -> None:
    pair = Pair()
    pair.mark = CE
    assert pair.send(marked(SMALL, EF | ecn)) == [marked(SMALL, EF | CE)]


def test_congestion_marks_every_super_frame_that_arrives() -> None:
    pair = Pair()
    pair.mark = CE
    delivered = pair.send(marked(LARGE, ECT_0))
    assert delivered
    assert {tos_of(frame) for frame in delivered} == {CE}
    assert sum(len(frame) - 10 - 66 for frame in delivered) == 40_000


def test_a_mark_on_a_datagram_that_completes_no_frame_is_not_lost() -> None:
    pair = Pair()
    frame = marked(partial_frame("udp4", 1472), ECT_0)
    fragmented = TapFrame(bytes(VIRTIO_LEN) + frame[VIRTIO_LEN:])
    pair.a.receive_marked_frames([fragmented], pair.now)
    bursts = [Burst(b.address, b.datagram_size, [d]) for b in pair.a.bursts_to_send() for d in b.datagrams()]
    assert len(bursts) > 1
    for number, burst in enumerate(bursts):
        tos = CE if number == 0 else ECT_0
        arrived = MarkedBurst(pair.addresses["a"], len(burst.buffers[0]), burst.buffers, tos)
        pair.b.receive_marked_datagrams([arrived], pair.now)
    assert [tos_of(b"".join(frame)) for frame in pair.b.frames_to_deliver()] == [CE]


def test_a_guest_that_knows_no_ecn_takes_congestion_for_a_loss_and_it_is_counted_once() -> None:
    pair = Pair(a_tos=Tos.OFF)
    pair.a.receive_frames([marked(SMALL, EF)], pair.now)
    for burst in pair.a.bursts_to_send():
        arrived = MarkedBurst(pair.addresses["a"], burst.datagram_size, [b"".join(burst.buffers)], CE)
        pair.b.receive_marked_datagrams([arrived], pair.now)
    assert pair.b.frames_to_deliver() == []
    drops = [link.counters.drops.get(DropReason.ECN_CONGESTED, 0) for link in pair.b._links.by_key.values()]
    assert drops == [1]


def test_a_reload_turns_marks_on_and_off_under_traffic() -> None:
    pair = Pair(Tos.OFF, Tos.OFF)
    frame = marked(SMALL, EF)
    for tos, outer in ((Tos.COPY, EF), (Tos.OFF, 0), (Tos.DSCP, EF)):
        pair.a.reconfigure(pair.with_tos(tos), pair.now)
        pair.sent.clear()
        assert pair.send(frame) == [frame]
        assert [pair.outer(burst) for burst in pair.sent] == [outer]
