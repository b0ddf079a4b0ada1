"""A reload: the node follows a new peers.toml in every part, or stays as it was.

    read and check -> a second socket if another port is asked for -> host -> overlay, filter, names -> the old socket closes

A part that fails takes all back to the old configuration. A node that cannot go back stops.
"""

import traceback
from collections.abc import Callable
from pathlib import Path

import trio

from l2overlay.config.types import Config
from l2overlay.control.requests import Answer
from l2overlay.errors import ConfigError, HostSetupError, L2OverlayError
from l2overlay.node.attachment import host_spec
from l2overlay.node.environment import Current, Environment, listen_endpoint, names_in
from l2overlay.node.filter_keeper import FilterKeeper
from l2overlay.node.journal import Journal
from l2overlay.node.keeper import Keeper
from l2overlay.node.pump import Pump
from l2overlay.node.reload import Reload, read_again
from l2overlay.node.resolver import Resolver
from l2overlay.overlay import Overlay
from l2overlay.seams import Underlay

RELOAD_SCHEMA = "l2overlay.reload/1"


class Follower:
    """Reloads one node. `fail` ends it with an error."""

    def __init__(
        self,
        current: Current,
        environment: Environment,
        overlay: Overlay,
        pump: Pump,
        keeper: Keeper,
        filter_keeper: FilterKeeper,
        resolver: Resolver,
        journal: Journal,
        fail: Callable[[HostSetupError], None],
    ) -> None:
        self._current = current
        self._environment = environment
        self._overlay = overlay
        self._pump = pump
        self._keeper = keeper
        self._filter = filter_keeper
        self._resolver = resolver
        self._journal = journal
        self._fail = fail
        self._failure: HostSetupError | None = None
        self._lock = trio.Lock()

    async def reload(self) -> Answer:
        """Read peers.toml again; on any error the old configuration stays in force."""
        async with self._lock:
            try:
                found = await trio.to_thread.run_sync(
                    read_again, self._environment.peers_file, self._current.config, self._current.key
                )
                await self._follow(found.config)
            except Exception as error:  # noqa: BLE001 - whatever it is, the node goes on as it was
                lines = _complaints(error, self._environment.peers_file)
                for line in lines:
                    self._journal.say(line)
                outcome = self._failure or "reload failed: the old configuration stays in force"
                self._journal.tell("reload_failed", str(outcome), errors=lines)
                return {"schema": RELOAD_SCHEMA, "changes": [], "restart": [], "errors": lines}
        return self._tell_reload(found)

    async def _follow(self, config: Config) -> None:
        """Follow in every part. When one of them fails, all go back; a node that cannot go back stops."""
        old, udp, new_udp = self._current.config, self._current.udp, self._open_another(config)
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
        self._overlay.reconfigure(config, self._environment.clock())
        self._current.config = config
        names = names_in(config)
        self._current.names = self._current.names | names  # a peer that goes is still named by its last event
        self._filter.configure(config)
        if udp is not self._current.socket:
            self._change_socket(udp)
        self._resolver.configure(config, self._current.key)
        self._pump.flush()
        self._current.names = names

    async def _go_back(self, config: Config, udp: Underlay) -> None:
        """Put the old configuration and socket in force again. What cannot be put back ends the node."""
        try:
            self._current.config = config
            await self._follow_on_host(config)
            self._follow_here(config, udp)
        except Exception as error:  # noqa: BLE001 - the first failure is told by who called; this one ends the node
            (why, *_) = _complaints(error, self._environment.peers_file)
            self._failure = HostSetupError(
                f"reload failed: the old configuration could not be put back ({why}); the node stops"
            )
            self._fail(self._failure)

    def _open_another(self, config: Config) -> Underlay | None:
        """A socket for the new configuration, where that wants another one."""
        old, new = (listen_endpoint(each, self._current.key) for each in (self._current.config, config))
        return self._environment.open_udp(new.port, new.host) if new != old else None

    async def _follow_on_host(self, config: Config) -> None:
        side = self._environment.side
        old, side.spec = side.spec, host_spec(config, self._current.key)
        if side.spec == old:
            return
        self._filter.prepare(side.spec.filter)
        try:
            await self._keeper.reconfigure()
        except BaseException:
            side.spec = old
            self._filter.configure(self._current.config)
            raise

    def _change_socket(self, udp: Underlay) -> None:
        """The peers learn our new port as that of a peer that moved: their answers to this come to it."""
        self._current.socket = udp
        self._pump.replace_udp(udp)
        self._overlay.probe_peers(self._environment.clock())

    def _tell_reload(self, found: Reload) -> Answer:
        changes, count = found.changes, len(found.changes)
        for line in changes:
            self._journal.say(f"reload: {line}")
        text = f"reloaded: {count or 'no'} change{'s' * (count != 1)}"
        self._journal.tell("reloaded", text, changes=changes, restart=found.restart)
        return {"schema": RELOAD_SCHEMA, "changes": changes, "restart": found.restart, "errors": []}


def _complaints(error: Exception, file: Path) -> list[str]:
    """Why a reload failed, for a person."""
    if isinstance(error, ConfigError):
        return error.lines()
    if isinstance(error, L2OverlayError):
        return [str(error)]
    cause = first_cause(error)
    where = traceback.extract_tb(cause.__traceback__)[-1]
    place = f"{where.name}, {Path(where.filename).name}:{where.lineno}"
    return [f"{file}: cannot be followed: {type(cause).__name__}: {cause} (in {place}); this is a bug"]


def first_cause(error: Exception) -> Exception:
    """What a nursery wraps: the failure itself, which knows where it was."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error
