"""What the core tells its shell: plain data, in the order in which it happened."""

from dataclasses import dataclass

from l2overlay.addresses import Address, MacAddress, PeerKey


@dataclass(frozen=True, slots=True)
class PeerUp:
    """A session with this peer is confirmed in both directions."""

    peer: PeerKey
    address: Address


@dataclass(frozen=True, slots=True)
class PeerDown:
    """No session any more; its stations are flushed. `reason` is a short phrase for a person."""

    peer: PeerKey
    reason: str


@dataclass(frozen=True, slots=True)
class PeerMoved:
    """The peer proved a new underlay address (roaming); its stations stay."""

    peer: PeerKey
    old: Address | None
    new: Address


@dataclass(frozen=True, slots=True)
class PeerUnanswered:
    """The peer's endpoint has not answered `attempts` INITs; the shell may resolve its name again."""

    peer: PeerKey
    attempts: int


@dataclass(frozen=True, slots=True)
class PathSizeChanged:
    """The largest datagram (UDP payload, bytes) that reaches this peer is now known to be `datagram_size`."""

    peer: PeerKey
    datagram_size: int


@dataclass(frozen=True, slots=True)
class StationMoved:
    """A station was learned at another port than before. None is the local side (TAP)."""

    mac: MacAddress
    vlan: int
    old: PeerKey | None
    new: PeerKey | None


Event = PeerUp | PeerDown | PeerMoved | PeerUnanswered | PathSizeChanged | StationMoved
