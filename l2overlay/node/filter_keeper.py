"""The filter's keeper: lets the kernel's rules follow the stations, looks after them, and answers what they did.

    a station of a followed peer appears or moves    the gate holds its frames and wakes `_follow_stations`, which has the
                                                     .map chains written anew in a thread; then the frames go on
    every `CHECK_INTERVAL`                           are hooks and chains as they were? If not: an event, the gate closes,
                                                     they are put back, the gate opens

While no filter is configured there is no gate, and both loops sleep.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import trio

from l2overlay.addresses import MacAddress, PeerKey
from l2overlay.config.types import Config
from l2overlay.dataplane.fdb import Port
from l2overlay.dataplane.gate import FilterGate
from l2overlay.errors import HostSetupError, UsageError
from l2overlay.filter import words
from l2overlay.filter.model import Action, Direction
from l2overlay.filter.rules import followed_peers
from l2overlay.linux.firewall import Counted, Firewall
from l2overlay.linux.iptables import FilterSpec
from l2overlay.node.journal import Journal
from l2overlay.overlay import Overlay

FILTER_SCHEMA = "l2overlay.filter/1"
EXPLAIN_SCHEMA = "l2overlay.filter_explain/1"
GATHER_TIME = 0.005
"""Seconds to wait for the rest of what moves together: a VM with two interfaces, a switch port that comes up."""
CHECK_INTERVAL = 5.0
RETRY_TIME = 1.0
"""Seconds after a failure; whoever holds the lock is slow, not fast."""
MAX_STATIONS = 4096
"""In the kernel's list; above that, those that the switch has forgotten go."""

Answer = dict[str, Any]


class FilterKeeper:
    """Keeps one firewall. `flush` does what the overlay wants done, `put_in_order` sees to the bridge (and its flags)."""

    def __init__(
        self,
        firewall: Firewall,
        overlay: Overlay,
        journal: Journal,
        clock: Callable[[], float],
        flush: Callable[[], None],
        put_in_order: Callable[[], Awaitable[None]],
    ) -> None:
        self._firewall = firewall
        self._overlay = overlay
        self._journal = journal
        self._clock = clock
        self._flush = flush
        self._put_in_order = put_in_order
        self._wanted = trio.Event()
        self._check_wanted = trio.Event()
        self._config: Config | None = None
        self._keys: dict[str, PeerKey] = {}
        self._seen: dict[int, dict[str, Counted]] = {}
        self.troubles: tuple[str, ...] = ()
        """What is wrong now, one sentence each."""

    # -- which rules are in force ----------------------------------------------------------------------------------

    def prepare(self, wanted: FilterSpec | None) -> None:
        """Other rules are about to be installed: hold the frames of every peer that the old or the new ones name."""
        if wanted is None or self._config is None:
            return
        gate = self._overlay.gate or FilterGate(self._want)
        gate.followed |= frozenset(Port(self._keys[name]) for name in wanted.followed if name in self._keys)
        self._overlay.gate = gate

    def configure(self, config: Config) -> None:
        """The firewall has installed what `config` asks for, or removed it, or kept what it had."""
        self._config = config
        self._keys = {peer.name: peer.public_key for peer in config.peers}
        spec = self._firewall.spec
        if spec is None:
            if self._overlay.gate is not None:
                self._overlay.gate.configure((), {}, out=False, refuse_tagged=False)
                self._overlay.filter_loaded({})
                self._overlay.gate = None
            self.troubles = ()
            return
        gate = self._overlay.gate or FilterGate(self._want)
        self._overlay.gate = gate
        follows_out = bool(followed_peers(spec.config, spec.own, Direction.OUT))
        followed = [Port(self._keys[name]) for name in spec.followed if name in self._keys]
        known = {mac: Port(key) for mac, key in self._known().items()}
        refuse_tagged = spec.config.tagged is Action.DROP
        gate.configure(followed, known, out=follows_out, refuse_tagged=refuse_tagged)
        self._overlay.filter_loaded(self._known())
        self._check_wanted.set()

    def _known(self) -> dict[MacAddress, PeerKey]:
        stations = self._firewall.stations
        return {mac: self._keys[name] for mac, name in stations.items() if name in self._keys}

    # -- the stations ----------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Follow and check until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._follow_stations)
            nursery.start_soon(self._check_again_and_again)

    def _want(self) -> None:
        self._wanted.set()

    async def _follow_stations(self) -> None:
        while True:
            await self._wanted.wait()
            await trio.sleep(GATHER_TIME)
            self._wanted = trio.Event()
            if not await self._load_stations():
                await trio.sleep(RETRY_TIME)

    async def _load_stations(self) -> bool:
        gate = self._overlay.gate
        if gate is None or self._firewall.spec is None:
            return True
        stations = self._stations_wanted(gate.waiting)
        try:
            await trio.to_thread.run_sync(self._firewall.move, stations)
        except (HostSetupError, OSError) as error:
            self._overlay.filter_failed()
            self._tell_trouble(f"the filter does not know where stations are: {error}")
            self._check_wanted.set()
            return False
        self._overlay.filter_loaded(self._known())
        self._flush()
        return True

    def _stations_wanted(self, waiting: Mapping[MacAddress, Port | None]) -> dict[MacAddress, str]:
        names = {Port(key): name for name, key in self._keys.items()}
        stations = dict(self._firewall.stations)
        for mac, port in waiting.items():
            stations.pop(mac, None)
            if port is not None and port in names:
                stations[mac] = names[port]
        if len(stations) > MAX_STATIONS:
            alive = {entry.mac for entry in self._overlay.stations(self._clock())} | set(waiting)
            stations = {mac: name for mac, name in stations.items() if mac in alive}
        return stations

    # -- the rules -------------------------------------------------------------------------------------------------

    async def _check_again_and_again(self) -> None:
        while True:
            if self._firewall.spec is None:
                await self._check_wanted.wait()
            self._check_wanted = trio.Event()
            ok = await self.check()
            with trio.move_on_after(CHECK_INTERVAL if ok else RETRY_TIME):
                await self._check_wanted.wait()

    async def check(self) -> bool:
        """Look at hooks and chains, and put back what is lost; whether all is well in the end."""
        try:
            problems, self._seen = await trio.to_thread.run_sync(self._firewall.look)
            if problems:
                await self._repair(problems)
        except (HostSetupError, OSError) as error:
            self._tell_trouble(f"the filter cannot be kept: {error}")
            return False
        self._open_again()
        return True

    def _open_again(self) -> None:
        gate = self._overlay.gate
        if gate is not None and gate.closed:
            gate.closed = False
            self._overlay.filter_loaded(self._known())
            self._flush()
            self._journal.tell("filter_repaired", "filter: all rules are in place again")
        self.troubles = ()

    async def _repair(self, problems: list[str]) -> None:
        """Nothing passes until it is done: what is left of the rules may let anything through."""
        gate = self._overlay.gate
        if gate is not None:
            gate.closed = True
        self._journal.tell("filter_lost", f"filter: {'; '.join(problems)}", problems=problems)
        await trio.to_thread.run_sync(self._firewall.repair)
        await self._put_in_order()

    def _tell_trouble(self, trouble: str) -> None:
        if self.troubles != (trouble,):
            self.troubles = (trouble,)
            self._journal.tell("filter_trouble", f"degraded: {trouble}")

    # -- answers ---------------------------------------------------------------------------------------------------

    def status(self) -> Answer | None:
        """For `status`: as of the last check. None when nothing is filtered."""
        spec = self._firewall.spec
        if spec is None:
            return None
        return {
            "variant": self._firewall.variant,
            "rules": len(spec.config.rules),
            "stations": len(self._firewall.stations),
            "held_back": len(self._overlay.gate.waiting) if self._overlay.gate is not None else 0,
            "dropped": _refused(spec, self._seen),
            "ok": not self.troubles,
        }

    async def show(self) -> Answer:
        """All rules in words, with what they have seen."""
        spec = self._firewall.spec
        head: Answer = {"schema": FILTER_SCHEMA, "active": spec is not None, "rules": []}
        if spec is None:
            return head
        problems, seen = await trio.to_thread.run_sync(self._firewall.look)
        rules = [
            {
                "direction": str(side),
                "label": label,
                "rule": text,
                "comment": comment,
                **_counts(label, seen, side),
            }
            for side in spec.directions
            for label, text, comment in [*words.BUILT_IN, *words.table(spec.config, side)]
        ]
        stations = self._firewall.stations.values()
        return {
            **head,
            "segment": spec.segment,
            "node": spec.own,
            "variant": self._firewall.variant,
            "rules": rules,
            "stations": {name: sum(n == name for n in stations) for name in sorted(spec.followed)},
            "problems": [*problems, *self.troubles],
        }

    def explain(self, text: str) -> Answer:
        """Which rule would decide about a frame that is described or given in hex. Raises UsageError."""
        config, spec = self._config, self._firewall.spec
        assert config is not None  # configured before the control socket answers
        filtering = spec.config if spec is not None else config.filter
        if spec is None or filtering is None:
            raise UsageError(
                "nothing is filtered on this node: peers.toml has no [filter], or one that accepts all"
            )
        names = {key: name for name, key in self._keys.items()}
        behind = {e.mac: e.peer for e in self._overlay.stations(self._clock())}

        def where(mac: MacAddress) -> str | None:
            key = behind.get(mac)
            return names.get(key) if key is not None else None

        verdicts = words.explain_text(
            filtering, spec.own, text, tuple(self._keys), where, self._firewall.variant
        )
        return {"schema": EXPLAIN_SCHEMA, "node": spec.own, "verdicts": verdicts}


def _counts(label: str, seen: Mapping[int, Mapping[str, Counted]], side: Direction) -> Answer:
    found: Answer = {}
    for version in (4, 6):
        counted = seen.get(version, {}).get(f"{side} {label}", Counted())
        found[f"ipv{version}"] = {"frames": counted.frames, "bytes": counted.size}
    return found


def _refused(spec: FilterSpec, seen: Mapping[int, Mapping[str, Counted]]) -> dict[str, int]:
    """Frames by the label of what dropped or rejected them."""
    refusing = (str(Action.DROP), str(Action.REJECT))
    found: dict[str, int] = {}
    for side in spec.directions:
        for label, text, _ in words.table(spec.config, side):
            key = f"{side} {label}"
            frames = sum(counted.get(key, Counted()).frames for counted in seen.values())
            if frames and text.startswith(refusing):
                found[f"{side}: {label}"] = frames
    return found
