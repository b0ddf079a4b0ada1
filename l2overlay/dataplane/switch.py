"""The switch: decides by a frame's addresses where it goes (IEEE 802.1Q-2018, clause 8.6; split horizon).

The peers are one split-horizon group. So a frame from the TAP goes to one peer or to all of them, and a frame from a peer
goes to the TAP or nowhere. Both directions learn the source first. Both decide by `SWITCHED` alone (addresses and tag), so
the forwarder asks once for each distinct header of a batch and not once for each frame.
"""

from collections.abc import Collection
from enum import Enum

from l2overlay.addresses import MAC_LEN, MacAddress
from l2overlay.counters import DropReason
from l2overlay.dataplane.ethernet import (
    BPDU_ADDRESSES,
    DESTINATION,
    ETHERTYPE,
    LINK_LOCAL,
    NULL_MAC,
    PROBE_GROUP,
    PROBE_TYPE,
    SOURCE,
    StationKey,
    is_group,
    station_key,
    vlan_id,
)
from l2overlay.dataplane.fdb import LOCAL, FilteringDatabase, Port
from l2overlay.dataplane.protect.port_security import FREEZE_TIME, Freeze, MoveDamping, PortSecurity
from l2overlay.dataplane.reserved import Neighbourly, is_reserved


class Flood(Enum):
    """Broadcast, multicast or unknown unicast: a copy to every peer with a session."""

    ALL = "all"


FLOOD = Flood.ALL
Decision = Port | Flood | DropReason


class Switch:
    """Learning and forwarding over one filtering database."""

    def __init__(self, fdb: FilteringDatabase, own_macs: Collection[MacAddress] = ()) -> None:
        self.fdb = fdb
        self.own_macs = frozenset(own_macs)
        self.moves: list[tuple[StationKey, Port, Port]] = []
        """Stations that were heard at another port than before: (station, old, new). The caller empties the list."""
        self.freezes: list[Freeze] = []
        """Stations that moved too often. The caller empties the list."""
        self.security: PortSecurity | None = None
        self.bpdu_passes = True
        self.reserved_passes: Neighbourly = frozenset()
        self.damping = MoveDamping()

    def forward_from_tap(self, frame: bytes, now: float) -> Decision:
        """Where a frame from the TAP goes: to a peer, to all peers, or nowhere for a reason."""
        destination, source = frame[DESTINATION], frame[SOURCE]
        refused = self._refuse(destination, source, frame)
        if refused is not None:
            return refused
        vlan = vlan_id(frame)
        refused = self._learn(station_key(source, vlan), LOCAL, now)
        if refused is not None:
            return refused
        port = None if destination[0] & 1 else self._find(destination, vlan, now)
        if self.security is not None and self.security.keeps_apart(source, LOCAL, destination, port):
            return DropReason.ISOLATED
        if port is None:
            return FLOOD
        return DropReason.LOCAL_DESTINATION if port == LOCAL else port

    def forward_from_peer(self, frame: bytes, peer: Port, now: float) -> DropReason | None:
        """Return None if a frame from `peer` passes to the TAP, or the reason if it does not.

        A frame for a station that is behind a third peer passes, too: the sender's table may be newer than ours. If the
        switch dropped it, a station that has just moved here would not be reached.
        """
        destination, source = frame[DESTINATION], frame[SOURCE]
        refused = self._refuse(destination, source, frame)
        if refused is not None:
            return refused
        if source in self.own_macs:
            return DropReason.SPOOFED_STATION
        if self.security is not None and self.security.keeps_apart(source, peer, destination, LOCAL):
            return DropReason.ISOLATED
        return self._learn(station_key(source, vlan_id(frame)), peer, now)

    def is_flooded(self, frame: bytes, now: float) -> bool:
        """Whether the bridge has to flood a frame from a peer, as far as the node knows."""
        destination = frame[DESTINATION]
        return is_group(destination) or self._find(destination, vlan_id(frame), now) != LOCAL

    def _find(self, destination: bytes, vlan: int, now: float) -> Port | None:
        """The port of a station, if it is known. A static address holds in every VLAN, also where the station never sent."""
        port = self.fdb.lookup(station_key(destination, vlan), now)
        return self.fdb.owner(StationKey(destination)) if port is None and vlan else port

    def _refuse(self, destination: bytes, source: bytes, frame: bytes) -> DropReason | None:
        # One comparison for all but link-local traffic.
        if destination[:3] in LINK_LOCAL:
            refused = self._refuse_link_local(destination, frame)
            if refused is not None:
                return refused
        if source[0] & 1 or source == NULL_MAC:
            return DropReason.GROUP_SOURCE
        return None

    def _refuse_link_local(self, destination: bytes, frame: bytes) -> DropReason | None:
        if is_reserved(destination) and (frame[ETHERTYPE], destination[5]) not in self.reserved_passes:
            return DropReason.RESERVED_ADDRESS
        if destination in BPDU_ADDRESSES and not self.bpdu_passes:
            return DropReason.BPDU_REFUSED
        if destination == PROBE_GROUP and frame[ETHERTYPE] == PROBE_TYPE:
            return DropReason.LOOP_PROBE
        return None

    def _learn(self, station: StationKey, port: Port, now: float) -> DropReason | None:
        fdb = self.fdb
        if len(station) == MAC_LEN and self.security is None and fdb.refresh(station, port, now):
            return None
        owner = fdb.owner(station, now)
        if owner is None and len(station) > MAC_LEN:
            owner = fdb.owner(StationKey(station[:MAC_LEN]))  # a static address holds in every VLAN
        if owner is not None and owner != port:
            frozen = fdb.owner(station) is None and fdb.owner(station, now) is not None
            return DropReason.FROZEN_STATION if frozen else DropReason.SPOOFED_STATION
        if self.security is None:
            old = fdb.learn(station, port, now)
        else:
            refused = self.security.refuse(fdb, station, port, now)
            if refused is not None:
                return refused
            old = self._learn_and_lock(self.security, station, port, now)
        return None if old is None else self._moved(station, old, port, now)

    def _learn_and_lock(
        self, security: PortSecurity, station: StationKey, port: Port, now: float
    ) -> Port | None:
        before = self.fdb.lookup(station, now)
        old = self.fdb.learn(station, port, now)
        if before is None:
            security.learned(self.fdb, station, port)
        return old

    def _moved(self, station: StationKey, old: Port, port: Port, now: float) -> DropReason | None:
        freeze = self.damping.moved(station, old, port, now)
        if freeze is None:
            self.moves.append((station, old, port))
            return None
        self.fdb.freeze(station, freeze.port, now + FREEZE_TIME)
        self.freezes.append(freeze)
        return None if freeze.port == port else DropReason.FROZEN_STATION
