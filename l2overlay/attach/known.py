"""A `Segment` from what the node answers, or from peers.toml; and what this host may hand out in it."""

from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, ip_interface
from typing import Any

from l2overlay.addresses import MacAddress, PeerKey, parse_key, parse_mac
from l2overlay.attach.segment import Segment
from l2overlay.attach.slices import AddressSlice, own_slice
from l2overlay.config.types import Config
from l2overlay.errors import UsageError


def segment_of_node(
    status: Mapping[str, Any], stations: Iterable[Mapping[str, Any]], macs: Iterable[str]
) -> Segment:
    """As the running node has it. `macs`: those of this host's links."""
    known = [*(station["mac"] for station in stations), *macs, status["tap"]["mac"]]
    return Segment(
        name=status["segment"],
        bridge=status["bridge"]["name"],
        mtu=status["mtu"],
        key=parse_key(status["public_key"]),
        host=status["node"],
        members=tuple(status.get("members", ())),
        addresses={
            host: tuple(map(ip_interface, addresses))
            for host, addresses in status.get("addresses", {}).items()
        },
        stations=_parsed(known),
        is_running=True,
    )


def segment_of_config(config: Config, key: PeerKey | None, hostname: str, macs: Iterable[str]) -> Segment:
    """As peers.toml has it. Without the key, this host is the one of its own name, if there is one."""
    own = config.peer(key) if key is not None else None
    members = tuple(peer.name for peer in config.peers)
    host = own.name if own is not None else hostname if hostname in members else ""
    static = frozenset(mac for peer in config.peers for mac in peer.macs)
    return Segment(
        name=config.segment.name,
        bridge=config.segment.bridge,
        mtu=config.segment.mtu,
        key=key or hostname.encode(),
        host=host,
        members=members,
        addresses=config.segment.addresses,
        stations=static | _parsed(macs),
    )


def slice_of(segment: Segment, subnet: IPv4Network | None) -> AddressSlice | None:
    """What this host may hand out: of `subnet`, or of the IPv4 subnet that peers.toml has. None if there is none, or if
    nobody knows which host this is. Raises UsageError if the subnet is too small."""
    subnet = subnet or _subnet(segment)
    if subnet is None or segment.host not in segment.members:
        return None
    return own_slice(subnet, segment.members, segment.host, _configured(segment))


def explain_missing_slice(segment: Segment, tool: str) -> UsageError:
    """Why `slice_of` is None, for a tool that cannot do without."""
    if segment.host not in segment.members:
        return UsageError(
            f"{tool} hands out addresses, and which of {', '.join(segment.members) or 'the hosts'} this host is only its "
            "key tells: run it as root, or while the node runs"
        )
    return UsageError(
        f"{tool} hands out addresses, and {segment.name} has no IPv4 `addresses` in peers.toml: "
        "give --subnet, the same on every host"
    )


def require_own_address(segment: Segment, address: str) -> None:
    """Raise UsageError if the address of a guest is that of a host."""
    for host, interfaces in segment.addresses.items():
        if any(interface.ip == ip_interface(address).ip for interface in interfaces):
            raise UsageError(
                f"{address.partition('/')[0]} is the address of {host} in peers.toml; give another one"
            )


def _subnet(segment: Segment) -> IPv4Network | None:
    """That of this host's own address, else the first of the file."""
    of_hosts = [segment.addresses.get(segment.host, ()), *segment.addresses.values()]
    found = (i.network for interfaces in of_hosts for i in interfaces if isinstance(i, IPv4Interface))
    return next(found, None)


def _configured(segment: Segment) -> list[IPv4Address]:
    return [
        interface.ip
        for interfaces in segment.addresses.values()
        for interface in interfaces
        if isinstance(interface, IPv4Interface)
    ]


def _parsed(macs: Iterable[str]) -> frozenset[MacAddress]:
    return frozenset(parse_mac(mac) for mac in macs if mac)
