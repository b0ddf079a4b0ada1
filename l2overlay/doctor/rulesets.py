"""Packet filter rules as data, and the way of one frame through them.

The same few shapes hold what iptables-save, ebtables-save, arptables-save and `nft list ruleset` print. A `Probe` says
what is known of a frame (which port it came by, that it is TCP, that it opens a connection); a condition on anything else
is undecided, so a walk tells three kinds apart: what surely happens to the frame, what may, and what does not.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

OTHER = "other"
"""The key of a condition that a probe never decides."""
OURS = "L2O-"
"""Chains of `[filter]`, which drop what they are meant to drop (`l2overlay filter show`)."""

Probe = Mapping[str, str]
"""What is known of a frame: any of in, out, physin, physout, logical_in, logical_out, bridged, proto, sport, dport, state,
ethertype and nfproto."""


class Verdict(StrEnum):
    """What a rule does with a frame that it matches."""

    ACCEPT = "accept"
    DROP = "drop"  # REJECT too
    RETURN = "return"
    JUMP = "jump"
    GOTO = "goto"
    NEXT = "next"  # counts, logs, marks


@dataclass(frozen=True, slots=True)
class Condition:
    """One match of a rule. Several values are alternatives."""

    key: str
    values: tuple[str, ...] = ()
    negated: bool = False

    def holds(self, probe: Probe) -> bool | None:
        """Whether the probe meets it; None if the probe does not know."""
        value = probe.get(self.key)
        if self.key == OTHER or value is None:
            return None
        return any(_fits(value, wanted) for wanted in self.values) != self.negated


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule, and its text as the tool prints it."""

    text: str
    verdict: Verdict
    target: str = ""
    conditions: tuple[Condition, ...] = ()
    packets: int | None = None
    handle: int | None = None
    """Only nft has one."""

    def matches(self, probe: Probe) -> bool | None:
        """Whether the probe matches; None if that depends on what it does not know."""
        answers = [condition.holds(probe) for condition in self.conditions]
        if False in answers:
            return False
        return None if None in answers else True

    def names(self, *values: str) -> bool:
        """Whether a condition names one of these."""
        return any(value in condition.values for condition in self.conditions for value in values)


@dataclass(frozen=True, slots=True)
class Chain:
    """A chain. `hook` is where the kernel enters it; empty if rules only jump to it."""

    name: str
    rules: tuple[Rule, ...] = ()
    hook: str = ""
    policy: Verdict = Verdict.ACCEPT
    packets: int | None = None
    """Frames that met the policy."""
    devices: tuple[str, ...] = ()
    """The device of a chain of the netdev family."""


@dataclass(frozen=True, slots=True)
class Ruleset:
    """One table of one tool."""

    tool: str
    """The program that changes it: iptables, iptables-legacy, ip6tables, ebtables, arptables, nft."""
    family: str
    """ip, ip6, inet, arp, bridge or netdev."""
    table: str
    chains: tuple[Chain, ...] = ()

    def chain(self, name: str) -> Chain | None:
        """The chain of that name."""
        return next((chain for chain in self.chains if chain.name == name), None)

    def hooked(self, hook: str) -> Iterator[Chain]:
        """The chains that the kernel enters at this hook."""
        return (chain for chain in self.chains if chain.hook == hook)


@dataclass(frozen=True, slots=True)
class Loss:
    """A place where the frame of a probe is dropped, or may be."""

    tool: str
    family: str
    table: str
    hook: str
    path: tuple[str, ...]
    """The chains from that of the hook to the one that drops."""
    text: str
    """The rule or policy."""
    rule: Rule | None
    """None for a policy."""
    packets: int | None
    certain: bool
    """Every condition on the way was decided."""
    passes_established: bool
    """Frames of existing connections are accepted before it."""

    @property
    def place(self) -> tuple[str, ...]:
        """What stays the same in a later reading, whose counters differ."""
        return (self.tool, self.family, self.table, self.path[-1], self.text)

    @property
    def is_policy(self) -> bool:
        """Whether a policy drops, and not a rule."""
        return self.rule is None


def losses(rulesets: Iterable[Ruleset], families: Iterable[str], hook: str, probe: Probe) -> list[Loss]:
    """Where the probe's frame is lost at a hook. What one base chain accepts another may drop."""
    wanted = set(families)
    found: list[Loss] = []
    for ruleset in rulesets:
        if ruleset.family not in wanted:
            continue
        for chain in ruleset.hooked(hook):
            if not chain.devices or probe.get("in") in chain.devices:
                found += _Walk(ruleset, hook, probe).through(chain)
    return found


@dataclass(slots=True)
class _Walk:
    ruleset: Ruleset
    hook: str
    probe: Probe
    found: list[Loss] = field(default_factory=list)
    passes_established: bool = False
    passes_some: bool = False

    def through(self, chain: Chain) -> list[Loss]:
        decided = self._follow(chain, (chain.name,), certain=True)
        if not decided and chain.policy is Verdict.DROP:
            self._lose((chain.name,), f"chain {chain.name} policy DROP", None, chain.packets, certain=True)
        return self.found

    def _follow(self, chain: Chain, path: tuple[str, ...], *, certain: bool) -> bool:
        """Whether the chain decides about the frame."""
        for rule in chain.rules:
            matches = rule.matches(self.probe)
            self._note_established(rule)
            if matches is False:
                continue
            sure = certain and matches is True
            match rule.verdict:
                case Verdict.DROP:
                    self._lose(path, rule.text, rule, rule.packets, certain=sure)
                case Verdict.ACCEPT if matches is None or not certain:
                    self.passes_some = True
                case Verdict.JUMP | Verdict.GOTO:
                    inner = self.ruleset.chain(rule.target)
                    sealed = inner is not None and self._follow(inner, (*path, rule.target), certain=sure)
                    if matches and (sealed or rule.verdict is Verdict.GOTO):
                        return sealed
            if matches and rule.verdict in (Verdict.ACCEPT, Verdict.DROP):
                return True
            if matches and rule.verdict is Verdict.RETURN:
                return False
        return False

    def _note_established(self, rule: Rule) -> None:
        """A probe opens a connection, so rules for existing ones do not match; that they pass is noted."""
        others = {**self.probe, "state": "ESTABLISHED"}
        if rule.verdict is Verdict.ACCEPT and rule.matches(others) and not rule.matches(self.probe):
            self.passes_established = True

    def _lose(
        self, path: tuple[str, ...], text: str, rule: Rule | None, packets: int | None, *, certain: bool
    ) -> None:
        if any(name.startswith(OURS) for name in path):
            return
        where = (self.ruleset.tool, self.ruleset.family, self.ruleset.table, self.hook)
        sure = certain and not self.passes_some
        self.found.append(Loss(*where, path, text, rule, packets, sure, self.passes_established))


def _fits(value: str, wanted: str) -> bool:
    if wanted == value:
        return True
    if wanted[-1:] in ("+", "*"):  # an interface by its beginning: iptables writes `v+`, nft `v*`
        return value.startswith(wanted[:-1])
    low, dash, high = wanted.replace(":", "-").partition("-")
    if dash and value.isdigit() and low.isdigit() and high.isdigit():
        return int(low) <= int(value) <= int(high)
    return wanted.lower() == value.lower()
