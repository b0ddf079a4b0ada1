"""Reads what this network namespace looks like: links and addresses by rtnetlink, sysctls from /proc/sys. Changes nothing.

A node's plan and the doctor read by these functions. Rtnetlink and /proc/sys follow the network namespace of the process;
/sys may be mounted for another one (`nsenter --net`), so nothing is read there.

pyroute2 0.9 is asyncio inside: open it by `netlink`, use it and close it within one call, in a thread.
"""

import contextlib
import errno
import gc
import os
import socket
from collections.abc import Iterator, Mapping
from ipaddress import ip_interface
from pathlib import Path
from typing import TYPE_CHECKING, Any

from l2overlay.errors import HostSetupError
from l2overlay.linux.state import BridgeState, Interface, LinkState, PortState, TapState

if TYPE_CHECKING:
    from pyroute2 import IPRoute

SYSCTL_ROOT = Path("/proc/sys/net")
IFF_UP, IFF_LOWER_UP = 0x1, 0x10000
IFLA_TUN_TYPE_TAP = 2
USER_HZ = 100
PORT_STATES = ("disabled", "listening", "learning", "forwarding", "blocking")
PROGRAMS = ("iptables", "ip6tables", "arptables")
"""A bridge has a flag `nf_call_...` for each."""


@contextlib.contextmanager
def netlink() -> Iterator["IPRoute"]:
    """An open IPRoute. Raises HostSetupError when the kernel does not answer, or the process has no descriptor left."""
    from pyroute2 import IPRoute
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        with IPRoute() as ipr:
            yield ipr
    except (NetlinkError, OSError) as error:
        gc.collect()  # an IPRoute that failed half-way keeps its descriptors in a cycle
        code = errno_of(error)
        raise HostSetupError(f"could not ask the kernel: {os.strerror(code) if code else error}") from None


def errno_of(error: Exception) -> int:
    """The errno of an OSError or a NetlinkError; 0 when it has none."""
    code = error.errno if isinstance(error, OSError) else getattr(error, "code", 0)
    return code or 0


# Links


def read_link(ipr: "IPRoute", name: str) -> LinkState | None:
    """The link of that name, without its addresses; None when there is none."""
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        return _link_state(next(iter(ipr.link("get", ifname=name))))
    except NetlinkError as error:
        if error.code == errno.ENODEV:
            return None
        raise


def read_links(ipr: "IPRoute") -> tuple[LinkState, ...]:
    """Every link, with its addresses."""
    addresses, found = read_addresses(ipr), list(ipr.link("dump"))
    names = {link["index"]: link.get_attr("IFLA_IFNAME") for link in found}
    return tuple(_link_state(link, names, addresses) for link in found)


def read_ports(ipr: "IPRoute", bridge: int) -> tuple[LinkState, ...]:
    """The ports of the bridge with this index, without their addresses."""
    return tuple(_link_state(link) for link in ipr.link("dump", master=bridge))


def read_bridges(ipr: "IPRoute") -> tuple[LinkState, ...]:
    """Every bridge, without its addresses."""
    return tuple(_link_state(link) for link in ipr.link("dump", kind="bridge"))


def _link_state(
    link: Any,
    names: Mapping[int, str] | None = None,
    addresses: Mapping[int, tuple[Interface, ...]] | None = None,
) -> LinkState:
    """`names`: those of other links, as far as they are known."""
    info = link.get_attr("IFLA_LINKINFO")
    kind = attribute(info, "IFLA_INFO_KIND", "")
    data = attribute(info, "IFLA_INFO_DATA", None)
    is_port = attribute(info, "IFLA_INFO_SLAVE_KIND", "") == "bridge"
    index, master = link["index"], link.get_attr("IFLA_MASTER") or 0
    return LinkState(
        index=index,
        name=link.get_attr("IFLA_IFNAME"),
        mac=link.get_attr("IFLA_ADDRESS") or "",
        mtu=link.get_attr("IFLA_MTU"),
        up=bool(link["flags"] & IFF_UP),
        carrier=bool(link["flags"] & IFF_LOWER_UP),
        kind=kind,
        master=(names or {}).get(master) or _link_name(master),
        alias=link.get_attr("IFLA_IFALIAS") or "",
        queue=link.get_attr("IFLA_TXQLEN") or 0,
        addresses=(addresses or {}).get(index, ()),
        tap=_tap_state(data) if kind == "tun" else None,
        port=_port_state(attribute(info, "IFLA_INFO_SLAVE_DATA", None)) if is_port else None,
        bridge=_bridge_state(data) if kind == "bridge" else None,
    )


def _tap_state(data: Any) -> TapState | None:
    """None for a TUN, which carries no frames."""
    if attribute(data, "IFLA_TUN_TYPE", 0) != IFLA_TUN_TYPE_TAP:
        return None
    return TapState(persistent=bool(attribute(data, "IFLA_TUN_PERSIST", 0)))


def _port_state(data: Any) -> PortState:
    def on(name: str) -> bool:
        return bool(attribute(data, f"IFLA_BRPORT_{name}", 1))

    return PortState(
        state=PORT_STATES[attribute(data, "IFLA_BRPORT_STATE", 3) % len(PORT_STATES)],
        learning=on("LEARNING"),
        flood=on("UNICAST_FLOOD"),
        mcast_flood=on("MCAST_FLOOD"),
        bcast_flood=on("BCAST_FLOOD"),
        isolated=bool(attribute(data, "IFLA_BRPORT_ISOLATED", 0)),
        mcast_router=attribute(data, "IFLA_BRPORT_MULTICAST_ROUTER", 1),
    )


def _bridge_state(data: Any) -> BridgeState:
    def number(name: str) -> int:
        return int(attribute(data, f"IFLA_BR_{name}", 0))

    return BridgeState(
        stp=number("STP_STATE") > 0,
        forward_delay=number("FORWARD_DELAY") / USER_HZ,
        vlan_filtering=number("VLAN_FILTERING") > 0,
        snooping=number("MCAST_SNOOPING") > 0,
        querier=number("MCAST_QUERIER") > 0,
        nf_calls=frozenset(name for name in PROGRAMS if number(f"NF_CALL_{name.upper()}")),
    )


def attribute(nested: Any, name: str, default: Any) -> Any:
    """One of nested attributes. Nested ones that pyroute2 cannot take apart are text, and have none."""
    value = nested.get_attr(name) if hasattr(nested, "get_attr") else None
    return default if value is None else value


def _link_name(index: int) -> str:
    """ "" for no link, and for one that has gone since."""
    try:
        return socket.if_indextoname(index)
    except OSError:
        return ""


# Addresses


def read_addresses(ipr: "IPRoute") -> dict[int, tuple[Interface, ...]]:
    """Every address of the host, by the index of its link."""
    found: dict[int, tuple[Interface, ...]] = {}
    for entry in ipr.get_addr():
        host = entry.get_attr("IFA_LOCAL") or entry.get_attr("IFA_ADDRESS")
        address = ip_interface(f"{host}/{entry['prefixlen']}")
        found[entry["index"]] = (*found.get(entry["index"], ()), address)
    return found


def named_addresses(ipr: "IPRoute") -> tuple[tuple[str, Interface], ...]:
    """Every address of the host with the name of its link."""
    found = [(_link_name(index), addresses) for index, addresses in read_addresses(ipr).items()]
    return tuple((link, address) for link, addresses in found if link for address in addresses)


# Sysctls


def read_sysctl(path: str) -> str | None:
    """A sysctl by its path below /proc/sys/net; None when it does not exist or cannot be read."""
    try:
        return (SYSCTL_ROOT / path).read_text().strip()
    except OSError:
        return None


def has_ipv6() -> bool:
    """Whether the kernel has IPv6 at all."""
    return (SYSCTL_ROOT / "ipv6").is_dir()
