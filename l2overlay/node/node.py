"""One running node: everything that lives as long as it does, and the order in which it comes and goes.

    come    TAP, bridge, UDP socket, overlay, control socket; then the nursery; READY when the peers answer
    go      BYE to the peers, TAP and bridge undone, files removed; after an exception in any task as well

Nothing here looks into a frame. All calls into the overlay happen on this one thread.
"""

import os
import secrets
import signal
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import trio

from l2overlay.addresses import Address, PeerKey, format_mac
from l2overlay.config.types import Config
from l2overlay.control.requests import Answer, Changing, Reading
from l2overlay.control.run_dir import StampFile
from l2overlay.control.server import ControlSocket, open_control_socket
from l2overlay.controlplane.events import (
    Event,
)
from l2overlay.controlplane.overview import PeerStatus
from l2overlay.errors import HostSetupError
from l2overlay.node.arrival import Arrival
from l2overlay.node.environment import Current, Environment, listen_endpoint
from l2overlay.node.facts import Facts
from l2overlay.node.filter_keeper import FilterKeeper
from l2overlay.node.flood_watch import FloodWatch
from l2overlay.node.follower import Follower, first_cause
from l2overlay.node.journal import Journal
from l2overlay.node.keeper import Keeper
from l2overlay.node.kernel_losses import tell_losses
from l2overlay.node.latency.rehearsal import Rehearsal
from l2overlay.node.notify import notify
from l2overlay.node.pump import Pump
from l2overlay.node.reactions import Reactions
from l2overlay.node.refused_port import RefusedPorts
from l2overlay.node.resolver import Resolver
from l2overlay.node.routes import Routes
from l2overlay.node.stamps import Stamps
from l2overlay.node.timer import LoopLag, OverlayTimer, boot_time
from l2overlay.overlay import Overlay
from l2overlay.seams import Underlay

GOODBYE_TIME = 0.1
"""Seconds for the last words when the socket is full; they are not repeated, silence tells the same 7 s later."""
UNDO_TIME = 1.5
"""Seconds for undoing; a kernel that takes longer is left to `l2overlay cleanup`."""
HELD_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""Blocked by `start.py` from the first file on until the node listens to them."""


class Node:
    """From set-up to undo; `run` once."""

    def __init__(self, config: Config, private_key: bytes, key: PeerKey, environment: Environment) -> None:
        self.current = Current(key, config)
        self._private_key = private_key
        self.key = key
        self.environment = environment
        self.journal = Journal(environment.writer, self.current.name_of)
        self.clock = environment.clock
        self._life = trio.CancelScope()
        self._leaving = False
        self._failure: HostSetupError | None = None
        self._joined = False
        self._overlay: Overlay | None = None
        self._stamps: Stamps | None = None
        self._rehearsal: Rehearsal | None = None
        # made by _set_up_overlay, together with the overlay
        self.routes: Routes
        self.follower: Follower
        self.arrival: Arrival
        self.reactions: Reactions
        self.pump: Pump
        self._timer: OverlayTimer
        self.lag: LoopLag
        self.keeper: Keeper
        self.filter: FilterKeeper
        self.resolver: Resolver
        self.refused_ports: RefusedPorts
        self._control: ControlSocket
        self.start_time = environment.clock()
        self._start_wall = environment.wall_clock()

    @property
    def config(self) -> Config:
        """The configuration in force."""
        return self.current.config

    @property
    def udp(self) -> Underlay:
        """The underlay's socket."""
        return self.current.udp

    @property
    def overlay(self) -> Overlay:
        """The core."""
        assert self._overlay is not None
        return self._overlay

    async def run(self) -> None:
        """Live until told to leave. Whatever ends it, what was made is undone."""
        with trio.open_signal_receiver(*HELD_SIGNALS) as signals:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD_SIGNALS)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._obey, signals)
                try:
                    with self._life:
                        await self._live()
                    if self._failure is not None:
                        raise self._failure
                finally:
                    with trio.CancelScope(shield=True):
                        await self._take_down()
                nursery.cancel_scope.cancel()

    def leave(self) -> None:
        """Say goodbye, undo, end."""
        self._leaving = True
        self._life.cancel()

    def _fail(self, failure: HostSetupError) -> None:
        """End the node soon, with this error."""
        self._failure = failure
        trio.lowlevel.current_trio_token().run_sync_soon(self.leave)

    def _asked_to_leave(self, purge: bool) -> tuple[str, ...]:
        """By a client, which gets its answer first. Returns the ports for which the bridge stays."""
        side = self.environment.side
        side.purge = purge
        self.journal.say("asked to leave")
        trio.lowlevel.current_trio_token().run_sync_soon(self.leave)
        return side.kept_for

    # -- coming --------------------------------------------------------------------------------------------------

    async def _live(self) -> None:
        await self._set_up_host()
        async with trio.open_nursery() as nursery:
            await self._set_up_overlay(nursery)
            self._joined = True
            for name, task in self._tasks().items():
                nursery.start_soon(self._watched, name, task)
            self.resolver.configure(self.config, self.key)
            await self.arrival.run()

    def _tasks(self) -> dict[str, Callable[[], Awaitable[None]]]:
        return {
            "pump": self.pump.run,
            "timer": self._timer.run,
            "loop lag": self.lag.run,
            "host watch": self.keeper.run,
            "filter": self.filter.run,
            "control socket": self._control.run,
            "stamps": self._each_minute,
            "ways": self.routes.run,
            "flood watch": self.floods.run,
        }

    async def _watched(self, name: str, task: Callable[[], Awaitable[None]]) -> None:
        """A task that fails ends the node, with a word about where: a node is never half alive."""
        try:
            await task()
        except Exception as error:
            cause = first_cause(error)
            where = traceback.extract_tb(cause.__traceback__)[-1]
            self.journal.say(
                f"the {name} failed: {type(cause).__name__}: {cause} "
                f"(in {where.name}, {Path(where.filename).name}:{where.lineno}); the node stops"
            )
            raise

    async def _set_up_host(self) -> None:
        environment, side = self.environment, self.environment.side
        await trio.to_thread.run_sync(side.open_tap)
        offload = "on" if side.tap.offloads else "off"
        environment.progress.phase(
            "tap", f"{side.spec.tap} {format_mac(side.spec.tap_mac)} mtu {side.spec.mtu} offload {offload}"
        )
        await trio.to_thread.run_sync(side.set_up_bridge)
        ports = ", ".join(port for port in side.ports if port != side.spec.tap) or "no other port yet"
        origin = "adopted" if side.adopted else "taken over" if side.found_ours else "made"
        environment.progress.phase("bridge", f"{side.spec.bridge} {origin}, {ports}")
        for note in side.notes:
            self.journal.say(f"note: {note}")
        for trouble in side.troubles:
            self.journal.tell("degraded", f"degraded: {trouble}")
        at = listen_endpoint(self.config, self.key)
        udp = self.current.socket = self.environment.open_udp(at.port, at.host)
        kinds = [kind for kind, on in (("gso", udp.gso), ("gro", udp.gro)) if on]
        listen = self.config.segment.listen_address
        environment.progress.phase(
            "underlay",
            f"UDP port {udp.port}{listen and f' of {listen}'} {' '.join(kinds) or 'one datagram a call'}",
        )

    async def _set_up_overlay(self, nursery: trio.Nursery) -> None:
        environment, now = self.environment, self.clock()
        self._overlay = Overlay(
            self.config,
            self._private_key,
            now=now,
            wall_clock=environment.wall_clock(),
            last_stamp=environment.stamps.read(boot_time()),
            random=secrets.token_bytes,
            own_macs=environment.side.own_macs,
        )
        self._stamps = Stamps(
            environment.stamps,
            self._overlay,
            self.journal,
            self._stamp_clock,
            self._wall_clock,
        )
        self.routes = Routes(
            self._overlay,
            lambda: self.udp,
            environment.side,
            self.journal,
            self.clock,
            look_soon=lambda: self.keeper.want_underlay(""),
        )
        self.pump = Pump(
            self._overlay,
            self.udp,
            self.clock,
            tell=self._tell,
            tap_lost=lambda error: self.keeper.tap_lost(error),  # noqa: PLW0108 - made later
            too_long=self.routes.link_refused_size,
            timer_moved=self._timer_moved,
            rehearse=self._prepare_rehearsal(),
            linger=environment.linger,
        )
        self._timer = OverlayTimer(self._overlay, self.clock, self.pump.flush, self.pump.read_waiting)
        self.lag = LoopLag(self._timer.check)
        self.keeper = Keeper(
            environment.side,
            environment.open_watch(),
            self.pump,
            self.journal,
            self._underlay_changed,
            self.routes.changed,
        )
        self.filter = FilterKeeper(
            environment.side.firewall,
            self._overlay,
            self.journal,
            self.clock,
            self.pump.flush,
            self.keeper.reconfigure,
        )
        self.filter.configure(self.config)
        self._set_up_what_follows(nursery)

    def _set_up_what_follows(self, nursery: trio.Nursery) -> None:
        """All that reacts to the overlay, the pump and the host."""
        self.refused_ports = RefusedPorts(nursery, self.clock)
        self.resolver = Resolver(nursery, self._set_endpoint, self.environment.lookup)
        self.floods = FloodWatch(self.overlay, lambda: self.udp, self.pump, self.journal, self.clock)
        self.arrival = Arrival(self.current, self.environment, self.overlay, self.journal, self.why_down)
        self.reactions = Reactions(
            self.environment,
            self.overlay,
            self.routes,
            self.refused_ports,
            self.resolver,
            self.journal,
            self.arrival.came_up,
        )
        self.follower = Follower(
            self.current,
            self.environment,
            self.overlay,
            self.pump,
            self.keeper,
            self.filter,
            self.resolver,
            self.journal,
            self._fail,
        )
        self._control = self._open_control()
        self.pump.attach_tap(self.environment.side.tap)
        assert self._stamps is not None
        self._stamps.note()

    def _wall_clock(self) -> float:
        return self.environment.wall_clock()

    def _stamp_clock(self) -> float:
        """The wall clock as it was at start, and as it would be had nobody set it."""
        return self._start_wall + self.clock() - self.start_time

    def _open_control(self) -> ControlSocket:
        facts = self._facts()
        reading = Reading(
            self.overlay,
            self.clock,
            lambda: self.config,
            facts.now,
            facts.unresolved,
            self.filter,
            self.journal,
        )
        changing = Changing(lambda: self.config, self.reload_and_tell, self._asked_to_leave)
        operations = {**reading.operations(), **changing.operations()}
        return ControlSocket(open_control_socket(self.environment.control_path), operations, self.journal.say)

    def _facts(self) -> Facts:
        assert self._stamps is not None
        return Facts(
            key=self.key,
            start_time=self.start_time,
            clock=self.clock,
            config=lambda: self.config,
            overlay=self.overlay,
            side=self.environment.side,
            udp=lambda: self.udp,
            pump=self.pump,
            lag=self.lag,
            keeper=self.keeper,
            filter=self.filter,
            floods=self.floods,
            journal=self.journal,
            look_at_losses=self._look_at_losses,
            stamp_lead=self._stamps.lead,
            way_troubles=lambda: self.routes.troubles,
            why_down=self.why_down,
        )

    def _prepare_rehearsal(self) -> Callable[[], object] | None:
        if not self.environment.linger:
            return None
        try:
            self._rehearsal = Rehearsal(self.config.segment.suite)
        except (OSError, HostSetupError) as error:
            self.journal.say(f"note: a lone frame will not be as quick as it could be: {error}")
            return None
        return self._rehearsal.once

    def why_down(self, peer: PeerStatus) -> tuple[str, float | None] | None:
        """What this host knows of why a peer does not answer, beside that, and the seconds until the next try."""
        refused = self.refused_ports.reason(peer.key, peer.endpoint)
        return self.resolver.failure(peer.key) or (None if refused is None else (refused, peer.next_try))

    # -- going ---------------------------------------------------------------------------------------------------

    async def _obey(self, signals: AsyncIterator[int]) -> None:
        async for number in signals:
            if number == signal.SIGHUP:
                await self.reload_and_tell()
            elif self._leaving:
                self.journal.say("stopped at once; l2overlay cleanup takes away what is left")
                os._exit(128 + number)
            else:
                self.journal.say(f"{signal.Signals(number).name}: leaving")
                self.leave()

    async def _take_down(self) -> None:
        self._leaving = True
        notify("STOPPING=1")
        try:
            await self._say_goodbye()
        finally:
            if self.current.socket is not None:
                self.current.socket.close()
            with trio.move_on_after(UNDO_TIME) as patience:
                await trio.to_thread.run_sync(self._undo, abandon_on_cancel=True)
            if patience.cancelled_caught:
                raise HostSetupError(f"undoing took longer than {UNDO_TIME} s; run: l2overlay cleanup")

    async def _say_goodbye(self) -> None:
        """Also after a failure: the peers need not wait 7 s to know. What broke the overlay may break this too."""
        if self._overlay is None:
            return
        try:
            self._overlay.leave(self.clock())
            self.pump.flush()
            with trio.move_on_after(GOODBYE_TIME):
                await self.pump.drain()
        except Exception as error:  # noqa: BLE001 - the undo comes first, and the first error is being told
            self.journal.say(f"could not say goodbye to the peers: {error}")
        self.pump.close()
        if self._rehearsal is not None:
            self._rehearsal.close()

    def _undo(self) -> None:
        undone = self.environment.side.take_down()
        for line in undone.lines:
            self.journal.say(f"undone: {line}")
        for bridge in undone.kept if self._joined else ():
            self.journal.say(f"kept: {bridge.line}; 'l2overlay cleanup --purge' removes it")
        if self._joined:  # a start that was refused says why, and nothing else
            self.journal.say(f"left segment {self.config.segment.name}")

    # -- what the overlay and the underlay tell ------------------------------------------------------------------

    def _tell(self, event: Event) -> None:
        self.reactions.to(event)

    def _timer_moved(self, due: float) -> None:
        self._timer.moved(due)

    def _set_endpoint(self, peer: PeerKey, address: Address | None) -> None:
        if address is not None:
            self.routes.learn(address)
        self.overlay.set_endpoint(peer, address, self.clock())
        self.pump.flush()

    def _underlay_changed(self, links: frozenset[str]) -> None:
        """`links` had news ("": any). Try the peers again if a path to one of them is concerned."""
        if not self.routes.follow(links):
            return
        self.overlay.probe_peers(self.clock())
        self.resolver.look_up_all()
        self.pump.flush()
        self.journal.tell(
            "underlay_changed",
            f"underlay changed ({', '.join(sorted(links - {''})) or 'routes'}): peers tried again",
        )

    async def _each_minute(self) -> None:
        assert self._stamps is not None
        while True:
            await trio.sleep(StampFile.INTERVAL)
            await self._stamps.note_in_thread()
            self._look_at_losses()

    def _look_at_losses(self) -> None:
        side = self.environment.side
        tell_losses(side.losses, side.spec.tap, self.overlay, self.journal)

    @property
    def ahead_of_clock(self) -> bool:
        """The wall clock was set back: the next run needs to know how far our stamps have come."""
        return self._stamps is not None and self._stamps.lead() > 0

    async def reload_and_tell(self) -> Answer:
        """`reload`, of which systemd is told, whoever asked for it."""
        notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
        try:
            return await self.follower.reload()
        finally:
            notify("READY=1")
