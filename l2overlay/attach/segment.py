"""What the makers of text know about a segment and about a guest that is to join it: plain data."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from ipaddress import IPv4Address, IPv4Network

from l2overlay.addresses import MacAddress, format_mac
from l2overlay.attach.slices import AddressSlice
from l2overlay.linux.state import Interface

DEFAULT_MTU = 1500
"""What a NIC has if nobody says otherwise (IEEE 802.3): such a segment needs no option for its MTU."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A segment as the running node, or else its peers.toml, has it."""

    name: str
    bridge: str
    mtu: int
    key: bytes = b""
    """The node's public key, from which MACs are derived; empty if it is not known."""
    host: str = ""
    """This host's name in peers.toml; empty if it is not known."""
    members: tuple[str, ...] = ()
    """All hosts, in the order of peers.toml."""
    addresses: Mapping[str, tuple[Interface, ...]] = field(default_factory=dict)
    """What each host has on its bridge."""
    stations: frozenset[MacAddress] = frozenset()
    """Every MAC that the node, or this host, knows."""
    is_running: bool = False

    @property
    def wants_mtu(self) -> bool:
        """Whether a guest has to be told its MTU."""
        return self.mtu != DEFAULT_MTU


class TapOf(Enum):
    """Whose TAP of the guest's name is in the bridge already."""

    NOBODY = "none is there"
    ATTACH = "`l2overlay attach` made it"
    OTHERS = "somebody else made it"


@dataclass(frozen=True, slots=True)
class Guest:
    """The VM or container that is to join."""

    name: str
    mac: MacAddress
    user: str = ""
    """Who runs the VM; empty for root."""
    slice: AddressSlice | None = None
    """The addresses that this host may hand out; None if the segment has no IPv4 subnet."""
    address: str = ""
    """For a guest that is told its address: `10.9.0.50/24`; empty if there is none to give."""
    gateway: IPv4Address | None = None
    """Where guests send what leaves the segment, if the caller named one."""
    tap: TapOf = TapOf.NOBODY

    @property
    def mac_text(self) -> str:
        return format_mac(self.mac)

    @property
    def subnet(self) -> IPv4Network | None:
        return self.slice.subnet if self.slice is not None else None
