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
from dataclasses import dataclass
from pathlib import Path

import trio

from l2overlay.addresses import Address, MacAddress, PeerKey, format_mac
from l2overlay.config.types import Config, Endpoint, PeerConfig
from l2overlay.control.requests import Answer, Changing, Reading
from l2overlay.control.run_dir import StampFile
from l2overlay.control.server import ControlSocket, open_control_socket
from l2overlay.controlplane.events import (
    DatagramReturned,
    Event,
    LoopFound,
    LoopHealed,
    PeerDown,
    PeerMoved,
    PeerUnanswered,
    PeerUp,
    ProbeRepeated,
)
from l2overlay.controlplane.overview import PeerStatus
from l2overlay.errors import ConfigError, HostSetupError, L2OverlayError
from l2overlay.node.attachment import HostSide, host_spec
from l2overlay.node.facts import Facts
from l2overlay.node.filter_keeper import FilterKeeper
from l2overlay.node.flood_watch import FloodWatch
from l2overlay.node.journal import Journal, LineWriter
from l2overlay.node.keeper import Keeper, Watch
from l2overlay.node.latency.rehearsal import Rehearsal
from l2overlay.node.notify import notify
from l2overlay.node.progress import Progress
from l2overlay.node.pump import Pump
from l2overlay.node.refused_port import RefusedPorts
from l2overlay.node.reload import Reload, read_again
from l2overlay.node.resolver import Lookup, Resolver, system_lookup
from l2overlay.node.routes import Routes
from l2overlay.node.stamps import Stamps
from l2overlay.node.timer import LoopLag, OverlayTimer, boot_time
from l2overlay.overlay import Overlay
from l2overlay.seams import Underlay

RELOAD_SCHEMA = "l2overlay.reload/1"

PEERS_WAIT = 1.0
"""Seconds that READY waits for peers: handshakes start within 0.5 s, and one that is off must not hold up a host's boot."""
GOODBYE_TIME = 0.1
"""Seconds for the last words when the socket is full; they are not repeated, silence tells the same 7 s later."""
UNDO_TIME = 1.5
"""Seconds for undoing; a kernel that takes longer is left to `l2overlay cleanup`."""
HELD_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""Blocked by `start.py` from the first file on until the node listens to them."""
NAMED_PEERS = 8
"""Silent peers that are named at start-up."""


@dataclass(frozen=True, slots=True)
class Environment:
    """Where a node runs: the real thing, or fakes."""

    peers_file: Path
    control_path: Path
    side: HostSide
    open_udp: Callable[[int, str], Underlay]
    open_watch: Callable[[], Watch]
    stamps: StampFile
    writer: LineWriter
    progress: Progress
    clock: Callable[[], float] = boot_time
    wall_clock: Callable[[], float] = time.time
    lookup: Lookup = system_lookup
    linger: float = 0.0
    """Seconds of rehearsals after a lone frame; 0 is none, as fakes have no use for them."""


def listen_endpoint(config: Config, key: PeerKey) -> Endpoint:
    """What a node binds: the address and port of `listen`; without an address, the port of our own stanza's endpoint, where
    the others look for us; else the port of `listen`."""
    segment, own = config.segment, config.peer(key)
    if segment.listen_address or own is None or own.endpoint is None:
        return Endpoint(segment.listen_address, segment.listen)
    return Endpoint("", own.endpoint.port)


def _complaints(error: Exception, file: Path) -> list[str]:
    """Why a reload failed, for a person."""
    if isinstance(error, ConfigError):
        return error.lines()
    if isinstance(error, L2OverlayError):
        return [str(error)]
    cause = _first_cause(error)
    where = traceback.extract_tb(cause.__traceback__)[-1]
    place = f"{where.name}, {Path(where.filename).name}:{where.lineno}"
    return [f"{file}: cannot be followed: {type(cause).__name__}: {cause} (in {place}); this is a bug"]


def _first_cause(error: Exception) -> Exception:
    """What a nursery wraps: the failure itself, which knows where it was."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error


class Node:
    """From set-up to undo; `run` once."""

    def __init__(self, config: Config, private_key: bytes, key: PeerKey, environment: Environment) -> None:
        self.config = config
        self._private_key = private_key
        self.key = key
        self.environment = environment
        self._names = {peer.public_key: peer.name for peer in config.peers}
        self.journal = Journal(environment.writer, lambda peer: self._names.get(peer, "?"))
        self.clock = environment.clock
        self._life = trio.CancelScope()
        self._awaited = {p.public_key for p in config.peers if p.endpoint is not None} - {key}
        self._all_up = trio.Event()
        self._reload_lock = trio.Lock()
        self._leaving = False
        self._failure: HostSetupError | None = None
        self._joined = False
        self._udp: Underlay | None = None
        self._overlay: Overlay | None = None
        self._stamps: Stamps | None = None
        self._rehearsal: Rehearsal | None = None
        # made by _set_up_overlay, together with the overlay
        self.routes: Routes
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
    def own(self) -> PeerConfig:
        """Our own stanza."""
        own = self.config.peer(self.key)
        assert own is not None  # checked at start and at every reload
        return own

    @property
    def udp(self) -> Underlay:
        """The underlay's socket."""
        assert self._udp is not None
        return self._udp

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
            await self._wait_for_peers()
            self._say_ready()

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
            cause = _first_cause(error)
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
        udp = self._udp = self._open_udp(listen_endpoint(self.config, self.key))
        kinds = [kind for kind, on in (("gso", udp.gso), ("gro", udp.gro)) if on]
        at = self.config.segment.listen_address
        environment.progress.phase(
            "underlay",
            f"UDP port {udp.port}{at and f' of {at}'} {' '.join(kinds) or 'one datagram a call'}",
        )

    def _open_udp(self, at: Endpoint) -> Underlay:
        return self.environment.open_udp(at.port, at.host)

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
            tap_lost=self._tap_lost,
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
        self.refused_ports = RefusedPorts(nursery, self.clock)
        self.resolver = Resolver(nursery, self._set_endpoint, environment.lookup)
        self.floods = FloodWatch(self._overlay, lambda: self.udp, self.pump, self.journal, self.clock)
        self._control = self._open_control()
        self.pump.attach_tap(environment.side.tap)
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
        requests = {**reading.requests(), **changing.requests()}
        return ControlSocket(open_control_socket(self.environment.control_path), requests, self.journal.say)

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
            look_at_losses=self.look_at_losses,
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

    async def _wait_for_peers(self) -> None:
        if self._awaited:
            with trio.move_on_after(PEERS_WAIT):
                await self._all_up.wait()
        peers = self.overlay.peers(self.clock())
        self.environment.progress.phase("peers", f"{sum(p.up for p in peers)}/{len(peers)} up")
        missing = [p for p in peers if self._is_missing(p)]
        for peer in missing[:NAMED_PEERS]:
            self.journal.say(f"peer {peer.name} {self._silence_of(peer)}")
        if len(missing) > NAMED_PEERS:
            self.journal.say(
                f"{len(missing) - NAMED_PEERS} more peers do not answer (l2overlay status names them)"
            )

    def _is_missing(self, peer: PeerStatus) -> bool:
        config = self.config.peer(peer.key)
        return not peer.up and config is not None and config.endpoint is not None

    def why_down(self, peer: PeerStatus) -> tuple[str, float | None] | None:
        """What this host knows of why a peer does not answer, beside that, and the seconds until the next try."""
        refused = self.refused_ports.reason(peer.key, peer.endpoint)
        return self.resolver.failure(peer.key) or (None if refused is None else (refused, peer.next_try))

    def _silence_of(self, peer: PeerStatus) -> str:
        config = self.config.peer(peer.key)
        reason, next_try = self.why_down(peer) or (peer.reason or "no answer yet", peer.next_try)
        where = peer.endpoint or (config.endpoint if config is not None else None)
        again = "" if next_try is None else f"; next try in {next_try:.1f} s"
        return f"({where}) is not up: {reason}{again}"

    def _say_ready(self) -> None:
        peers = self.overlay.peers(self.clock())
        up = f"{sum(p.up for p in peers)}/{len(peers)}"
        self.journal.say(
            f"READY segment {self.config.segment.name} node {self.own.name} peers {up}"
            f" in {self.environment.progress.elapsed:.2f} s"
        )
        notify("READY=1", f"STATUS=peers {up} up")

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
            if self._udp is not None:
                self._udp.close()
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
        if isinstance(event, PeerUp):
            self.routes.set_path_limit(event.peer, event.address)
            self.refused_ports.forget(event.peer)
            self._awaited.discard(event.peer)
            if not self._awaited:
                self._all_up.set()
        elif isinstance(event, PeerMoved):
            self.routes.set_path_limit(event.peer, event.new)
        elif isinstance(event, DatagramReturned):
            self.routes.look()
        elif isinstance(event, PeerUnanswered):
            self.resolver.unanswered(event.peer)
            self._ask_why(event.peer)
        elif isinstance(event, PeerDown | LoopFound | LoopHealed):
            # Once, also when a thousand peers go at the same moment.
            trio.lowlevel.current_trio_token().run_sync_soon(self._forget_stations, idempotent=True)
        self.journal.tell_event(event)
        if isinstance(event, LoopFound | ProbeRepeated) and event.probe is not None:
            self._name_port(event.probe)

    def _name_port(self, probe: MacAddress) -> None:
        """Say by which port of the bridge a probe of ours came back, if the bridge knows."""
        port = self.environment.side.port_of(probe)
        if port:
            self.journal.say(f"loop: the probe came back by the port {port} of {self.config.segment.bridge}")

    def _ask_why(self, key: PeerKey) -> None:
        endpoint = next((p.endpoint for p in self.overlay.peers(self.clock()) if p.key == key), None)
        if endpoint is not None:
            self.refused_ports.ask(key, endpoint)

    def _forget_stations(self) -> None:
        """What the bridge has learned at the TAP may be gone, or behind another of its ports now, or the reverse."""
        try:
            self.environment.side.forget_stations()
        except HostSetupError as error:
            self.journal.say(str(error))

    def _tap_lost(self, error: OSError) -> None:
        self.keeper.tap_lost(error)

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
            self.look_at_losses()

    def look_at_losses(self) -> None:
        """Count what the kernel lost at the TAP since the last look; it tells nobody by itself."""
        side = self.environment.side
        lost = side.losses.look()
        if lost:
            self.overlay.tap_overflowed(lost)
            self.journal.tell(
                "tap_overflow",
                f"the queue of {side.spec.tap} was full: {lost} frames of this host's side were lost "
                "(the node gets too little processor time, or a burst was too long)",
                lost=lost,
            )

    @property
    def ahead_of_clock(self) -> bool:
        """The wall clock was set back: the next run needs to know how far our stamps have come."""
        return self._stamps is not None and self._stamps.lead() > 0

    # -- reload --------------------------------------------------------------------------------------------------

    async def reload_and_tell(self) -> Answer:
        """`reload`, of which systemd is told, whoever asked for it."""
        notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
        try:
            return await self.reload()
        finally:
            notify("READY=1")

    async def reload(self) -> Answer:
        """Read peers.toml again; on any error the old configuration stays in force."""
        async with self._reload_lock:
            try:
                found = await trio.to_thread.run_sync(
                    read_again, self.environment.peers_file, self.config, self.key
                )
                await self._follow(found.config)
            except Exception as error:  # noqa: BLE001 - whatever it is, the node goes on as it was
                lines = _complaints(error, self.environment.peers_file)
                for line in lines:
                    self.journal.say(line)
                outcome = self._failure or "reload failed: the old configuration stays in force"
                self.journal.tell("reload_failed", str(outcome), errors=lines)
                return {"schema": RELOAD_SCHEMA, "changes": [], "restart": [], "errors": lines}
        return self._tell_reload(found)

    async def _follow(self, config: Config) -> None:
        """Follow in every part. When one of them fails, all go back; a node that cannot go back stops."""
        old, udp, new_udp = self.config, self.udp, self._open_another(config)
        try:
            await self._follow_on_host(config)
            try:
                self._follow_here(config, new_udp or udp)
            except Exception:
                await self._go_back(old, udp)
                raise
        except BaseException:
            if new_udp is not None:
                new_udp.close()
            raise
        if new_udp is not None:
            udp.close()

    def _follow_here(self, config: Config, udp: Underlay) -> None:
        """In all parts but the host."""
        self.overlay.reconfigure(config, self.clock())
        self.config = config
        names = {peer.public_key: peer.name for peer in config.peers}
        self._names = self._names | names  # a peer that goes is still named by its last event
        self.filter.configure(config)
        if udp is not self._udp:
            self._change_socket(udp)
        self.resolver.configure(config, self.key)
        self.pump.flush()
        self._names = names

    async def _go_back(self, config: Config, udp: Underlay) -> None:
        """Put the old configuration and socket in force again. What cannot be put back ends the node."""
        try:
            self.config = config
            await self._follow_on_host(config)
            self._follow_here(config, udp)
        except Exception as error:  # noqa: BLE001 - the first failure is told by who called; this one ends the node
            (why, *_) = _complaints(error, self.environment.peers_file)
            self._failure = HostSetupError(
                f"reload failed: the old configuration could not be put back ({why}); the node stops"
            )
            trio.lowlevel.current_trio_token().run_sync_soon(self.leave)

    def _open_another(self, config: Config) -> Underlay | None:
        """A socket for the new configuration, where that wants another one."""
        old, new = (listen_endpoint(each, self.key) for each in (self.config, config))
        return self._open_udp(new) if new != old else None

    async def _follow_on_host(self, config: Config) -> None:
        side = self.environment.side
        old, side.spec = side.spec, host_spec(config, self.key)
        if side.spec == old:
            return
        self.filter.prepare(side.spec.filter)
        try:
            await self.keeper.reconfigure()
        except BaseException:
            side.spec = old
            self.filter.configure(self.config)
            raise

    def _change_socket(self, udp: Underlay) -> None:
        """The peers learn our new port as that of a peer that moved: their answers to this come to it."""
        self._udp = udp
        self.pump.replace_udp(udp)
        self.overlay.probe_peers(self.clock())

    def _tell_reload(self, found: Reload) -> Answer:
        changes, count = found.changes, len(found.changes)
        for line in changes:
            self.journal.say(f"reload: {line}")
        text = f"reloaded: {count or 'no'} change{'s' * (count != 1)}"
        self.journal.tell("reloaded", text, changes=changes, restart=found.restart)
        return {"schema": RELOAD_SCHEMA, "changes": changes, "restart": found.restart, "errors": []}
