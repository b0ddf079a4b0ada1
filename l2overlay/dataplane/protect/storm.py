"""Storm control: how much of what is flooded one port may send, by class (broadcast, multicast, unknown unicast).

Two token buckets for each port and class, frames and bytes; a frame must fit into both. A super-frame counts as what it
becomes: one frame for each of its segments, each with its own headers. One that is larger than a whole bucket passes when
the bucket is full, and the bucket owes the rest. Unicast to a station that is known never comes here.

A port is a whole host. So that one guest's storm does not silence its neighbours, stations that flood only a few frames a
second have a small allowance beside the buckets.

A storm begins with the first frame that is dropped and ends when nothing was for `RELEASE_TIME`.
"""

from dataclasses import dataclass, field
from math import inf

from l2overlay.config.types import StormConfig
from l2overlay.counters import DropReason
from l2overlay.dataplane.ethernet import BROADCAST, DESTINATION, SOURCE
from l2overlay.dataplane.fdb import LOCAL, Port
from l2overlay.dataplane.offload import count_segments, is_tiny

RELEASE_TIME = 2.0
QUIET_FRAMES = 5
"""A second, of one station: it asks for an address, renews a lease, announces itself."""
QUIET_LIMIT = 100
"""A second, of all such stations of a port and class, so that a storm of ever new addresses gains nothing."""
PEER_MARGIN = 1.25
"""What a peer has let through by the same limits comes unevenly, and with what its quiet stations may besides: a frame that
it capped is not to be capped again here."""
MIN_BURST = 65_550.0
"""Bytes: the largest frame must fit into a full bucket."""

BROADCASTS, MULTICASTS, UNKNOWN_UNICASTS = range(3)
KIND_NAMES = ("broadcast", "multicast", "unknown unicast")
_REASONS = (DropReason.STORM_BROADCAST, DropReason.STORM_MULTICAST, DropReason.STORM_UNKNOWN_UNICAST)


@dataclass(slots=True)
class Storm:
    """One that has begun, or is over."""

    port: Port
    kind: int
    began: float
    last: float
    """When a frame was dropped last."""
    dropped: int = 0


@dataclass(slots=True)
class _Bucket:
    frame_rate: float
    byte_rate: float
    most_frames: float
    most_bytes: float
    since: float
    frames: float
    size: float
    storm: Storm | None = None
    second: float = -inf
    """Since when `talkers` are counted."""
    granted: int = 0
    talkers: dict[bytes, int] = field(default_factory=dict)


class StormControl:
    """The buckets of one node."""

    def __init__(self, config: StormConfig) -> None:
        self._limits = (config.broadcast, config.multicast, config.unknown_unicast)
        self._buckets: dict[tuple[Port, int], _Bucket] = {}
        self._storms: list[_Bucket] = []
        self.begun: list[Storm] = []
        """Storms that have begun; the caller empties it."""

    def refuse(self, frame: bytes, size: int, port: Port, now: float) -> DropReason | None:
        """Whether a frame of `size` bytes that is flooded from this port is one too many; it counts if it is not.

        `frame` begins with the virtio header and the frame's own headers.
        """
        # Written out, because every broadcast of the segment comes here at every node: 0.9 us instead of 1.9.
        kind = (
            UNKNOWN_UNICASTS
            if not frame[10] & 1
            else BROADCASTS
            if frame[DESTINATION] == BROADCAST
            else MULTICASTS
        )
        bucket = self._buckets.get((port, kind)) or self._open(port, kind, now)
        if now > bucket.since:
            elapsed, bucket.since = now - bucket.since, now
            frames, room = (
                bucket.frames + elapsed * bucket.frame_rate,
                bucket.size + elapsed * bucket.byte_rate,
            )
            bucket.frames = min(bucket.most_frames, frames)
            bucket.size = min(bucket.most_bytes, room)
        count = 1
        if frame[1]:  # a super-frame
            count, size = count_segments(frame, size)
            if is_tiny(int.from_bytes(frame[4:6], "little"), count):
                return DropReason.TINY_SEGMENTS
        if (bucket.frames >= count and bucket.size >= size) or _takes_all(bucket, count, size):
            bucket.frames -= count
            bucket.size -= size
            return None
        if self._is_quiet(bucket, frame[SOURCE], count, now):
            return None
        self._count(bucket, port, kind, now)
        return _REASONS[kind]

    def _open(self, port: Port, kind: int, now: float) -> _Bucket:
        limit, more = self._limits[kind], 1.0 if port == LOCAL else PEER_MARGIN
        frame_rate, byte_rate = limit.frame_rate * more, limit.byte_rate * more
        frames, size = max(1.0, frame_rate * limit.burst_time), max(MIN_BURST, byte_rate * limit.burst_time)
        bucket = _Bucket(frame_rate, byte_rate, frames, size, now, frames, size)
        self._buckets[port, kind] = bucket
        return bucket

    @staticmethod
    def _is_quiet(bucket: _Bucket, source: bytes, frames: int, now: float) -> bool:
        if now >= bucket.second + 1.0:
            bucket.second, bucket.granted, bucket.talkers = now, 0, {}
        count = bucket.talkers.get(source, 0) + frames
        if count > QUIET_FRAMES or bucket.granted + frames > QUIET_LIMIT:
            return False
        bucket.talkers[source] = count
        bucket.granted += frames
        return True

    def _count(self, bucket: _Bucket, port: Port, kind: int, now: float) -> None:
        if bucket.storm is None:
            bucket.storm = Storm(port, kind, now, now)
            self.begun.append(bucket.storm)
            self._storms.append(bucket)
        bucket.storm.last = now
        bucket.storm.dropped += 1

    @property
    def restless(self) -> bool:
        """A storm has begun or goes on."""
        return bool(self._storms)

    def next_time(self) -> float:
        """When `ended` may have something to tell."""
        return min((b.storm.last + RELEASE_TIME for b in self._storms if b.storm), default=inf)

    def ended(self, now: float) -> list[Storm]:
        """Storms that are over."""
        over = [b for b in self._storms if b.storm is not None and b.storm.last + RELEASE_TIME <= now]
        storms = [b.storm for b in over if b.storm is not None]
        for bucket in over:
            bucket.storm = None
            self._storms.remove(bucket)
        return storms

    def storms(self) -> list[Storm]:
        """Those that go on."""
        return [bucket.storm for bucket in self._storms if bucket.storm is not None]

    def forget(self, port: Port) -> None:
        """The port is no more."""
        for kind in range(len(KIND_NAMES)):
            bucket = self._buckets.pop((port, kind), None)
            if bucket is not None and bucket.storm is not None:
                self._storms.remove(bucket)


def _takes_all(bucket: _Bucket, count: int, size: int) -> bool:
    """Whether a super-frame that no bucket of this size can hold may pass: when the bucket is full."""
    return bucket.frames >= min(count, bucket.most_frames) and bucket.size >= min(size, bucket.most_bytes)
