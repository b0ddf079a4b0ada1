"""What a valid peers.toml becomes: typed, frozen data, made by `config.read`. `filter.model` has the part for `[filter]`."""

from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface

from l2overlay.addresses import MacAddress, PeerKey
from l2overlay.config.limits import (
    DEFAULT_AGEING_TIME,
    DEFAULT_MTU,
    DEFAULT_PERSISTENT_KEEPALIVE,
    DEFAULT_PORT,
)
from l2overlay.filter.model import FilterConfig


class Suite(IntEnum):
    """Noise_IKpsk2_25519_<cipher>_BLAKE2s, by its number on the wire."""

    AESGCM = 1
    CHACHAPOLY = 2


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a peer can be reached: a host name or a numeric address (IPv6 without brackets), and a UDP port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Learn(StrEnum):
    """Whether a peer's stations are learned from what they send."""

    ON = "on"
    OFF = "off"  # only its macs may send
    LOCKED = "locked"  # a station learned here stays here


class Tos(StrEnum):
    """Which marks of the guests' packets the outer headers get."""

    OFF = "off"
    DSCP = "dscp"
    COPY = "copy"  # DSCP and ECN, RFC 6040


@dataclass(frozen=True, slots=True)
class UplinkConfig:
    """How a node leads its segment out to the world."""

    nat: str
    """The interface whose address the segment's stations have outside."""

    def __str__(self) -> str:
        return f"nat {self.nat}"


@dataclass(frozen=True, slots=True)
class PeerConfig:
    """One `[[peers]]` stanza."""

    name: str
    public_key: PeerKey
    endpoint: Endpoint | None = None
    macs: tuple[MacAddress, ...] = ()
    """Stations that are always behind this peer (static FDB entries)."""
    learn: Learn = Learn.ON
    max_macs: int | None = None
    """The largest number of stations behind this peer, `macs` included; None: as many as the FDB holds."""
    persistent_keepalive: float = DEFAULT_PERSISTENT_KEEPALIVE
    """Seconds between keepalives of an idle session; 0 turns them off."""
    uplink: UplinkConfig | None = None
    """None: the node leads nobody out."""


@dataclass(frozen=True, slots=True)
class SegmentConfig:
    """The `[segment]` table."""

    name: str
    bridge: str
    """Interface name; default `br-NAME`."""
    tap: str
    """Interface name; default `tap-NAME`."""
    mtu: int = DEFAULT_MTU
    """The MTU of TAP and bridge: the largest IP datagram that a guest can send."""
    ageing_time: float = DEFAULT_AGEING_TIME
    listen: int = DEFAULT_PORT
    """The UDP port, if `listen_address` is set or the node's own stanza has no endpoint."""
    listen_address: str = ""
    """The only address that the node binds; "" means all addresses of the host."""
    tos: Tos = Tos.OFF
    """What of the guests' TOS byte goes to the outer IP header."""
    suite: Suite = Suite.AESGCM
    psk: bytes | None = field(default=None, repr=False)
    """32 bytes from `psk_file`, part of every handshake."""
    addresses: dict[str, tuple[IPv4Interface | IPv6Interface, ...]] = field(default_factory=dict)
    """What each node puts on its bridge, by node name."""


@dataclass(frozen=True, slots=True)
class Party:
    """Peers, by key, with all their stations; and single stations, wherever they are."""

    peers: frozenset[PeerKey] = frozenset()
    macs: frozenset[MacAddress] = frozenset()


@dataclass(frozen=True, slots=True)
class StormLimit:
    """How much of one class of flooded frames may pass from one port. Rates are per second."""

    frame_rate: float
    byte_rate: float
    burst_time: float = 2.0
    """How many seconds' worth may come at once."""


@dataclass(frozen=True, slots=True)
class StormConfig:
    """The `[protect.storm]` table. docs/protection.md explains the defaults."""

    broadcast: StormLimit = StormLimit(2_000, 4e6)
    multicast: StormLimit = StormLimit(10_000, 50e6)
    unknown_unicast: StormLimit = StormLimit(10_000, 100e6)


@dataclass(frozen=True, slots=True)
class ProtectConfig:
    """The `[protect]` table. Without the table, these defaults apply."""

    dhcp_servers: Party | None = None
    """Who may answer as a DHCP server; None means anybody."""
    router_advertisements: Party | None = None
    """Who may announce itself as an IPv6 router; None means anybody."""
    arp_spoof_guard: bool = False
    bindings: dict[MacAddress, tuple[IPv4Address | IPv6Address, ...]] = field(default_factory=dict)
    """The only addresses that a station may claim; no other station may claim them."""
    ethertypes_allow: frozenset[int] | None = None
    ethertypes_deny: frozenset[int] | None = None
    bpdu_passes: bool = True
    reserved_passes: frozenset[str] = frozenset()
    """Protocols to reserved group addresses that pass: names from `config.protect_values.RESERVED_NAMES`."""
    isolation: Party | None = None
    """Peers and stations that may not talk to each other."""
    storm: StormConfig | None = StormConfig()
    loop_guard: bool = True


@dataclass(frozen=True, slots=True)
class Config:
    """A whole, valid peers.toml."""

    segment: SegmentConfig
    peers: tuple[PeerConfig, ...]
    filter: FilterConfig | None = None
    """None if the table is absent: nothing is filtered, and the host's rules are left alone."""
    protect: ProtectConfig | None = None
    """Never None if the configuration comes from a file. None means a plain switch without protection."""

    def peer(self, key: PeerKey) -> PeerConfig | None:
        """The stanza with this public key, or None."""
        return next((p for p in self.peers if p.public_key == key), None)
