"""Whether the way to a peer leads into the bridge that its datagrams carry, and comes back by our own TAP.

A host with one NIC often has its address on the bridge that holds the NIC and the TAP (Proxmox calls it vmbr0). There the
way to a peer goes by the bridge, and all is well: the next hop is behind the NIC. So the link of the route does not tell;
the port behind which the bridge has learned the next hop does.
"""

from collections.abc import Callable
from enum import Enum
from pathlib import Path as File
from typing import NamedTuple

from l2overlay.addresses import Address
from l2overlay.linux.rtnetlink import neighbour, next_hop, station_port
from l2overlay.linux.udp_addresses import scope_of
from l2overlay.node.underlay import Path

SYS_NET = File("/sys/class/net")
BACK_TIME = 60.0
"""Seconds that a way counts as one that comes back after the next hop was last heard behind the TAP. Then it is tried again:
nothing is sent meanwhile, so nobody asks the next hop where it is."""
LOOK_INTERVAL = 2.0
"""Seconds between two looks at ways that come back, or whose next hop was not heard."""
HEAR_TIME = 3.0
"""Seconds for a next hop in the bridge to be heard; an ARP request is answered at once, or repeated each second."""


class Way(Enum):
    """Where a datagram goes that leaves for a peer."""

    OUTSIDE = "outside"  # not into the bridge
    BY_BRIDGE = "by the bridge"  # and out of another port
    UNKNOWN = "unknown"  # into the bridge; where the next hop is was not heard yet
    BACK = "back"  # into our own TAP


class OwnBridge:
    """The bridge and TAP of one node, as far as routes are concerned."""

    def __init__(self, bridge: str, tap: str, ports: Callable[[], tuple[str, ...]]) -> None:
        self._bridge = bridge
        self._tap = tap
        self._ports = ports

    def way_of(self, address: Address, link: str) -> Way:
        """The way to `address`, whose route leaves by `link`."""
        if link == self._tap:
            return Way.BACK
        if not link or not self._leads_into(link):
            return Way.OUTSIDE
        port = self._port_towards(address)
        if port:
            return Way.BACK if port == self._tap else Way.BY_BRIDGE
        has_others = any(port != self._tap for port in self._ports())
        return Way.UNKNOWN if has_others else Way.BACK

    def _leads_into(self, link: str) -> bool:
        """The bridge, or a VLAN or macvlan on it."""
        return link == self._bridge or (SYS_NET / link / f"lower_{self._bridge}").exists()

    def _port_towards(self, address: Address) -> str:
        """The port behind which the next hop was heard; "" when it was not."""
        try:
            host, _, zone = address.host.partition("%")
            link, hop = next_hop(host, scope_of(zone))
            mac = neighbour(link, hop)
            return station_port(self._bridge, mac) if mac else ""
        except OSError:
            return ""


class _Known(NamedTuple):
    way: Way
    sources: frozenset[str]
    address: Address
    back_time: float
    since: float
    """When the way became what it is."""


class Ways:
    """The ways by the bridge to our peers, as they were when last looked at."""

    def __init__(self, own: OwnBridge) -> None:
        self._own = own
        self._known: dict[str, _Known] = {}

    def learn(self, address: Address, path: Path, now: float) -> None:
        """A datagram to `address` takes this path."""
        way, before = self._own.way_of(address, path.link), self._known.pop(address.host, None)
        if way is Way.OUTSIDE:
            return
        back_time = now if way is Way.BACK else before.back_time if before is not None else -BACK_TIME
        if way is Way.UNKNOWN and now < back_time + BACK_TIME:
            way = Way.BACK
        since = before.since if before is not None and before.way is way else now
        sources = frozenset({path.source, address.local} - {""})
        self._known[address.host] = _Known(way, sources, address, back_time, since)

    def keep(self, hosts: frozenset[str]) -> None:
        """Forget all others."""
        self._known = {host: known for host, known in self._known.items() if host in hosts}

    def back(self) -> frozenset[str]:
        """Hosts to which nothing may be sent."""
        return frozenset(host for host, known in self._known.items() if known.way is Way.BACK)

    def unheard(self, now: float) -> frozenset[str]:
        """Hosts whose next hop should have been heard by now."""
        return frozenset(
            host
            for host, known in self._known.items()
            if known.way is Way.UNKNOWN and known.since + HEAR_TIME <= now
        )

    def doubtful(self) -> list[Address]:
        """Where a next hop may be heard behind another port, which nobody tells."""
        return [known.address for known in self._known.values() if known.way is not Way.BY_BRIDGE]

    def by_bridge(self) -> frozenset[tuple[str, Address]]:
        """Source and destination of all that enters the bridge."""
        return frozenset(
            (source, known.address._replace(local=""))
            for known in self._known.values()
            for source in known.sources
        )
