"""What a valid peers.toml becomes: typed, frozen data. `config.py` makes it and is where to import it from."""

from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network

from l2overlay.addresses import MacAddress, PeerKey
from l2overlay.config.limits import (
    DEFAULT_AGEING_TIME,
    DEFAULT_MTU,
    DEFAULT_PERSISTENT_KEEPALIVE,
    DEFAULT_PORT,
)


class Suite(IntEnum):
    """Noise_IKpsk2_25519_<cipher>_BLAKE2s, by its number on the wire."""

    AESGCM = 1
    CHACHAPOLY = 2


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a peer can be reached: a host name or numeric address (IPv6 without brackets), and a UDP port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Learn(StrEnum):
    """Whether a peer's stations are learned from what they send."""

    ON = "on"
    OFF = "off"  # only its macs may send
    LOCKED = "locked"  # who was learned here stays here


@dataclass(frozen=True, slots=True)
class PeerConfig:
    """One `[[peers]]` stanza."""

    name: str
    public_key: PeerKey
    endpoint: Endpoint | None = None
    macs: tuple[MacAddress, ...] = ()
    """Stations that live behind this peer and nowhere else (static FDB entries)."""
    learn: Learn = Learn.ON
    max_macs: int | None = None
    """Stations behind this peer, `macs` included; None: as many as the FDB holds."""
    persistent_keepalive: float = DEFAULT_PERSISTENT_KEEPALIVE
    """Seconds; 0 is off."""


@dataclass(frozen=True, slots=True)
class SegmentConfig:
    """The `[segment]` table."""

    name: str
    bridge: str
    """Interface name; default `br-NAME`."""
    tap: str
    """Interface name; default `tap-NAME`."""
    mtu: int = DEFAULT_MTU
    """Of TAP and bridge: the largest IP datagram of a guest."""
    ageing_time: float = DEFAULT_AGEING_TIME
    listen: int = DEFAULT_PORT
    """UDP port of a node whose own stanza has no endpoint, or of `listen_address`."""
    listen_address: str = ""
    """The one address that the node binds; "" is every one of the host."""
    suite: Suite = Suite.AESGCM
    psk: bytes | None = field(default=None, repr=False)
    """32 bytes from `psk_file`, mixed into every handshake."""
    addresses: dict[str, tuple[IPv4Interface | IPv6Interface, ...]] = field(default_factory=dict)
    """By node name: what that node puts on its bridge."""


class Direction(StrEnum):
    """Seen from this host's guests."""

    IN = "in"  # from the overlay to the guests of this host
    OUT = "out"  # the reverse


class Action(StrEnum):
    """What a rule does with a frame; all but `log` end the search."""

    ACCEPT = "accept"
    DROP = "drop"
    REJECT = "reject"
    LOG = "log"


@dataclass(frozen=True, slots=True)
class Subjects:
    """Who a rule means: any one of these. Groups are expanded already."""

    networks: tuple[IPv4Network | IPv6Network, ...] = ()
    macs: tuple[MacAddress, ...] = ()
    peers: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    """As written in the file."""


@dataclass(frozen=True, slots=True)
class Rate:
    """So many frames in so many seconds, and how many at once."""

    count: int
    unit: str
    """"s", "min" or "h"."""
    burst: int

    def __str__(self) -> str:
        return f"{self.count}/{self.unit}, {self.burst} at once"


PortRange = tuple[int, int]
"""First and last port."""


@dataclass(frozen=True, slots=True)
class FilterRule:
    """One rule for both address families. None and empty mean: whatever it is."""

    label: str
    """"rule 3", or "security group web, rule 1"."""
    direction: Direction
    action: Action
    protocol: str | int | None = None
    """"tcp", "udp", "sctp", "icmp" (of both families), "gre", "esp", or a number."""
    source: Subjects | None = None
    destination: Subjects | None = None
    ports: tuple[PortRange, ...] = ()
    """Of the destination."""
    source_ports: tuple[PortRange, ...] = ()
    icmp_types: tuple[str, ...] = ()
    states: tuple[str, ...] = ()
    """"new", "invalid"."""
    rate: Rate | None = None
    """The rule matches up to this rate; what is above it goes on to the next rule."""
    comment: str = ""


@dataclass(frozen=True, slots=True)
class SecurityGroup:
    """Rules that accept, and the defaults, for its stations."""

    name: str
    stations: tuple[MacAddress, ...]
    default_in: Action = Action.DROP
    default_out: Action = Action.ACCEPT
    rules: tuple[FilterRule, ...] = ()


@dataclass(frozen=True, slots=True)
class FilterConfig:
    """The `[filter]` table."""

    backend: str = "iptables"
    default_in: Action = Action.ACCEPT
    default_out: Action = Action.ACCEPT
    tagged: Action = Action.DROP
    """Frames with a VLAN tag (or PPPoE), which bridge netfilter does not look into."""
    rules: tuple[FilterRule, ...] = ()
    security_groups: tuple[SecurityGroup, ...] = ()

    def default(self, direction: Direction) -> Action:
        """The policy of a direction."""
        return self.default_in if direction is Direction.IN else self.default_out


@dataclass(frozen=True, slots=True)
class Party:
    """Peers, by key, with all their stations; and single stations wherever they are."""

    peers: frozenset[PeerKey] = frozenset()
    macs: frozenset[MacAddress] = frozenset()


@dataclass(frozen=True, slots=True)
class StormLimit:
    """What may pass of one class of flooded frames from one port: a second, and at once."""

    frame_rate: float
    byte_rate: float
    burst_time: float = 2.0
    """So many seconds' worth may come at once."""


@dataclass(frozen=True, slots=True)
class StormConfig:
    """`[protect.storm]`. docs/protection.md says where the defaults come from."""

    broadcast: StormLimit = StormLimit(2_000, 4e6)
    multicast: StormLimit = StormLimit(10_000, 50e6)
    unknown_unicast: StormLimit = StormLimit(10_000, 100e6)


@dataclass(frozen=True, slots=True)
class ProtectConfig:
    """The `[protect]` table; without it the same with its defaults."""

    dhcp_servers: Party | None = None
    """Who may answer as a DHCP server; None: anybody."""
    router_advertisements: Party | None = None
    """Who may announce itself as an IPv6 router; None: anybody."""
    arp_spoof_guard: bool = False
    bindings: dict[MacAddress, tuple[IPv4Address | IPv6Address, ...]] = field(default_factory=dict)
    """The only addresses that a station may claim, and nobody else may."""
    ethertypes_allow: frozenset[int] | None = None
    ethertypes_deny: frozenset[int] | None = None
    bpdu_passes: bool = True
    reserved_passes: frozenset[str] = frozenset()
    """Protocols to reserved group addresses that pass: names of `config.protect.RESERVED_NAMES`."""
    isolation: Party | None = None
    """Who may not talk to each other."""
    storm: StormConfig | None = StormConfig()
    loop_guard: bool = True


@dataclass(frozen=True, slots=True)
class Config:
    """A whole, valid peers.toml."""

    segment: SegmentConfig
    peers: tuple[PeerConfig, ...]
    filter: FilterConfig | None = None
    """None: the table is absent, and nothing is filtered or touched."""
    protect: ProtectConfig | None = None
    """Never None of a file; None is a bare switch."""

    def peer(self, key: PeerKey) -> PeerConfig | None:
        """The stanza with this public key."""
        return next((p for p in self.peers if p.public_key == key), None)
