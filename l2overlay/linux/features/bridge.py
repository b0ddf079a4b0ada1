"""The segment's bridge: made, or adopted if it exists.

An adopted bridge keeps its MAC, MTU and addresses, and stays when the node goes. One that a node makes has the alias
`l2overlay SEGMENT` and a MAC that comes from the node's key, so that a start after SIGKILL knows it. It stays too while
others have ports in it, because their guests would be cut off; the next start takes it over.
"""

import errno
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from l2overlay.addresses import format_mac
from l2overlay.errors import HostSetupError
from l2overlay.linux.changes import Change, SetMac, SetMtu, SetSysctl, SetUp, UsedBridge, is_mac
from l2overlay.linux.feature import ALIAS_PREFIX, Feature, HostSpec
from l2overlay.linux.observe import read_link, read_ports
from l2overlay.linux.state import HostState, LinkState

if TYPE_CHECKING:
    from pyroute2 import IPRoute

ZERO_MAC = "00:00:00:00:00:00"


@dataclass(frozen=True, slots=True)
class CreateBridge(Change):
    """Make a bridge without STP and snooping, which forwards at once. Its alias and MAC tell later that it is ours."""

    mac: str
    mtu: int
    alias: str

    @property
    def line(self) -> str:
        return f"make the bridge {self.link}, MAC {self.mac}, MTU {self.mtu}"

    @property
    def inverse(self) -> Change:
        return RemoveBridge(self.link, self.mac, self.alias)

    def apply(self, ipr: "IPRoute") -> None:
        _create_bridge(ipr, self)


@dataclass(frozen=True, slots=True)
class RemoveBridge(Change):
    """Remove a bridge if it is still the one that we made."""

    mac: str
    alias: str

    @property
    def line(self) -> str:
        return f"remove the bridge {self.link}"

    @property
    def inverse(self) -> None:
        return None

    @property
    def is_plausible(self) -> bool:
        return is_mac(self.mac) and self.alias.startswith(ALIAS_PREFIX)

    def apply(self, ipr: "IPRoute") -> None:
        ipr.link("del", index=self._find_ours(ipr))

    def kept_for(self, ipr: "IPRoute") -> UsedBridge | None:
        """The bridge, if it has ports. The TAP of the node is not among them when changes are undone."""
        ports = read_ports(ipr, self._find_ours(ipr))
        return UsedBridge(self.link, tuple(sorted(p.name for p in ports))) if ports else None

    def _find_ours(self, ipr: "IPRoute") -> int:
        bridge = read_link(ipr, self.link)
        if bridge is None or bridge.kind != "bridge":
            raise OSError(errno.ENODEV, f"no bridge {self.link}")
        if bridge.alias != self.alias and (bridge.alias or bridge.mac != self.mac):
            raise OSError(errno.ENODEV, f"{self.link} is not the bridge that we made")
        return bridge.index


@dataclass(frozen=True, slots=True)
class SetAlias(Change):
    """Mark a bridge as ours (`ip link` shows it)."""

    alias: str

    @property
    def line(self) -> str:
        return f"mark {self.link} as `{self.alias}`"

    @property
    def inverse(self) -> None:
        return None

    def apply(self, ipr: "IPRoute") -> None:
        ipr.link("set", index=self.find_link(), ifalias=self.alias)


@dataclass(frozen=True, slots=True)
class KeepMac(Change):
    """Set the MAC that an adopted bridge has already. Without ports it would take that of our TAP, and later be all zero."""

    mac: str

    @property
    def line(self) -> str:
        return f"keep the MAC {self.mac} of {self.link}, which would take that of our TAP"

    @property
    def inverse(self) -> None:
        return None

    def apply(self, ipr: "IPRoute") -> None:
        ipr.link("set", index=self.find_link(), address=self.mac)


class Bridge(Feature):
    """The bridge that the TAP is in."""

    undo_kinds = (RemoveBridge,)

    def links(self, spec: HostSpec) -> tuple[str, ...]:
        return (spec.bridge,)

    def sysctls(self, spec: HostSpec) -> tuple[str, ...]:
        return (_accept_ra(spec.bridge), _forwarding(spec.bridge), _address_mode(spec.bridge))

    def refuse(self, spec: HostSpec, state: HostState, *, tap_open: bool) -> None:
        bridge = state.bridge
        if bridge is not None and bridge.kind != "bridge":
            raise HostSetupError(f"{spec.bridge} exists and is not a bridge; set another bridge in [segment]")
        if bridge is not None and bridge.alias.startswith(ALIAS_PREFIX) and not spec.is_ours(bridge):
            owner = bridge.alias.removeprefix(ALIAS_PREFIX)
            raise HostSetupError(
                f"{spec.bridge} belongs to the segment {owner}; set another bridge in [segment]"
            )

    def plan(self, spec: HostSpec, state: HostState, made: Sequence[Change]) -> list[Change]:
        bridge = state.bridge
        if bridge is None:
            create = CreateBridge(spec.bridge, format_mac(spec.bridge_mac), spec.mtu, spec.alias)
            return [create, *_plan_quiet_bridge(spec, state), SetUp(spec.bridge, True, None)]
        if not spec.is_ours(bridge):
            return _plan_adopted_bridge(spec, state, bridge)
        changes: list[Change] = []
        if bridge.alias != spec.alias:
            changes.append(SetAlias(spec.bridge, spec.alias, index=bridge.index))
        if bridge.mac != format_mac(spec.bridge_mac):
            changes.append(SetMac(spec.bridge, format_mac(spec.bridge_mac), None, index=bridge.index))
        if bridge.mtu != spec.mtu:
            changes.append(SetMtu(spec.bridge, spec.mtu, None, index=bridge.index))
        changes += _plan_quiet_bridge(spec, state)
        if not bridge.up:
            changes.append(SetUp(spec.bridge, True, None, index=bridge.index))
        return changes

    def notes(self, spec: HostSpec, state: HostState) -> list[str]:
        bridge = state.bridge
        if bridge is None or spec.is_ours(bridge):
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
        if bridge.bridge is not None and bridge.bridge.stp:
            notes.append(f"bridge {name} runs STP: {spec.tap} forwards only after twice its forward delay")
        if bridge.bridge is not None and bridge.bridge.vlan_filtering:
            notes.append(
                f"bridge {name} filters VLANs: let them pass by `bridge vlan add dev {spec.tap} vid ...`"
            )
        return notes

    def leftovers(self, spec: HostSpec, state: HostState) -> list[Change]:
        if state.bridge is None or state.bridge.kind != "bridge" or not spec.is_ours(state.bridge):
            return []
        return [RemoveBridge(spec.bridge, format_mac(spec.bridge_mac), spec.alias)]


def _plan_adopted_bridge(spec: HostSpec, state: HostState, bridge: LinkState) -> list[Change]:
    changes: list[Change] = []
    is_port = state.tap is not None and state.tap.master == spec.bridge
    lowest = min((port.mac for port in state.ports), default="")
    if not is_port and bridge.mac != ZERO_MAC and (not lowest or format_mac(spec.tap_mac) < lowest):
        changes.append(KeepMac(spec.bridge, bridge.mac, index=bridge.index))
    if not bridge.up:
        changes.append(SetUp(spec.bridge, True, False, index=bridge.index))
    return changes


def _plan_quiet_bridge(spec: HostSpec, state: HostState) -> list[Change]:
    """A bridge of ours ignores router advertisements, or any guest at any site could route this host. It has a link-local
    address only if it has another IPv6 address too."""
    if not state.has_ipv6:
        return []
    speaks_ipv6 = any(a.version == 6 for a in spec.addresses)
    wanted = {_accept_ra(spec.bridge): "0", _address_mode(spec.bridge): "0" if speaks_ipv6 else "1"}
    if state.bridge is None and speaks_ipv6:
        del wanted[_address_mode(spec.bridge)]  # as the host's default has it
    return [
        SetSysctl(spec.bridge, path, to, None) for path, to in wanted.items() if state.sysctls.get(path) != to
    ]


def _takes_router_advertisements(bridge: str, sysctls: Mapping[str, str]) -> bool:
    """accept_ra = 1 takes them unless the host forwards, 2 always (ip-sysctl.rst)."""
    accepts = sysctls.get(_accept_ra(bridge), "0")
    return accepts == "2" or (accepts == "1" and sysctls.get(_forwarding(bridge)) == "0")


def _accept_ra(link: str) -> str:
    return f"ipv6/conf/{link}/accept_ra"


def _forwarding(link: str) -> str:
    return f"ipv6/conf/{link}/forwarding"


def _address_mode(link: str) -> str:
    return f"ipv6/conf/{link}/addr_gen_mode"  # 0: from the MAC, 1: none


def _create_bridge(ipr: "IPRoute", change: CreateBridge) -> None:
    """Make the bridge with snooping off. With a querier anywhere in the segment (any router guest), a snooping bridge keeps
    multicast from ports whose reports it has not heard, and those of a peer that just came up it cannot have heard.
    Measured with a querier on the bridge: of 50 frames to a solicited-node group 0 reached the TAP with snooping, 50
    without.

    The MTU of a bridge follows its ports until somebody changes it. So the bridge is made with another one, which is
    then changed.
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
    index = change.find_link()
    ipr.link("set", index=index, ifalias=change.alias)
    ipr.link("set", index=index, mtu=change.mtu)
