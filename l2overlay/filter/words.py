"""Rules and verdicts as text, for `filter show` and `filter explain`."""

from typing import Any

from l2overlay.filter.flow import NF_TABLES, Flow, NotFilteredError, Where, parse_flows
from l2overlay.filter.model import Direction, FilterConfig, FilterRule, PortRange, Subjects
from l2overlay.filter.rules import default_label, explain, group_sets, groups_default, groups_label

BUILT_IN = (
    ("established", "accept frames of a connection that was accepted", ""),
    ("neighbour discovery", "accept the IPv6 counterpart of ARP", ""),
)
"""Apply before all rules, in both directions."""


def rule_words(rule: FilterRule) -> str:
    """`accept tcp from @servers to port 22, up to 10/s, 5 at once`."""
    words = [str(rule.action), "anything" if rule.protocol is None else _protocol(rule.protocol)]
    if rule.icmp_types:
        words.append(" or ".join(rule.icmp_types))
    words.append(_end("from", rule.source, rule.source_ports))
    words.append(_end("to", rule.destination, rule.ports))
    text = " ".join(word for word in words if word)
    text += f", {' or '.join(rule.states)} connections" if rule.states else ""
    return text + (f", up to {rule.rate}" if rule.rate is not None else "")


def table(config: FilterConfig, direction: Direction) -> list[tuple[str, str, str]]:
    """Everything that can decide in one direction, in order: label, text, comment."""
    rows = [
        (rule.label, rule_words(rule), rule.comment) for rule in config.rules if rule.direction is direction
    ]
    for group in config.security_groups:
        rows += [(r.label, rule_words(r), r.comment) for r in group.rules if r.direction is direction]
    for groups, macs in group_sets(config.security_groups).items():
        stations = f"{len(macs)} station{'s' * (len(macs) != 1)}"
        words = f"{groups_default(groups, direction)} anything else {_side(direction)} {stations} of it"
        rows.append((groups_label(groups), words, ""))
    rows.append((default_label(direction), f"{config.default(direction)} anything else", ""))
    return rows


def _protocol(protocol: str | int) -> str:
    return protocol if isinstance(protocol, str) else f"protocol {protocol}"


def _side(direction: Direction) -> str:
    return "to" if direction is Direction.IN else "from"


def _end(word: str, subjects: Subjects | None, ports: tuple[PortRange, ...]) -> str:
    parts = [", ".join(subjects.words)] if subjects is not None else []
    if ports:
        several = len(ports) > 1 or ports[0][0] != ports[0][1]
        parts.append(f"port{'s' * several} " + ", ".join(_range(entry) for entry in ports))
    return f"{word} {' '.join(parts)}" if parts else ""


def _range(ports: PortRange) -> str:
    first, last = ports
    return str(first) if first == last else f"{first}-{last}"


def explain_text(
    config: FilterConfig,
    own: str,
    text: str,
    peers: tuple[str, ...],
    where: Where,
    variant: str = NF_TABLES,
) -> list[dict[str, Any]]:
    """One verdict for each direction that the text describes. Raises UsageError."""
    try:
        flows = parse_flows(text, own, peers, where, variant)
    except NotFilteredError as reason:
        return [_unseen(config, str(reason))]
    return [_verdict(config, own, flow) for flow in flows]


def _verdict(config: FilterConfig, own: str, flow: Flow) -> dict[str, Any]:
    verdict = explain(config, own, flow)
    return {
        "frame": str(flow),
        "direction": str(flow.direction),
        "action": str(verdict.action),
        "label": verdict.label,
        "rule": _words_of(config, flow.direction, verdict.label),
        "steps": list(verdict.steps),
    }


def _unseen(config: FilterConfig, reason: str) -> dict[str, Any]:
    if reason == "tagged":
        action = str(config.tagged)
        label, text = (
            "tagged",
            f"iptables does not look into frames with a VLAN tag or PPPoE; tagged = {action!r}",
        )
    else:
        action, label, text = "accept", "not IP", f"{reason}; the filter is for IPv4 and IPv6"
    return {"frame": "", "direction": "", "action": action, "label": label, "rule": text, "steps": []}


def _words_of(config: FilterConfig, direction: Direction, label: str) -> str:
    rows = (*BUILT_IN, *table(config, direction))
    return next((text for name, text, _ in rows if name == label), "the strictest default of its groups")
