"""The addresses of [segment.addresses] on the bridge."""

from collections.abc import Sequence
from ipaddress import ip_interface

from l2overlay.errors import HostSetupError
from l2overlay.linux.changes import AddAddress, Change, RemoveAddress
from l2overlay.linux.feature import Feature, HostSpec
from l2overlay.linux.state import HostState


class Addresses(Feature):
    """Adds those that are missing, and removes those that a node had added and the spec no longer has."""

    def sysctls(self, spec: HostSpec) -> tuple[str, ...]:
        return (_no_ipv6(spec.bridge), _no_ipv6("default"))

    def refuse(self, spec: HostSpec, state: HostState, *, tap_open: bool) -> None:
        for wanted in spec.addresses:
            for link, present in state.addresses:
                if present.ip != wanted.ip or (link == spec.bridge and present == wanted):
                    continue
                raise HostSetupError(
                    f"{wanted} cannot go on {spec.bridge}: {link} has {present}; "
                    "remove it there or change [segment.addresses]"
                )

    def plan(self, spec: HostSpec, state: HostState, made: Sequence[Change]) -> list[Change]:
        index = state.bridge.index if state.bridge is not None else 0
        present = {address for link, address in state.addresses if link == spec.bridge}
        ours = {
            ip_interface(c.address) for c in made if isinstance(c, RemoveAddress) and c.link == spec.bridge
        }
        no_ipv6 = _what_switches_ipv6_off(spec, state)
        wanted = {a for a in spec.addresses if a.version == 4 or not no_ipv6}
        return [
            *(
                RemoveAddress(spec.bridge, str(a), index=index)
                for a in sorted(present & ours - wanted, key=str)
            ),
            *(AddAddress(spec.bridge, str(a), index=index) for a in spec.addresses if a in wanted - present),
        ]

    def troubles(self, spec: HostSpec, state: HostState) -> list[str]:
        off = _what_switches_ipv6_off(spec, state)
        missing = [str(a) for a in spec.addresses if a.version == 6] if off else []
        without = f"{spec.bridge} goes without {', '.join(missing)}"
        what_to_do = "switch it on, or take that out of [segment.addresses]"
        said = f"IPv6 is switched off on this host ({off}): {without}; {what_to_do}"
        return [said] if missing else []


def _what_switches_ipv6_off(spec: HostSpec, state: HostState) -> str:
    """What keeps IPv6 addresses off the bridge, in words; empty when nothing does.

    The kernel refuses such an address with EACCES, as if for want of privilege.
    """
    if not state.has_ipv6:
        return "the kernel has none"
    # A link is born with the default.
    link = spec.bridge if _no_ipv6(spec.bridge) in state.sysctls else "default"
    if state.sysctls.get(_no_ipv6(link), "0") != "0":
        return f"net.ipv6.conf.{link}.disable_ipv6 = 1"
    return ""


def _no_ipv6(link: str) -> str:
    return f"ipv6/conf/{link}/disable_ipv6"
