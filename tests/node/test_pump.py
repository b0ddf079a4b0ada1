"""The pump on fakes: what moves, what waits, and what happens when one side is full or gone."""

import errno
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any, cast

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from l2overlay.addresses import PeerKey
from l2overlay.controlplane.events import Event, PeerDown
from l2overlay.counters import DropReason
from l2overlay.dataplane.marks import Marks
from l2overlay.node import pump as pump_module
from l2overlay.node.pump import FRAMES_PER_READ, Pump
from l2overlay.overlay import Overlay

from .fakes import CopyingOverlay, FakeTap, FakeUdp


class Bench:
    """A pump between two fakes."""

    def __init__(self) -> None:
        self.tap, self.udp, self.overlay = FakeTap(), FakeUdp(), CopyingOverlay()
        self.events: list[Event] = []
        self.lost: list[OSError] = []
        self.pump = self.make_pump()

    def make_pump(self, **options: Any) -> Pump:
        pump = Pump(
            cast(Overlay, self.overlay),
            self.udp,
            trio.current_time,
            tell=self.events.append,
            tap_lost=self.lost.append,
            **options,
        )
        pump.attach_tap(self.tap)
        return pump

    def close(self) -> None:
        self.pump.close()
        self.udp.close()
        self.udp.underlay.close()
        self.tap.close()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.pump.run)
            yield
            nursery.cancel_scope.cancel()


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.close()


async def settle() -> None:
    """Let the pump do all that it can do now."""
    for _ in range(20):
        await trio.lowlevel.checkpoint()


async def test_frame_from_the_tap_leaves_as_datagram_and_back(bench: Bench) -> None:
    async with bench.running():
        bench.tap.guest.send(b"a frame")
        bench.udp.arrive(b"a datagram")
        await settle()
    assert bench.udp.left() == [b"a frame"]
    assert bench.tap.guest.recv(100) == b"a datagram"


async def test_while_the_socket_is_full_the_tap_is_not_read_and_nothing_is_lost(bench: Bench) -> None:
    sent, left = [], []
    async with bench.running():
        for number in range(500):
            with suppress(BlockingIOError):
                bench.tap.guest.send(b"%d" % number)
                sent.append(b"%d" % number)
            await trio.lowlevel.checkpoint()
        await settle()
        assert bench.pump.blocked_count == 1
        reads = len(bench.tap.read_sizes)
        await settle()
        assert len(bench.tap.read_sizes) == reads
        while more := bench.udp.left():
            left += more
            await settle()
    assert left == sent
    assert bench.overlay.counters.drops == {}


async def test_while_the_socket_is_full_datagrams_are_still_received(bench: Bench) -> None:
    async with bench.running():
        while not bench.pump.blocked_count:
            bench.tap.guest.send(b"frame")
            await settle()
        bench.udp.arrive(b"acknowledged")
        await settle()
    assert bench.tap.guest.recv(100) == b"acknowledged"


async def test_answers_that_pile_up_behind_a_full_socket_are_bounded_and_counted(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    while not bench.pump.blocked_count:
        bench.overlay.receive_frames([cast(Any, b"x")] * 10, 0.0)
        bench.pump.flush()
    monkeypatch.setattr(pump_module, "UNSENT_LIMIT", 30)
    bench.overlay.receive_frames([cast(Any, b"y")] * 50, 0.0)
    bench.pump.flush()
    dropped = bench.overlay.counters.drops[DropReason.SEND_NO_BUFFER]
    assert 20 < dropped < 50
    while bench.pump._unsent:
        bench.udp.left()
        bench.pump._send([])
    assert bench.overlay.counters.drops == {DropReason.SEND_NO_BUFFER: dropped}


async def test_what_the_kernel_refuses_is_counted_by_reason(bench: Bench) -> None:
    bench.udp.refuse = {DropReason.SEND_REFUSED: 2, DropReason.SEND_UNREACHABLE: 1}
    async with bench.running():
        bench.tap.guest.send(b"frame")
        await settle()
    assert bench.overlay.counters.drops == {DropReason.SEND_REFUSED: 2, DropReason.SEND_UNREACHABLE: 1}


async def test_what_the_socket_had_no_room_for_is_told_once_and_before_what_came_behind_it(
    bench: Bench,
) -> None:
    async with bench.running():
        bench.udp.overflow_count = 2**32 - 1
        bench.udp.arrive(b"one")
        await settle()
        bench.udp.arrive(b"two")
        await settle()
        bench.udp.overflow_count = 4  # the kernel's u32 went on from 0
        bench.udp.arrive(b"three")
        await settle()
    assert bench.overlay.overflows == [2**32 - 1, 5]
    assert [bench.tap.guest.recv(100) for _ in range(3)] == [b"one", b"two", b"three"]


async def test_a_lost_tap_is_reported_once_and_the_pump_does_not_spin(bench: Bench) -> None:
    async with bench.running():
        bench.tap.gone = True
        bench.tap.guest.send(b"wakes the pump")
        await settle()
        assert [e.errno for e in bench.lost] == [errno.EBADFD]
        assert bench.pump.tap is None
        await trio.testing.wait_all_tasks_blocked()  # a busy loop would never be blocked


async def test_frames_for_a_lost_tap_are_counted(bench: Bench) -> None:
    async with bench.running():
        bench.tap.gone = True
        bench.udp.arrive(b"one")
        bench.udp.arrive(b"two")
        await settle()
        bench.udp.arrive(b"three")
        await settle()
    assert bench.overlay.counters.drops == {DropReason.TAP_REFUSED: 3}
    assert len(bench.lost) == 1


async def test_a_tap_that_comes_back_is_used(bench: Bench) -> None:
    async with bench.running():
        bench.tap.gone = True
        bench.tap.guest.send(b"wakes the pump")
        await settle()
        bench.tap.close()
        bench.tap = FakeTap()
        bench.pump.attach_tap(bench.tap)
        bench.tap.guest.send(b"again")
        await settle()
    assert bench.udp.left() == [b"again"]


async def test_a_tap_whose_other_end_closed_is_lost_and_not_read_for_ever(bench: Bench) -> None:
    """What a deleted TAP looks like to epoll: an error that never goes away, and nothing to read."""
    broken, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)

    class ReadsAsDrained(FakeTap):
        def receive_frames(self, limit: int) -> list[Any]:
            return []

        def fileno(self) -> int:
            return broken.fileno()

    tap = ReadsAsDrained()
    async with bench.running():
        bench.pump.attach_tap(tap)
        other.close()
        await settle()
        await trio.testing.wait_all_tasks_blocked()
    assert len(bench.lost) == 1
    broken.close()
    tap.close()


async def test_events_are_told_in_order(bench: Bench) -> None:
    events: list[Event] = [PeerDown(PeerKey(bytes([i]) * 32), "gone") for i in range(3)]
    bench.overlay.events.extend(events)
    bench.pump.flush()
    assert bench.events == events


async def test_other_tasks_get_a_turn_while_frames_never_end(bench: Bench) -> None:
    """A TAP that is never drained: the pump must give way after its turn, measured on the real clock."""

    class Endless(FakeTap):
        def receive_frames(self, limit: int) -> list[Any]:
            return [b"x" * 60] * limit

    tap = Endless()
    tap.guest.send(b"readable for ever")
    bench.pump.attach_tap(tap)
    bench.udp.send_bursts = lambda bursts: (len(bursts), {})  # type: ignore[method-assign]
    async with bench.running():
        started = trio.current_time()
        for _ in range(10):
            await trio.lowlevel.checkpoint()
        assert trio.current_time() - started < 10 * (pump_module.READ_TIME + 0.05)
    tap.close()


async def test_one_round_takes_a_bounded_number_of_frames(bench: Bench) -> None:
    bench.tap.guest.setblocking(False)
    async with bench.running():
        for _ in range(50):
            with suppress(BlockingIOError):
                bench.tap.guest.send(b"frame")
            await trio.lowlevel.checkpoint()
            bench.udp.left()
    assert max(bench.tap.read_sizes) <= FRAMES_PER_READ


async def test_the_timer_is_told_after_every_wake_up(bench: Bench, autojump_clock: MockClock) -> None:
    told: list[float] = []
    bench.pump._timer_moved = told.append
    bench.overlay.timer = 5.0
    async with bench.running():
        bench.tap.guest.send(b"frame")
        await settle()
    assert told[-1] == 5.0


async def test_after_a_pause_the_first_frame_goes_its_way_before_the_next_is_read(bench: Bench) -> None:
    for number in range(3):
        bench.tap.guest.send(b"%d" % number)
    async with bench.running():
        await settle()
    assert bench.tap.read_sizes == [1, 2]
    assert bench.udp.left() == [b"0", b"1", b"2"]


class Rehearsals:
    """Counts them; a pump on trio's own clock that lingers a twentieth of a second."""

    def __init__(self, bench: Bench) -> None:
        self.count = 0
        bench.pump.close()
        bench.pump = bench.make_pump(rehearse=self.once, linger=0.05)

    def once(self) -> None:
        self.count += 1


TO_STATION, TO_ALL = bytes(10) + b"\x02" + bytes(20), bytes(10) + b"\xff" * 6 + bytes(20)


async def test_a_lone_frame_to_a_station_is_followed_by_rehearsals_for_a_while(bench: Bench) -> None:
    rehearsals = Rehearsals(bench)
    async with bench.running():
        await trio.sleep(0.03)
        assert rehearsals.count == 0
        bench.tap.guest.send(TO_STATION)
        await trio.sleep(0.3)
        after = rehearsals.count
        assert 3 <= after <= 25
        assert after == bench.pump.rehearsal_count
        await trio.sleep(0.05)
        assert rehearsals.count == after
    assert bench.udp.left() == [TO_STATION]


async def test_a_frame_to_all_is_followed_by_none(bench: Bench) -> None:
    rehearsals = Rehearsals(bench)
    async with bench.running():
        bench.tap.guest.send(TO_ALL)
        bench.udp.arrive(b"a datagram")
        await trio.sleep(0.1)
    assert rehearsals.count == 0


async def test_frames_and_tasks_do_not_wait_for_rehearsals(bench: Bench) -> None:
    rehearsals = Rehearsals(bench)
    async with bench.running():
        started = trio.current_time()
        for number in range(20):
            bench.tap.guest.send(TO_STATION + bytes((number,)))
            await trio.sleep(0.005)
        spent = trio.current_time() - started
    assert spent < 0.5, "20 alarms of 5 ms"
    assert rehearsals.count >= 3
    assert bench.udp.left() == [TO_STATION + bytes((number,)) for number in range(20)]


async def test_a_reload_that_turns_marks_on_or_off_turns_them_in_the_socket_and_on_the_way(
    bench: Bench,
) -> None:
    for marks, calls in ((cast(Marks, object()), 1), (None, 1)):
        bench.overlay.marks = marks
        bench.pump.flush()
        assert bench.udp.copies_tos is (marks is not None)
        bench.tap.guest.send(bytes(10) + b"a frame")
        bench.pump.move_alone()
        assert bench.overlay.marked_calls == calls


async def test_a_new_socket_copies_marks_as_the_old_one_did(bench: Bench) -> None:
    bench.overlay.marks = cast(Marks, object())
    bench.pump.flush()
    new = FakeUdp()
    bench.pump.replace_udp(new)
    assert new.copies_tos
    new.close()
    new.underlay.close()
