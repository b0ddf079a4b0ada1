"""One node of a segment, without I/O: bytes in, bytes out, time and chance as arguments.

The shell (`node.py`, the simulator, a fuzzer, a test) calls in this order, as often as it likes:

    overlay.receive_frames(frames, now)        frames read from the TAP
    overlay.receive_datagrams(bursts, now)     datagrams read from the UDP socket
    overlay.handle_timer(now)                  when `next_timer()` has come
    overlay.bursts_to_send()                   then always: what goes to the UDP socket ...
    overlay.frames_to_deliver()                ... and to the TAP ...
    overlay.next_event()                       ... and what happened

Skeleton: the methods are filled in next; their contracts stand.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from l2overlay.addresses import Address, MacAddress, PeerKey
from l2overlay.config import Config
from l2overlay.controlplane.events import Event
from l2overlay.counters import Counters
from l2overlay.seams import Burst, Gather, TapFrame


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
    stations: int
    queued_frames: int
    counters: Counters


@dataclass(frozen=True, slots=True)
class FdbEntry:
    """One learned or static station. `peer` is None for the local side."""

    mac: MacAddress
    vlan: int
    peer: PeerKey | None
    static: bool
    age: float
    """Seconds since it was last heard."""


class Overlay:
    """One node. Not thread-safe and needs not be: no method waits."""

    def __init__(
        self,
        config: Config,
        private_key: bytes,
        *,
        now: float,
        wall_clock: float,
        last_stamp: int = 0,
        random: Callable[[int], bytes],
        own_macs: Sequence[MacAddress] = (),
    ) -> None:
        """`now` is monotonic seconds; `wall_clock` Unix seconds at the same instant (for the INIT stamp only);
        `last_stamp` the highest stamp an earlier run of this key can have used (persist `stamp` of a stopped or killed run);
        `random(n)` n unpredictable bytes; `own_macs` addresses of our own TAP and bridge, never learned from a peer.
        Raises ConfigError when the key's own stanza is missing."""
        raise NotImplementedError

    counters: Counters
    """Of the node as a whole; each peer's are in its `PeerStatus`."""

    def receive_frames(self, frames: Sequence[TapFrame], now: float) -> None:
        """Frames from the TAP."""

    def receive_datagrams(self, bursts: Sequence[Burst], now: float) -> None:
        """Datagrams from the underlay; never raises for anything in them."""

    def bursts_to_send(self) -> list[Burst]:
        """What must leave now; empties the outbox."""
        raise NotImplementedError

    def frames_to_deliver(self) -> list[Gather]:
        """What must be written to the TAP now; empties the list."""
        raise NotImplementedError

    def next_timer(self) -> float | None:
        """When `handle_timer` wants to be called, in the time of `now`."""
        raise NotImplementedError

    def handle_timer(self, now: float) -> None:
        """Retries, rekeys, keepalives, expiries: all that is due at `now`."""

    def next_event(self) -> Event | None:
        """The oldest event not yet told."""
        raise NotImplementedError

    def set_endpoint(self, peer: PeerKey, address: Address | None, now: float) -> None:
        """The shell resolved (or re-resolved) the peer's endpoint. Starts a handshake when there is no session."""

    def set_path_limit(self, peer: PeerKey, datagram_size: int, now: float) -> None:
        """The local interface towards the peer takes datagrams (UDP payload) of at most this size."""

    def probe_peers(self, now: float) -> None:
        """The underlay changed (address, route, link): try every peer at once instead of at its next timer."""

    def reconfigure(self, config: Config, now: float) -> None:
        """Take a new peers.toml: only peers that differ are touched. Removed peers: BYE, session gone, stations flushed."""

    def leave(self, now: float) -> None:
        """Queue a BYE to every peer that has a session."""

    @property
    def stamp(self) -> int:
        """The highest INIT stamp used so far."""
        raise NotImplementedError

    def peers(self, now: float) -> list[PeerStatus]:
        """Every configured peer but ourselves, in the file's order."""
        raise NotImplementedError

    def stations(self, now: float) -> list[FdbEntry]:
        """The filtering database without expired entries, remote and local."""
        raise NotImplementedError
