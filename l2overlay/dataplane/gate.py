"""The filter gate: holds a frame until the kernel's rules know which peer its station is behind.

With one TAP the kernel cannot tell peers apart. So rules that name a peer are written by station (`linux/iptables.py`), and
the kernel's list of stations is always a little older than the switch's. The gate closes that gap, for peers in rules:

    a frame from a peer     whose station the kernel has elsewhere is held until the list is written anew, some 30 ms;
                            ARP too, so that nobody answers a station before the kernel knows it
    a frame to a peer       whose station the kernel has elsewhere was judged by the wrong rules, and is dropped; so is IP to
                            a station that nobody knows, because a flood goes to all peers
    a frame with a tag      (VLAN, PPPoE) is not looked into by iptables, and dropped unless the configuration says otherwise
    while rules are broken  nothing passes

It decides by `SWITCHED` alone, as the switch does. `loaded` says that the kernel has a new list, and returns the frames that
were held.
"""

from collections.abc import Callable, Collection, Mapping
from enum import Enum

from l2overlay import inet
from l2overlay.addresses import MacAddress
from l2overlay.counters import DropReason
from l2overlay.dataplane.ethernet import DESTINATION, ETHERTYPE, SOURCE
from l2overlay.dataplane.fdb import Port
from l2overlay.seams import Gather

UNSEEN = tuple(kind.to_bytes(2) for kind in inet.HIDE_IP)
IP_TYPES = (inet.IPV4.to_bytes(2), inet.IPV6.to_bytes(2))
MAX_HELD = 1024
"""Frames; at 30 ms a list this is what 30 000 new stations a second could send one frame each."""
MAX_WAITING = 4096
"""Stations that wait for the kernel to learn of them; more at once is a flood of addresses."""


class Held(Enum):
    """The frame may pass later."""

    HELD = "held"


HELD = Held.HELD


class FilterGate:
    """Judges frames behind the switch while a filter is in force. Calls `wanted` when the kernel needs a new list."""

    def __init__(self, wanted: Callable[[], None]) -> None:
        self._wanted = wanted
        self.followed: frozenset[Port] = frozenset()
        """The peers that rules name."""
        self.refuse_tagged = True
        self.closed = False
        """The kernel's rules are not what they should be."""
        self.follows_out = False
        """Whether rules for frames to peers name one."""
        self.known: Mapping[MacAddress, Port] = {}
        """Stations of followed peers, as the kernel has them."""
        self.waiting: dict[MacAddress, Port | None] = {}
        """Stations that the kernel has elsewhere: the followed peer that they are behind, or None."""
        self._held: list[tuple[MacAddress, Port, Gather]] = []

    def configure(
        self, followed: Collection[Port], known: Mapping[MacAddress, Port], *, out: bool, refuse_tagged: bool
    ) -> None:
        """New rules are in the kernel."""
        self.followed = frozenset(followed)
        self.follows_out = out
        self.refuse_tagged = refuse_tagged
        self.known = known
        self.waiting.clear()

    def admit_in(self, frame: bytes, peer: Port) -> DropReason | Held | None:
        """Return None if a frame from `peer` may go to the TAP, HELD if it has to wait, or the reason to drop it."""
        if self.closed:
            return DropReason.FILTER_CLOSED
        if frame[ETHERTYPE] in UNSEEN:
            return DropReason.FILTER_TAGGED if self.refuse_tagged else None
        if not self.followed:
            return None
        source = MacAddress(bytes(frame[SOURCE]))
        wanted = peer if peer in self.followed else None
        if self.known.get(source) == wanted:
            return None
        return self._wait(source, wanted)

    def admit_out(self, frame: bytes, peer: Port | None) -> DropReason | None:
        """Return None if a frame from the TAP may go to `peer` (None: to all peers), or the reason to drop it."""
        if self.closed:
            return DropReason.FILTER_CLOSED
        if frame[ETHERTYPE] in UNSEEN:
            return DropReason.FILTER_TAGGED if self.refuse_tagged else None
        if not self.follows_out or frame[10] & 1:
            return None
        if peer is None:
            return DropReason.FILTER_PENDING if frame[ETHERTYPE] in IP_TYPES else None
        destination = MacAddress(bytes(frame[DESTINATION]))
        wanted = peer if peer in self.followed else None
        if self.known.get(destination) == wanted:
            return None
        self._wait(destination, wanted)
        return DropReason.FILTER_PENDING

    def _wait(self, station: MacAddress, peer: Port | None) -> DropReason | Held:
        if station not in self.waiting and len(self.waiting) >= MAX_WAITING:
            return DropReason.FILTER_PENDING
        if station not in self.waiting:
            self._wanted()
        self.waiting[station] = peer
        return HELD

    def hold(self, frame: Gather, station: MacAddress, peer: Port) -> DropReason | None:
        """Keep a frame of which `admit_in` said HELD. Returns the reason if there is no room."""
        if len(self._held) >= MAX_HELD:
            return DropReason.FILTER_PENDING
        self._held.append((station, peer, frame))
        return None

    def loaded(
        self, known: Mapping[MacAddress, Port]
    ) -> tuple[list[tuple[Port, Gather]], list[tuple[Port, Gather]]]:
        """The kernel has this list now. Returns the frames that may pass, in order, and those that the caller drops because
        their station is behind another peer by now. What needs a newer list goes on waiting."""
        self.known = known
        self.waiting = {mac: peer for mac, peer in self.waiting.items() if known.get(mac) != peer}
        free: list[tuple[Port, Gather]] = []
        late: list[tuple[Port, Gather]] = []
        still: list[tuple[MacAddress, Port, Gather]] = []
        for mac, peer, frame in self._held:
            if mac in self.waiting:
                still.append((mac, peer, frame))
            elif known.get(mac) == (peer if peer in self.followed else None):
                free.append((peer, frame))
            else:
                late.append((peer, frame))
        self._held = still
        if self.waiting:
            self._wanted()
        return free, late

    def give_up(self) -> list[tuple[Port, Gather]]:
        """The list cannot be written. Returns the frames that were held: the caller drops them."""
        gone = [(peer, frame) for _, peer, frame in self._held]
        self._held.clear()
        self.waiting.clear()
        return gone
