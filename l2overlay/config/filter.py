"""What a checked `[filter]` table becomes: a frozen `FilterConfig`, with every group expanded."""

from collections.abc import Iterable

from l2overlay.addresses import parse_mac
from l2overlay.config.filter_names import Names, listed, names_of
from l2overlay.config.filter_values import parse_port, parse_rate, protocol_value
from l2overlay.config.tables import FilterRuleTable, FilterTable, SecurityGroupRuleTable, SecurityGroupTable
from l2overlay.filter.model import (
    ANY_PROTOCOL,
    DEFAULT_LOG_RATE,
    Action,
    Direction,
    FilterConfig,
    FilterRule,
    PortRange,
    Rate,
    SecurityGroup,
)


def build_filter(table: FilterTable | None, peers: Iterable[str]) -> FilterConfig | None:
    """Build from a table that `filter_faults` found no fault in; `peers` are the names of the file's peers."""
    if table is None:
        return None
    secured = ((i, group.name, group.stations) for i, group in enumerate(table.security_groups))
    names = names_of(peers, table.groups, secured)
    return FilterConfig(
        backend=table.backend,
        default_in=Action(table.default_in),
        default_out=Action(table.default_out),
        tagged=Action(table.tagged),
        rules=tuple(build_rule(rule, f"rule {i}", names) for i, rule in enumerate(table.rules, 1)),
        security_groups=tuple(_security_group(group, names) for group in table.security_groups),
    )


def build_rule(table: FilterRuleTable, label: str, names: Names) -> FilterRule:
    """Build one of `[[filter.rules]]`. Raises ValueError if a value in it is malformed."""
    action = Action(table.action)
    return FilterRule(
        label=label,
        direction=Direction(table.direction),
        action=action,
        protocol=_protocol(table.protocol),
        source=names.subjects(table.source),
        destination=names.subjects(table.destination),
        ports=_ports(table.ports),
        source_ports=_ports(table.source_ports),
        icmp_types=_texts(table.icmp_types),
        states=_texts(table.state),
        rate=_rate(table, action),
        comment=table.comment,
    )


def _security_group(table: SecurityGroupTable, names: Names) -> SecurityGroup:
    stations = names.expand(table.stations)
    label = f"security group {table.name}, rule"
    return SecurityGroup(
        name=table.name,
        stations=tuple(dict.fromkeys(parse_mac(text) for text in stations)),
        default_in=Action(table.default_in),
        default_out=Action(table.default_out),
        rules=tuple(_group_rule(rule, f"{label} {i}", names) for i, rule in enumerate(table.rules, 1)),
    )


def _group_rule(table: SecurityGroupRuleTable, label: str, names: Names) -> FilterRule:
    """A rule of a security group: it accepts, and its other end is `remote`."""
    direction, remote = Direction(table.direction), names.subjects(table.remote)
    return FilterRule(
        label=label,
        direction=direction,
        action=Action.ACCEPT,
        protocol=_protocol(table.protocol),
        source=remote if direction is Direction.IN else None,
        destination=remote if direction is Direction.OUT else None,
        ports=_ports(table.ports),
        icmp_types=_texts(table.icmp_types),
        comment=table.comment,
    )


def _protocol(value: object) -> str | int | None:
    protocol = protocol_value(value)
    return None if protocol == ANY_PROTOCOL else protocol


def _rate(table: FilterRuleTable, action: Action) -> Rate | None:
    if table.rate is None:
        return DEFAULT_LOG_RATE if action is Action.LOG else None
    count, unit = parse_rate(table.rate)
    return Rate(count, unit) if table.burst is None else Rate(count, unit, table.burst)


def _ports(value: object) -> tuple[PortRange, ...]:
    """In ascending order, with overlapping and adjacent ranges joined."""
    joined: list[PortRange] = []
    for first, last in sorted(parse_port(entry) for entry in listed(value)):
        if joined and first <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(last, joined[-1][1]))
        else:
            joined.append((first, last))
    return tuple(joined)


def _texts(value: object) -> tuple[str, ...]:
    return tuple(str(text) for text in listed(value))
