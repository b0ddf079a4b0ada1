"""The TAP in its bridge. `LinuxTap.open` makes it, because the node needs its descriptor; here it becomes a port."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from l2overlay.addresses import format_mac
from l2overlay.errors import HostSetupError
from l2overlay.linux.changes import Change, SetMac, SetMaster, SetMtu, SetQueue, SetSysctl, SetUp
from l2overlay.linux.feature import Feature, HostSpec
from l2overlay.linux.state import HostState

if TYPE_CHECKING:
    from pyroute2 import IPRoute

MDB_RTR_TYPE_PERM = 2
TAP_QUEUE = 2000
"""Frames that may wait in the TAP while the node has no processor; the kernel's default is 1000.

Measured with 21 000 to 58 000 small frames a second, and a node that is stopped for 30 ms out of 60: 30 to 46 % were lost
with 1000, 9 to 22 % with 2000, 0 to 3 % with 4000. A longer queue costs memory that is charged to nobody, because each frame
may be a super-frame of 64 KiB."""


@dataclass(frozen=True, slots=True)
class HearAllMulticast(Change):
    """Let a bridge port get every multicast frame, whatever its bridge has snooped."""

    @property
    def line(self) -> str:
        return f"let {self.link} hear all multicast of its bridge"

    @property
    def inverse(self) -> None:
        return None  # it belongs to the membership in the bridge

    def apply(self, ipr: "IPRoute") -> None:
        ipr.brport("set", index=self.find_link(), multicast_router=MDB_RTR_TYPE_PERM)


class Tap(Feature):
    """The TAP as a port of the bridge."""

    def links(self, spec: HostSpec) -> tuple[str, ...]:
        return (spec.tap,)

    def sysctls(self, spec: HostSpec) -> tuple[str, ...]:
        return (_no_ipv6(spec.tap),)

    def refuse(self, spec: HostSpec, state: HostState, *, tap_open: bool) -> None:
        tap = state.tap
        if tap is not None and tap.tap is None:
            raise HostSetupError(f"{spec.tap} exists and is not a TAP; set another tap in [segment]")
        if tap is not None and not tap.persistent and not tap_open:
            raise HostSetupError(
                f"{spec.tap} is held by a running process, probably a node of {spec.segment}: "
                f"l2overlay status {spec.segment}"
            )

    def plan(self, spec: HostSpec, state: HostState, made: Sequence[Change]) -> list[Change]:
        """A port has no IPv6 of its own, or it would send solicitations: so IPv6 goes off before the TAP is up. The sysctl
        comes after the MTU, because the kernel has none for a link below 1280."""
        tap, bridge = state.tap, state.bridge
        index = tap.index if tap is not None else 0
        before = (
            tap if tap is not None and tap.persistent else None
        )  # any other goes with us, nothing to restore
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
        if bridge is not None and not spec.is_ours(bridge) and (tap is None or not tap.hears_all_multicast):
            changes.append(HearAllMulticast(spec.tap, index=index))
        if tap is None or not tap.up:
            changes.append(SetUp(spec.tap, True, False if before else None, index=index))
        return changes


def _tap_mtu(spec: HostSpec, state: HostState) -> int:
    """A bridge takes the least MTU of its ports. So the TAP gets at least that of an adopted one."""
    if state.bridge is None or spec.is_ours(state.bridge):
        return spec.mtu
    return max(spec.mtu, state.bridge.mtu)


def _no_ipv6(link: str) -> str:
    return f"ipv6/conf/{link}/disable_ipv6"
