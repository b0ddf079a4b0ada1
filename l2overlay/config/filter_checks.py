"""Everything that can be wrong in `[filter]` beyond the shape of its tables.

Works on what tomllib read, as `config.checks` does, and names the list element that is wrong. Order: how much there is,
each value by itself, how the values of a rule fit together, and which rules can never match.
"""

import re
from collections.abc import Callable, Iterator

from l2overlay.addresses import parse_mac
from l2overlay.config.document import Document, Fault, peer_names, table, tables, texts
from l2overlay.config.filter import build_rule
from l2overlay.config.filter_names import Names, listed, names_of
from l2overlay.config.filter_values import (
    GROUP_NAME,
    connection_state,
    icmp_type,
    parse_port,
    parse_rate,
    parse_subject,
    protocol_value,
)
from l2overlay.config.limits import MAX_FILTER_LINES, MAX_FILTER_RULES, MAX_RULE_LINES
from l2overlay.config.overlap import decided_earlier
from l2overlay.config.positions import Path
from l2overlay.config.tables import FilterRuleTable
from l2overlay.config.values import quote, station_mac
from l2overlay.filter.model import ANY_PROTOCOL, ICMP_TYPES, PORT_PROTOCOLS, FilterRule, Subjects

MULTIPORT = 15
"""How many ports one rule of the kernel can list (xt_multiport)."""


def filter_faults(document: Document) -> list[Fault]:
    """Every mistake in `[filter]` that pydantic cannot find."""
    filtering = document.get("filter")
    if not isinstance(filtering, dict):
        return []
    names = _names(document, filtering)
    faults = [
        *_group_faults(filtering, names),
        *_security_group_faults(filtering, names),
        *_size_faults(filtering, names),
    ]
    groups_are_sound = not faults
    for path, rule in _rule_tables(filtering):
        found = list(_value_faults(path, rule, names))
        if not found and groups_are_sound:  # only then is it known what the rule means
            found = list(_fit_faults(path, rule, names))
        faults += found
    return faults or list(_overlap_faults(filtering, names))


def _names(document: Document, filtering: Document) -> Names:
    groups = {
        name: [entry for _, entry in texts(entries)] for name, entries in table(filtering, "groups").items()
    }
    secured = (
        (i, group["name"], [text for _, text in texts(group["stations"])])
        for i, group in tables(filtering.get("security_groups"))
        if isinstance(group.get("name"), str) and isinstance(group.get("stations"), list)
    )
    return names_of(peer_names(document), groups, secured)


def _rule_tables(filtering: Document) -> Iterator[tuple[Path, Document]]:
    for i, rule in tables(filtering.get("rules")):
        yield ("filter", "rules", i), rule
    for i, group in tables(filtering.get("security_groups")):
        for j, rule in tables(group.get("rules")):
            yield ("filter", "security_groups", i, "rules", j), rule


# How much there is


def _size_faults(filtering: Document, names: Names) -> Iterator[Fault]:
    """Runs before anything is expanded, so that the time to check a file is bounded."""
    total = 0
    rules = filtering.get("rules")
    if isinstance(rules, list) and len(rules) > MAX_FILTER_RULES:
        yield Fault(("filter", "rules", MAX_FILTER_RULES), f"more than {MAX_FILTER_RULES} rules")
        return
    if names.crowded is not None:
        at: Path = ("filter", "security_groups", names.crowded, "stations")
        yield Fault(at, f"with these, security groups hold more than {MAX_FILTER_LINES} stations")
        return
    for path, rule in _rule_tables(filtering):
        total += _line_count(rule, names)
        if total > MAX_FILTER_LINES:
            yield Fault(
                path,
                f"with this rule, [filter] becomes more than {MAX_FILTER_LINES} rules of the kernel; "
                "name networks instead of single addresses",
            )
            return


def _line_count(rule: Document, names: Names) -> int:
    """At most how many rules of the kernel a rule becomes: sources times destinations times ports by fifteen."""
    count = 1
    for key in ("source", "destination", "remote"):
        count *= max(1, sum(map(names.size, listed(rule.get(key)))))
    for key in ("ports", "source_ports"):
        count *= max(1, len(listed(rule.get(key))) // MULTIPORT)
    return count


# Each value by itself


def _group_faults(filtering: Document, names: Names) -> Iterator[Fault]:
    for name, entries in table(filtering, "groups").items():
        path: Path = ("filter", "groups", name)
        if not re.fullmatch(GROUP_NAME, name):
            yield Fault(path, _bad_group_name(name), at_key=True)
        if entries == []:
            yield Fault(path, f"the group {name!r} is empty")
        for i, text in texts(entries):
            if text.startswith("@"):
                yield Fault((*path, i), f"{quote(text)}: a group cannot contain groups; list what is in it")
            else:
                yield from _subject_faults((*path, i), text, names)


def _security_group_faults(filtering: Document, names: Names) -> Iterator[Fault]:
    seen: dict[str, Path] = {name: ("filter", "groups", name) for name in table(filtering, "groups")}
    for i, group in tables(filtering.get("security_groups")):
        path: Path = ("filter", "security_groups", i)
        name = group.get("name")
        if isinstance(name, str):
            if not re.fullmatch(GROUP_NAME, name):
                yield Fault((*path, "name"), _bad_group_name(name))
            if name in seen:
                yield Fault((*path, "name"), f"the group {name!r} already exists", first=seen[name])
            seen.setdefault(name, (*path, "name"))
        if names.crowded is not None:
            continue
        if group.get("stations") == []:
            yield Fault((*path, "stations"), "a security group without stations does nothing")
        for j, text in texts(group.get("stations")):
            yield from _station_faults((*path, "stations", j), text, names)


def _bad_group_name(name: str) -> str:
    return f"{quote(name)} cannot name a group: use letters, digits, '_' and '-'"


def _station_faults(path: Path, text: str, names: Names) -> Iterator[Fault]:
    """Stations are MAC addresses, or groups of them."""
    entries = [text]
    if text.startswith("@"):
        yield from _subject_faults(path, text, names)
        entries = names.groups.get(text[1:], [])
    for entry in entries:
        try:
            parse_mac(station_mac(entry))
        except ValueError as error:
            where = f" (in the group {text})" if text.startswith("@") else ""
            yield Fault(path, f"{error}{where}; a security group is for stations")
            return


def _subject_faults(path: Path, text: str, names: Names) -> Iterator[Fault]:
    if text.startswith("@"):
        if names.crowded is None and text[1:] not in names.groups:
            hint = names.hints.of(text[1:], names.groups)
            yield Fault(path, f"no group is named {quote(text[1:])}{hint}; add it to [filter.groups]")
        return
    try:
        meaning = parse_subject(text)
    except ValueError as error:
        yield Fault(path, str(error))
        return
    if isinstance(meaning, str) and meaning not in names.peers:
        yield Fault(path, f"no peer is named {quote(text)}{names.hints.of(text, names.peers)}")


def _value_faults(path: Path, rule: Document, names: Names) -> Iterator[Fault]:
    for key in ("source", "destination", "remote"):
        if rule.get(key) == []:
            yield Fault((*path, key), f"an empty {key} can never match; leave it out to match any")
        for where, text in _entries(path, rule, key):
            if isinstance(text, str):
                yield from _subject_faults(where, text, names)
    for key, check in _VALUE_CHECKS.items():
        for where, value in _entries(path, rule, key):
            try:
                check(value)
            except ValueError as error:
                yield Fault(where, str(error))


def _entries(path: Path, rule: Document, key: str) -> Iterator[tuple[Path, object]]:
    """The value under `key`, or each element of it, with its path."""
    value = rule.get(key)
    if isinstance(value, list) and key != "protocol":
        for i, entry in enumerate(value):
            yield (*path, key, i), entry
    elif value is not None:
        yield (*path, key), value


def _port(value: object) -> None:
    if isinstance(value, str | int) and not isinstance(value, bool):
        parse_port(value)


def _rate(value: object) -> None:
    if isinstance(value, str):
        parse_rate(value)


def _comment(value: object) -> None:
    if isinstance(value, str) and not value.isprintable():
        raise ValueError("a comment is one line of printable text")


_VALUE_CHECKS: dict[str, Callable[[object], object]] = {
    "protocol": protocol_value,
    "ports": _port,
    "source_ports": _port,
    "icmp_types": icmp_type,
    "state": connection_state,
    "rate": _rate,
    "comment": _comment,
}


# How the values of one rule fit together


def _fit_faults(path: Path, rule: Document, names: Names) -> Iterator[Fault]:
    protocol = protocol_value(rule.get("protocol", ANY_PROTOCOL))
    for key in ("ports", "source_ports"):
        if key in rule and protocol not in PORT_PROTOCOLS:
            said = "without protocol" if "protocol" not in rule else f'with protocol = "{protocol}"'
            yield Fault((*path, key), f'{key} {said} can never match; add protocol = "tcp" or "udp"')
        if rule.get(key) == []:
            yield Fault((*path, key), f"an empty {key} can never match; leave it out to match any")
    if "icmp_types" in rule and protocol != "icmp":
        yield Fault((*path, "icmp_types"), 'icmp_types can never match without protocol = "icmp"')
    if "burst" in rule and "rate" not in rule:
        yield Fault((*path, "burst"), "burst does nothing without rate")
    yield from _family_faults(path, rule, names)
    yield from _same_side_faults(path, rule, names)
    sides = [names.subjects(rule.get(key)) for key in ("source", "destination")]
    size = _size(sides[0]) * _size(sides[1])
    if size > MAX_RULE_LINES:
        yield Fault(path, f"becomes {size} rules of the kernel, more than {MAX_RULE_LINES}; use networks")


def _family_faults(path: Path, rule: Document, names: Names) -> Iterator[Fault]:
    """Finds each entry that no entry on the other side has an address family in common with."""
    subjects = {key: names.subjects(rule.get(key)) for key in ("source", "destination")}
    families = {key: _families(side) for key, side in subjects.items()}
    icmp = _icmp_families(rule)
    for key, other in (("source", "destination"), ("destination", "source")):
        for where, text in _entries(path, rule, key):
            if not isinstance(text, str):
                continue
            mine = _families(names.subjects(text))
            if not mine & families[other]:
                yield Fault(
                    where,
                    f"{text!r} can never match: it is {_family_words(mine)} and {other} is {_family_words(families[other])}",
                )
            elif not mine & icmp:
                yield Fault(
                    where, f"{text!r} can never match: these icmp_types are {_family_words(icmp)} only"
                )
    for where, text in _entries(path, rule, "source"):
        for entry in names.multicast(text) if isinstance(text, str) else ():
            yield Fault(where, f"{entry!r} is a multicast address, which is never a source")


def _same_side_faults(path: Path, rule: Document, names: Names) -> Iterator[Fault]:
    """Finds a rule for frames from a peer to itself, which do not cross the overlay."""
    source, destination = (names.subjects(rule.get(key)) for key in ("source", "destination"))
    if source is None or destination is None or len(source.peers) != 1:
        return
    only_peers = not (source.networks or source.macs or destination.networks or destination.macs)
    if only_peers and destination.peers == source.peers:
        yield Fault(
            (*path, "destination"),
            f"can never match: frames from {source.peers[0]} to {source.peers[0]} do not cross the overlay",
        )


def _families(subjects: Subjects | None) -> frozenset[int]:
    if subjects is None or subjects.macs or subjects.peers:
        return frozenset((4, 6))
    return frozenset(network.version for network in subjects.networks)


def _icmp_families(rule: Document) -> frozenset[int]:
    if "icmp_types" not in rule:
        return frozenset((4, 6))
    numbers = [ICMP_TYPES[icmp_type(name)] for name in listed(rule["icmp_types"])]
    return frozenset(v for v, i in ((4, 0), (6, 1)) if any(pair[i] is not None for pair in numbers))


def _family_words(families: frozenset[int]) -> str:
    return " and ".join(f"IPv{version}" for version in sorted(families)) or "nothing"


def _size(subjects: Subjects | None) -> int:
    if subjects is None:
        return 1
    return max(1, len(subjects.networks) + len(subjects.macs) + len(subjects.peers))


# Which rules can never match


def _overlap_faults(filtering: Document, names: Names) -> Iterator[Fault]:
    paths, rules = [], []
    for path, rule in _well_formed_rules(filtering, names):
        paths.append(path)
        rules.append(rule)
    for position, earlier in decided_earlier(rules):
        yield Fault(
            paths[position],
            f"can never match: {rules[earlier].label} decides about every frame that it would match",
            first=paths[earlier],
        )


def _well_formed_rules(filtering: Document, names: Names) -> Iterator[tuple[Path, FilterRule]]:
    """The rules in which `config.tables` finds no fault."""
    for i, rule in tables(filtering.get("rules")):
        try:
            checked = FilterRuleTable.model_validate(rule)
        except ValueError:  # pydantic's ValidationError is one
            continue
        yield ("filter", "rules", i), build_rule(checked, f"rule {i + 1}", names)
