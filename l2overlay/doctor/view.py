"""What the doctor knows about a host, as plain data: `observer.py` fills it, and the checks judge it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from l2overlay.doctor.rulesets import Ruleset
from l2overlay.linux.state import LinkState

NF_CALLS = {"ip": "iptables", "ip6": "ip6tables", "arp": "arptables"}
"""By family, the end of the names `bridge-nf-call-...` and `nf_call_...`, the bridge's own flag."""


@dataclass(frozen=True, slots=True)
class PeerView:
    """A peer as the running node knows it, or as peers.toml has it."""

    name: str
    host: str | None = None
    """Numeric, or a name that was not resolved."""
    port: int | None = None
    up: bool | None = None
    """None if no node was asked."""
    reason: str = ""
    left: bool = False
    """The peer said that it leaves."""


@dataclass(frozen=True, slots=True)
class NodeView:
    """What the running node says."""

    name: str
    troubles: tuple[str, ...] = ()
    stations: Mapping[str, str | None] = field(default_factory=dict)
    """By MAC, the peer that the station is behind; None for this host."""
    lost: Mapping[str, int] = field(default_factory=dict)
    """Frames and datagrams that the kernel dropped because the node did not take them, by drop reason."""
    stamp_lead: float = 0.0
    """Seconds by which the stamps of its INITs are ahead of this host's clock."""
    refused: tuple[tuple[str, str], ...] = ()
    """Handshakes that failed lately: in words, with the stanza to paste if there is one."""


@dataclass(frozen=True, slots=True)
class SegmentView:
    """The segment to look at, and what is known about it."""

    bridge: str
    tap: str | None = None
    name: str | None = None
    mtu: int | None = None
    port: int | None = None
    """The node's UDP port."""
    peers: tuple[PeerView, ...] = ()
    node: NodeView | None = None
    no_node: str = ""
    """Why `node` is None although a node should have answered."""
    join: tuple[str, ...] = ()
    """The command that starts the node."""


@dataclass(frozen=True, slots=True)
class RouteView:
    """The way of a datagram to `host`."""

    host: str
    link: str
    mtu: int
    station: str = ""
    """The MAC of the next hop; empty if the kernel does not know it."""


@dataclass(frozen=True, slots=True)
class StationView:
    """A station that the kernel's bridge has learned."""

    mac: str
    link: str


@dataclass(frozen=True, slots=True)
class HostView:
    """Everything that the checks look at."""

    segment: SegmentView
    links: tuple[LinkState, ...] = ()
    sysctls: Mapping[str, str] = field(default_factory=dict)
    """By name, `net.bridge.bridge-nf-call-iptables`."""
    rulesets: tuple[Ruleset, ...] = ()
    later: tuple[Ruleset, ...] = ()
    """The same a moment later, with counters that may have grown."""
    stations: tuple[StationView, ...] = ()
    routes: tuple[RouteView, ...] = ()
    """To the peers' numeric endpoints."""
    returns: tuple[RouteView, ...] = ()
    """To addresses that are behind the bridge: of its subnets, and its neighbours."""
    reverse_path_drops: tuple[int, ...] = ()
    """TcpExt IPReversePathFilter, now and a moment later."""
    not_examined: tuple[str, ...] = ()

    def link(self, name: str | None) -> LinkState | None:
        """The link of that name."""
        return next((link for link in self.links if link.name == name), None)

    @property
    def bridge(self) -> LinkState | None:
        """The segment's bridge."""
        return self.link(self.segment.bridge)

    @property
    def tap(self) -> LinkState | None:
        """The segment's TAP."""
        return self.link(self.segment.tap)

    @property
    def ports(self) -> tuple[LinkState, ...]:
        """Of the segment's bridge, the TAP too."""
        return tuple(link for link in self.links if link.master == self.segment.bridge)

    @property
    def all_peers_up(self) -> bool:
        """Whether a running node has a session with each."""
        return bool(self.segment.peers) and all(peer.up for peer in self.segment.peers)

    @property
    def waits_for_calls(self) -> bool:
        """Whether some peer has no endpoint and is not up: only its own call can bring it."""
        return any(peer.host is None and not peer.up for peer in self.segment.peers)

    def outside_links(self, version: int) -> tuple[str, ...]:
        """Links with an address of that IP version by which a stranger's datagram can come; bridges of guests only if
        there is no other."""
        inside = {self.segment.bridge, self.segment.tap}
        found = [
            link
            for link in self.links
            if link.name not in inside
            and any(
                a.version == version and not a.ip.is_link_local and not a.ip.is_loopback
                for a in link.addresses
            )
        ]
        return tuple(link.name for link in found if link.kind != "bridge") or tuple(
            link.name for link in found
        )

    def ways(self) -> Iterator[tuple[str, str]]:
        """From which port to which frames are bridged on their way to or from the overlay; without TAP, any two ports."""
        names = [port.name for port in self.ports]
        tap = self.segment.tap if self.segment.tap in names else next(iter(names), None)
        for name in names:
            if tap is not None and name != tap:
                yield name, tap
                yield tap, name

    def bridge_nf(self, family: str) -> str | None:
        """What makes frames of the segment's bridge pass the family's rules, as it was read; None when nothing does."""
        program = NF_CALLS[family]
        sysctl = f"net.bridge.bridge-nf-call-{program}"
        if self.sysctls.get(sysctl, "0") != "0":
            return f"{sysctl} = {self.sysctls[sysctl]}"
        link = self.bridge
        if link is not None and link.bridge is not None and program in link.bridge.nf_calls:
            return f"{link.name}: nf_call_{program} 1"
        return None
