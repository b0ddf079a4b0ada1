"""Port security: which stations may be behind a port, and how restless one may be.

A port's rules come from its peer's stanza (`macs`, `learn`, `max_macs`); isolation from `[protect]`. The switch asks
before it learns a station that is new at a port. Move damping needs no configuration: a station that moves five times
in ten seconds is in two places (a loop, two machines with one address, a thief), and stays where it was for a minute.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from l2overlay.addresses import MacAddress, PeerKey
from l2overlay.config.types import Config, Learn, Party, PeerConfig
from l2overlay.counters import DropReason
from l2overlay.dataplane.ethernet import StationKey
from l2overlay.dataplane.fdb import LOCAL, FilteringDatabase, Port

MOVE_LIMIT = 5
MOVE_WINDOW = 10.0
FREEZE_TIME = 60.0
"""Seconds: five moves in ten freeze a station for sixty. A live migration is one move, a flapping VRRP pair two or three."""
MAX_MOVERS = 4096
"""Stations whose moves are remembered; the one that began to move first gives way."""

DEFAULT_LOCKED = 256
"""`max_macs` of a port with learn = "locked" that does not say: what is locked never gives way to others."""
MAX_LOCKED = 4096
"""Over all ports. With 8192 static stations a quarter of the FDB is left for learning."""


@dataclass(frozen=True, slots=True)
class PortRules:
    """One stanza's."""

    learn: Learn = Learn.ON
    max_macs: int | None = None


@dataclass(slots=True)
class PortSecurity:
    """The rules of all ports that have any, and who may not talk to whom."""

    rules: dict[Port, PortRules] = field(default_factory=dict)
    apart_ports: frozenset[Port] = frozenset()
    apart_macs: frozenset[MacAddress] = frozenset()
    locked: dict[StationKey, Port] = field(default_factory=dict)
    """Stations that were learned at a port with learn = "locked"."""

    def refuse(
        self, fdb: FilteringDatabase, station: StationKey, port: Port, now: float
    ) -> DropReason | None:
        """Why a station may not send from this port, or None."""
        rules = self.rules.get(port)
        if rules is None or fdb.lookup(station, now) == port or fdb.owner(StationKey(station[:6])) == port:
            return None
        if rules.learn is Learn.OFF:
            return DropReason.UNKNOWN_STATION
        if rules.max_macs is not None and fdb.count(port) >= rules.max_macs:
            return DropReason.STATION_LIMIT
        return None

    def learned(self, fdb: FilteringDatabase, station: StationKey, port: Port) -> None:
        """A station that was nowhere is at this port now."""
        rules = self.rules.get(port)
        if rules is not None and rules.learn is Learn.LOCKED and len(self.locked) < MAX_LOCKED:
            fdb.lock(station)
            self.locked[station] = port

    def keeps_apart(self, source: bytes, source_port: Port, destination: bytes, port: Port | None) -> bool:
        """Whether isolation forbids this frame; `port` is None for one that is flooded."""
        return (source in self.apart_macs or source_port in self.apart_ports) and (
            destination in self.apart_macs or port in self.apart_ports
        )

    def inherit(self, old: "PortSecurity", fdb: FilteringDatabase, now: float) -> None:
        """Take over what an earlier configuration locked and this one still locks; the rest is learned as any other."""
        for station, port in old.locked.items():
            rules = self.rules.get(port)
            if rules is not None and rules.learn is Learn.LOCKED:
                self.locked[station] = port
            elif fdb.owner(station) == port:
                fdb.unlock(station, now)

    def enforce(self, old: "PortSecurity", fdb: FilteringDatabase) -> None:
        """Let rules that are other than before hold for the stations that are known already, after `inherit`."""
        for port, rules in self.rules.items():
            if rules == old.rules.get(port):
                continue
            if rules.learn is Learn.OFF:
                fdb.flush(port)
            elif rules.max_macs is not None:
                fdb.trim(port, rules.max_macs)
            if rules.learn is Learn.LOCKED:
                for station in fdb.learned_at(port):
                    self.learned(fdb, station, port)


def port_security(config: Config, own: PeerKey) -> PortSecurity | None:
    """What the configuration asks of one node's switch; None when it asks nothing."""
    rules = {_port(peer.public_key, own): _rules(peer) for peer in config.peers if _has_rules(peer)}
    apart = (config.protect.isolation if config.protect is not None else None) or Party()
    if not rules and not apart.peers and not apart.macs:
        return None
    return PortSecurity(rules, frozenset(_port(key, own) for key in apart.peers), apart.macs)


def isolated_peers(config: Config, own: PeerKey) -> frozenset[Port]:
    """Peers that this node does not talk to at all, because both are in the list."""
    apart = config.protect.isolation if config.protect is not None else None
    if apart is None or own not in apart.peers:
        return frozenset()
    return frozenset(Port(key) for key in apart.peers if key != own)


def _port(key: PeerKey, own: PeerKey) -> Port:
    return LOCAL if key == own else Port(key)


def _has_rules(peer: PeerConfig) -> bool:
    return peer.learn is not Learn.ON or peer.max_macs is not None


def _rules(peer: PeerConfig) -> PortRules:
    locked = peer.learn is Learn.LOCKED
    return PortRules(peer.learn, peer.max_macs or (DEFAULT_LOCKED if locked else None))


@dataclass(frozen=True, slots=True)
class Freeze:
    """A station stays at `port` and is not heard at `other`, for `FREEZE_TIME`."""

    station: StationKey
    port: Port
    other: Port


class MoveDamping:
    """Counts the moves of each station that moves."""

    def __init__(self) -> None:
        self._movers: dict[StationKey, tuple[Port, list[float]]] = {}

    def moved(self, station: StationKey, old: Port, new: Port, now: float) -> Freeze | None:
        """The station moved; what to do when that was once too often."""
        home, times = self._movers.pop(station, (old, []))
        recent = [time for time in times if time > now - MOVE_WINDOW]
        if not recent:
            home = old
        recent.append(now)
        if len(recent) < MOVE_LIMIT:
            self._movers[station] = (home, recent)
            if len(self._movers) > MAX_MOVERS:
                del self._movers[next(iter(self._movers))]
            return None
        return Freeze(station, home, new if new != home else old)

    def forget(self, stations: Iterable[StationKey] | None = None) -> None:
        """Nothing is known against them; None: against nobody."""
        for station in list(self._movers) if stations is None else stations:
            self._movers.pop(station, None)
