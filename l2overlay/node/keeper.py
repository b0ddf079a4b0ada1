"""The keeper: watches the host while the node runs, puts TAP and bridge back in order, and notices a new underlay.

What the kernel tells (`LinkWatch`) about our TAP or bridge leads to a repair, about anything else to a look at the paths to
our peers. A repair that has to be repeated waits longer each time: somebody else wants it otherwise. What cannot be repaired
is a trouble, shown in `status` until it is over.
"""

from collections.abc import Callable
from typing import Protocol

import trio

from l2overlay.errors import HostSetupError
from l2overlay.linux.links import ChangeKind, LinkChange
from l2overlay.node.attachment import HostSide
from l2overlay.node.journal import Journal
from l2overlay.node.pump import Pump

GATHER_TIME = 0.05
"""Seconds to wait for the rest of what belongs together: a bridge that goes takes addresses and routes along."""
FIRST_PAUSE = 0.1
LONGEST_PAUSE = 10.0
"""Between repairs that follow one another. The first `QUICK_REPAIRS` wait `FIRST_PAUSE` each: one fault can take several."""
QUICK_REPAIRS = 5
CALM_TIME = 2.0
"""Seconds after a pause without a repair, after which counting starts anew: nobody fights with the node."""
TROUBLE_INTERVAL = 5.0
"""Seconds between two attempts at something that could not be repaired."""
LOOK_INTERVAL = 5.0
"""Seconds between two looks at what the kernel does not tell of, if the node is a gateway. A look takes about 50 ms."""
UNDERLAY_INTERVAL = 1.0
"""Seconds between two looks at the underlay: a host that starts containers has a change every few milliseconds."""


class Watch(Protocol):
    """`linux.links.LinkWatch`, or a fake."""

    def receive_changes(self) -> list[LinkChange]: ...

    def ports(self, bridge: str) -> tuple[str, ...]: ...

    def fileno(self) -> int: ...

    def close(self) -> None: ...


class Keeper:
    """Keeps TAP and bridge in order.

    `underlay_changed` gets the links that changed, gathered; "" stands for an unknown one. `routes_changed` is
    called at once.
    """

    def __init__(
        self,
        side: HostSide,
        watch: Watch,
        pump: Pump,
        journal: Journal,
        underlay_changed: Callable[[frozenset[str]], None],
        routes_changed: Callable[[], None] = lambda: None,
    ) -> None:
        self._side = side
        self._watch = watch
        self._pump = pump
        self._journal = journal
        self._underlay_changed = underlay_changed
        self._routes_changed = routes_changed
        self._lock = trio.Lock()
        self._wanted = trio.Event()
        self._links: set[str] = set()
        self._underlay_wanted = trio.Event()
        self._repairs = 0
        self._pause_end = -CALM_TIME
        self._tap_gone = False
        self.troubles: tuple[str, ...] = ()
        """What is wrong now, one sentence each."""

    def tap_lost(self, error: OSError) -> None:
        """The pump met a TAP that is gone."""
        self._tap_gone = True
        self._journal.tell("tap_lost", f"TAP {self._side.spec.tap} is gone ({error.strerror or error})")
        self._wanted.set()

    async def run(self) -> None:
        """Watch and repair until cancelled."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._listen)
                nursery.start_soon(self._look_at_underlay)
                await self._repair_when_wanted()
        finally:
            self._watch.close()

    async def reconfigure(self) -> None:
        """`side.spec` has changed: follow it. Raises HostSetupError, and then it is as it was."""
        async with self._lock:
            await trio.to_thread.run_sync(self._side.repair)

    async def _listen(self) -> None:
        ours = (self._side.spec.tap, self._side.spec.bridge)
        while True:
            self._side.ports = self._watch.ports(self._side.spec.bridge)
            await trio.lowlevel.wait_readable(self._watch.fileno())
            for change in self._watch.receive_changes():
                if change.link in ours:
                    self._note_own(change)
                if change.kind is ChangeKind.LOST:
                    self._wanted.set()
                    self.want_underlay("")
                elif change.kind is not ChangeKind.MASTER_CHANGED:
                    self.want_underlay(change.link)  # of the bridge, too: a route may lead into it
            self._routes_changed()

    def _note_own(self, change: LinkChange) -> None:
        if change.kind is ChangeKind.LINK_GONE and change.link == self._side.spec.tap:
            self._tap_gone = True
        self._wanted.set()

    def want_underlay(self, link: str) -> None:
        """Look at the underlay soon; `link` had news, "" stands for any."""
        self._links.add(link)
        self._underlay_wanted.set()

    async def _look_at_underlay(self) -> None:
        while True:
            await self._underlay_wanted.wait()
            await trio.sleep(GATHER_TIME)
            self._underlay_wanted = trio.Event()
            links, self._links = frozenset(self._links), set()
            self._underlay_changed(links)
            await trio.sleep(UNDERLAY_INTERVAL)

    async def _repair_when_wanted(self) -> None:
        while True:
            with trio.move_on_after(self._look_interval):
                await self._wanted.wait()
            await trio.sleep(GATHER_TIME)
            self._wanted = trio.Event()
            if await self._repair():
                await self._be_patient()

    @property
    def _look_interval(self) -> float:
        """The kernel does not tell of rules and sysctls that somebody changes: where they matter, the node looks."""
        if self.troubles or self._side.troubles:
            return TROUBLE_INTERVAL
        return LOOK_INTERVAL if self._side.spec.extras else float("inf")

    async def _be_patient(self) -> None:
        now = trio.current_time()
        self._repairs = 1 if now - self._pause_end > CALM_TIME else self._repairs + 1
        pause = min(FIRST_PAUSE * 2.0 ** min(max(0, self._repairs - QUICK_REPAIRS), 10), LONGEST_PAUSE)
        self._pause_end = now + pause
        await trio.sleep(pause)

    async def _repair(self) -> bool:
        """Whether something had to be done."""
        try:
            async with self._lock:
                lines = await self._put_in_order()
        except (HostSetupError, OSError) as error:  # EMFILE, ENOMEM: it is tried again, and the node goes on
            self._tell_trouble(str(error))
            return False
        if lines or self.troubles:
            self.troubles = ()
            self._journal.tell(
                "repaired", f"repaired: {'; '.join(lines) or 'all is as it should be again'}", changes=lines
            )
        return bool(lines)

    async def _put_in_order(self) -> list[str]:
        side, lines = self._side, []
        if self._tap_gone or self._pump.tap is None:
            self._pump.detach_tap()
            await trio.to_thread.run_sync(side.reopen_tap)
            self._tap_gone = False
            lines.append(f"make the TAP {side.spec.tap} again")
        try:
            lines += await trio.to_thread.run_sync(side.repair)
        finally:
            if self._pump.tap is None:
                self._pump.attach_tap(side.tap)
        return lines

    def _tell_trouble(self, trouble: str) -> None:
        if self.troubles != (trouble,):
            self.troubles = (trouble,)
            self._journal.tell("degraded", f"degraded: {trouble}")
