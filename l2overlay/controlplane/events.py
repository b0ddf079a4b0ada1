"""What the core tells its shell: plain data, in the order in which it happened."""

from dataclasses import dataclass
from enum import StrEnum

from l2overlay.addresses import Address, MacAddress, PeerKey
from l2overlay.counters import DropReason


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
class PeerOnTwoHosts:
    """The peer goes to and fro between two addresses that both answer: two hosts have its key."""

    peer: PeerKey
    address: Address
    other: Address


@dataclass(frozen=True, slots=True)
class PeerUnanswered:
    """The peer's endpoint has not answered `attempts` INITs; the shell may resolve its name again."""

    peer: PeerKey
    attempts: int


class Cause(StrEnum):
    """Why a handshake came to nothing."""

    WRONG_KEY = "wrong_key"
    """The caller uses a public key for us that is not ours."""
    UNKNOWN_KEY = "unknown_key"
    """A genuine call of a key that is in no stanza."""
    OTHER_SUITE = "other_suite"
    OTHER_SEGMENT = "other_segment"
    """The segment's name differs, or the version of the protocol."""
    STALE_STAMP = "stale_stamp"
    """A known key, and a stamp that is not newer than its last."""
    OTHER_PSK = "other_psk"
    """The answer to our own call could not be read."""
    UNUSED_ANSWER = "unused_answer"
    """A known key calls again and again, and never uses our answers."""


@dataclass(frozen=True, slots=True)
class HandshakeRefused:
    """A handshake with `address` came to nothing, and we know why. `peer` is the other's key where it is known."""

    cause: Cause
    address: Address
    peer: PeerKey | None


@dataclass(frozen=True, slots=True)
class MtuDiffers:
    """The peer came up, and its segment has another MTU than ours: large frames are lost."""

    peer: PeerKey
    theirs: int
    ours: int


@dataclass(frozen=True, slots=True)
class PathTooSmall:
    """The path to this peer does not carry the smallest datagram that every path must carry (`BASE_SIZE`)."""

    peer: PeerKey


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


@dataclass(frozen=True, slots=True)
class StationFrozen:
    """A station moved to and fro: for a minute it stays at `port` and is not heard at `other`."""

    mac: MacAddress
    vlan: int
    port: PeerKey | None
    other: PeerKey | None


@dataclass(frozen=True, slots=True)
class FrameRefused:
    """Protection dropped a frame of this station. Told at once, and again after a while with how many more there were."""

    reason: DropReason
    peer: PeerKey | None
    """Whom the frame came from. None is the local side (TAP)."""
    mac: MacAddress
    detail: str
    """What the frame was about, for a person; may be empty."""
    more: int


@dataclass(frozen=True, slots=True)
class StormStarted:
    """More is flooded from this port than may be; the rest is dropped."""

    peer: PeerKey | None
    kind: str
    """broadcast, multicast or unknown unicast."""


@dataclass(frozen=True, slots=True)
class StormEnded:
    """For a while nothing had to be dropped any more."""

    peer: PeerKey | None
    kind: str
    dropped: int
    seconds: float


@dataclass(frozen=True, slots=True)
class LoopFound:
    """Our LAN and the peer's are joined by another path, so nothing passes between them here. None: our LAN is a loop."""

    peer: PeerKey | None
    carrier: PeerKey | None
    """Who carries for both LANs from now on; None is this node."""
    probe: MacAddress | None = None
    """Of a loop in our LAN, the source of what came back; the bridge knows by which port."""


@dataclass(frozen=True, slots=True)
class ProbeRepeated:
    """Something in our LAN repeats the loop guard's probes, and no other flood: a station, and no second path."""

    probe: MacAddress
    """Their source; the bridge knows by which port they came back."""


@dataclass(frozen=True, slots=True)
class LoopHealed:
    """The other path is gone, and frames pass here again."""

    peer: PeerKey | None
    seconds: float
    """How long it was blocked."""


@dataclass(frozen=True, slots=True)
class DatagramReturned:
    """A datagram of ours came back from the TAP, and was dropped: the route to a peer leads into the bridge."""


Event = (
    PeerUp
    | PeerDown
    | PeerMoved
    | PeerOnTwoHosts
    | PeerUnanswered
    | HandshakeRefused
    | MtuDiffers
    | PathSizeChanged
    | PathTooSmall
    | StationMoved
    | StationFrozen
    | FrameRefused
    | StormStarted
    | StormEnded
    | LoopFound
    | LoopHealed
    | ProbeRepeated
    | DatagramReturned
)
