"""The flood watch: while much is read it looks twice a second how much fails. While that is too much the kernel filters
the UDP socket, and what waits apart then is read in turns that take a bounded share of the time.

`controlplane/shield.py` decides, `linux/shield.py` has the filter.
"""

from collections.abc import Callable, Iterable
from typing import Protocol

import trio

from l2overlay.addresses import Address
from l2overlay.controlplane.shield import ON_RATE, STEP, Shield
from l2overlay.counters import DropReason
from l2overlay.node.journal import Journal
from l2overlay.node.pump import TURNED_AWAY_STEP, Pump
from l2overlay.overlay import Overlay
from l2overlay.seams import MAX_BURST_DATAGRAMS

FEW_BURSTS = int(ON_RATE * STEP / MAX_BURST_DATAGRAMS)
"""Between two looks: fewer cannot hold what fails in a flood."""
SHORTEST_PAUSE = 0.0001
GROWTH = 1.002
"""Of the share with each turn: a fifth in half a second."""
TURN = 0.005
"""Seconds from one turn of reading what strangers sent to the next, at least ..."""
MAX_SHARE, MIN_SHARE = 0.2, 0.02
"""... and of the time that is spent on it: less while peers lose by it, more while they do not."""


class Shielded(Protocol):
    """A UDP socket, as far as its filter goes."""

    def shield(self, known: Iterable[Address] | None) -> bool: ...


class FloodWatch:
    """Of one node. `udp` gives the socket of now."""

    def __init__(
        self,
        overlay: Overlay,
        udp: Callable[[], Shielded],
        pump: Pump,
        journal: Journal,
        clock: Callable[[], float],
    ) -> None:
        self._overlay = overlay
        self._udp = udp
        self._pump = pump
        self._journal = journal
        self._clock = clock
        self._shield = Shield()
        self._session_count = 0
        self._share = MAX_SHARE
        self._overflow_count = 0
        self._second_began = clock()
        self._turned_away_count = 0
        """In this second."""
        self._alarm = trio.Event()
        pump.on_busy, pump.on_turned_away = self._rouse, self._turned_away
        self.troubles: tuple[str, ...] = ()

    async def run(self) -> None:
        """Watch until cancelled. Nothing wakes an idle node for it."""
        while True:
            self._pump.busy_from = self._pump.burst_count + FEW_BURSTS
            await self._alarm.wait()
            self._alarm = trio.Event()
            await self._watch()

    async def _watch(self) -> None:
        """Until so little is read that there can be no flood."""
        self.look()
        while True:
            bursts = self._pump.burst_count
            await self._one_step()
            self.look()
            if not self._shield.on and self._pump.burst_count - bursts < FEW_BURSTS:
                return

    async def _one_step(self) -> None:
        end = self._clock() + STEP
        while (left := end - self._clock()) > SHORTEST_PAUSE:
            pause = min(left, self._read_strangers()) if self._shield.on else left
            with trio.move_on_after(pause):
                await self._alarm.wait()
                self._alarm = trio.Event()

    def _read_strangers(self) -> float:
        """One turn; returns the seconds until the next."""
        self._share_time()
        began = self._clock()
        self._pump.read_strangers(TURN * self._share)
        if self._overlay.session_count != self._session_count:
            self._follow()  # a newcomer has an answer: what it sends now must pass
        spent = self._clock() - began
        return max(TURN, spent / self._share) - spent

    def _share_time(self) -> None:
        """Before each turn. What peers send comes first: halve our share when the socket had no room for it."""
        before, self._overflow_count = self._overflow_count, self._pump.overflow_count
        overflowed = self._overflow_count != before
        self._share = max(MIN_SHARE, self._share / 2) if overflowed else min(MAX_SHARE, self._share * GROWTH)

    def _rouse(self) -> None:
        self._alarm.set()

    def _turned_away(self, now: float) -> None:
        """Strangers sent `TURNED_AWAY_STEP` datagrams more. A flood is as many in a second as `ON_RATE` says. A shorter
        burst is none, because the filter would keep out a peer that moves."""
        if now - self._second_began > 1.0:
            self._second_began, self._turned_away_count = now, 0
        self._turned_away_count += TURNED_AWAY_STEP
        if not self._shield.on and self._turned_away_count >= ON_RATE:
            self._shield.trip()
            self._follow()
            self._tell()
            self._rouse()

    def look(self) -> None:
        """Once: put the filter on, renew its list, or take it off."""
        filtered = self._overlay.counters.drops.get(DropReason.FLOOD_FILTERED, 0)
        was_on = self._shield.on
        if self._shield.step(self._overlay.failed_datagrams(), filtered, self._clock()):
            self._follow()
        elif was_on:
            self._pump.read_strangers(TURN)
            self._udp().shield(None)
            self._pump.shielded = False
        if self._shield.on != was_on:
            self._tell()

    def _follow(self) -> None:
        self._session_count = self._overlay.session_count
        self._pump.shielded = self._udp().shield(self._overlay.known_addresses())

    def _tell(self) -> None:
        if self._shield.on:
            text = "a flood of datagrams from strangers: the kernel keeps them apart and drops most of them"
            self.troubles = (text,)
            self._journal.tell("flood_began", text)
        else:
            self.troubles = ()
            self._journal.tell(
                "flood_ended", "the flood is over: datagrams from all addresses are read again"
            )
