"""Which rule decides about a frame: the meaning of `[filter]`, as a pure function.

Order, the same in both directions (`linux/iptables.py` writes exactly this for the kernel):

    1  established and related connections are accepted
    2  neighbour discovery is accepted (ICMPv6 135 and 136: what ARP, which iptables does not see, is for IPv4)
    3  [[filter.rules]], the first that matches; `log` goes on
    4  a station of this host that is in security groups: their rules, then the strictest of their defaults
    5  the direction's default

The remote end (the source of `in`, the destination of `out`) is behind a peer; the local end is this host's. A rule that
names this host at the local end applies to all of its stations, one that names another host there does not apply here.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from l2overlay.addresses import MacAddress
from l2overlay.config.filter import ICMP_TYPES
from l2overlay.config.types import Action, Direction, FilterConfig, FilterRule, SecurityGroup, Subjects
from l2overlay.filter.flow import ICMP_NUMBER, NUMBERS, Flow, IpAddress

ESTABLISHED = "established"
NEIGHBOUR_DISCOVERY = "neighbour discovery"
NEIGHBOUR_TYPES = (135, 136)
STRICTNESS = (Action.ACCEPT, Action.REJECT, Action.DROP)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of a frame, and why."""

    action: Action
    label: str
    """Of the rule that decided."""
    steps: tuple[str, ...] = field(default=())
    """What was looked at before, one line each."""

    @property
    def accepted(self) -> bool:
        return self.action is Action.ACCEPT


def explain(config: FilterConfig, own: str, flow: Flow) -> Verdict:
    """Decide as the kernel does. A rule with a rate is taken to be within it."""
    if not is_active(config, flow.direction):
        return Verdict(
            Action.ACCEPT, default_label(flow.direction), (f"nothing is filtered {flow.direction}",)
        )
    if flow.state in ("established", "related"):
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
    """Those of one direction, in order."""
    return (rule for rule in rules if rule.direction is direction)


def is_active(config: FilterConfig, direction: Direction) -> bool:
    """Whether anything of this direction could be refused or logged; if not, the kernel is not bothered."""
    return (
        config.default(direction) is not Action.ACCEPT
        or any(rules_of(config.rules, direction))
        or has_say(config.security_groups, direction)
    )


def has_say(groups: Iterable[SecurityGroup], direction: Direction) -> bool:
    """Whether these groups can refuse anything of this direction."""
    return any(_default(group, direction) is not Action.ACCEPT for group in groups)


def groups_default(groups: Iterable[SecurityGroup], direction: Direction) -> Action:
    """Of a station in all of them: the strictest."""
    return max((_default(group, direction) for group in groups), key=STRICTNESS.index)


def _default(group: SecurityGroup, direction: Direction) -> Action:
    return group.default_in if direction is Direction.IN else group.default_out


def default_label(direction: Direction) -> str:
    """Of what no rule decides."""
    return f"default {direction}"


def groups_label(groups: Iterable[SecurityGroup]) -> str:
    """Of a security group's default."""
    return f"security group {'+'.join(group.name for group in groups)}, default"


def group_sets(groups: Iterable[SecurityGroup]) -> dict[tuple[SecurityGroup, ...], list[MacAddress]]:
    """Stations by all the groups that they are in."""
    memberships: dict[MacAddress, tuple[SecurityGroup, ...]] = {}
    for group in groups:
        for mac in group.stations:
            memberships[mac] = (*memberships.get(mac, ()), group)
    sets: dict[tuple[SecurityGroup, ...], list[MacAddress]] = {}
    for mac, members in memberships.items():
        sets.setdefault(members, []).append(mac)
    return sets


def remote_end(rule: FilterRule) -> Subjects | None:
    """Who a rule means at the overlay's side."""
    return rule.source if rule.direction is Direction.IN else rule.destination


def local_end(rule: FilterRule) -> Subjects | None:
    """Who a rule means at this host's side."""
    return rule.destination if rule.direction is Direction.IN else rule.source


def all_rules(config: FilterConfig) -> Iterator[FilterRule]:
    """Those of security groups too."""
    yield from config.rules
    for group in config.security_groups:
        yield from group.rules


def followed_peers(config: FilterConfig, own: str, direction: Direction) -> tuple[str, ...]:
    """The peers whose stations the rules of this host need to know, in order of mention."""
    ends = (remote_end(rule) for rule in all_rules(config) if rule.direction is direction)
    return tuple(dict.fromkeys(name for end in ends if end for name in end.peers if name != own))


def _first(rules: Iterable[FilterRule], own: str, flow: Flow, steps: list[str]) -> FilterRule | None:
    for rule in rules:
        mismatch = _mismatch(rule, own, flow)
        if mismatch:
            steps.append(f"{rule.label}: no, {mismatch}")
        elif rule.action is Action.LOG:
            steps.append(f"{rule.label}: logs it, and goes on")
        else:
            if rule.rate is not None:
                steps.append(f"{rule.label}: yes, while within {rule.rate}")
            return rule
    return None


def _mismatch(rule: FilterRule, own: str, flow: Flow) -> str:
    """The first thing in which the rule differs from the frame; empty when it matches."""
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
    """What stands in the IP header."""
    if isinstance(protocol, int):
        return protocol
    return ICMP_NUMBER[version] if protocol == "icmp" else NUMBERS[protocol]


def icmp_numbers(rule: FilterRule, version: int) -> list[int]:
    """The rule's ICMP types in one address family."""
    numbers = (ICMP_TYPES[name][version == 6] for name in rule.icmp_types)
    return [number for number in numbers if number is not None]


def _in_ranges(port: int | None, ranges: tuple[tuple[int, int], ...]) -> bool:
    return port is not None and any(first <= port <= last for first, last in ranges)


def _words(subjects: Subjects | None) -> str:
    return ", ".join(subjects.words) if subjects is not None else "anyone"
