"""What a valid peers.toml becomes: typed, frozen data. `config.py` makes it and is where to import it from."""

from dataclasses import dataclass, field
from enum import IntEnum
from ipaddress import IPv4Interface, IPv6Interface

from l2overlay.addresses import MacAddress, PeerKey
from l2overlay.config_limits import (
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


@dataclass(frozen=True, slots=True)
class PeerConfig:
    """One `[[peers]]` stanza."""

    name: str
    public_key: PeerKey
    endpoint: Endpoint | None = None
    macs: tuple[MacAddress, ...] = ()
    """Stations that live behind this peer and nowhere else (static FDB entries)."""
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
    """UDP port of a node whose own stanza has no endpoint."""
    suite: Suite = Suite.AESGCM
    psk: bytes | None = field(default=None, repr=False)
    """32 bytes from `psk_file`, mixed into every handshake."""
    addresses: dict[str, tuple[IPv4Interface | IPv6Interface, ...]] = field(default_factory=dict)
    """By node name: what that node puts on its bridge."""


@dataclass(frozen=True, slots=True)
class Config:
    """A whole, valid peers.toml."""

    segment: SegmentConfig
    peers: tuple[PeerConfig, ...]

    def peer(self, key: PeerKey) -> PeerConfig | None:
        """The stanza with this public key."""
        return next((p for p in self.peers if p.public_key == key), None)
