"""The filtering database (IEEE 802.1Q-2018, clause 8.8): which station lives behind which port.

A dynamic entry is learned from a source address and lives for the ageing time after it was last heard; `lookup` honours
that by itself, the sweep only frees memory. A static entry never moves, never ages and never gives way. The table is
bounded: when it is full, the port at which most stations were learned loses the one that was heard least recently (as
Open vSwitch does), so one port's flood of addresses costs the others nothing, and its own busy stations little.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from math import inf
from typing import NewType

from l2overlay.addresses import MAC_LEN
from l2overlay.dataplane.ethernet import StationKey

Port = NewType("Port", bytes)
"""The TAP (`LOCAL`) or one peer, by its static key: never a socket address, so a peer that roams keeps its stations."""

LOCAL = Port(b"local")

MAX_ENTRIES = 16_384
"""A /18 full of stations; 3.1 MiB of Python objects when all are learned (tracemalloc)."""


@dataclass(slots=True)
class Entry:
    """One station. `heard` is when it last sent, `expiry` when it is forgotten (never, for a static one)."""

    port: Port
    heard: float
    expiry: float
    frozen_until: float = 0.0
    """Until then it does not move."""

    @property
    def static(self) -> bool:
        """Set by configuration."""
        return self.expiry == inf


class FilteringDatabase:
    """Stations by key; and by port those that were learned, least recently heard first, and apart the static ones."""

    def __init__(self, ageing_time: float, max_entries: int = MAX_ENTRIES) -> None:
        """Static stations count among `max_entries`; peers.toml allows half as many."""
        self.ageing_time = ageing_time
        self.max_entries = max_entries
        self.evicted = 0
        self.version = 0
        """Another one whenever a station comes, moves or goes; not when it is heard again, and not when it expires."""
        self._entries: dict[StationKey, Entry] = {}
        self._learned: dict[Port, dict[StationKey, Entry]] = {}
        self._static: dict[Port, dict[StationKey, Entry]] = {}
        self._fullest = LOCAL
        self._most = 0
        """No port has more learned stations than this; `_fullest` had so many."""

    def __len__(self) -> int:
        return len(self._entries)

    def lookup(self, key: StationKey, now: float) -> Port | None:
        """Where the station is, or None: unknown or expired."""
        entry = self._entries.get(key)
        return entry.port if entry is not None and entry.expiry > now else None

    def learn(self, key: StationKey, port: Port, now: float) -> Port | None:
        """The station was heard at `port`. Returns the port it moved from, None when it did not move.

        A static entry at another port stays: the caller compares first with `owner`.
        """
        entry = self._entries.get(key)
        if entry is None:
            self._insert(key, Entry(port, now, now + self.ageing_time))
            return None
        if entry.expiry == inf:
            entry.heard = now
            return None
        alive, old = entry.expiry > now, entry.port
        entry.heard, entry.expiry = now, now + self.ageing_time
        if old == port:
            listed = self._learned[port]
            del listed[key]
            listed[key] = entry
            return None
        self._unlist(key, entry)
        entry.port = port
        self._list(key, entry)
        return old if alive else None

    def refresh(self, key: StationKey, port: Port, now: float) -> bool:
        """What nearly every frame finds, in one call: a learned station that was at `port` already; it is heard now.

        False: something else has to be done, and nothing was.
        """
        entry = self._entries.get(key)
        if entry is None or entry.port != port or not now < entry.expiry < inf:
            return False
        entry.heard, entry.expiry = now, now + self.ageing_time
        listed = self._learned[port]
        del listed[key]
        listed[key] = entry
        return True

    def owner(self, key: StationKey, now: float = inf) -> Port | None:
        """The only port that a static station may use, or at `now` a frozen one; None for any other station."""
        entry = self._entries.get(key)
        if entry is None or (entry.expiry != inf and entry.frozen_until <= now):
            return None
        return entry.port

    def freeze(self, key: StationKey, port: Port, until: float) -> None:
        """A learned station is at `port` and does not move before `until`."""
        entry = self._entries.get(key)
        if entry is not None and not entry.static:
            self._relist(key, entry, port, entry.expiry)
            entry.frozen_until = until

    def lock(self, key: StationKey) -> None:
        """A learned station becomes a static one."""
        if entry := self._entries.get(key):
            self._relist(key, entry, entry.port, inf)

    def unlock(self, key: StationKey, now: float) -> None:
        """A static station becomes a learned one, just heard."""
        if entry := self._entries.get(key):
            entry.heard = now
            self._relist(key, entry, entry.port, now + self.ageing_time)

    def add_static(self, key: StationKey, port: Port, now: float) -> None:
        """The station lives at `port` and nowhere else."""
        self.remove(key)
        self._insert(key, Entry(port, now, inf))

    def remove(self, key: StationKey) -> None:
        """Forget the station, static or not."""
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._unlist(key, entry)

    def forget(self, macs: Collection[bytes]) -> None:
        """Forget these stations in every VLAN, static or not."""
        for key in [key for key in self._entries if key[:MAC_LEN] in macs] if macs else ():
            self.remove(key)

    def flush(self, port: Port, *, static: bool = False) -> int:
        """Forget what was learned at `port`, and with `static` its static stations too. Returns how many went."""
        gone = [*self._learned.get(port, ()), *(self._static.get(port, ()) if static else ())]
        for key in gone:
            self.remove(key)
        return len(gone)

    def trim(self, port: Port, count: int) -> None:
        """Leave `port` at most `count` stations, static ones included: the learned ones that were heard last."""
        excess = max(0, self.count(port) - count)
        for key in self.learned_at(port)[:excess]:
            self.remove(key)

    def learned_at(self, port: Port) -> list[StationKey]:
        """The learned stations of a port, least recently heard first."""
        return list(self._learned.get(port, ()))

    def sweep(self, now: float) -> None:
        """Free the memory of expired entries."""
        for key in [key for key, entry in self._entries.items() if entry.expiry <= now]:
            self.remove(key)

    def count(self, port: Port) -> int:
        """How many stations are listed at `port`, those not yet swept included."""
        return len(self._learned.get(port, ())) + len(self._static.get(port, ()))

    def entries(self, now: float) -> Iterator[tuple[StationKey, Entry]]:
        """Everything that `lookup` would find."""
        return ((key, entry) for key, entry in self._entries.items() if entry.expiry > now)

    def _insert(self, key: StationKey, entry: Entry) -> None:
        if len(self._entries) >= self.max_entries and self._learned:
            self._evict()
        self._entries[key] = entry
        self._list(key, entry)

    def _evict(self) -> None:
        # Looking through all ports at each eviction would make a flood of addresses dear; the fullest mostly stays so.
        if len(self._learned.get(self._fullest, ())) != self._most:
            self._fullest = max(self._learned, key=lambda port: len(self._learned[port]))
            self._most = len(self._learned[self._fullest])
        self.remove(next(iter(self._learned[self._fullest])))
        self.evicted += 1

    def _list(self, key: StationKey, entry: Entry) -> None:
        self.version += 1
        listed = (self._static if entry.static else self._learned).setdefault(entry.port, {})
        listed[key] = entry
        if not entry.static and len(listed) > self._most:
            self._fullest, self._most = entry.port, len(listed)

    def _relist(self, key: StationKey, entry: Entry, port: Port, expiry: float) -> None:
        self._unlist(key, entry)
        entry.port, entry.expiry = port, expiry
        self._list(key, entry)

    def _unlist(self, key: StationKey, entry: Entry) -> None:
        self.version += 1
        by_port = self._static if entry.static else self._learned
        listed = by_port[entry.port]
        del listed[key]
        if not listed:
            del by_port[entry.port]
