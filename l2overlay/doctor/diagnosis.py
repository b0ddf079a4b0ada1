"""All checks, in the order in which a person would look: does it exist, is it joined, does it pass, does it arrive?"""

from collections.abc import Callable, Iterator

from l2overlay.doctor import bridging, filtering, underlay
from l2overlay.doctor.finding import Finding, Severity
from l2overlay.doctor.view import HostView

Check = Callable[[HostView], Iterator[Finding]]
CHECKS: tuple[Check, ...] = (
    underlay.check_node,
    bridging.check_links,
    bridging.check_port_addresses,
    bridging.check_spanning_tree,
    bridging.check_port_flags,
    bridging.check_snooping,
    bridging.check_vlans,
    bridging.check_mtu,
    bridging.check_macs,
    filtering.check_bridged_ip,
    filtering.check_bridged_arp,
    filtering.check_bridge_rules,
    filtering.check_bridge_input,
    filtering.check_underlay_firewall,
    underlay.check_underlay_mtu,
    underlay.check_tunnelled_tunnel,
    underlay.check_reverse_path,
    underlay.check_peers,
    underlay.check_refused,
    underlay.check_clock,
    underlay.check_losses,
)


def diagnose(view: HostView) -> list[Finding]:
    """Everything that is wrong, errors first."""
    found = list(dict.fromkeys(finding for check in CHECKS for finding in check(view)))
    return sorted(found, key=lambda finding: finding.severity is not Severity.ERROR)


def needs_second_look(view: HostView) -> bool:
    """Whether a second look at the counters can tell more."""
    return filtering.needs_second_look(view)
