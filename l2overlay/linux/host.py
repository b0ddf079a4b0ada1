"""What a node changes on its host: a pure plan, a small apply, and an undo.

    observe_host(spec)  ->  HostState             reads
    plan_host(spec, state)  ->  [Change]          pure; empty when all is as it should be, so that it also repairs
    Undo.of(changes)  ->  Undo                    pure; write it to the run directory before ...
    apply_changes(changes)  ->  Undo              ... this, which takes everything back when one change fails
    undo(...)                                     tolerates what is gone already

The TAP itself is made by `LinuxTap.open`, because we need its descriptor: between plan and apply, or before both to
repair. A bridge that exists is adopted: it keeps its MAC, MTU and addresses, and stays when we go. One that we make is
marked by its alias `l2overlay SEGMENT` and by its MAC, which comes from the node's key: so a start after SIGKILL knows it.
One with ports of others in it stays as well, marked, and the next start takes it over: the guests' ports would be lost.

pyroute2 0.9 is asyncio inside: it is opened, used and closed within one call; the node calls these in a thread.
"""

import contextlib
import errno
import gc
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv6Interface, ip_interface
from pathlib import Path
from typing import TYPE_CHECKING, Any

from l2overlay.addresses import MacAddress, format_mac
from l2overlay.errors import HostPermissionError, HostSetupError
from l2overlay.linux import firewall
from l2overlay.linux.changes import (
    ALIAS_PREFIX,
    NF_CALL_FLAGS,
    AddAddress,
    Change,
    CreateBridge,
    HearAllMulticast,
    KeepMac,
    RemoveAddress,
    RemoveBridge,
    RemoveFilter,
    SetAlias,
    SetBridgeFlag,
    SetMac,
    SetMaster,
    SetMtu,
    SetQueue,
    SetSysctl,
    SetUp,
    Undo,
)
from l2overlay.linux.iptables import FilterSpec
from l2overlay.linux.privileges import remedy

if TYPE_CHECKING:
    from pyroute2 import IPRoute

SYSCTL_ROOT = Path("/proc/sys/net")
ZERO_MAC = "00:00:00:00:00:00"
IFF_UP = 0x1
IFLA_TUN_TYPE_TAP = 2
MDB_RTR_TYPE_PERM = 2
TAP_QUEUE = 2000
"""Frames that may wait in the TAP while the node has no processor; the kernel's default is 1000.

Small frames, 21 000 to 58 000 a second, to a node that is stopped for 30 ms out of 60; lost were 30 to 46 % with 1000, 9 to
22 % with 2000, 0 to 3 % with 4000. More costs memory that is charged to nobody: each may be a super-frame of 64 KiB."""
ALREADY_GONE = (errno.ENODEV, errno.ENOENT, errno.ESRCH, errno.EADDRNOTAVAIL)

Interface = IPv4Interface | IPv6Interface


@dataclass(frozen=True, slots=True)
class HostSpec:
    """What the host must look like while a node runs."""

    segment: str
    tap: str
    bridge: str
    mtu: int
    tap_mac: MacAddress
    bridge_mac: MacAddress
    """Of a bridge that we make; see `derive_macs`."""
    addresses: tuple[Interface, ...] = ()
    filter: FilterSpec | None = None
    """What iptables is to do with the frames of the TAP; None leaves iptables and the bridge's flags alone."""

    @property
    def alias(self) -> str:
        """The mark on a bridge of ours."""
        return ALIAS_PREFIX + self.segment


@dataclass(frozen=True, slots=True)
class LinkState:
    """One link as the kernel shows it."""

    index: int
    name: str
    kind: str
    """"bridge", "tun", "veth", ...; empty for hardware."""
    mac: str
    mtu: int
    up: bool
    master: str
    """The bridge that it is in; empty without."""
    alias: str
    is_tap: bool
    persistent: bool
    """A TAP that stays without a process that holds it."""
    hears_all_multicast: bool
    queue: int
    """Frames that may wait in it (txqueuelen)."""
    stp: bool
    """Of a bridge."""
    vlan_filtering: bool
    """Of a bridge."""
    nf_call: frozenset[str] = frozenset()
    """Of a bridge: those of `NF_CALL_FLAGS` that are on."""


@dataclass(frozen=True, slots=True)
class HostState:
    """What a plan needs to know."""

    tap: LinkState | None
    bridge: LinkState | None
    ports: tuple[LinkState, ...]
    """Of the bridge."""
    addresses: tuple[tuple[str, Interface], ...]
    """Every address of the host, with the name of its link."""
    sysctls: dict[str, str]
    """Those below /proc/sys/net that we may set, where they exist."""
    has_ipv6: bool
    ipv6_off: str = ""
    """What keeps IPv6 addresses off the bridge, in words; empty when nothing does."""


@dataclass(frozen=True, slots=True)
class UsedBridge:
    """A bridge of ours that stays because others have ports in it."""

    name: str
    ports: tuple[str, ...]

    @property
    def line(self) -> str:
        """For a person."""
        return f"the bridge {self.name}, because {', '.join(self.ports)} {'is' if len(self.ports) == 1 else 'are'} in it"


@dataclass(frozen=True, slots=True)
class Undone:
    """What an undo came to."""

    lines: tuple[str, ...]
    """What was done, in words."""
    kept: tuple[UsedBridge, ...] = ()


def observe_host(spec: HostSpec) -> HostState:
    """Read what `plan_host` needs."""
    with _netlink() as ipr:
        bridge = _read_link(ipr, spec.bridge)
        state = HostState(
            tap=_read_link(ipr, spec.tap),
            bridge=bridge,
            ports=_read_ports(ipr, bridge.index) if bridge is not None else (),
            addresses=tuple(_read_addresses(ipr)),
            sysctls={},
            has_ipv6=(SYSCTL_ROOT / "ipv6").is_dir(),
            ipv6_off=_what_switches_ipv6_off(spec.bridge),
        )
    bridge_sysctls = (_accept_ra(spec.bridge), _forwarding(spec.bridge), _address_mode(spec.bridge))
    for path in (_no_ipv6(spec.tap), *bridge_sysctls):
        with contextlib.suppress(OSError):
            state.sysctls[path] = (SYSCTL_ROOT / path).read_text().strip()
    return state


def _what_switches_ipv6_off(bridge: str) -> str:
    """The kernel refuses an IPv6 address on such a link with EACCES, as if for want of privilege."""
    if not (SYSCTL_ROOT / "ipv6").is_dir():
        return "the kernel has none"
    link = (
        bridge if (SYSCTL_ROOT / _no_ipv6(bridge)).exists() else "default"
    )  # a link is born with the default
    with contextlib.suppress(OSError):
        if (SYSCTL_ROOT / _no_ipv6(link)).read_text().strip() != "0":
            return f"net.ipv6.conf.{link}.disable_ipv6 = 1"
    return ""


def host_troubles(spec: HostSpec, state: HostState) -> list[str]:
    """What of `spec` this host does not let us have."""
    missing = [str(a) for a in spec.addresses if a.version == 6] if state.ipv6_off else []
    without = f"{spec.bridge} goes without {', '.join(missing)}"
    what_to_do = "switch it on, or take that out of [segment.addresses]"
    said = f"IPv6 is switched off on this host ({state.ipv6_off}): {without}; {what_to_do}"
    return [said] if missing else []


def bridge_ports(bridge: str) -> list[str]:
    """The names of a bridge's ports; empty when there is no such bridge."""
    with _netlink() as ipr:
        link = _read_link(ipr, bridge)
        return sorted(p.name for p in _read_ports(ipr, link.index)) if link is not None else []


def is_ours(spec: HostSpec, bridge: LinkState) -> bool:
    """Whether we made the bridge, now or before a SIGKILL: by alias, or by MAC when we died before the alias was set."""
    return bridge.alias == spec.alias or (not bridge.alias and bridge.mac == format_mac(spec.bridge_mac))


def leftovers(spec: HostSpec, state: HostState) -> Undo:
    """What an earlier run left that is ours beyond doubt, for when its own Undo is lost."""
    if state.bridge is None or state.bridge.kind != "bridge" or not is_ours(spec, state.bridge):
        return Undo()
    return Undo((RemoveBridge(spec.bridge, format_mac(spec.bridge_mac), spec.alias),))


def host_notes(spec: HostSpec, state: HostState) -> list[str]:
    """What a person should know of a bridge that is adopted; empty for one of ours."""
    bridge = state.bridge
    if bridge is None or is_ours(spec, bridge):
        return []
    name, notes = spec.bridge, [f"bridge {spec.bridge} exists: adopted, and left in place at the end"]
    if bridge.mtu < spec.mtu:
        notes.append(
            f"bridge {name} has MTU {bridge.mtu}, the segment {spec.mtu}: larger frames for this host itself are lost; "
            f"ip link set {name} mtu {spec.mtu}"
        )
    elif bridge.mtu > spec.mtu:
        notes.append(
            f"bridge {name} has MTU {bridge.mtu}, the segment {spec.mtu}: larger frames do not cross; "
            f"set mtu = {bridge.mtu} in [segment] on every host, or lower the bridge's"
        )
    if _takes_router_advertisements(name, state.sysctls):
        notes.append(
            f"bridge {name} takes router advertisements: a guest of any site can become this host's default route; "
            f"sysctl net.ipv6.conf.{name}.accept_ra=0, or router_advertisements in [protect]"
        )
    if bridge.stp:
        notes.append(f"bridge {name} runs STP: {spec.tap} forwards only after twice its forward delay")
    if bridge.vlan_filtering:
        notes.append(
            f"bridge {name} filters VLANs: let them pass by `bridge vlan add dev {spec.tap} vid ...`"
        )
    return notes


def _takes_router_advertisements(bridge: str, sysctls: Mapping[str, str]) -> bool:
    """accept_ra: 1 unless the host forwards, 2 always (ip-sysctl.rst)."""
    accepts = sysctls.get(_accept_ra(bridge), "0")
    return accepts == "2" or (accepts == "1" and sysctls.get(_forwarding(bridge)) == "0")


def plan_host(
    spec: HostSpec, state: HostState, *, tap_open: bool = False, made: Undo | None = None
) -> list[Change]:
    """The changes that lead from `state` to `spec`, in order. Raises HostSetupError when they must not be made.

    `tap_open`: this process holds the TAP already. `made`: what undoes our changes so far; an address among them that `spec`
    no longer has is taken off.
    """
    _refuse_taken_names(spec, state, tap_open)
    _refuse_taken_addresses(spec, state)
    return [
        *_plan_bridge(spec, state),
        *_plan_tap(spec, state),
        *_plan_addresses(spec, state, made or Undo()),
    ]


def apply_changes(changes: Sequence[Change]) -> Undo:
    """Make the changes, in order, and return what takes them back. On a failure nothing stays: raises HostSetupError."""
    from pyroute2.netlink.exceptions import NetlinkError

    with _netlink() as ipr:
        for position, change in enumerate(changes):
            try:
                _apply(ipr, change)
            except (NetlinkError, OSError) as error:
                failure = _failure(change, error)
                with contextlib.suppress(HostSetupError):  # the first failure is the one to tell
                    undo(Undo.of(changes[: position + 1]))
                raise failure from None
    return Undo.of(changes)


def undo(steps: Undo, *, keep_used: bool = False) -> Undone:
    """Take our changes back; what is gone already is passed over. With `keep_used` a bridge that has ports stays.

    Every step is tried, whatever became of those before; raises HostSetupError at the end when one could not be done.
    """
    from pyroute2.netlink.exceptions import NetlinkError

    lines, kept, failures = [], [], []
    with _netlink() as ipr:
        for change in steps.changes:
            try:
                if (
                    keep_used
                    and isinstance(change, RemoveBridge)
                    and (used := _used(ipr, change)) is not None
                ):
                    kept.append(used)
                    continue
                _apply(ipr, change)
            except HostSetupError as error:
                failures.append(str(error))
            except (NetlinkError, OSError) as error:
                if _code(error) not in ALREADY_GONE:
                    failures.append(str(_failure(change, error)))
            else:
                lines.append(change.line)
    if failures:
        raise HostSetupError("; ".join(failures))
    return Undone(tuple(lines), tuple(kept))


def marked_bridges() -> list[RemoveBridge]:
    """What removes each bridge that a node made, by the mark on it; whether that node runs is not looked at."""
    with _netlink() as ipr:
        links = [_link_state(link) for link in ipr.link("dump", kind="bridge")]
    return [
        RemoveBridge(b.name, b.mac, b.alias, index=b.index) for b in links if b.alias.startswith(ALIAS_PREFIX)
    ]


@contextlib.contextmanager
def _netlink() -> Iterator["IPRoute"]:
    """An open IPRoute. Raises HostSetupError when the kernel does not answer, or the process has no descriptor left."""
    from pyroute2 import IPRoute
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        with IPRoute() as ipr:
            yield ipr
    except (NetlinkError, OSError) as error:
        gc.collect()  # an IPRoute that failed half-way keeps its descriptors in a cycle
        code = _code(error)
        raise HostSetupError(f"could not ask the kernel: {os.strerror(code) if code else error}") from None


# The plan


def _refuse_taken_names(spec: HostSpec, state: HostState, tap_open: bool) -> None:
    bridge, tap = state.bridge, state.tap
    if bridge is not None and bridge.kind != "bridge":
        raise HostSetupError(f"{spec.bridge} exists and is not a bridge; set another bridge in [segment]")
    if bridge is not None and bridge.alias.startswith(ALIAS_PREFIX) and not is_ours(spec, bridge):
        owner = bridge.alias.removeprefix(ALIAS_PREFIX)
        raise HostSetupError(f"{spec.bridge} belongs to the segment {owner}; set another bridge in [segment]")
    if tap is not None and not tap.is_tap:
        raise HostSetupError(f"{spec.tap} exists and is not a TAP; set another tap in [segment]")
    if tap is not None and not tap.persistent and not tap_open:
        raise HostSetupError(
            f"{spec.tap} is held by a running process, probably a node of {spec.segment}: l2overlay status {spec.segment}"
        )


def _refuse_taken_addresses(spec: HostSpec, state: HostState) -> None:
    for wanted in spec.addresses:
        for link, present in state.addresses:
            if present.ip != wanted.ip or (link == spec.bridge and present == wanted):
                continue
            raise HostSetupError(
                f"{wanted} cannot go on {spec.bridge}: {link} has {present}; remove it there or change [segment.addresses]"
            )


def _plan_bridge(spec: HostSpec, state: HostState) -> list[Change]:
    bridge = state.bridge
    if bridge is None:
        create = CreateBridge(spec.bridge, format_mac(spec.bridge_mac), spec.mtu, spec.alias)
        flags = _plan_flags(spec, frozenset(), 0)
        return [create, *_plan_quiet_bridge(spec, state), *flags, SetUp(spec.bridge, True, None)]
    if not is_ours(spec, bridge):
        return _plan_adopted_bridge(spec, state, bridge)
    changes: list[Change] = []
    if bridge.alias != spec.alias:
        changes.append(SetAlias(spec.bridge, spec.alias, index=bridge.index))
    if bridge.mac != format_mac(spec.bridge_mac):
        changes.append(SetMac(spec.bridge, format_mac(spec.bridge_mac), None, index=bridge.index))
    if bridge.mtu != spec.mtu:
        changes.append(SetMtu(spec.bridge, spec.mtu, None, index=bridge.index))
    changes += [*_plan_quiet_bridge(spec, state), *_plan_flags(spec, bridge.nf_call, bridge.index)]
    if not bridge.up:
        changes.append(SetUp(spec.bridge, True, None, index=bridge.index))
    return changes


def _plan_flags(spec: HostSpec, on: frozenset[str], index: int) -> list[Change]:
    """Before the TAP joins, so that no frame passes unseen. Filtering is active if the sysctl or the bridge's own flag is
    set; the sysctl is every bridge's, and not ours to change."""
    if spec.filter is None:
        return []
    return [
        SetBridgeFlag(spec.bridge, flag, True, False, index=index) for flag in NF_CALL_FLAGS if flag not in on
    ]


def _plan_quiet_bridge(spec: HostSpec, state: HostState) -> list[Change]:
    """A bridge of ours takes no router advertisement, or any guest of any site would route this host; and no link-local
    address unless it has an IPv6 address to go with."""
    if not state.has_ipv6:
        return []
    speaks_ipv6 = any(a.version == 6 for a in spec.addresses)
    wanted = {_accept_ra(spec.bridge): "0", _address_mode(spec.bridge): "0" if speaks_ipv6 else "1"}
    if state.bridge is None and speaks_ipv6:
        del wanted[_address_mode(spec.bridge)]  # as the host's default has it
    return [
        SetSysctl(spec.bridge, path, to, None) for path, to in wanted.items() if state.sysctls.get(path) != to
    ]


def _plan_adopted_bridge(spec: HostSpec, state: HostState, bridge: LinkState) -> list[Change]:
    changes: list[Change] = []
    is_port = state.tap is not None and state.tap.master == spec.bridge
    lowest = min((port.mac for port in state.ports), default="")
    if not is_port and bridge.mac != ZERO_MAC and (not lowest or format_mac(spec.tap_mac) < lowest):
        changes.append(KeepMac(spec.bridge, bridge.mac, index=bridge.index))
    changes += _plan_flags(spec, bridge.nf_call, bridge.index)
    if not bridge.up:
        changes.append(SetUp(spec.bridge, True, False, index=bridge.index))
    return changes


def _plan_tap(spec: HostSpec, state: HostState) -> list[Change]:
    """No IPv6 on the TAP before it is up: it is a port, and would send solicitations of its own. The sysctl comes after
    the MTU, because below 1280 there is none."""
    tap, bridge = state.tap, state.bridge
    index = tap.index if tap is not None else 0
    before = tap if tap is not None and tap.persistent else None  # any other goes with us, nothing to restore
    mac, mtu, no_ipv6 = format_mac(spec.tap_mac), _tap_mtu(spec, state), _no_ipv6(spec.tap)
    changes: list[Change] = []
    if tap is None or tap.mac != mac:
        changes.append(SetMac(spec.tap, mac, before.mac if before else None, index=index))
    if tap is None or tap.mtu != mtu:
        changes.append(SetMtu(spec.tap, mtu, before.mtu if before else None, index=index))
    if tap is None or tap.queue < TAP_QUEUE:  # a longer one is somebody's wish
        changes.append(SetQueue(spec.tap, TAP_QUEUE, before.queue if before else None, index=index))
    if state.has_ipv6 and state.sysctls.get(no_ipv6) != "1":
        was = state.sysctls.get(no_ipv6) if before else None
        changes.append(SetSysctl(spec.tap, no_ipv6, "1", was, index=index))
    if tap is None or bridge is None or tap.master != spec.bridge:
        changes.append(SetMaster(spec.tap, spec.bridge, before.master if before else None, index=index))
    if bridge is not None and not is_ours(spec, bridge) and (tap is None or not tap.hears_all_multicast):
        changes.append(HearAllMulticast(spec.tap, index=index))
    if tap is None or not tap.up:
        changes.append(SetUp(spec.tap, True, False if before else None, index=index))
    return changes


def _tap_mtu(spec: HostSpec, state: HostState) -> int:
    """A bridge takes the least MTU of its ports: below that of an adopted bridge the TAP would change it."""
    if state.bridge is None or is_ours(spec, state.bridge):
        return spec.mtu
    return max(spec.mtu, state.bridge.mtu)


def _plan_addresses(spec: HostSpec, state: HostState, made: Undo) -> list[Change]:
    index = state.bridge.index if state.bridge is not None else 0
    present = {address for link, address in state.addresses if link == spec.bridge}
    ours = {
        ip_interface(c.address)
        for c in made.changes
        if isinstance(c, RemoveAddress) and c.link == spec.bridge
    }
    wanted = {a for a in spec.addresses if a.version == 4 or not state.ipv6_off}
    return [
        *(RemoveAddress(spec.bridge, str(a), index=index) for a in sorted(present & ours - wanted, key=str)),
        *(AddAddress(spec.bridge, str(a), index=index) for a in spec.addresses if a in wanted - present),
    ]


def _no_ipv6(link: str) -> str:
    return f"ipv6/conf/{link}/disable_ipv6"


def _accept_ra(link: str) -> str:
    return f"ipv6/conf/{link}/accept_ra"


def _forwarding(link: str) -> str:
    return f"ipv6/conf/{link}/forwarding"


def _address_mode(link: str) -> str:
    return f"ipv6/conf/{link}/addr_gen_mode"  # 0: from the MAC, 1: none


# Reading


def _read_link(ipr: "IPRoute", name: str) -> LinkState | None:
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        return _link_state(next(iter(ipr.link("get", ifname=name))))
    except NetlinkError as error:
        if error.code == errno.ENODEV:
            return None
        raise


def _read_ports(ipr: "IPRoute", bridge: int) -> tuple[LinkState, ...]:
    return tuple(_link_state(link) for link in ipr.link("dump", master=bridge))


def _read_addresses(ipr: "IPRoute") -> Iterator[tuple[str, Interface]]:
    for entry in ipr.get_addr():
        host = entry.get_attr("IFA_LOCAL") or entry.get_attr("IFA_ADDRESS")
        with contextlib.suppress(OSError):  # its link has gone since
            yield socket.if_indextoname(entry["index"]), ip_interface(f"{host}/{entry['prefixlen']}")


def _link_state(link: Any) -> LinkState:
    info = link.get_attr("IFLA_LINKINFO")
    kind = _attribute(info, "IFLA_INFO_KIND", "")
    data, port = _attribute(info, "IFLA_INFO_DATA", None), _attribute(info, "IFLA_INFO_SLAVE_DATA", None)
    master = link.get_attr("IFLA_MASTER")
    return LinkState(
        index=link["index"],
        name=link.get_attr("IFLA_IFNAME"),
        kind=kind,
        mac=link.get_attr("IFLA_ADDRESS") or "",
        mtu=link.get_attr("IFLA_MTU"),
        up=bool(link["flags"] & IFF_UP),
        master=socket.if_indextoname(master) if master else "",
        alias=link.get_attr("IFLA_IFALIAS") or "",
        is_tap=kind == "tun" and _attribute(data, "IFLA_TUN_TYPE", 0) == IFLA_TUN_TYPE_TAP,
        persistent=bool(_attribute(data, "IFLA_TUN_PERSIST", 0)),
        queue=link.get_attr("IFLA_TXQLEN") or 0,
        hears_all_multicast=_attribute(port, "IFLA_BRPORT_MULTICAST_ROUTER", 0) == MDB_RTR_TYPE_PERM,
        stp=bool(_attribute(data, "IFLA_BR_STP_STATE", 0)),
        vlan_filtering=bool(_attribute(data, "IFLA_BR_VLAN_FILTERING", 0)),
        nf_call=frozenset(f for f in NF_CALL_FLAGS if _attribute(data, f"IFLA_BR_{f.upper()}", 0)),
    )


def _attribute(nested: Any, name: str, default: Any) -> Any:
    """One of nested attributes; what pyroute2 cannot take apart it gives as text."""
    value = nested.get_attr(name) if hasattr(nested, "get_attr") else None
    return default if value is None else value


# Changing


def _apply(ipr: "IPRoute", change: Change) -> None:
    """Make one change. Raises OSError or NetlinkError; with a code of ALREADY_GONE when its link is not there (any more)."""
    match change:
        case CreateBridge():
            _create_bridge(ipr, change)
        case RemoveBridge():
            ipr.link("del", index=_index_of_our_bridge(ipr, change))
        case SetAlias(alias=alias):
            ipr.link("set", index=_index(change), ifalias=alias)
        case SetMac(mac=mac) | KeepMac(mac=mac):
            ipr.link("set", index=_index(change), address=mac)
        case SetMtu(mtu=mtu):
            ipr.link("set", index=_index(change), mtu=mtu)
        case SetQueue(frames=frames):
            ipr.link("set", index=_index(change), txqlen=frames)
        case SetUp(up=up):
            ipr.link("set", index=_index(change), state="up" if up else "down")
        case SetMaster(master=master):
            ipr.link("set", index=_index(change), master=_index_of(master) if master else 0)
        case HearAllMulticast():
            ipr.brport("set", index=_index(change), multicast_router=MDB_RTR_TYPE_PERM)
        case SetSysctl(path=path, value=value):
            _index(change)
            (SYSCTL_ROOT / path).write_text(value)
        case AddAddress(address=address):
            _change_address(ipr, "add", _index(change), address)
        case RemoveAddress(address=address):
            _change_address(ipr, "del", _index(change), address)
        case SetBridgeFlag(flag=flag, on=on):
            ipr.link("set", index=_index(change), kind="bridge", **{f"br_{flag}": int(on)})
        case RemoveFilter(segment=segment, absent=absent):
            firewall.remove(segment, absent)
        case _:
            raise TypeError(f"{change!r} is not a change that can be made")


def _create_bridge(ipr: "IPRoute", change: CreateBridge) -> None:
    """Snooping is off: with a querier anywhere in the segment (any router guest), a snooping bridge keeps multicast from
    ports whose reports it has not heard, and a peer that just came up has had no chance to be heard. Measured with a
    querier on the bridge, frames that reached the TAP, of 50 to a solicited-node group: 0 with snooping, 50 without.

    The kernel takes an MTU as meant, and not as following the ports, only when it is changed after creation: so it is
    made with another one.
    """
    ipr.link(
        "add",
        ifname=change.link,
        kind="bridge",
        address=change.mac,
        mtu=change.mtu + 1,
        br_stp_state=0,
        br_forward_delay=0,
        br_mcast_snooping=0,
    )
    index = _index(change)
    ipr.link("set", index=index, ifalias=change.alias)
    ipr.link("set", index=index, mtu=change.mtu)


def _change_address(ipr: "IPRoute", verb: str, index: int, address: str) -> None:
    interface = ip_interface(address)
    ipr.addr(verb, index=index, address=str(interface.ip), prefixlen=interface.network.prefixlen)


def _index(change: Change) -> int:
    """Of the link that the change means."""
    index = _index_of(change.link)
    if change.index not in (0, index):
        raise OSError(errno.ENODEV, f"{change.link} is another link now")
    return index


def _index_of(link: str) -> int:
    try:
        return socket.if_nametoindex(link)
    except OSError:  # it carries no errno
        raise OSError(errno.ENODEV, f"no link {link}") from None


def _used(ipr: "IPRoute", change: RemoveBridge) -> UsedBridge | None:
    """The bridge that `change` would remove, if it has ports. Our TAP is not among them by then."""
    ports = _read_ports(ipr, _index_of_our_bridge(ipr, change))
    return UsedBridge(change.link, tuple(sorted(p.name for p in ports))) if ports else None


def _index_of_our_bridge(ipr: "IPRoute", change: RemoveBridge) -> int:
    bridge = _read_link(ipr, change.link)
    if bridge is None or bridge.kind != "bridge":
        raise OSError(errno.ENODEV, f"no bridge {change.link}")
    if bridge.alias != change.alias and (bridge.alias or bridge.mac != change.mac):
        raise OSError(errno.ENODEV, f"{change.link} is not the bridge that we made")
    return bridge.index


def _code(error: Exception) -> int:
    code = error.errno if isinstance(error, OSError) else getattr(error, "code", 0)
    return code or 0


def _failure(change: Change, error: Exception) -> HostSetupError:
    code = _code(error)
    if code in (errno.EPERM, errno.EACCES):
        said = os.strerror(code)
        return HostPermissionError(f"may not {change.line} ({said}); {remedy('CAP_NET_ADMIN')}")
    return HostSetupError(f"could not {change.line}: {os.strerror(code) if code else error}")
