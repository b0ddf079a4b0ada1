"""The text of iptables-save, ip6tables-save, ebtables-save and arptables-save as rulesets.

*filter                                            a table
:FORWARD DROP [25:2100]                            a chain: policy (`-` for one of the user's) and its counters
[3:180] -A FORWARD -i br-lab -j DROP               a rule; with -c its counters (packets:bytes) before it
"""

import re
import shlex
from collections.abc import Iterator

from l2overlay.doctor.rulesets import OTHER, Chain, Condition, Rule, Ruleset, Verdict

FAMILIES = {"iptables": "ip", "ip6tables": "ip6", "ebtables": "bridge", "arptables": "arp"}
HOOKS = {name: name.lower() for name in ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING")}
VERDICTS = {
    "ACCEPT": Verdict.ACCEPT,
    "DROP": Verdict.DROP,
    "REJECT": Verdict.DROP,
    "RETURN": Verdict.RETURN,
}
_KEYS = {
    "-i": "in",
    "--in-interface": "in",
    "-o": "out",
    "--out-interface": "out",
    "--logical-in": "logical_in",
    "--logical-out": "logical_out",
    "--physdev-in": "physin",
    "--physdev-out": "physout",
    "--dport": "dport",
    "--dports": "dport",
    "--sport": "sport",
    "--sports": "sport",
    "--ctstate": "state",
    "--state": "state",
}
_FLAGS = {"--physdev-is-bridged": "bridged"}
_NO_CONDITION = ("-m", "--comment", "--log-level", "--log-prefix", "--log-ip", "--log-ip6", "--log-arp")
_COUNTED = re.compile(r"\[(\d+):\d+\] ")


def parse_saved(tool: str, text: str) -> list[Ruleset]:
    """Every table in the output of `TOOL-save -c`."""
    family = FAMILIES[tool.removesuffix("-legacy")]
    found = []
    for part in re.split(r"^\*", text, flags=re.MULTILINE)[1:]:
        name, _, body = part.partition("\n")
        found.append(Ruleset(tool, family, name.strip(), tuple(_chains(family, body.splitlines()))))
    return found


def split_rule(text: str) -> list[str]:
    """The words of a rule; a comment is quoted as for a shell, or as somebody's script left it."""
    try:
        return shlex.split(text)
    except ValueError:
        return text.split()


def _chains(family: str, lines: list[str]) -> Iterator[Chain]:
    rules: dict[str, list[Rule]] = {}
    for line in lines:
        counted = _COUNTED.match(line)
        rest = line[counted.end() :] if counted else line
        if rest.startswith("-A ") and rest[3:].strip():
            chain, rule = _rule(family, rest, int(counted[1]) if counted else None)
            rules.setdefault(chain, []).append(rule)
    for line in lines:
        fields = line[1:].split()
        if line.startswith(":") and len(fields) > 1:
            name, policy, *counters = fields
            packets = re.match(r"\[(\d+):", counters[0]) if counters else None
            yield Chain(
                name=name,
                rules=tuple(rules.get(name, ())),
                hook="" if policy == "-" else HOOKS.get(name, ""),
                policy=VERDICTS.get(policy, Verdict.ACCEPT),
                packets=int(packets[1]) if packets else None,
            )


def _rule(family: str, text: str, packets: int | None) -> tuple[str, Rule]:
    words = split_rule(text)
    conditions, verdict, target, negated = [], Verdict.NEXT, "", False
    position = 2
    while position < len(words):
        word, value = words[position], words[position + 1] if position + 1 < len(words) else ""
        position += 1
        if word in ("-j", "-g", "--jump", "--goto"):
            verdict, target = _verdict(word, value)
            break  # what follows belongs to the target
        if word == "!":
            negated = True
            continue
        if word in _FLAGS:
            conditions.append(Condition(_FLAGS[word], ("1",), negated))
        elif word.startswith("-") and word not in _NO_CONDITION:
            conditions.append(_condition(family, word, value, negated))
        negated = False
    return words[1], Rule(text, verdict, target, tuple(conditions), packets)


def _condition(family: str, word: str, value: str, negated: bool) -> Condition:
    if word in ("-p", "--protocol", "--proto"):
        return Condition("ethertype" if family == "bridge" else "proto", (value,), negated)
    if word in _KEYS:
        return Condition(_KEYS[word], tuple(value.split(",")), negated)
    return Condition(OTHER)


def _verdict(word: str, target: str) -> tuple[Verdict, str]:
    if target in VERDICTS:
        return VERDICTS[target], ""
    return (Verdict.GOTO if word in ("-g", "--goto") else Verdict.JUMP), target
