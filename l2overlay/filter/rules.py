"""Which rule decides about a frame: the meaning of `[filter]` as a pure function.

The order is the same in both directions, and `linux/iptables.py` writes exactly this order for the kernel:

    1  established and related connections are accepted
    2  neighbour discovery is accepted (ICMPv6 135 and 136: what ARP, which iptables does not see, is for IPv4)
    3  the first of [[filter.rules]] that matches decides; after a `log` rule the search goes on
    4  for a station of this host that is in security groups: their rules, then the strictest of their defaults
    5  the default of the direction

The remote end (the source of `in`, the destination of `out`) is behind a peer; the local end is on this host. A rule that
names this host at the local end applies to all of its stations; a rule that names another host there does not apply here.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from l2overlay.addresses import MacAddress
from l2overlay.filter.flow import Flow, IpAddress
from l2overlay.filter.model import (
    ACCEPTED_STATES,
    ICMP_NUMBER,
    ICMP_TYPES,
    NUMBERS,
    Action,
    Direction,
    FilterConfig,
    FilterRule,
    SecurityGroup,
    Subjects,
)

ESTABLISHED = "established"
NEIGHBOUR_DISCOVERY = "neighbour discovery"
NEIGHBOUR_TYPES = (135, 136)
STRICTNESS = (Action.ACCEPT, Action.REJECT, Action.DROP)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What happens to a frame, and why."""

    action: Action
    label: str
    """The label of the rule that decided."""
    steps: tuple[str, ...] = field(default=())
    """The rules that were tried before, one line each."""

    @property
    def accepted(self) -> bool:
        return self.action is Action.ACCEPT


def explain(config: FilterConfig, own: str, flow: Flow) -> Verdict:
    """Decide as the kernel does, assuming that no rule has exceeded its rate."""
    if not is_active(config, flow.direction):
        return Verdict(
            Action.ACCEPT, default_label(flow.direction), (f"nothing is filtered {flow.direction}",)
        )
    if flow.state in ACCEPTED_STATES:
        return Verdict(Action.ACCEPT, ESTABLISHED)
    if flow.version == 6 and flow.protocol == ICMP_NUMBER[6] and flow.icmp_type in NEIGHBOUR_TYPES:
        return Verdict(Action.ACCEPT, NEIGHBOUR_DISCOVERY)
    steps: list[str] = []
    decided = _first(rules_of(config.rules, flow.direction), own, flow, steps)
    if decided is not None:
        return Verdict(decided.action, decided.label, tuple(steps))
    mac = flow.destination_mac if flow.direction is Direction.IN else flow.source_mac
    groups = tuple(group for group in config.security_groups if mac in group.stations)
    if groups:
        rules = (rule for group in groups for rule in rules_of(group.rules, flow.direction))
        decided = _first(rules, own, flow, steps)
        if decided is not None:
            return Verdict(decided.action, decided.label, tuple(steps))
        return Verdict(groups_default(groups, flow.direction), groups_label(groups), tuple(steps))
    return Verdict(config.default(flow.direction), default_label(flow.direction), tuple(steps))


def rules_of(rules: Iterable[FilterRule], direction: Direction) -> Iterator[FilterRule]:
    """The rules of one direction, in order."""
    return (rule for rule in rules if rule.direction is direction)


def is_active(config: FilterConfig, direction: Direction) -> bool:
    """Whether a frame of this direction can be refused or logged. If not, the kernel gets no rules for it."""
    return (
        config.default(direction) is not Action.ACCEPT
        or any(rules_of(config.rules, direction))
        or has_say(config.security_groups, direction)
    )


def has_say(groups: Iterable[SecurityGroup], direction: Direction) -> bool:
    """Whether these groups can refuse a frame of this direction."""
    return any(group.default(direction) is not Action.ACCEPT for group in groups)


def groups_default(groups: Iterable[SecurityGroup], direction: Direction) -> Action:
    """The strictest default of the groups: it applies to a station that is in all of them."""
    return max((group.default(direction) for group in groups), key=STRICTNESS.index)


def default_label(direction: Direction) -> str:
    """The label of a frame that no rule decides."""
    return f"default {direction}"


def groups_label(groups: Iterable[SecurityGroup]) -> str:
    """The label of a frame that the default of these groups decides."""
    return f"security group {'+'.join(group.name for group in groups)}, default"


def group_sets(groups: Iterable[SecurityGroup]) -> dict[tuple[SecurityGroup, ...], list[MacAddress]]:
    """The stations in security groups, by the exact set of groups that each is in."""
    memberships: dict[MacAddress, tuple[SecurityGroup, ...]] = {}
    for group in groups:
        for mac in group.stations:
            memberships[mac] = (*memberships.get(mac, ()), group)
    sets: dict[tuple[SecurityGroup, ...], list[MacAddress]] = {}
    for mac, members in memberships.items():
        sets.setdefault(members, []).append(mac)
    return sets


def remote_end(rule: FilterRule) -> Subjects | None:
    """Who a rule names at the overlay's end."""
    return rule.source if rule.direction is Direction.IN else rule.destination


def local_end(rule: FilterRule) -> Subjects | None:
    """Who a rule names at this host's end."""
    return rule.destination if rule.direction is Direction.IN else rule.source


def all_rules(config: FilterConfig) -> Iterator[FilterRule]:
    """All rules, those of security groups included."""
    yield from config.rules
    for group in config.security_groups:
        yield from group.rules


def followed_peers(config: FilterConfig, own: str, direction: Direction) -> tuple[str, ...]:
    """The peers whose stations the rules of this host depend on, in the order in which rules name them."""
    ends = (remote_end(rule) for rule in all_rules(config) if rule.direction is direction)
    return tuple(dict.fromkeys(name for end in ends if end for name in end.peers if name != own))


def _first(rules: Iterable[FilterRule], own: str, flow: Flow, steps: list[str]) -> FilterRule | None:
    for rule in rules:
        mismatch = _mismatch(rule, own, flow)
        if mismatch:
            steps.append(f"{rule.label}: no, {mismatch}")
        elif rule.action is Action.LOG:
            steps.append(f"{rule.label}: logs it and goes on")
        else:
            if rule.rate is not None:
                steps.append(f"{rule.label}: yes, while within {rule.rate}")
            return rule
    return None


def _mismatch(rule: FilterRule, own: str, flow: Flow) -> str:
    """Why the rule does not match the frame; empty if it matches."""
    if rule.protocol is not None and flow.protocol != protocol_number(rule.protocol, flow.version):
        return f"it is for {rule.protocol}"
    if rule.ports and not _in_ranges(flow.destination_port, rule.ports):
        return f"the destination port is {flow.destination_port}"
    if rule.source_ports and not _in_ranges(flow.source_port, rule.source_ports):
        return f"the source port is {flow.source_port}"
    if rule.icmp_types and flow.icmp_type not in icmp_numbers(rule, flow.version):
        return f"it is for ICMP {', '.join(rule.icmp_types)}"
    if rule.states and flow.state not in rule.states:
        return f"the connection is {flow.state}"
    inward = flow.direction is Direction.IN
    source_peer, destination_peer = (flow.peer, own) if inward else (own, flow.peer)
    if not _means(rule.source, flow.source, flow.source_mac, source_peer):
        return f"its source is {_words(rule.source)}"
    if not _means(rule.destination, flow.destination, flow.destination_mac, destination_peer):
        return f"its destination is {_words(rule.destination)}"
    return ""


def _means(subjects: Subjects | None, address: IpAddress, mac: MacAddress | None, peer: str | None) -> bool:
    if subjects is None:
        return True
    return (
        peer in subjects.peers
        or mac in subjects.macs
        or any(address.version == network.version and address in network for network in subjects.networks)
    )


def protocol_number(protocol: str | int, version: int) -> int:
    """The protocol number in the IP header."""
    if isinstance(protocol, int):
        return protocol
    return ICMP_NUMBER[version] if protocol == "icmp" else NUMBERS[protocol]


def icmp_numbers(rule: FilterRule, version: int) -> list[int]:
    """The numbers of the rule's ICMP types in one address family."""
    numbers = (ICMP_TYPES[name][version == 6] for name in rule.icmp_types)
    return [number for number in numbers if number is not None]


def _in_ranges(port: int | None, ranges: tuple[tuple[int, int], ...]) -> bool:
    return port is not None and any(first <= port <= last for first, last in ranges)


def _words(subjects: Subjects | None) -> str:
    return ", ".join(subjects.words) if subjects is not None else "anyone"
