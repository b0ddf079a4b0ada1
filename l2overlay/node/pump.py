"""The pump: moves frames and datagrams between the two seams and the overlay.

Both file descriptors and trio's own epoll are in one epoll. Whenever trio would sleep (`pause.py`) the pump waits there,
and moves what comes, round after round, until trio has something to do:

    UDP -> overlay.receive_datagrams -> frames_to_deliver -> TAP
    TAP -> overlay.receive_frames    -> bursts_to_send    -> UDP

Whoever calls into the overlay elsewhere (timer, resolver, reload) calls `flush` afterwards, so that what the overlay wants
done is done at once and at one place.

Why there, and not in a task that trio wakes: with that `python -m tests.bench --quick --only l2overlay,vde_plug --measures
rtt` showed 807 us, like this 547 (medians of five runs each, in turn, on a busy 2-core VM; vde_plug 191 in the same runs;
before there were microflows and rehearsals). It is about caches: after a pause of 5 ms they hold nothing of ours, so what
is not touched is won. Polling without sleep for the answer, 500 us long, made it twice as slow: on few cores that holds up
the other end.

While a lone frame is expected the pump sleeps at most `REHEARSAL_INTERVAL`, and has the way rehearsed (`rehearsal.py`).

Dense traffic is another matter: a wake-up for every packet makes small batches (iperf3, 1 stream: 3.7 Gbit/s and not 4.1).
So when that pauses, trio has its turn first, and what comes meanwhile is read together.

Back-pressure: while the UDP socket is full the TAP is not read, so that the guests' TCP queues instead of losing; the
UDP socket is still read, because an acknowledgement that waits there is what lets the queue drain.
"""

import errno
import select
from collections.abc import Callable, Sequence
from math import inf

import trio

from l2overlay.addresses import Address
from l2overlay.controlplane.events import Event
from l2overlay.counters import DropReason
from l2overlay.dataplane.ethernet import VIRTIO_LEN
from l2overlay.node.latency.pause import Pause
from l2overlay.overlay import Overlay
from l2overlay.seams import Attachment, Burst, Gather, Underlay

FRAMES_PER_READ = 64
"""At most. One may be 64 KiB: 64 of them are 4 MiB, about 10 ms of work at 3.5 Gbit/s."""
BURSTS_PER_READ = 32
"""At most. One may be 64 KiB too, and that may be 600 small frames: 32 of them are 90 ms of work."""
READ_TIME = 0.002
"""Seconds that the work of one read should take; after one that took longer the next reads half as much, else twice.

Measured, CPU time of a round: TCP at 1.2 Gbit/s p99 1.4 ms; a flood of 64-byte frames p99 5 ms, 73 ms with fixed limits."""
READS_BEFORE_TIMER = 32
"""At most, when the timer is late. Such a read takes about `READ_TIME`, so this is less than 0.1 s."""
IDLE_TIME = 0.001
"""Seconds without traffic after which one frame is expected, not many: it goes its way before another is looked for."""
STRANGERS_PER_READ = 32
TURNED_AWAY_STEP = 128
REHEARSAL_INTERVAL = 0.002
"""Seconds. epoll_wait(2) counts milliseconds; with one instead of two a round trip is no shorter (docs/performance.md)."""
MAX_READY = 3
"""The two seams and trio."""
UNSENT_LIMIT = 4096
"""Bursts that wait for a full socket. The TAP is not read meanwhile: only answers to what UDP brings come on top."""

_READ = select.EPOLLIN
_WRITE = select.EPOLLOUT
_BROKEN = select.EPOLLERR | select.EPOLLHUP
_GONE = (errno.EBADFD, errno.EBADF, errno.ENODEV, errno.ENXIO, errno.EFAULT)


class Pump:
    """Moves everything that moves. `tell` gets each event of the overlay, `tap_lost` the error that ended the TAP,
    `too_long` is called when the outgoing link refused a datagram for its size; `rehearse` again and again for `linger`
    seconds after a lone frame. None of them may wait."""

    def __init__(
        self,
        overlay: Overlay,
        udp: Underlay,
        clock: Callable[[], float],
        *,
        tell: Callable[[Event], None],
        tap_lost: Callable[[OSError], None],
        too_long: Callable[[], None] = lambda: None,
        timer_moved: Callable[[float], None] = lambda _due: None,
        rehearse: Callable[[], object] | None = None,
        linger: float = 0.0,
    ) -> None:
        self._overlay = overlay
        self._udp = udp
        self._clock = clock
        self._tell = tell
        self._tap_lost = tap_lost
        self._too_long = too_long
        self._timer_moved = timer_moved
        self._rehearse = rehearse
        self.linger = linger if rehearse is not None else 0.0
        self._linger_until = -inf
        self._tap: Attachment | None = None
        self._unsent: list[Burst] = []
        self._blocked = False
        self._frame_limit = FRAMES_PER_READ
        self._burst_limit = BURSTS_PER_READ
        self._turned_away = 0
        self.turned_away_count = 0
        """Bursts that `Overlay.admits_untrusted` refused."""
        self.on_turned_away: Callable[[float], None] = lambda _now: None
        """Called for each `TURNED_AWAY_STEP` of them, with the time."""
        self.busy_from = inf
        self.on_busy: Callable[[], None] = lambda: None
        """Called once when `burst_count` has reached `busy_from`."""
        self._overflow_count = udp.overflow_count
        self.overflow_count = 0
        """What the UDP socket had no room for, or its filter dropped."""
        udp.doorman = self._admits
        self._epoll = select.epoll()
        self._udp_fd = udp.fileno()
        self._epoll.register(self._udp_fd, _READ)
        self._pause = Pause(self._epoll, self._move)
        self._now = self._frame_time = self._datagram_time = -inf
        self._dense = self._has_news = False
        self._copies_marks = False
        self._take_frames, self._take_datagrams = overlay.receive_frames, overlay.receive_datagrams
        self._follow_marks()
        self.shielded = False
        """The kernel filters what comes to the UDP socket, and counts that with what the socket had no room for."""
        self.burst_count = 0
        """Bursts of datagrams that came."""
        self.blocked_count = 0
        """How often the UDP socket was full."""
        self.rehearsal_count = 0

    @property
    def tap(self) -> Attachment | None:
        """The TAP that is being read, if there is one."""
        return self._tap

    def attach_tap(self, tap: Attachment) -> None:
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

    def replace_udp(self, udp: Underlay) -> None:
        """Go on with another socket; what waited for the old one to have room is tried on the new one."""
        self._epoll.unregister(self._udp_fd)
        self._udp, self._udp_fd = udp, udp.fileno()
        self._overflow_count = udp.overflow_count
        udp.doorman = self._admits
        udp.copy_tos(on=self._copies_marks)
        self._epoll.register(self._udp_fd, _READ | _WRITE if self._blocked else _READ)

    async def drain(self) -> None:
        """Wait until what was refused for want of room is sent, for the last words of a node that leaves."""
        while self._unsent:
            await trio.lowlevel.wait_writable(self._udp_fd)
            self._send([])

    def close(self) -> None:
        """Give the private epoll back; the seams belong to whoever opened them."""
        self._pause.close()
        self._epoll.close()

    async def run(self) -> None:
        """Pump until cancelled."""
        await self._pause.use()

    def read_waiting(self) -> None:
        """Read what waits in the UDP socket now, within bounds."""
        for _ in range(READS_BEFORE_TIMER):
            if not self._receive_datagrams():
                return

    def flush(self) -> None:
        """Do what the overlay wants done after a call that did not come from here."""
        self._has_news = True
        self._follow_marks()
        self._move_out()
        self._timer_moved(self._overlay.next_timer())

    def _follow_marks(self) -> None:
        """Take the way in and out that `[segment] tos` asks for. A node without marks goes the plain one."""
        overlay, wanted = self._overlay, self._overlay.marks is not None
        if wanted == self._copies_marks:
            return
        self._copies_marks = wanted
        self._udp.copy_tos(on=wanted)
        self._take_frames = overlay.receive_marked_frames if wanted else overlay.receive_frames
        self._take_datagrams = overlay.receive_marked_datagrams if wanted else overlay.receive_datagrams

    def _move(self, timeout: float) -> bool:
        """Move what comes until trio has something to do, or dense traffic pauses: then trio takes its turn, and what comes
        meanwhile is read together. Says whether trio must look again at what it waits for."""
        next_timer, pause = self._overlay.next_timer, self._pause
        self._now = self._clock()
        end = stop = self._now + timeout
        alarm = next_timer()
        trio_ready = moved = self._dense = False
        while ready := self._wait(0.0 if self._dense else stop - self._now):
            self._dense = self._has_news = False
            trio_ready = self._round(ready)
            moved = True
            if self._has_news:
                due = next_timer()
                # A timer of the overlay that is due earlier than before: trio's `timeout` does not know of it yet.
                stop = due if due < alarm and due < end else end
            if trio_ready or pause.ended or self._now >= stop:
                break
        self._timer_moved(next_timer())
        return not trio_ready and (moved or timeout > 0)

    def move_alone(self) -> None:
        """Move what is ready, once, as if nothing had come for long."""
        self._frame_time = self._datagram_time = -inf
        self._has_news = False
        self._round(self._epoll.poll(0, MAX_READY))

    def _wait(self, seconds: float) -> list[tuple[int, int]]:
        """What is ready, at once or within `seconds`. While a lone frame is expected, time goes by with rehearsals."""
        poll, end = self._epoll.poll, self._now + seconds
        while self._rehearse is not None and self._now < min(self._linger_until, end - REHEARSAL_INTERVAL):
            if ready := poll(REHEARSAL_INTERVAL, MAX_READY):
                return ready
            self._rehearse()
            self.rehearsal_count += 1
            self._now = self._clock()
        return poll(max(0.0, end - self._now), MAX_READY)

    def _round(self, ready: list[tuple[int, int]]) -> bool:
        """Everything that is ready, once. Says whether trio is."""
        trio_ready = False
        for fd, events in ready:
            if fd == self._udp_fd:
                if events & _WRITE:
                    self._send([])
                if events & ~_WRITE:
                    self._receive_datagrams()
            elif fd == self._pause.trio_fd:
                trio_ready = True
            elif self._tap is not None:
                self._receive_frames(self._tap, events)
        return trio_ready

    def _receive_datagrams(self) -> bool:
        """Whether any waited."""
        started = self._clock()
        alone = started - self._datagram_time > IDLE_TIME
        self._dense |= not alone
        self._now = self._datagram_time = started
        limit = 1 if alone else self._burst_limit
        bursts = self._udp.receive_bursts(limit)
        if self._udp.overflow_count != self._overflow_count:
            self._count_overflow()
        turned_away, self._turned_away = self._turned_away, 0
        self.burst_count += len(bursts) + turned_away
        if self.burst_count >= self.busy_from:
            self.busy_from = inf
            self.on_busy()
        if bursts:
            if not alone:
                self._now = started = self._clock()
            self._has_news |= self._take_datagrams(bursts, started)
            self._move_out()
            if not alone:
                self._now = self._clock()
                self._burst_limit = _next_limit(limit, self._now - started, BURSTS_PER_READ)
        elif turned_away:
            self._move_out()
        return bool(bursts or turned_away)

    def _admits(self, data: bytes, size: int, host: bytes, stranger: Callable[[], Address]) -> bool:
        """Whether a burst from an address that the socket does not know is to be named and read."""
        if self._overlay.admits_untrusted(data, size, host, stranger, self._now):
            return True
        self._turned_away += 1
        self.turned_away_count += 1
        if self.turned_away_count % TURNED_AWAY_STEP == 0:
            self.on_turned_away(self._now)
        return False

    def read_strangers(self, seconds: float) -> None:
        """Read for so long what waits apart from what peers send."""
        self._now = now = self._clock()
        deadline, self._has_news = now + seconds, True
        while now < deadline:
            bursts, lost = self._udp.receive_strangers(STRANGERS_PER_READ)
            if lost:
                self._overlay.flood_filtered(lost)
            turned_away, self._turned_away = self._turned_away, 0
            if bursts:
                self._overlay.receive_datagrams(bursts, now)
            if not bursts and not turned_away:
                break
            self._now = now = self._clock()
        self.flush()

    def _count_overflow(self) -> None:
        lost = (self._udp.overflow_count - self._overflow_count) % 2**32  # the kernel counts in a u32
        self._overflow_count = self._udp.overflow_count
        self.overflow_count += lost
        if self.shielded:
            self._overlay.flood_filtered(lost)
        else:
            self._overlay.receive_overflowed(lost)

    def _receive_frames(self, tap: Attachment, ready: int) -> None:
        started = self._clock()
        alone = started - self._frame_time > IDLE_TIME
        self._dense |= not alone
        self._now = self._frame_time = started
        limit = 1 if alone else self._frame_limit
        try:
            frames = tap.receive_frames(limit)
        except OSError as error:
            self._lose_tap(error)
            return
        if frames:
            if not alone:
                self._now = started = self._clock()
            elif self.linger and not frames[0][VIRTIO_LEN] & 1:  # to one station: no chatter
                self._linger_until = started + self.linger
            self._has_news |= self._take_frames(frames, started)
            self._move_out()
            if not alone:
                self._now = self._clock()
                self._frame_limit = _next_limit(limit, self._now - started, FRAMES_PER_READ)
        elif ready & _BROKEN:  # a deleted TAP reports this for ever, and reads as drained on some kernels
            self._lose_tap(OSError(errno.EBADFD, "the device is gone"))

    def _move_out(self) -> None:
        """Until there is nothing more to do: whoever is told of an event may ask the overlay for something.

        Without news, once: to ask for events, and for the timer after that, is a quarter of all calls for a lone frame.
        """
        overlay = self._overlay
        while True:
            if frames := overlay.frames_to_deliver():
                self._deliver(frames)
            if bursts := overlay.bursts_to_send():
                self._send(bursts)
            if not self._has_news:
                return
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
        self._epoll.modify(self._udp_fd, _READ | _WRITE if blocked else _READ)
        if self._tap is not None:
            self._epoll.modify(self._tap.fileno(), 0 if blocked else _READ)

    def _lose_tap(self, error: OSError) -> None:
        self.detach_tap()
        self._tap_lost(error)


def _next_limit(limit: int, spent: float, most: int) -> int:
    if spent > READ_TIME:
        return max(1, limit // 2)
    return min(most, limit * 2)
