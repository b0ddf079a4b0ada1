"""`[filter]` as text for iptables-restore and ip6tables-restore: pure functions, one address family at a time.

    FORWARD -> L2O-lab-fwd     bridged and routed frames: to -in or -out by the port (physdev) they come or go by
    INPUT   -> L2O-lab-in      frames from the TAP for this host itself
    OUTPUT  -> L2O-lab-out     this host's own, into the bridge
    L2O-lab-in                 established connections, neighbour discovery, then
      L2O-lab-in.map             who sent it: the stations of each peer that a rule names -> the chain of that peer
        L2O-lab-in.1               the rules as they are for the first of these peers
        L2O-lab-in.0               ... and for everybody else
          L2O-lab-in.2               a station of this host that is in security groups

Within -in and -out every jump is a goto, so that RETURN anywhere means "accepted": what is bridged is then accepted by -fwd,
what is for this host itself goes on to this host's own INPUT rules. A station that moves changes the .map chains and nothing
else. No match of iptables knows the destination's MAC, so stations are matched by xt_bpf, which reads the Ethernet header
through SKF_LL_OFF (linux/filter.h), forty at a time.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product

from l2overlay.addresses import MacAddress
from l2overlay.filter.model import (
    Action,
    Direction,
    FilterConfig,
    FilterRule,
    PortRange,
    SecurityGroup,
    Subjects,
)
from l2overlay.filter.rules import (
    ESTABLISHED,
    NEIGHBOUR_DISCOVERY,
    NEIGHBOUR_TYPES,
    default_label,
    followed_peers,
    group_sets,
    groups_default,
    groups_label,
    icmp_numbers,
    is_active,
    local_end,
    protocol_number,
    remote_end,
    rules_of,
)

FAMILIES = (4, 6)
CHAIN_PREFIX = "L2O-"
SKF_LL_OFF = (1 << 32) - 0x200000
"""-0x200000 as the unsigned number that xt_bpf wants. Offsets from here count from the Ethernet header."""
MACS_PER_PROGRAM = 40
"""xt_bpf takes 64 instructions: one for each station and five around them."""
PORTS_PER_RULE = 15
"""The limit of multiport(8), where a range counts twice."""
STATE_WORDS = {"new": "NEW", "invalid": "INVALID"}

Stations = Mapping[MacAddress, str]
"""By station, the peer that it is behind, for the peers that rules name."""


@dataclass(frozen=True, slots=True)
class FilterSpec:
    """What the kernel's rules depend on, except for where stations are."""

    segment: str
    tap: str
    bridge: str
    own: str
    """This node's name in peers.toml."""
    config: FilterConfig
    only_ours: bool = False
    """bridge_nf was off before the node: frames between other ports of this host must not meet rules now."""
    fixed: tuple[tuple[MacAddress, str], ...] = field(default=())
    """Stations that peers.toml puts behind a peer."""

    @property
    def directions(self) -> tuple[Direction, ...]:
        """The directions in which something is filtered."""
        return tuple(side for side in Direction if is_active(self.config, side))

    @property
    def followed(self) -> frozenset[str]:
        """Peers whose stations the rules follow."""
        return frozenset(
            name for side in self.directions for name in followed_peers(self.config, self.own, side)
        )


@dataclass(frozen=True, slots=True)
class Ruleset:
    """Our chains with their rules, and the rules that lead there from the kernel's own chains."""

    chains: Mapping[str, tuple[str, ...]]
    hooks: tuple[tuple[str, str], ...]


def chain_name(segment: str, part: str) -> str:
    """At most 28 characters: 20 with a segment's name of 15 and `out`, then a dot with four digits or `map`."""
    return f"{CHAIN_PREFIX}{segment}-{part}"


def own_chain(segment: str) -> re.Pattern[str]:
    """Matches the chains of this segment and of no other: a segment's name may contain '-', but no '.'."""
    return re.compile(rf"{CHAIN_PREFIX}{re.escape(segment)}-(fwd|(in|out)(\.[0-9a-z]+)?)")


def render(spec: FilterSpec, stations: Stations, version: int) -> Ruleset:
    """All chains and hooks, for one address family."""
    chains: dict[str, tuple[str, ...]] = {}
    for direction in spec.directions:
        chains |= _DirectionWriter(spec, direction, version).chains(stations)
    chains[chain_name(spec.segment, "fwd")] = tuple(_forward_rules(spec))
    return Ruleset(chains, tuple(_hooks(spec)))


def render_maps(spec: FilterSpec, stations: Stations, version: int) -> dict[str, tuple[str, ...]]:
    """The chains that know where stations are, alone."""
    maps: dict[str, tuple[str, ...]] = {}
    for direction in spec.directions:
        maps |= _DirectionWriter(spec, direction, version).map_chain(stations)
    return maps


def _hooks(spec: FilterSpec) -> Iterator[tuple[str, str]]:
    yield "FORWARD", f"-j {chain_name(spec.segment, 'fwd')}"
    if Direction.IN in spec.directions:
        yield "INPUT", f"-m physdev --physdev-in {spec.tap} -j {chain_name(spec.segment, 'in')}"
    if Direction.OUT in spec.directions:
        yield "OUTPUT", f"-o {spec.bridge} -j {chain_name(spec.segment, 'out')}"


def _forward_rules(spec: FilterSpec) -> Iterator[str]:
    """Accept bridged frames here, whatever FORWARD has for routed ones (Docker's policy is DROP)."""
    bridged = "-m physdev --physdev-is-bridged"
    if Direction.IN in spec.directions:
        yield f"-m physdev --physdev-in {spec.tap} -j {chain_name(spec.segment, 'in')}"
    if Direction.OUT in spec.directions:
        out = chain_name(spec.segment, "out")
        yield f"{bridged} --physdev-out {spec.tap} -j {out}"
        yield f"-o {spec.bridge} -m physdev ! --physdev-is-bridged -j {out}"
    yield f"{bridged} --physdev-in {spec.tap} -j ACCEPT"
    yield f"{bridged} --physdev-out {spec.tap} -j ACCEPT"
    if spec.only_ours:
        yield f"-i {spec.bridge} -o {spec.bridge} {bridged} -j ACCEPT"


class _DirectionWriter:
    """Writes the chains of one direction in one family."""

    def __init__(self, spec: FilterSpec, direction: Direction, version: int) -> None:
        self.spec = spec
        self.direction = direction
        self.version = version
        self.inward = direction is Direction.IN
        self.followed = followed_peers(spec.config, spec.own, direction)
        self._numbers = iter(range(len(self.followed) + 1, 10_000))

    def chains(self, stations: Stations) -> dict[str, tuple[str, ...]]:
        chains = {self._name(): tuple(self._entry_rules())}
        if self.followed:
            chains |= self.map_chain(stations)
        for number, peer in enumerate(("", *self.followed)):
            chains |= self._peer_chains(self._name(str(number)), peer)
        return chains

    def map_chain(self, stations: Stations) -> dict[str, tuple[str, ...]]:
        """Who is at the overlay's side."""
        if not self.followed:
            return {}
        rules = []
        for number, peer in enumerate(self.followed, 1):
            macs = sorted(mac for mac, behind in stations.items() if behind == peer)
            rules += [
                f"{match} {_comment(peer)} -g {self._name(str(number))}" for match in self._remote_macs(macs)
            ]
        return {self._name("map"): (*rules, f"-g {self._name('0')}")}

    def _name(self, part: str = "") -> str:
        return chain_name(self.spec.segment, f"{self.direction}.{part}" if part else str(self.direction))

    def _remote_macs(self, macs: Iterable[MacAddress]) -> list[str]:
        return mac_matches(macs, source=self.inward)

    def _local_macs(self, macs: Iterable[MacAddress]) -> list[str]:
        return mac_matches(macs, source=not self.inward)

    def _entry_rules(self) -> Iterator[str]:
        yield f"-m conntrack --ctstate RELATED,ESTABLISHED {_comment(ESTABLISHED)} -j RETURN"
        if self.version == 6:
            for kind in NEIGHBOUR_TYPES:
                yield f"-p ipv6-icmp -m icmp6 --icmpv6-type {kind} {_comment(NEIGHBOUR_DISCOVERY)} -j RETURN"
        yield f"-g {self._name('map' if self.followed else '0')}"

    def _peer_chains(self, name: str, peer: str) -> dict[str, tuple[str, ...]]:
        """The rules for frames whose other end is behind `peer`. Empty stands for everybody whom no rule names."""
        config, chains = self.spec.config, {}
        rules = [line for rule in rules_of(config.rules, self.direction) for line in self._lines(rule, peer)]
        for groups, macs in group_sets(config.security_groups).items():
            chain = self._name(str(next(self._numbers)))
            chains[chain] = tuple(self._group_rules(groups, peer))
            rules += [f"{match} -g {chain}" for match in self._local_macs(macs)]
        label = default_label(self.direction)
        return {name: (*rules, *_verdicts("", config.default(self.direction), label)), **chains}

    def _group_rules(self, groups: tuple[SecurityGroup, ...], peer: str) -> Iterator[str]:
        for group in groups:
            for rule in rules_of(group.rules, self.direction):
                yield from self._lines(rule, peer)
        yield from _verdicts("", groups_default(groups, self.direction), groups_label(groups))

    def _lines(self, rule: FilterRule, peer: str) -> Iterator[str]:
        """One rule of peers.toml; nothing if it does not apply to `peer`, to this host or to this family."""
        ends = product(
            self._alternatives(remote_end(rule), peer, remote=True),
            self._alternatives(local_end(rule), self.spec.own, remote=False),
        )
        for remote, local in ends:
            for what in self._protocol_matches(rule):
                states = ",".join(STATE_WORDS[state] for state in rule.states)
                state = f"-m conntrack --ctstate {states}" if states else ""
                match = " ".join(filter(None, (what, remote, local, state, self._rate_match(rule))))
                yield from _verdicts(match, rule.action, rule.label, self._log_prefix(rule))

    def _alternatives(self, subjects: Subjects | None, peer: str, *, remote: bool) -> list[str]:
        """Matches, one of which must hold. An empty match always holds."""
        if subjects is None or peer in subjects.peers:
            return [""]
        flag = "-s" if remote == self.inward else "-d"
        networks = [n for n in subjects.networks if n.version == self.version]
        macs = self._remote_macs(subjects.macs) if remote else self._local_macs(subjects.macs)
        return [*(f"{flag} {network}" for network in networks), *macs]

    def _protocol_matches(self, rule: FilterRule) -> list[str]:
        if rule.protocol is None:
            return [""]
        number = protocol_number(rule.protocol, self.version)
        if rule.icmp_types:
            option = "icmp --icmp-type" if self.version == 4 else "icmp6 --icmpv6-type"
            return [f"-p {number} -m {option} {kind}" for kind in icmp_numbers(rule, self.version)]
        pairs = product(_port_matches("--sports", rule.source_ports), _port_matches("--dports", rule.ports))
        return [" ".join(filter(None, (f"-p {number}", *pair))) for pair in pairs]

    def _rate_match(self, rule: FilterRule) -> str:
        """All chains that have a rule share one bucket of it: hashlimit shares by name, and the name contains the rate."""
        rate = rule.rate
        if rate is None:
            return ""
        number = re.sub(r"[^A-Za-z0-9]+", "-", rule.label)
        name = f"l2o-{self.spec.segment}-{self.direction}-{number}-{rate.count}{rate.unit}{rate.burst}"
        unit = {"s": "sec", "min": "min", "h": "hour"}[rate.unit]
        limit = f"--hashlimit-upto {rate.count}/{unit} --hashlimit-burst {rate.burst}"
        return f"-m hashlimit {limit} --hashlimit-name {name}"

    def _log_prefix(self, rule: FilterRule) -> str:
        return f"{self.spec.segment}-{self.direction} {rule.label}: "[-29:]


def _verdicts(match: str, action: Action, label: str, log_prefix: str = "") -> Iterator[str]:
    """The rule with its target. `reject` answers TCP by RST, and everything else by ICMP."""
    start = f"{match} {_comment(label)}".strip()
    match action:
        case Action.ACCEPT:
            yield f"{start} -j RETURN"
        case Action.DROP:
            yield f"{start} -j DROP"
        case Action.LOG:
            yield f'{start} -j LOG --log-prefix "{log_prefix}"'
        case Action.REJECT:
            if not match.startswith("-p "):
                yield f"-p 6 {start} -j REJECT --reject-with tcp-reset"
            with_reset = " --reject-with tcp-reset" if re.match(r"-p 6\b", match) else ""
            yield f"{start} -j REJECT{with_reset}"


def _comment(label: str) -> str:
    return f'-m comment --comment "{label}"'


def _port_matches(option: str, ranges: tuple[PortRange, ...]) -> list[str]:
    """The fewest multiport matches that cover all ranges."""
    matches: list[str] = []
    words: list[str] = []
    room = PORTS_PER_RULE
    for first, last in ranges:
        cost = 1 if first == last else 2
        if cost > room:
            matches.append(f"-m multiport {option} {','.join(words)}")
            words, room = [], PORTS_PER_RULE
        words.append(str(first) if first == last else f"{first}:{last}")
        room -= cost
    return [*matches, f"-m multiport {option} {','.join(words)}"] if words else [""]


def mac_matches(macs: Iterable[MacAddress], *, source: bool) -> list[str]:
    """xt_bpf matches that hold for a frame from (or to) one of these stations."""
    offset = SKF_LL_OFF + (6 if source else 0)
    by_start: dict[bytes, list[bytes]] = {}
    for mac in macs:
        by_start.setdefault(mac[:2], []).append(mac[2:])
    return [
        f'-m bpf --bytecode "{_program(offset, start, ends[i : i + MACS_PER_PROGRAM])}"'
        for start, ends in by_start.items()
        for i in range(0, len(ends), MACS_PER_PROGRAM)
    ]


def _program(offset: int, start: bytes, ends: list[bytes]) -> str:
    """Classic BPF (bpf(4)): load half-word, compare, load word, compare with each; `code jt jf k`.

    40 = ldh [k], 32 = ld [k], 21 = jeq k, 6 = ret k.
    """
    count = len(ends)
    code = [f"40 0 0 {offset}", f"21 0 {count + 1} {int.from_bytes(start, 'big')}", f"32 0 0 {offset + 2}"]
    code += [f"21 {count - i} 0 {int.from_bytes(end, 'big')}" for i, end in enumerate(ends)]
    code += ["6 0 0 0", "6 0 0 65535"]
    return f"{len(code)},{','.join(code)}"


# What iptables-save says, and what iptables-restore is given


@dataclass(frozen=True, slots=True)
class Saved:
    """The filter table of one family, as far as it concerns us."""

    chains: tuple[str, ...]
    """Of ours."""
    hooks: tuple[tuple[str, str], ...]
    """Rules in others' chains that lead to ours: (chain, rule as printed)."""
    first: Mapping[str, str]
    """The first rule of each built-in chain that is no hook of another segment."""
    rule_counts: Mapping[str, int]
    """By chain of ours."""
    counters: Mapping[str, tuple[int, int]]
    """Frames and bytes by direction and label: `in rule 3`."""
    policies: Mapping[str, str]


def parse_saved(text: str, segment: str) -> Saved:
    """Read the output of `iptables-save -c -t filter`."""
    ours = own_chain(segment)
    chains: list[str] = []
    hooks: list[tuple[str, str]] = []
    first: dict[str, str] = {}
    policies: dict[str, str] = {}
    counts: dict[str, int] = {}
    counters: dict[str, tuple[int, int]] = {}
    for line in text.splitlines():
        if chain := re.match(r":(\S+) (\S+)", line):
            policies[chain[1]] = chain[2]
            if ours.fullmatch(chain[1]):
                chains.append(chain[1])
        elif rule := re.match(r"(?:\[(\d+):(\d+)\] )?-A (\S+) ?(.*)", line):
            frames, size, name, body = int(rule[1] or 0), int(rule[2] or 0), rule[3], rule[4]
            if ours.fullmatch(name):
                counts[name] = counts.get(name, 0) + 1
                if label := _label_in(name, body):
                    before = counters.get(label, (0, 0))
                    counters[label] = (before[0] + frames, before[1] + size)
                continue
            target = re.search(r"-[jg] (\S+)$", body)
            if target and ours.fullmatch(target[1]):
                hooks.append((name, body))
            elif target and target[1].startswith(CHAIN_PREFIX):
                continue  # another segment's hook: two nodes do not fight for the first place
            first.setdefault(name, body)
    return Saved(tuple(chains), tuple(hooks), first, counts, counters, policies)


def _label_in(chain: str, rule: str) -> str:
    """The direction and what `_comment` wrote; for a rule that is no step from chain to chain."""
    found = re.search(r'--comment (?:"([^"]*)"|(\S+))', rule)
    if not found or " -g " in f" {rule}":
        return ""
    return f"{chain.rpartition('-')[2].partition('.')[0]} {found[1] or found[2]}"


def install_text(rules: Ruleset, saved: Saved) -> str:
    """A text that makes all of ours as it should be, whatever is there now, in one transaction. Hooks come first in their
    chains."""
    lines = ["*filter", *(f":{chain} - [0:0]" for chain in rules.chains)]
    stale = [chain for chain in saved.chains if chain not in rules.chains]
    lines += [f"-D {chain} {rule}" for chain, rule in saved.hooks]
    lines += [f"-A {chain} {rule}" for chain, body in rules.chains.items() for rule in body]
    lines += [f"-I {chain} 1 {rule}" for chain, rule in rules.hooks]
    lines += [f"{option} {chain}" for option in ("-F", "-X") for chain in stale]
    return "\n".join([*lines, "COMMIT", ""])


def maps_text(maps: Mapping[str, tuple[str, ...]]) -> str:
    """A text that rewrites these chains alone."""
    lines = ["*filter", *(f":{chain} - [0:0]" for chain in maps)]
    lines += [f"-A {chain} {rule}" for chain, body in maps.items() for rule in body]
    return "\n".join([*lines, "COMMIT", ""])


def removal_text(saved: Saved) -> str:
    """A text that removes everything of ours; empty if there is nothing."""
    if not saved.chains and not saved.hooks:
        return ""
    lines = ["*filter", *(f"-D {chain} {rule}" for chain, rule in saved.hooks)]
    lines += [f"{option} {chain}" for option in ("-F", "-X") for chain in saved.chains]
    return "\n".join([*lines, "COMMIT", ""])


def missing(rules: Ruleset, saved: Saved) -> list[str]:
    """What is no longer as `install_text` made it, in words."""
    found = []
    for chain, rule in rules.hooks:
        target = rule.rpartition(" ")[2]
        if not saved.first.get(chain, "").endswith(f" {target}"):
            there = any(name == chain and body.endswith(target) for name, body in saved.hooks)
            found.append(f"{chain} {'has our hook behind another rule' if there else 'has lost our hook'}")
    for chain, body in rules.chains.items():
        if chain not in saved.chains:
            found.append(f"the chain {chain} is gone")
        elif saved.rule_counts.get(chain, 0) != len(body):
            found.append(f"the chain {chain} was changed")
    return found
