"""The pump: moves frames and datagrams between the two seams and the overlay.

One task, both file descriptors in one private epoll, whose own descriptor trio waits on. A wake-up runs rounds:

    UDP -> overlay.receive_datagrams -> frames_to_deliver -> TAP
    TAP -> overlay.receive_frames    -> bursts_to_send    -> UDP

until both are drained, then waits again. Whoever calls into the overlay elsewhere (timer, resolver, reload) calls
`flush` afterwards, so that what the overlay wants done is done at once and at one place.

Why this shape, measured on a 2-core VM as the round trip of one datagram through a forwarder: a bare epoll loop 16 us,
this 16 us back to back and 23 us after a pause (trio's own scheduling), trio as a guest of a bare loop 15 us, waiting
1 ms in the private epoll before going back to trio 22 us. The last two do not pay for what they cost in plainness.

Back-pressure: while the UDP socket is full the TAP is not read, so that the guests' TCP queues instead of losing; the
UDP socket is still read, because an acknowledgement that waits there is what lets the queue drain.
"""

import errno
import select
from collections.abc import Callable, Sequence

import trio

from l2overlay.controlplane.events import Event
from l2overlay.counters import DropReason
from l2overlay.overlay import Overlay
from l2overlay.seams import Burst, Gather, Tap, Udp

FRAMES_PER_READ = 64
"""At most. One may be 64 KiB: 64 of them are 4 MiB, about 10 ms of work at 3.5 Gbit/s."""
BURSTS_PER_READ = 32
"""At most. One may be 64 KiB too, and that may be 600 small frames: 32 of them are 90 ms of work."""
READ_TIME = 0.002
"""Seconds that the work of one read should take; after one that took longer the next reads half as much, else twice.

Measured, CPU time of a round: TCP at 1.2 Gbit/s p99 1.4 ms; a flood of 64-byte frames p99 5 ms, 73 ms with fixed limits."""
TURN_TIME = 0.004
"""Seconds of uninterrupted work before other tasks get a turn; with one round more their lag is still below 20 ms."""
UNSENT_LIMIT = 4096
"""Bursts that wait for a full socket. The TAP is not read meanwhile: only answers to what UDP brings come on top."""

_READ = select.EPOLLIN
_WRITE = select.EPOLLOUT
_BROKEN = select.EPOLLERR | select.EPOLLHUP
_GONE = (errno.EBADFD, errno.EBADF, errno.ENODEV, errno.ENXIO, errno.EFAULT)


class Pump:
    """Moves everything that moves. `tell` gets each event of the overlay, `tap_lost` the error that ended the TAP,
    `too_long` is called when the outgoing link refused a datagram for its size. None of them may wait."""

    def __init__(
        self,
        overlay: Overlay,
        udp: Udp,
        clock: Callable[[], float],
        *,
        tell: Callable[[Event], None],
        tap_lost: Callable[[OSError], None],
        too_long: Callable[[], None] = lambda: None,
        timer_moved: Callable[[float | None], None] = lambda _due: None,
    ) -> None:
        self._overlay = overlay
        self._udp = udp
        self._clock = clock
        self._tell = tell
        self._tap_lost = tap_lost
        self._too_long = too_long
        self._timer_moved = timer_moved
        self._tap: Tap | None = None
        self._unsent: list[Burst] = []
        self._blocked = False
        self._frame_limit = FRAMES_PER_READ
        self._burst_limit = BURSTS_PER_READ
        self._overflow_count = udp.overflow_count
        self._epoll = select.epoll()
        self._epoll.register(udp.fileno(), _READ)
        self.blocked_count = 0
        """How often the UDP socket was full."""

    @property
    def tap(self) -> Tap | None:
        """The TAP that is being read, if there is one."""
        return self._tap

    def attach_tap(self, tap: Tap) -> None:
        """Read from and deliver to `tap` from now on."""
        self.detach_tap()
        self._tap = tap
        self._epoll.register(tap.fileno(), 0 if self._blocked else _READ)

    def detach_tap(self) -> None:
        """Leave the TAP alone (it is gone, or about to be closed); what would be delivered is counted as refused."""
        if self._tap is None:
            return
        tap, self._tap = self._tap, None
        try:
            self._epoll.unregister(tap.fileno())
        except (OSError, ValueError):
            return  # its descriptor is closed already, and the kernel forgot it with that

    def replace_udp(self, udp: Udp) -> None:
        """Go on with another socket; what waited for the old one to have room is tried on the new one."""
        self._epoll.unregister(self._udp.fileno())
        self._udp = udp
        self._overflow_count = udp.overflow_count
        self._epoll.register(udp.fileno(), _READ | _WRITE if self._blocked else _READ)

    async def drain(self) -> None:
        """Wait until what was refused for want of room is sent, for the last words of a node that leaves."""
        while self._unsent:
            await trio.lowlevel.wait_writable(self._udp.fileno())
            self._send([])

    def close(self) -> None:
        """Give the private epoll back; the seams belong to whoever opened them."""
        self._epoll.close()

    async def run(self) -> None:
        """Pump until cancelled."""
        while True:
            await trio.lowlevel.wait_readable(self._epoll.fileno())
            turn_end = self._clock() + TURN_TIME
            while self._round():
                if self._clock() >= turn_end:
                    self._timer_moved(self._overlay.next_timer())
                    await trio.lowlevel.checkpoint()
                    turn_end = self._clock() + TURN_TIME
            self._timer_moved(self._overlay.next_timer())

    def flush(self) -> None:
        """Do what the overlay wants done after a call that did not come from here."""
        self._move_out()
        self._timer_moved(self._overlay.next_timer())

    def _round(self) -> bool:
        """Everything that is ready, once. Says whether something may still be waiting."""
        more = False
        for fd, ready in self._epoll.poll(0, 2):
            if fd == self._udp.fileno():
                if ready & _WRITE:
                    self._send([])
                if ready & ~_WRITE:
                    more |= self._receive_datagrams()
            elif self._tap is not None:
                more |= self._receive_frames(self._tap, ready)
        return more

    def _receive_datagrams(self) -> bool:
        limit = self._burst_limit
        bursts = self._udp.receive_bursts(limit)
        if self._udp.overflow_count != self._overflow_count:
            self._count_overflow()
        if bursts:
            started = self._clock()
            self._overlay.receive_datagrams(bursts, started)
            self._move_out()
            self._burst_limit = _next_limit(limit, self._clock() - started, BURSTS_PER_READ)
        return len(bursts) >= limit

    def _count_overflow(self) -> None:
        lost = (self._udp.overflow_count - self._overflow_count) % 2**32  # the kernel counts in a u32
        self._overflow_count = self._udp.overflow_count
        self._overlay.receive_overflowed(lost)

    def _receive_frames(self, tap: Tap, ready: int) -> bool:
        limit = self._frame_limit
        try:
            frames = tap.receive_frames(limit)
        except OSError as error:
            self._lose_tap(error)
            return False
        if frames:
            started = self._clock()
            self._overlay.receive_frames(frames, started)
            self._move_out()
            self._frame_limit = _next_limit(limit, self._clock() - started, FRAMES_PER_READ)
        elif ready & _BROKEN:  # a deleted TAP reports this for ever, and reads as drained on some kernels
            self._lose_tap(OSError(errno.EBADFD, "the device is gone"))
        return len(frames) >= limit and not self._unsent

    def _move_out(self) -> None:
        """Until there is nothing more to do: whoever is told of an event may ask the overlay for something."""
        overlay = self._overlay
        while True:
            if frames := overlay.frames_to_deliver():
                self._deliver(frames)
            if bursts := overlay.bursts_to_send():
                self._send(bursts)
            event = overlay.next_event()
            if event is None:
                return
            while event is not None:
                self._tell(event)
                event = overlay.next_event()

    def _deliver(self, frames: Sequence[Gather]) -> None:
        if self._tap is None:
            self._overlay.counters.drop(DropReason.TAP_REFUSED, len(frames))
            return
        try:
            refused = self._tap.deliver_frames(frames)
        except OSError as error:
            self._overlay.counters.drop(DropReason.TAP_REFUSED, len(frames))
            self._lose_tap(error)
            return
        for reason, count in refused.items():
            self._overlay.counters.drop(reason, count)

    def _send(self, bursts: list[Burst]) -> None:
        """Send what waited and then `bursts`. Called with an empty list when the socket has become writable."""
        if self._unsent and bursts:
            self._keep(bursts)
            return
        waiting = self._unsent or bursts
        done, refused = self._udp.send_bursts(waiting)
        for reason, count in refused.items():
            self._overlay.counters.drop(reason, count)
        if DropReason.SEND_TOO_LONG in refused:
            self._too_long()
        self._unsent = waiting[done:] if done < len(waiting) else []
        if bool(self._unsent) != self._blocked:
            self._watch_for_room(bool(self._unsent))

    def _keep(self, bursts: list[Burst]) -> None:
        room = UNSENT_LIMIT - len(self._unsent)
        self._unsent += bursts[:room]
        for burst in bursts[room:]:
            self._overlay.counters.drop(DropReason.SEND_NO_BUFFER, len(burst.datagrams()))

    def _watch_for_room(self, blocked: bool) -> None:
        self._blocked = blocked
        self.blocked_count += blocked
        self._epoll.modify(self._udp.fileno(), _READ | _WRITE if blocked else _READ)
        if self._tap is not None:
            self._epoll.modify(self._tap.fileno(), 0 if blocked else _READ)

    def _lose_tap(self, error: OSError) -> None:
        self.detach_tap()
        self._tap_lost(error)


def _next_limit(limit: int, spent: float, most: int) -> int:
    if spent > READ_TIME:
        return max(1, limit // 2)
    return min(most, limit * 2)
