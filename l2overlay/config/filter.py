"""The `[filter]` table: how its values are written, what they must be to each other, and what they become.

`filter_faults` works on what tomllib read, as `config.checks` does, and names the very list element that is wrong;
`build_filter` makes the frozen `FilterConfig` of a document without faults, with every group expanded. The kernel's
side of it is in `filter/` and `linux/firewall.py`.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any

from l2overlay import inet
from l2overlay.addresses import MacAddress, parse_mac
from l2overlay.config.checks import Document, Fault
from l2overlay.config.limits import MAX_FILTER_LINES, MAX_FILTER_RULES, MAX_RULE_LINES
from l2overlay.config.overlap import decided_earlier
from l2overlay.config.positions import Path
from l2overlay.config.types import (
    Action,
    Direction,
    FilterConfig,
    FilterRule,
    PortRange,
    Rate,
    SecurityGroup,
    Subjects,
)
from l2overlay.config.values import PEER_NAME, quote, station_mac
from l2overlay.suggestion import Hints, suggestion

Network = IPv4Network | IPv6Network

GROUP_NAME = r"[A-Za-z0-9][A-Za-z0-9_-]{0,30}"
PROTOCOLS = ("any", "tcp", "udp", "sctp", "icmp", "gre", "esp")
PORT_PROTOCOLS = ("tcp", "udp", "sctp")
ICMP_NUMBERS = (1, 58)
STATES = ("new", "invalid")
ESTABLISHED = ("established", "related")
MULTIPORT = 15
"""Ports that one rule of the kernel can list (xt_multiport)."""
RATE_UNITS = ("s", "min", "h")
DEFAULT_BURST = 5
DEFAULT_LOG_RATE = Rate(5, "s", 10)
"""A rule that logs every frame of a flood is a second flood."""
MAX_RATE = 100_000
"""A second; the kernel counts in 1/10 000 s and refuses what is finer."""

ICMP_TYPES: dict[str, tuple[int | None, int | None]] = {
    # RFC 792 and RFC 4443, RFC 4861: the type in ICMP and in ICMPv6
    "echo-request": (8, 128),
    "echo-reply": (0, 129),
    "destination-unreachable": (3, 1),
    "packet-too-big": (None, 2),
    "time-exceeded": (11, 3),
    "parameter-problem": (12, 4),
    "redirect": (5, 137),
    "router-solicitation": (10, 133),
    "router-advertisement": (9, 134),
    "timestamp-request": (13, None),
    "timestamp-reply": (14, None),
}


def text_or_list(value: object) -> object:
    """A text or a list of texts, as `source` takes. Raises ValueError."""
    if not isinstance(value, str) and not _all_of(value, (str,)):
        raise ValueError("text in quotes, or a list of such, belongs here")
    return value


def port_or_list(value: object) -> object:
    """22, "8000-8010", or a list of such. Raises ValueError."""
    if not _is(value, (str, int)) and not _all_of(value, (str, int)):
        raise ValueError('a port (22), a range ("8000-8010"), or a list of such belongs here')
    return value


def protocol_value(value: object) -> object:
    """A name of `PROTOCOLS` or a number. Raises ValueError."""
    if isinstance(value, str) and value in PROTOCOLS:
        return value
    if not _is(value, (int,)):
        known = ", ".join(PROTOCOLS)
        hint = suggestion(value, PROTOCOLS) if isinstance(value, str) else ""
        raise ValueError(f"protocol must be one of {known}, or a number, not {_shown(value)}{hint}")
    assert isinstance(value, int)
    if value in ICMP_NUMBERS:
        raise ValueError(f'protocol {value}: write "icmp", which is that of both address families')
    if value in inet.KERNEL_EXTENSION_HEADERS:
        raise ValueError(f"protocol {value} is an extension header of IPv6, not what a frame carries")
    if not 1 <= value <= 254:
        raise ValueError(f"protocol must be 1 to 254, not {_shown(value)}")
    return {6: "tcp", 17: "udp", 132: "sctp", 47: "gre", 50: "esp"}.get(value, value)


def parse_port(value: str | int) -> PortRange:
    """22, "22" or "8000-8010". Raises ValueError."""
    found = re.fullmatch(r"\s*([0-9]{1,5})(?:\s*-\s*([0-9]{1,5}))?\s*", str(value))
    if not found:
        raise ValueError(f'{_shown(value)} is no port; write 22, or a range as "8000-8010"')
    first, last = int(found[1]), int(found[2] or found[1])
    if first > last:
        raise ValueError(f'the range {first}-{last} runs backwards; write "{last}-{first}"')
    if last > 65535:
        raise ValueError(f"{_shown(value)}: a port is 65535 at most")
    return first, last


def parse_rate(text: str) -> tuple[int, str]:
    """`10/s`, `100/min`, `5/h`. Raises ValueError."""
    found = re.fullmatch(r"\s*([0-9]{1,6})\s*/\s*([a-z]+)\s*", text)
    if not found or found[2] not in RATE_UNITS:
        raise ValueError(f"{quote(text)} is no rate; write 10/s, 100/min or 5/h")
    count = int(found[1])
    if not 1 <= count <= MAX_RATE:
        raise ValueError(f"a rate must be 1 to {MAX_RATE}, not {count}")
    return count, found[2]


@dataclass(slots=True)
class _Names:
    """What a rule may refer to."""

    peers: dict[str, None]
    groups: dict[str, list[Any]]
    """Named groups, and security groups by their stations."""
    crowded: int | None = None
    """The security group with which all together hold too many stations; it and those after it are not expanded."""
    hints: Hints = field(default_factory=Hints)
    _parsed: dict[tuple[str, ...], Subjects] = field(default_factory=dict)
    _meanings: dict[str, Network | MacAddress | str] = field(default_factory=dict)
    _multicast: dict[str, list[str]] = field(default_factory=dict)
    sound: bool = True
    """Every group can be expanded, and all is not too much: what a rule means can be told."""

    def expand(self, words: Iterable[str]) -> list[str]:
        """The words, each group replaced by what is in it."""
        return [entry for word in words for entry in (self.groups[word[1:]] if word[:1] == "@" else [word])]

    def size(self, word: object) -> int:
        """How many subjects a word means."""
        is_group = isinstance(word, str) and word[:1] == "@"
        return len(self.groups.get(str(word)[1:], ())) if is_group else 1

    def subjects(self, words: tuple[str, ...]) -> Subjects:
        """What the words mean together; the same object for the same words. Raises ValueError."""
        known = self._parsed.get(words)
        if known is None:
            known = self._parsed[words] = _grouped(map(self.meaning, self.expand(words)), words)
        return known

    def meaning(self, text: str) -> Network | MacAddress | str:
        """As `parse_subject`, once for each text. Raises ValueError."""
        known = self._meanings.get(text)
        if known is None:
            known = self._meanings[text] = parse_subject(text)
        return known

    def multicast(self, word: str) -> list[str]:
        """The group addresses in a word."""
        known = self._multicast.get(word)
        if known is None:
            known = [entry for entry in self.expand([word]) if _is_multicast(self.meaning(entry))]
            self._multicast[word] = known
        return known


def filter_faults(document: Document) -> list[Fault]:
    """Everything that is wrong in `[filter]` beyond the shape of its tables."""
    table = document.get("filter")
    if not isinstance(table, dict):
        return []
    names = _names(document, table)
    faults = [*_group_faults(table, names), *_security_group_faults(table, names)]
    faults += _size_faults(table, names)
    names.sound = not faults
    for path, rule in _rule_tables(table):
        faults += _rule_faults(path, rule, names)
    if not faults:
        faults += _overlap_faults(table, names)
    return faults


def build_filter(table: Document | None, peers: Iterable[str]) -> FilterConfig | None:
    """`[filter]` of a document that `filter_faults` had nothing to say about."""
    if table is None:
        return None
    names = _names({"filter": table, "peers": [{"name": name} for name in peers]}, table)
    rules = tuple(_rule(rule, f"rule {i}", names) for i, rule in enumerate(_tables(table.get("rules")), 1))
    return FilterConfig(
        backend=table.get("backend", "iptables"),
        default_in=Action(table.get("default_in", "accept")),
        default_out=Action(table.get("default_out", "accept")),
        tagged=Action(table.get("tagged", "drop")),
        rules=rules,
        security_groups=tuple(_security_group(g, names) for g in _tables(table.get("security_groups"))),
    )


# Building


def _rule(table: Document, label: str, names: _Names) -> FilterRule:
    protocol = protocol_value(table.get("protocol", "any"))
    action = Action(table.get("action", "accept"))
    return FilterRule(
        label=label,
        direction=Direction(table.get("direction", "in")),
        action=action,
        protocol=None if protocol == "any" else protocol,  # type: ignore[arg-type]
        source=_subjects(table.get("source"), names),
        destination=_subjects(table.get("destination"), names),
        ports=_ports(table.get("ports")),
        source_ports=_ports(table.get("source_ports")),
        icmp_types=tuple(_listed(table.get("icmp_types"))),
        states=tuple(_listed(table.get("state"))),
        rate=_rate(table, action),
        comment=table.get("comment", ""),
    )


def _security_group(table: Document, names: _Names) -> SecurityGroup:
    name = table["name"]
    stations = names.expand(table["stations"])
    rules = []
    for i, rule in enumerate(_tables(table.get("rules")), 1):
        remote = "source" if rule.get("direction", "in") == "in" else "destination"
        shape = {key: value for key, value in rule.items() if key != "remote"}
        if "remote" in rule:
            shape[remote] = rule["remote"]
        rules.append(_rule(shape, f"security group {name}, rule {i}", names))
    return SecurityGroup(
        name=name,
        stations=tuple(dict.fromkeys(parse_mac(text) for text in stations)),
        default_in=Action(table.get("default_in", "drop")),
        default_out=Action(table.get("default_out", "accept")),
        rules=tuple(rules),
    )


def _rate(table: Document, action: Action) -> Rate | None:
    if "rate" not in table:
        return DEFAULT_LOG_RATE if action is Action.LOG else None
    count, unit = parse_rate(table["rate"])
    return Rate(count, unit, table.get("burst", DEFAULT_BURST))


def _ports(value: object) -> tuple[PortRange, ...]:
    """In order, overlapping and adjacent ones joined."""
    joined: list[PortRange] = []
    for first, last in sorted(parse_port(entry) for entry in _listed(value)):
        if joined and first <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(last, joined[-1][1]))
        else:
            joined.append((first, last))
    return tuple(joined)


def _subjects(value: object, names: _Names) -> Subjects | None:
    words = tuple(word for word in _listed(value) if isinstance(word, str))
    return names.subjects(words) if words else None


def _grouped(meanings: Iterable[Network | MacAddress | str], words: tuple[str, ...]) -> Subjects:
    networks: dict[Network, None] = {}
    macs: dict[MacAddress, None] = {}
    peers: dict[str, None] = {}
    for meaning in meanings:
        if isinstance(meaning, bytes):
            macs[MacAddress(meaning)] = None
        elif isinstance(meaning, str):
            peers[meaning] = None
        else:
            networks[meaning] = None
    return Subjects(tuple(networks), tuple(macs), tuple(peers), words)


def _is_multicast(meaning: Network | MacAddress | str) -> bool:
    return isinstance(meaning, IPv4Network | IPv6Network) and meaning.is_multicast


def parse_subject(text: str) -> Network | MacAddress | str:
    """A network or address, a station's MAC, or a peer's name. Raises ValueError."""
    if re.fullmatch(r"[0-9A-Fa-f]{2}([:-][0-9A-Fa-f]{2}){5}", text):
        return parse_mac(station_mac(text))
    if "/" in text or ":" in text or re.fullmatch(r"[0-9.]+", text):
        return _network(text)
    if not re.fullmatch(PEER_NAME, text):
        raise ValueError(
            f"{quote(text)} is no address (10.9.0.0/24, fd00::1), no station (52:54:00:12:34:56), "
            "no peer and no @group"
        )
    return text


def _network(text: str) -> Network:
    if "%" in text:  # ip_network takes a zone, iptables takes none
        raise ValueError(f"{quote(text)}: a zone (%) means nothing in a rule; leave it out")
    try:
        network = ip_network(text)
    except ValueError:
        try:
            loose = ip_network(text, strict=False)
        except ValueError:
            raise ValueError(
                f"{quote(text)} is no address and no network; write 10.9.0.0/24 or fd00::/64"
            ) from None
        raise ValueError(f"{text!r} has bits beyond its prefix; write {loose}") from None
    return network


# Checking how much it is


def _size_faults(table: Document, names: _Names) -> Iterator[Fault]:
    """Found before anything is expanded, so that the time to check a file is bounded."""
    total = 0
    rules = table.get("rules")
    if isinstance(rules, list) and len(rules) > MAX_FILTER_RULES:
        yield Fault(("filter", "rules", MAX_FILTER_RULES), f"more than {MAX_FILTER_RULES} rules")
        return
    if names.crowded is not None:
        at: Path = ("filter", "security_groups", names.crowded, "stations")
        yield Fault(at, f"with these, security groups hold more than {MAX_FILTER_LINES} stations")
        return
    for path, rule in _rule_tables(table):
        total += _line_count(rule, names)
        if total > MAX_FILTER_LINES:
            yield Fault(
                path,
                f"with this rule, [filter] becomes more than {MAX_FILTER_LINES} rules of the kernel; "
                "name networks and not each address",
            )
            return


def _line_count(rule: Document, names: _Names) -> int:
    """Rules of the kernel that a rule becomes: sources times destinations times ports by fifteen, at most."""
    count = 1
    for key in ("source", "destination", "remote"):
        count *= max(1, sum(map(names.size, _listed(rule.get(key)))))
    for key in ("ports", "source_ports"):
        count *= max(1, len(_listed(rule.get(key))) // MULTIPORT)
    return count


# Checking one thing at a time


def _group_faults(table: Document, names: _Names) -> Iterator[Fault]:
    groups = table.get("groups")
    for name, entries in groups.items() if isinstance(groups, dict) else ():
        path: Path = ("filter", "groups", name)
        if not re.fullmatch(GROUP_NAME, name):
            yield Fault(path, f"{quote(name)} cannot name a group: letters, digits, '_' and '-'", at_key=True)
        if entries == []:
            yield Fault(path, f"the group {name!r} is empty")
        for i, text in _texts(entries):
            if text.startswith("@"):
                yield Fault((*path, i), f"{quote(text)}: a group holds no groups; list what is in it")
            else:
                yield from _subject_faults((*path, i), text, names)


def _security_group_faults(table: Document, names: _Names) -> Iterator[Fault]:
    seen: dict[str, Path] = {}
    plain = table.get("groups")
    for i, group in _indexed(table.get("security_groups")):
        path: Path = ("filter", "security_groups", i)
        name = group.get("name")
        if isinstance(name, str):
            if not re.fullmatch(GROUP_NAME, name):
                yield Fault(
                    (*path, "name"), f"{quote(name)} cannot name a group: letters, digits, '_' and '-'"
                )
            taken = ("filter", "groups", name) if isinstance(plain, dict) and name in plain else None
            if first := seen.get(name, taken):
                yield Fault((*path, "name"), f"the group {name!r} is there already", first=first)
            seen.setdefault(name, (*path, "name"))
        if names.crowded is not None:
            continue
        if group.get("stations") == []:
            yield Fault((*path, "stations"), "a security group without stations does nothing")
        for j, text in _texts(group.get("stations")):
            yield from _station_faults((*path, "stations", j), text, names)


def _station_faults(path: Path, text: str, names: _Names) -> Iterator[Fault]:
    """Stations are MACs, or groups of MACs."""
    entries = [text]
    if text.startswith("@"):
        yield from _subject_faults(path, text, names)
        entries = [entry for entry in names.groups.get(text[1:], []) if isinstance(entry, str)]
    for entry in entries:
        try:
            parse_mac(station_mac(entry))
        except ValueError as error:
            where = f" (in the group {text})" if text.startswith("@") else ""
            yield Fault(path, f"{error}{where}; a security group is for stations")
            return


def _subject_faults(path: Path, text: str, names: _Names) -> Iterator[Fault]:
    if text.startswith("@"):
        if names.crowded is not None:
            return
        if text[1:] not in names.groups:
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


def _rule_faults(path: Path, rule: Document, names: _Names) -> list[Fault]:
    """Values first; how they fit together only when each is good by itself, and every group that they may name."""
    faults = []
    for key in ("source", "destination", "remote"):
        if rule.get(key) == []:
            faults.append(Fault((*path, key), f"an empty {key} can never match; leave it out for any"))
        for where, text in _entries(path, rule, key):
            if isinstance(text, str):
                faults += _subject_faults(where, text, names)
    for key, check in _VALUE_CHECKS.items():
        for where, value in _entries(path, rule, key):
            try:
                check(value)
            except ValueError as error:
                faults.append(Fault(where, str(error)))
    if faults or not names.sound:
        return faults
    return list(_fit_faults(path, rule, names))


def _fit_faults(path: Path, rule: Document, names: _Names) -> Iterator[Fault]:
    protocol = protocol_value(rule.get("protocol", "any"))
    for key in ("ports", "source_ports"):
        if key in rule and protocol not in PORT_PROTOCOLS:
            said = "without protocol" if "protocol" not in rule else f'with protocol = "{protocol}"'
            yield Fault((*path, key), f'{key} {said} can never match; add protocol = "tcp" or "udp"')
        if rule.get(key) == []:
            yield Fault((*path, key), f"an empty {key} can never match; leave it out for any")
    if "icmp_types" in rule and protocol != "icmp":
        yield Fault((*path, "icmp_types"), 'icmp_types can never match without protocol = "icmp"')
    if "burst" in rule and "rate" not in rule:
        yield Fault((*path, "burst"), "burst does nothing without rate")
    yield from _family_faults(path, rule, names)
    yield from _same_side_faults(path, rule, names)
    sides = [_subjects(rule.get(key), names) for key in ("source", "destination")]
    size = _size(sides[0]) * _size(sides[1])
    if size > MAX_RULE_LINES:
        yield Fault(path, f"becomes {size} rules of the kernel, more than {MAX_RULE_LINES}; use networks")


def _family_faults(path: Path, rule: Document, names: _Names) -> Iterator[Fault]:
    """An IPv4 source never sends to an IPv6 destination; name the entry that has no counterpart."""
    subjects = {key: _subjects(rule.get(key), names) for key in ("source", "destination")}
    families = {key: _families(side) for key, side in subjects.items()}
    icmp = _icmp_families(rule)
    for key, other in (("source", "destination"), ("destination", "source")):
        for where, text in _entries(path, rule, key):
            if not isinstance(text, str):
                continue
            mine = _families(_subjects([text], names))
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
            yield Fault(where, f"{entry!r} is a group address, which no frame comes from")


def _same_side_faults(path: Path, rule: Document, names: _Names) -> Iterator[Fault]:
    """What a peer sends to itself does not cross the overlay."""
    source, destination = (_subjects(rule.get(key), names) for key in ("source", "destination"))
    if source is None or destination is None or len(source.peers) != 1:
        return
    only_peers = not (source.networks or source.macs or destination.networks or destination.macs)
    if only_peers and destination.peers == source.peers:
        yield Fault(
            (*path, "destination"),
            f"can never match: frames from {source.peers[0]} to {source.peers[0]} do not cross the overlay",
        )


def _icmp_type(text: object) -> None:
    if not isinstance(text, str) or text not in ICMP_TYPES:
        hint = suggestion(text, ICMP_TYPES) if isinstance(text, str) else ""
        raise ValueError(
            f"{_shown(text)} is no ICMP type known here{hint}; there are {', '.join(ICMP_TYPES)}"
        )


def _state(text: object) -> None:
    if text in ESTABLISHED:
        raise ValueError(
            f"state {text!r} can never match: established and related connections are accepted before all rules"
        )
    if text not in STATES:
        hint = suggestion(text, STATES) if isinstance(text, str) else ""
        raise ValueError(f"state must be 'new' or 'invalid', not {_shown(text)}{hint}")


def _port(value: object) -> None:
    if _is(value, (str, int)):
        parse_port(value)  # type: ignore[arg-type]


def _rate_text(value: object) -> None:
    if isinstance(value, str):
        parse_rate(value)


def _comment(value: object) -> None:
    if isinstance(value, str) and not value.isprintable():
        raise ValueError("a comment is one line of printable text")


_VALUE_CHECKS: dict[str, Callable[[object], object]] = {
    "protocol": protocol_value,
    "ports": _port,
    "source_ports": _port,
    "icmp_types": _icmp_type,
    "state": _state,
    "rate": _rate_text,
    "comment": _comment,
}


# Checking rules against each other


def _overlap_faults(table: Document, names: _Names) -> Iterator[Fault]:
    paths, rules = [], []
    for path, rule in _whole_rules(table, names):
        paths.append(path)
        rules.append(rule)
    for position, earlier in decided_earlier(rules):
        yield Fault(
            paths[position],
            f"can never match: {rules[earlier].label} decides all that it would",
            first=paths[earlier],
        )


def _whole_rules(table: Document, names: _Names) -> Iterator[tuple[Path, FilterRule]]:
    """Without those that `config.tables` has something to say about."""
    for i, rule in _indexed(table.get("rules")):
        try:
            yield ("filter", "rules", i), _rule(rule, f"rule {i + 1}", names)
        except (ValueError, TypeError):
            continue


# Reading what may be malformed


def _names(document: Document, table: Document) -> _Names:
    peers = [p["name"] for p in _tables(document.get("peers")) if isinstance(p.get("name"), str)]
    plain = table.get("groups")
    groups: dict[str, list[Any]] = {
        name: [entry for _, entry in _texts(entries)]
        for name, entries in (plain.items() if isinstance(plain, dict) else ())
    }
    names = _Names(dict.fromkeys(peers), groups)
    names.groups = groups | _secured_groups(table, names)
    return names


def _secured_groups(table: Document, names: _Names) -> dict[str, list[Any]]:
    """Security groups by their stations. Notes in `names` when they hold too many."""
    secured: dict[str, list[Any]] = {}
    total = 0
    for i, group in _indexed(table.get("security_groups")):
        if isinstance(group.get("name"), str) and isinstance(group.get("stations"), list):
            words = [text for text in group["stations"] if isinstance(text, str)]
            total += sum(map(names.size, words))
            if total > MAX_FILTER_LINES:
                names.crowded = i
                break
            secured[group["name"]] = [
                entry for w in words for entry in (names.groups.get(w[1:], []) if w[:1] == "@" else [w])
            ]
    return secured


def _rule_tables(table: Document) -> Iterator[tuple[Path, Document]]:
    for i, rule in _indexed(table.get("rules")):
        yield ("filter", "rules", i), rule
    for i, group in _indexed(table.get("security_groups")):
        for j, rule in _indexed(group.get("rules")):
            yield ("filter", "security_groups", i, "rules", j), rule


def _entries(path: Path, rule: Document, key: str) -> Iterator[tuple[Path, Any]]:
    """The value under `key`, or each element of it, with its place."""
    value = rule.get(key)
    if isinstance(value, list) and key != "protocol":
        for i, entry in enumerate(value):
            yield (*path, key, i), entry
    elif value is not None:
        yield (*path, key), value


def _listed(value: object) -> list[Any]:
    return list(value) if isinstance(value, list) else [] if value is None else [value]


def _tables(value: object) -> list[Document]:
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []


def _indexed(value: object) -> Iterator[tuple[int, Document]]:
    for i, entry in enumerate(value if isinstance(value, list) else ()):
        if isinstance(entry, dict):
            yield i, entry


def _texts(value: object) -> Iterator[tuple[int, str]]:
    for i, text in enumerate(value if isinstance(value, list) else ()):
        if isinstance(text, str):
            yield i, text


def _is(value: object, kinds: tuple[type, ...]) -> bool:
    return isinstance(value, kinds) and not isinstance(value, bool)


def _all_of(value: object, kinds: tuple[type, ...]) -> bool:
    return isinstance(value, list) and all(_is(entry, kinds) for entry in value)


def _shown(value: object) -> str:
    return quote(value) if isinstance(value, str) else quote(str(value))[1:-1]


def _families(subjects: Subjects | None) -> frozenset[int]:
    if subjects is None or subjects.macs or subjects.peers:
        return frozenset((4, 6))
    return frozenset(network.version for network in subjects.networks)


def _icmp_families(rule: Document) -> frozenset[int]:
    if "icmp_types" not in rule:
        return frozenset((4, 6))
    numbers = [ICMP_TYPES[name] for name in _listed(rule["icmp_types"])]
    return frozenset(v for v, i in ((4, 0), (6, 1)) if any(pair[i] is not None for pair in numbers))


def _family_words(families: frozenset[int]) -> str:
    return " and ".join(f"IPv{version}" for version in sorted(families)) or "nothing"


def _size(subjects: Subjects | None) -> int:
    if subjects is None:
        return 1
    return max(1, len(subjects.networks) + len(subjects.macs) + len(subjects.peers))
