"""DSCP and ECN of the guests' packets on the outer header, and congestion on the outer header back to the guests.

    out   frames of one mark in a row -> datagrams of their own -> `MarkedBurst`       RFC 2983, section 3; RFC 6040, 4.1
    in    a burst that a router marked -> the frames that came of it are marked        RFC 6040, section 4.2

The way of a frame is the ordinary one. It is only asked for each run of frames with equal marks, so that they share no
datagram with others. A super-frame has one IP header, and the kernel copies its mark to each segment that it cuts.

Without ECN (RFC 6040 calls it compatibility mode) the outer ECN field is 0: no router marks what the far node cannot read.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby

from l2overlay.addresses import PeerKey
from l2overlay.counters import DropReason
from l2overlay.dataplane.ethernet import VIRTIO_LEN
from l2overlay.dataplane.forwarder import Forwarder
from l2overlay.dataplane.link import Links
from l2overlay.inet import IPV4, IPV6, past_tags
from l2overlay.seams import Burst, Gather, MarkedBurst, TapFrame

ECN_BITS = 0x03
NOT_ECT, ECT_1, ECT_0, CE = 0, 1, 2, 3
MAX_TAGS = 2
_TYPE_AT = VIRTIO_LEN + 12
_IPV4_LEN, _IPV6_LEN = 20, 40


def _ip_at(frame: bytes) -> tuple[int, int]:
    """The EtherType IPV4 or IPV6 and where that header begins; (0, 0) if the frame has no whole IP header."""
    kind, at, _ = past_tags(frame, _TYPE_AT, MAX_TAGS)
    size = {IPV4: _IPV4_LEN, IPV6: _IPV6_LEN}.get(kind)
    return (kind, at) if size is not None and at + size <= len(frame) else (0, 0)


def tos_of(frame: bytes) -> int:
    """The TOS or traffic class byte of the IP packet in a `TapFrame`; 0 if there is no IP packet."""
    kind, at = _ip_at(frame)
    if kind == IPV4:
        return frame[at + 1]
    return int.from_bytes(frame[at : at + 2], "big") >> 4 & 0xFF if kind else 0


def combined_ecn(inner: int, outer: int) -> int | None:
    """What the inner ECN field becomes (RFC 6040, figure 4). None: the packet must be dropped."""
    if outer == CE:
        return CE if inner != NOT_ECT else None
    return ECT_1 if (inner, outer) == (ECT_0, ECT_1) else inner


def with_ecn(frame: bytes, ecn: int) -> bytes:
    """The frame with another ECN field in its IP header. The checksum of IPv4 is corrected (RFC 1624)."""
    kind, at = _ip_at(frame)
    changed = bytearray(frame)
    if kind == IPV6:
        changed[at + 1] = changed[at + 1] & ~(ECN_BITS << 4) & 0xFF | ecn << 4
    elif kind == IPV4:
        old = changed[at + 1]
        changed[at + 1] = new = old & ~ECN_BITS | ecn
        total = (~int.from_bytes(frame[at + 10 : at + 12], "big") & 0xFFFF) + (~old & 0xFFFF) + new
        total = (total & 0xFFFF) + (total >> 16)
        total = (total & 0xFFFF) + (total >> 16)
        changed[at + 10 : at + 12] = (~total & 0xFFFF).to_bytes(2, "big")
    return bytes(changed)


class Marks:
    """Copies the marks of one node. `ecn`: the peers' nodes read the outer ECN field, so it may be used."""

    __slots__ = ("_forwarder", "_links", "_owed", "ecn")

    def __init__(self, links: Links, forwarder: Forwarder, *, ecn: bool) -> None:
        self.ecn = ecn
        self._links = links
        self._forwarder = forwarder
        self._owed: set[PeerKey] = set()
        """Peers of whose datagrams one was marked CE that completed no frame: the next frame is marked instead."""

    def receive_frames(
        self, frames: Sequence[TapFrame], receive: Callable[[Sequence[TapFrame]], bool]
    ) -> bool:
        """Let `receive` take the frames, one mark at a time, and mark what it sends. Returns whether any has news."""
        has_news, used = False, 0xFF if self.ecn else 0xFF & ~ECN_BITS
        for tos, run in groupby(frames, lambda frame: tos_of(frame) & used):
            before = len(self._links.bursts)
            has_news |= receive(list(run))
            if tos:
                sent = self._links.bursts
                sent[before:] = [
                    MarkedBurst(each.address, each.datagram_size, each.buffers, tos) for each in sent[before:]
                ]
        return has_news

    def receive_datagrams(self, bursts: Sequence[Burst], receive: Callable[[Sequence[Burst]], bool]) -> bool:
        """Let `receive` take the bursts, and mark the frames that come of those that a router marked."""
        if not self.ecn:
            return receive(bursts)
        has_news = False
        for (ecn, peer), run in _runs(bursts, self._source):
            before = len(self._forwarder.frames)
            has_news |= receive(run)
            if ecn in (CE, ECT_1) or peer in self._owed:
                self._mark(before, ecn, peer)
        return has_news

    def _source(self, burst: Burst) -> tuple[int, PeerKey | None]:
        ecn = burst.tos & ECN_BITS if isinstance(burst, MarkedBurst) else NOT_ECT
        session = self._links.sessions.get(int.from_bytes(burst.buffers[0][4:8], "little"))
        return ecn, session.peer if session is not None else None

    def _mark(self, start: int, outer: int, peer: PeerKey | None) -> None:
        frames = self._forwarder.frames
        fresh, frames[start:] = frames[start:], []
        if outer == CE and not fresh and peer is not None:
            self._owed.add(peer)
        for frame in fresh:
            marked = self._marked(frame, outer, peer)
            if marked is not None:
                frames.append(marked)
            elif peer is not None and peer in self._links.by_key:
                self._links.by_key[peer].counters.drop(DropReason.ECN_CONGESTED)

    def _marked(self, frame: Gather, outer: int, peer: PeerKey | None) -> Gather | None:
        """The frame with what the outer ECN field says. None: drop it. What is no IP packet stays as it is."""
        head = bytes(frame[0])
        if not _ip_at(head)[0]:
            return frame
        inner = tos_of(head) & ECN_BITS
        if peer in self._owed and inner != NOT_ECT:
            self._owed.discard(peer)
            outer = CE
        ecn = combined_ecn(inner, outer)
        if ecn is None:
            return None
        return frame if ecn == inner else (with_ecn(head, ecn), *frame[1:])


def _runs(
    bursts: Sequence[Burst], source: Callable[[Burst], tuple[int, PeerKey | None]]
) -> Iterator[tuple[tuple[int, PeerKey | None], list[Burst]]]:
    for key, run in groupby(bursts, source):
        yield key, list(run)
