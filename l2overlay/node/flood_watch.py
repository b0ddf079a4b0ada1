"""The flood watch: looks twice a second how much fails, and lets the kernel filter the UDP socket while it is too much.

`controlplane/shield.py` decides, `linux/shield.py` has the filter.
"""

from collections.abc import Callable, Iterable
from typing import Protocol

import trio

from l2overlay.addresses import Address
from l2overlay.controlplane.shield import ON_RATE, STEP, Shield
from l2overlay.counters import DropReason
from l2overlay.node.journal import Journal
from l2overlay.node.pump import Pump
from l2overlay.overlay import Overlay
from l2overlay.seams import MAX_BURST_DATAGRAMS

FEW_BURSTS = int(ON_RATE * STEP / MAX_BURST_DATAGRAMS)
"""Between two looks: fewer cannot hold what fails in a flood."""


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
        self._bursts = 0
        self.troubles: tuple[str, ...] = ()

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            await trio.sleep(STEP)
            self.look()

    def look(self) -> None:
        """Once: put the filter on, renew its list, or take it off.

        With little to read there is no flood, and a node with a thousand peers need not add up what each has counted.
        """
        bursts, self._bursts = self._pump.burst_count - self._bursts, self._pump.burst_count
        if bursts < FEW_BURSTS and not self._shield.on:
            return
        filtered = self._overlay.counters.drops.get(DropReason.FLOOD_FILTERED, 0)
        was_on = self._shield.on
        if self._shield.step(self._overlay.failed_datagrams(), filtered, self._clock()):
            self._pump.shielded = self._udp().shield(self._overlay.known_addresses())
        elif was_on:
            self._udp().shield(None)
            self._pump.shielded = False
        if self._shield.on != was_on:
            self._tell()

    def _tell(self) -> None:
        if self._shield.on:
            text = "a flood of datagrams that no peer sealed: the kernel drops DATA from unknown addresses"
            self.troubles = (text,)
            self._journal.tell("flood_began", text)
        else:
            self.troubles = ()
            self._journal.tell(
                "flood_ended", "the flood is over: datagrams from all addresses are read again"
            )
