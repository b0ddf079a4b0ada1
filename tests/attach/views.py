"""A segment, a guest and a host to write recipes and plans for."""

from dataclasses import replace
from ipaddress import IPv4Network, ip_interface
from typing import Any

from l2overlay.addresses import parse_mac
from l2overlay.attach.plan import HostView
from l2overlay.attach.segment import Guest, Segment
from l2overlay.attach.slices import AddressSlice, own_slice
from l2overlay.linux.state import LinkState

SUBNET = IPv4Network("10.9.0.0/24")
MEMBERS = ("alpha", "beta")
PORT_MAC = parse_mac("fe:00:00:00:00:01")


def segment(**changes: Any) -> Segment:
    plain = Segment(
        name="lan",
        bridge="br-lan",
        mtu=1500,
        key=bytes(range(32)),
        host="alpha",
        members=MEMBERS,
        addresses={"alpha": (ip_interface("10.9.0.1/24"),), "beta": (ip_interface("10.9.0.2/24"),)},
        is_running=True,
    )
    return replace(plain, **changes)


def slice_of_alpha() -> AddressSlice:
    return own_slice(SUBNET, MEMBERS, "alpha", [])


def guest(name: str = "vm1", **changes: Any) -> Guest:
    return replace(
        Guest(name, parse_mac("52:00:00:00:00:07"), "", slice_of_alpha(), "10.9.0.50/24"), **changes
    )


def link(name: str, **changes: Any) -> LinkState:
    return replace(LinkState(index=5, name=name, mac="fe:00:00:00:00:09", mtu=1500), **changes)


def host(*links: LinkState, **changes: Any) -> HostView:
    """A host with the segment's bridge and these links."""
    found = [link("br-lan", kind="bridge", index=2), *links]
    return replace(HostView(links={known.name: known for known in found}), **changes)
