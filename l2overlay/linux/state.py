"""What a host looks like, as plain data. `observe.py` fills it; the plans of a node and the checks of the doctor read it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Interface, IPv6Interface
from typing import TypeVar

NF_CALL_FLAGS = ("nf_call_iptables", "nf_call_ip6tables")
"""The flags of a bridge that a node may set. It has no rules in arptables."""

Interface = IPv4Interface | IPv6Interface
Fact = TypeVar("Fact")


@dataclass(frozen=True, slots=True)
class TapState:
    """What a link has because it is a TAP."""

    persistent: bool = False
    """The TAP stays when no process holds it."""


@dataclass(frozen=True, slots=True)
class PortState:
    """What a link has because it is a port of a bridge (`bridge -d link`)."""

    state: str = "forwarding"
    learning: bool = True
    flood: bool = True
    mcast_flood: bool = True
    bcast_flood: bool = True
    isolated: bool = False
    mcast_router: int = 1
    """2: the port gets all multicast, whatever snooping has learned."""
    vlans: frozenset[int] = frozenset()
    """Only the doctor reads these, and only when the bridge filters VLANs."""


@dataclass(frozen=True, slots=True)
class BridgeState:
    """What a link has because it is a bridge (`ip -d link`)."""

    stp: bool = False
    forward_delay: float = 15.0
    vlan_filtering: bool = False
    snooping: bool = True
    querier: bool = False
    nf_calls: frozenset[str] = frozenset()
    """Its own flags that are on: of "iptables", "ip6tables" and "arptables"."""


@dataclass(frozen=True, slots=True)
class LinkState:
    """One link."""

    index: int
    name: str
    mac: str
    mtu: int
    up: bool = True
    carrier: bool = True
    kind: str = ""
    """"bridge", "tun", "veth", ...; empty for hardware."""
    master: str = ""
    """The bridge that it is in; empty without."""
    alias: str = ""
    queue: int = 1000
    """How many frames may wait in it (txqueuelen)."""
    addresses: tuple[Interface, ...] = ()
    tap: TapState | None = None
    port: PortState | None = None
    bridge: BridgeState | None = None

    @property
    def persistent(self) -> bool:
        """Whether it is a TAP that stays when no process holds it."""
        return self.tap is not None and self.tap.persistent

    @property
    def hears_all_multicast(self) -> bool:
        """Whether it is a port that gets all multicast, whatever its bridge has snooped."""
        return self.port is not None and self.port.mcast_router == 2

    @property
    def nf_call(self) -> frozenset[str]:
        """Which of `NF_CALL_FLAGS` are on; of a bridge."""
        on = self.bridge.nf_calls if self.bridge is not None else frozenset[str]()
        return frozenset(flag for flag in NF_CALL_FLAGS if flag.removeprefix("nf_call_") in on)


@dataclass(frozen=True, slots=True)
class HostState:
    """What a plan needs to know."""

    tap: LinkState | None
    bridge: LinkState | None
    ports: tuple[LinkState, ...]
    """Of the bridge."""
    addresses: tuple[tuple[str, Interface], ...]
    """Every address of the host, with the name of its link."""
    sysctls: Mapping[str, str]
    """Those below /proc/sys/net that the features asked for, where they exist."""
    has_ipv6: bool
    links: Mapping[str, LinkState] = field(default_factory=dict)
    """Every link that the features asked for, where it exists."""
    facts: tuple[object, ...] = ()
    """What single features have observed: for each, one frozen dataclass of the feature's module."""

    def fact(self, kind: type[Fact]) -> Fact | None:
        """The one of `facts` that is of this kind; None when nobody has observed it."""
        return next((fact for fact in self.facts if isinstance(fact, kind)), None)
