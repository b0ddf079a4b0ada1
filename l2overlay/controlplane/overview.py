"""What `status` reads of a node: its peers and its stations at one instant."""

from dataclasses import dataclass
from math import inf

from l2overlay.addresses import Address, MacAddress, PeerKey
from l2overlay.controlplane.peer import Peer
from l2overlay.counters import Counters


@dataclass(frozen=True, slots=True)
class PeerStatus:
    """One peer as `status` shows it. Times are ages in seconds."""

    key: PeerKey
    name: str
    endpoint: Address | None
    up: bool
    reason: str
    """Why it is down, or empty."""
    next_try: float | None
    """Seconds until the next INIT of a peer that is down."""
    rtt: float | None
    last_heard: float | None
    session_age: float | None
    datagram_size: int
    path_too_small: bool
    """The path does not carry the smallest datagram that it must: larger frames are lost."""
    cars: int
    """Datagrams that may be sealed as one; 1 on a path that loses, and on one that has not carried much yet."""
    stations: int
    queued_frames: int
    counters: Counters
    two_hosts: tuple[Address, Address] | None = None
    """Addresses of two hosts that seem to have this peer's key."""
    left: float | None = None
    """Seconds since it said that it leaves, until it comes back."""
    mtu: int = 0
    """Of its segment, as it said; 0 when it did not say."""


@dataclass(frozen=True, slots=True)
class FdbEntry:
    """One learned or static station. `peer` is None for the local side."""

    mac: MacAddress
    vlan: int
    peer: PeerKey | None
    static: bool
    age: float
    """Seconds since it was last heard."""


def peer_status(peer: Peer, stations: int, now: float) -> PeerStatus:
    """How a peer is. `stations` is how many are known behind it."""
    way = peer.paths.used
    waiting = not peer.up and peer.dialling.next_init < inf
    return PeerStatus(
        key=peer.key,
        name=peer.config.name,
        endpoint=peer.link.endpoint,
        up=peer.up,
        reason=peer.reason,
        next_try=max(0.0, peer.dialling.next_init - now) if waiting else None,
        rtt=peer.liveness.rtt,
        last_heard=None if peer.liveness.last_heard is None else now - peer.liveness.last_heard,
        session_age=None if peer.link.current is None else now - peer.link.current.created_time,
        datagram_size=way.mtu.size,
        path_too_small=way.mtu.is_too_small,
        cars=way.trains.cars,
        stations=stations,
        queued_frames=len(peer.link.waiting),
        counters=peer.counters,
        two_hosts=peer.paths.two_hosts(now),
        left=None if peer.left_time is None else now - peer.left_time,
        mtu=peer.mtu if peer.up else 0,
    )
