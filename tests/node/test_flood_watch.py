"""When the flood watch looks, and how much of the time strangers get."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import pytest
import trio
import trio.testing

from l2overlay.controlplane.shield import ON_RATE, STEP
from l2overlay.counters import Counters
from l2overlay.node.flood_watch import FEW_BURSTS, MAX_SHARE, MIN_SHARE, TURN, FloodWatch
from l2overlay.node.journal import Journal
from l2overlay.node.pump import TURNED_AWAY_STEP, Pump
from l2overlay.overlay import Overlay


class Shell:
    """All that the watch sees."""

    def __init__(self) -> None:
        self.counters = Counters()
        self.failed = self.looks = self.session_count = self.burst_count = self.overflow_count = 0
        self.busy_from, self.shielded = float("inf"), False
        self.read: list[float] = []
        self.told: list[str] = []
        self.shields: list[bool] = []
        self.watch = FloodWatch(
            cast(Overlay, self), lambda: self, cast(Pump, self), cast(Journal, self), trio.current_time
        )

    def failed_datagrams(self) -> int:
        self.looks += 1
        return self.failed

    def known_addresses(self) -> set[object]:
        return set()

    def shield(self, known: object) -> bool:
        self.shields.append(known is not None)
        return known is not None

    def read_strangers(self, seconds: float) -> None:
        self.read.append(seconds)

    def tell(self, kind: str, text: str, **_: object) -> None:
        self.told.append(kind)

    def on_busy(self) -> None: ...

    def on_turned_away(self, now: float) -> None: ...

    async def turn_away(self, rate: float) -> None:
        """A second's worth of `ON_RATE` at this rate, as the pump tells it."""
        for _ in range(int(ON_RATE / TURNED_AWAY_STEP) + 2):
            await trio.sleep(TURNED_AWAY_STEP / rate)
            self.on_turned_away(trio.current_time())


@asynccontextmanager
async def watching() -> AsyncIterator[Shell]:
    async with trio.open_nursery() as nursery:
        shell = Shell()
        nursery.start_soon(shell.watch.run)
        await trio.testing.wait_all_tasks_blocked()
        yield shell
        nursery.cancel_scope.cancel()


async def test_nothing_wakes_an_idle_node(
    autojump_clock: object,
) -> None:
    async with watching() as shell:
        await trio.sleep(3600)
        assert shell.looks == 0
        shell.burst_count = FEW_BURSTS
        assert shell.burst_count >= shell.busy_from
        shell.on_busy()
        await trio.sleep(10)
        assert shell.looks == 2  # one more, and nothing came
        assert shell.told == []


async def test_strangers_that_are_turned_away_fast_put_the_filter_on_at_once(
    autojump_clock: object,
) -> None:
    async with watching() as shell:
        await shell.turn_away(ON_RATE / 2)
        assert shell.shields == []
        await shell.turn_away(ON_RATE * 2)
        assert set(shell.shields) == {True}
        assert shell.told == ["flood_began"]
        await trio.sleep(10 * TURN)
        assert len(shell.read) >= 9


async def test_the_share_of_strangers_shrinks_while_peers_lose_and_grows_again(
    autojump_clock: object,
) -> None:
    async with watching() as shell:
        await shell.turn_away(ON_RATE * 2)
        for _ in range(10):
            shell.failed += int(ON_RATE * STEP * 2)
            shell.overflow_count += 1
            await trio.sleep(STEP)
        assert min(shell.read) == pytest.approx(TURN * MIN_SHARE)
        for _ in range(20):
            shell.failed += int(ON_RATE * STEP * 2)
            await trio.sleep(STEP)
        assert shell.read[-1] == pytest.approx(TURN * MAX_SHARE)


async def test_when_it_is_over_the_filter_goes_and_nobody_is_woken_any_more(
    autojump_clock: object,
) -> None:
    async with watching() as shell:
        await shell.turn_away(ON_RATE * 2)
        await trio.sleep(30)
        assert shell.told == ["flood_began", "flood_ended"]
        assert shell.shields[-1] is False
        assert not shell.shielded
        read = len(shell.read)
        await trio.sleep(3600)
        assert len(shell.read) == read


async def test_a_newcomer_s_session_is_let_through_before_the_next_look(
    autojump_clock: object,
) -> None:
    async with watching() as shell:
        await shell.turn_away(ON_RATE * 2)
        await trio.sleep(STEP / 2)
        before = len(shell.shields)
        shell.session_count += 1
        await trio.sleep(2 * TURN)
        assert len(shell.shields) == before + 1
