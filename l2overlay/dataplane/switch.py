"""The switch: what one frame's addresses say about where it goes (IEEE 802.1Q-2018, clause 8.6; split horizon).

Two directions, because peers are one split-horizon group: a frame from the TAP goes to one peer or to all of them, a
frame from a peer goes to the TAP or nowhere. Both learn the source first. Both decide from `SWITCHED` alone (addresses
and tag), so a batch that was read at one instant asks once per distinct header and not once per frame.
"""

from collections.abc import Collection
from enum import Enum

from l2overlay.addresses import MacAddress
from l2overlay.counters import DropReason
from l2overlay.dataplane.ethernet import (
    DESTINATION,
    NULL_MAC,
    SOURCE,
    StationKey,
    is_group,
    is_reserved,
    station_key,
    vlan_id,
)
from l2overlay.dataplane.fdb import LOCAL, FilteringDatabase, Port


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

    def forward_from_tap(self, frame: bytes, now: float) -> Decision:
        """Where a frame that the TAP gave goes: a peer, all peers, or nowhere for a reason."""
        destination, source = frame[DESTINATION], frame[SOURCE]
        refused = self._refuse(destination, source)
        if refused is not None:
            return refused
        vlan = vlan_id(frame)
        refused = self._learn(station_key(source, vlan), LOCAL, now)
        if refused is not None:
            return refused
        if is_group(destination):
            return FLOOD
        port = self.fdb.lookup(station_key(destination, vlan), now)
        if port is None:
            return FLOOD
        return DropReason.LOCAL_DESTINATION if port == LOCAL else port

    def forward_from_peer(self, frame: bytes, peer: Port, now: float) -> DropReason | None:
        """Whether a frame that `peer` sent reaches the TAP (None), or why not.

        A frame for a station behind a third peer is delivered too: its sender's table is older than ours, and the
        bridge floods what it does not know; filtering it would blackhole a station that has just moved here.
        """
        destination, source = frame[DESTINATION], frame[SOURCE]
        refused = self._refuse(destination, source)
        if refused is not None:
            return refused
        if source in self.own_macs:
            return DropReason.SPOOFED_STATION
        return self._learn(station_key(source, vlan_id(frame)), peer, now)

    @staticmethod
    def _refuse(destination: bytes, source: bytes) -> DropReason | None:
        if is_reserved(destination):
            return DropReason.RESERVED_ADDRESS
        if is_group(source) or source == NULL_MAC:
            return DropReason.GROUP_SOURCE
        return None

    def _learn(self, station: StationKey, port: Port, now: float) -> DropReason | None:
        owner = self.fdb.owner(station)
        if owner is not None and owner != port:
            return DropReason.SPOOFED_STATION
        old = self.fdb.learn(station, port, now)
        if old is not None:
            self.moves.append((station, old, port))
        return None
