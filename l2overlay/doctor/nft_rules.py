"""The text of `nft -a list ruleset` as rulesets.

    table inet firewalld { # handle 7
        chain filter_FORWARD { # handle 1
            type filter hook forward priority filter + 10; policy accept;
            ct state { established, related } accept # handle 2
            meta l4proto tcp counter packets 5 bytes 300 reject with icmpx admin-prohibited # handle 3

The text and not its JSON, because the rule as it is printed is the proof. What is not understood of a rule is a condition
that nobody can decide; a verdict map is taken apart into a rule for each of its entries.
"""

import re
from collections.abc import Iterator
from dataclasses import replace

from l2overlay.doctor.rulesets import OTHER, Chain, Condition, Rule, Ruleset, Verdict

_TOKEN = re.compile(r'"[^"]*"|\{[^{}]*\}|[^\s{}"]+')
_HANDLE = re.compile(r"\s*# handle (\d+)\s*$")
_COUNTER = re.compile(r"\bcounter(?: packets (\d+) bytes \d+)?(?: |$)")
_SILENT = re.compile(  # statements that decide nothing
    r'\bcomment "[^"]*"|\blog\b(?: (?:prefix "[^"]*"|(?:level|group|snaplen) \S+|flags (?:(?:tcp|ip) )?\S+))*'
)
_HEAD = re.compile(r"^type \S+ hook (\w+)(.*?) priority [^;]*;(?: policy (\w+);)?")
_KEYS = {
    "iifname": "in",
    "iif": "in",
    "oifname": "out",
    "oif": "out",
    "ibrname": "logical_in",
    "obrname": "logical_out",
    "l4proto": "proto",
    "nfproto": "nfproto",
    "protocol": "ethertype",
    "ct state": "state",
    "ether type": "ethertype",
    "ip protocol": "proto",
    "tcp dport": "dport",
    "udp dport": "dport",
    "th dport": "dport",
    "tcp sport": "sport",
    "udp sport": "sport",
    "th sport": "sport",
}
_IMPLIED = {
    "tcp": ("proto", "tcp"),
    "udp": ("proto", "udp"),
    "icmp": ("proto", "icmp"),
    "icmpv6": ("proto", "ipv6-icmp"),
    "ip": ("nfproto", "ipv4"),
    "ip6": ("nfproto", "ipv6"),
}
"""What a match on a field of a header also says: only a frame with that header can match."""
_WORDS = {"ip": "IPv4", "ip6": "IPv6", "arp": "ARP"}
_VERDICTS = {
    "accept": Verdict.ACCEPT,
    "drop": Verdict.DROP,
    "reject": Verdict.DROP,
    "return": Verdict.RETURN,
    "jump": Verdict.JUMP,
    "goto": Verdict.GOTO,
}


def parse_nft(text: str, skip: frozenset[tuple[str, str]] = frozenset()) -> list[Ruleset]:
    """Every table except those in `skip` (family and name), which another tool has shown already."""
    found = []
    for header, body in _blocks(text.splitlines()):
        words = header.split()
        if words[:1] == ["table"] and len(words) >= 3 and (words[1], words[2]) not in skip:
            chains = (
                _chain(inner.split()[1], lines) for inner, lines in _blocks(body) if inner[:6] == "chain "
            )
            found.append(Ruleset("nft", words[1], words[2], tuple(chains)))
    return found


def _blocks(lines: list[str]) -> Iterator[tuple[str, list[str]]]:
    """`HEADER { ... }` at the outermost level: the header and the lines within."""
    header, depth = "", 0
    body: list[str] = []
    for line in lines:
        stripped = _HANDLE.sub("", line).strip()
        before = depth
        depth += stripped.count("{") - stripped.count("}")
        if before == 0 and depth > 0:
            header, body = stripped.removesuffix("{").strip(), []
        elif before > 0 and depth == 0:
            yield header, body
        elif depth > 0:
            body.append(line.strip())


def _chain(name: str, lines: list[str]) -> Chain:
    chain, rules = Chain(name), []
    for line in _whole_lines(lines):
        head = _HEAD.match(line)
        if head:
            chain = replace(
                chain,
                hook=head[1],
                policy=_VERDICTS.get(head[3] or "", Verdict.ACCEPT),
                devices=tuple(
                    re.findall(r'[\w.@-]+(?=["\s,}]|$)', head[2].replace("devices", "").replace("device", ""))
                ),
            )
        else:
            rules += _rules(line)
    return replace(chain, rules=tuple(rules))


def _whole_lines(lines: list[str]) -> Iterator[str]:
    """Join the lines of a set with many elements."""
    whole = ""
    for line in lines:
        whole = f"{whole} {line}".strip()
        if whole.count("{") <= whole.count("}"):
            if whole:
                yield whole
            whole = ""


def _rules(line: str) -> list[Rule]:
    handle, counter = _HANDLE.search(line), _COUNTER.search(line)
    text = _HANDLE.sub("", line)
    plain = Rule(
        text=text,
        verdict=Verdict.NEXT,
        packets=int(counter[1]) if counter and counter[1] else None,
        handle=int(handle[1]) if handle else None,
    )
    return _read(plain, _TOKEN.findall(_SILENT.sub("", _COUNTER.sub("", text))))


def _read(rule: Rule, words: list[str]) -> list[Rule]:
    conditions: list[Condition] = []
    while words:
        word = words.pop(0)
        if word == "meta":
            continue
        key = _KEYS.get(word) or (_KEYS.get(f"{word} {words[0]}") if words else None)
        if word in _VERDICTS:
            return [_decide(rule, conditions, word, words[0] if words else "")]
        if word in _IMPLIED and word not in _KEYS:
            conditions.append(Condition(_IMPLIED[word][0], (_IMPLIED[word][1],)))
        if key is None:
            conditions.append(Condition(OTHER))
            continue
        if word not in _KEYS:
            words.pop(0)
        if words[:1] == ["vmap"]:
            return _map(rule, conditions, key, words[1] if len(words) > 1 else "")
        negated = words[:1] == ["!="]
        words = words[1:] if words[:1] in (["!="], ["=="]) else words
        value = words.pop(0) if words else "@"
        known = not value.startswith("@")  # a named set is not looked into
        conditions.append(Condition(key, _values(value), negated) if known else Condition(OTHER))
    return [replace(rule, conditions=tuple(conditions))]


def _decide(rule: Rule, conditions: list[Condition], word: str, after: str) -> Rule:
    verdict = _VERDICTS[word]
    target = after if verdict in (Verdict.JUMP, Verdict.GOTO) else ""
    return replace(rule, verdict=verdict, target=target, conditions=tuple(conditions))


def _map(rule: Rule, conditions: list[Condition], key: str, entries: str) -> list[Rule]:
    found = []
    for entry in entries.strip("{} ").split(","):
        value, _, verdict = entry.partition(" : ")
        words = verdict.split()
        if words and words[0] in _VERDICTS:
            whole = [*conditions, Condition(key, _values(value))]
            found.append(_decide(rule, whole, words[0], words[-1]))
    return found or [replace(rule, conditions=(*conditions, Condition(OTHER)))]


def _values(text: str) -> tuple[str, ...]:
    """`"eth0"`, `{ "eth0", "eth1" }`, `established,related`."""
    parts = (part.strip().strip('"') for part in text.strip("{} ").split(","))
    return tuple(_WORDS.get(part, part) for part in parts if part)
