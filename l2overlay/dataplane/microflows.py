"""Microflows (Open vSwitch's term): the quick way of a lone frame whose addresses are known.

A frame that comes alone (an echo, a keystroke, a request) meets cold caches, and each function on its way then costs
microseconds. `Microflows` remembers, for at most `MAX_AGE`, where the last frame with the same addresses and tag went: out,
to which link; in, from which peer it may pass. The next such frame is sealed or delivered, and nothing is decided again.

`None` means "take the ordinary way", which is always right. Every flow takes it once in `MAX_AGE`, and it does what can wait
that long: the ages of stations, reports of reception. When something changes that a decision rests on, all flows end: the
FDB counts its own changes (`FilteringDatabase.version`), and for any other change the owner calls `forget`.
"""

from l2overlay.addresses import Address
from l2overlay.dataplane.ethernet import SWITCHED, VIRTIO_LEN
from l2overlay.dataplane.fdb import FilteringDatabase
from l2overlay.dataplane.inbox import lone_frame_untrusted
from l2overlay.dataplane.link import Link
from l2overlay.dataplane.outbox import frame_record
from l2overlay.dataplane.session import Session
from l2overlay.dataplane.wire import BASE_SIZE, DATA_OVERHEAD, RECORD_LEN
from l2overlay.seams import Burst, TapFrame

MAX_AGE = 1.0
"""Seconds. A station's age may be wrong by this much, because these frames do not refresh it."""
MAX_FLOWS = 1024
"""In each direction. One more, and all of them are forgotten."""

_CAPACITY = BASE_SIZE - DATA_OVERHEAD
"""Of a datagram that every path takes."""


class Microflows:
    """The microflows of one node."""

    __slots__ = ("_fdb", "_in", "_max_len", "_out", "_version")

    def __init__(self, fdb: FilteringDatabase, max_frame_len: int) -> None:
        self._fdb = fdb
        self._max_len = min(RECORD_LEN + max_frame_len, _CAPACITY)
        self._version = fdb.version
        self._out: dict[bytes, tuple[Link, float]] = {}
        self._in: dict[tuple[bytes, bytes], float] = {}

    def forget(self) -> None:
        """Something else than the FDB changed: what filters or protects. (Of a peer that goes, so do its stations.)"""
        self._out.clear()
        self._in.clear()

    def went_out(self, frame: TapFrame, link: Link, now: float) -> None:
        """This frame came alone, and the ordinary way took it to `link`, for reasons that its addresses and tag give."""
        self._make_room(len(self._out))
        self._out[frame[SWITCHED]] = (link, now + MAX_AGE)

    def came_in(self, head: bytes, link: Link, now: float) -> None:
        """This frame came alone from `link` and passed the ordinary way, for reasons that its addresses and tag give."""
        self._make_room(len(self._in))
        self._in[link.key, head[SWITCHED]] = now + MAX_AGE

    def _make_room(self, count: int) -> None:
        if self._version != self._fdb.version or count >= MAX_FLOWS:
            self.forget()
            self._version = self._fdb.version

    def seal(self, frame: TapFrame, now: float) -> Burst | None:
        """A lone frame from the TAP as a datagram; it is counted. None: nothing was done."""
        link, until = self._out.get(frame[SWITCHED], (None, 0.0))
        if link is None or until <= now or self._version != self._fdb.version:
            return None
        session, endpoint = link.current, link.endpoint
        if session is None or endpoint is None or link.traffic.next_with_frames <= now:
            return None
        record = frame_record(frame, self._max_len)
        if record is None:
            return None
        counters = link.counters
        counters.tx_frames += 1
        counters.tx_bytes += len(frame) - VIRTIO_LEN
        counters.tx_datagrams += 1
        return session.seal_alone(record, endpoint)

    def unpack_untrusted(
        self, plaintext: bytes, link: Link, session: Session, address: Address, now: float
    ) -> bytes | None:
        """The lone frame in a plaintext of `session`, for the TAP; it is counted. None: nothing was done."""
        if session is not link.current or address != link.endpoint or not link.traffic.expects_frames:
            return None
        frame = lone_frame_untrusted(plaintext) if len(plaintext) <= self._max_len else None
        if frame is None or self._version != self._fdb.version:
            return None
        if self._in.get((link.key, frame[SWITCHED]), 0.0) <= now:
            return None
        link.traffic.last_heard = now
        counters = link.counters
        counters.rx_frames += 1
        counters.rx_bytes += len(frame) - VIRTIO_LEN
        return frame
