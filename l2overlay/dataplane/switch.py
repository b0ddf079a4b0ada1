"""The switch: what one frame's addresses say about where it goes (IEEE 802.1Q-2018, clause 8.6; split horizon).

Two directions, because peers are one split-horizon group: a frame from the TAP goes to one peer or to all of them, a
frame from a peer goes to the TAP or nowhere. Both learn the source first. Both decide from `SWITCHED` alone (addresses
and tag), so a batch that was read at one instant asks once per distinct header and not once per frame.
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
        """Stations that were heard at another port than before: (station, old, new); the caller empties it."""
        self.freezes: list[Freeze] = []
        """Stations that moved too often; the caller empties it."""
        self.security: PortSecurity | None = None
        self.bpdu_passes = True
        self.reserved_passes: Neighbourly = frozenset()
        self.damping = MoveDamping()

    def forward_from_tap(self, frame: bytes, now: float) -> Decision:
        """Where a frame that the TAP gave goes: a peer, all peers, or nowhere for a reason."""
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
        """Whether a frame that `peer` sent reaches the TAP (None), or why not.

        A frame for a station behind a third peer is delivered too: its sender's table is older than ours, and the
        bridge floods what it does not know; filtering it would blackhole a station that has just moved here.
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
        """Whether the bridge has to flood a frame from a peer, as far as we know."""
        destination = frame[DESTINATION]
        return is_group(destination) or self._find(destination, vlan_id(frame), now) != LOCAL

    def _find(self, destination: bytes, vlan: int, now: float) -> Port | None:
        """Where a station is. A static address belongs to its station in every VLAN, also where it has never sent."""
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
            owner = fdb.owner(
                StationKey(station[:MAC_LEN])
            )  # a static address is its station's in every VLAN
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
