"""The kernel's rules of a gateway: the segment's stations go out by one interface, with its address.

    nat     POSTROUTING -o eth0 -> L2U-lab    MASQUERADE for the segment's subnets
    filter  FORWARD             -> L2U-lab    accept what leaves from them, and the answers to it

`render` is pure. The others run iptables-save and iptables-restore of both families, in the variant that is on PATH, and
block. The hook of FORWARD stands behind those of [filter] and before all others, because Docker and ufw drop what is
forwarded. An IPv6 subnet that is valid in the whole Internet keeps its addresses: it is forwarded, not masqueraded.
"""

import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network

from l2overlay.errors import HostPermissionError, HostSetupError
from l2overlay.linux import nftables, observe
from l2overlay.linux.iptables import CHAIN_PREFIX as FILTER_PREFIX
from l2overlay.linux.privileges import remedy

Network = IPv4Network | IPv6Network

PREFIX = "L2U-"
PROGRAMS = {4: "iptables", 6: "ip6tables"}
HOOKS = {"nat": "POSTROUTING", "filter": "FORWARD"}
BUILT_IN = {
    "nat": ("PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"),
    "filter": ("INPUT", "FORWARD", "OUTPUT"),
}
LOCK_WAIT = 5
"""Seconds to wait while somebody else changes rules."""
TIMEOUT = 20.0


@dataclass(frozen=True, slots=True)
class GatewaySpec:
    """What the rules depend on."""

    segment: str
    bridge: str
    uplink: str
    networks: tuple[Network, ...]
    """Of the node's addresses on the bridge."""

    @property
    def chain(self) -> str:
        """The name of our chain, in every table."""
        return chain_name(self.segment)

    def of_family(self, version: int) -> tuple[Network, ...]:
        """The subnets of one family."""
        return tuple(network for network in self.networks if network.version == version)


@dataclass(frozen=True, slots=True)
class Part:
    """Ours in one table of one family."""

    hook: str
    """The rule that leads to our chain, as iptables-save prints it."""
    rules: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Found:
    """What iptables-save says of one table."""

    has_chain: bool
    rules: tuple[str, ...]
    """In our chain."""
    hooks: tuple[str, ...]
    """Rules that lead to our chain."""
    position: int
    """Where our hook belongs, counted from 1 and without our present ones."""
    in_place: bool
    """Whether our first hook stands there. In the table nat its place does not matter."""
    policies: Mapping[str, str]


def chain_name(segment: str) -> str:
    """At most 19 characters; iptables takes 28."""
    return PREFIX + segment


def render(spec: GatewaySpec, version: int) -> dict[str, Part]:
    """Our rules of one family by table, as iptables-save prints them; empty where the segment has no such subnet."""
    subnets = spec.of_family(version)
    if not subnets:
        return {}
    hidden = [s for s in subnets if version == 4 or s.is_private]
    return {
        "nat": Part(f"-o {spec.uplink} -j {spec.chain}", tuple(f"-s {s} -j MASQUERADE" for s in hidden)),
        "filter": Part(f"-j {spec.chain}", tuple(_forwarded(spec, subnets))),
    }


def _forwarded(spec: GatewaySpec, subnets: Sequence[Network]) -> Iterator[str]:
    answers = "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"
    for subnet in subnets:
        yield f"-s {subnet} -i {spec.bridge} -o {spec.uplink} -j ACCEPT"
        yield f"-d {subnet} -i {spec.uplink} -o {spec.bridge} {answers}"


def missing(spec: GatewaySpec) -> tuple[str, ...]:
    """What is not as `install` makes it, in words. Raises HostSetupError."""
    return tuple(problem for version in _families() for problem in _missing(spec, version))


def _missing(spec: GatewaySpec, version: int) -> Iterator[str]:
    parts = render(spec, version)
    for table, hook_chain in HOOKS.items():
        found, part = read_found(version, table, spec.segment), parts.get(table)
        where = f"{PROGRAMS[version]} -t {table}"
        if part is None:
            if found.has_chain:
                yield f"{where} has {spec.chain}, which is not needed any more"
        elif not found.has_chain or found.rules != part.rules:
            yield f"{where}: the chain {spec.chain} is not as it should be"
        elif found.hooks != (part.hook,) or not found.in_place:
            yield f"{where}: {hook_chain} does not lead to {spec.chain} as it should"


def install(spec: GatewaySpec) -> None:
    """Put the rules in place, whatever is there. Each table changes as a whole. Raises HostSetupError."""
    for version in _families():
        parts = render(spec, version)
        for table in HOOKS:
            found, part = read_found(version, table, spec.segment), parts.get(table)
            lines = (
                _removal(spec.segment, table, found) if part is None else _renewal(spec, table, found, part)
            )
            _restore(version, table, lines)


def remove(segment: str, absent: str) -> None:
    """Remove our chains and hooks, and what of `absent` is empty. Raises HostSetupError."""
    for version in _families():
        for table in HOOKS:
            _restore(version, table, _removal(segment, table, read_found(version, table, segment)))
    remove_tables(absent)


def remove_tables(absent: str) -> None:
    """Remove what of `absent` is empty. Raises HostSetupError."""
    for part in absent.split():
        place, _, names = part.partition("=")
        version, table = int(place[0]), place[2:]
        if nftables.table_chains(version, table) is not None:
            _remove_made(version, table, names.split(","), read_found(version, table, "").policies)


def absent_parts(spec: GatewaySpec) -> str:
    """What iptables-nft is going to make for us, and would leave behind: `4.nat=table,PREROUTING,INPUT`. Legacy always
    keeps its tables."""
    if "nf_tables" not in _run([PROGRAMS[4], "--version"]):
        return ""
    parts = []
    for version in _families():
        for table, built_in in BUILT_IN.items() if spec.of_family(version) else ():
            chains = nftables.table_chains(version, table)
            names = [
                *(["table"] if chains is None else []),
                *(n for n in built_in if n not in (chains or ())),
            ]
            if names:
                parts.append(f"{version}.{table}={','.join(names)}")
    return " ".join(parts)


def read_found(version: int, table: str, segment: str) -> Found:
    """Read our part of one table. Raises HostSetupError."""
    return parse_found(_run([f"{PROGRAMS[version]}-save", "-t", table]), table, segment)


def parse_found(text: str, table: str, segment: str) -> Found:
    """Read the output of iptables-save for one table."""
    chain = chain_name(segment)
    policies = {found[1]: found[2] for found in re.finditer(r"^:(\S+) (\S+)", text, re.MULTILINE)}
    rules = [(found[1], found[2]) for found in re.finditer(r"^-A (\S+) ?(.*)$", text, re.MULTILINE)]
    hook_chain = [body for name, body in rules if name == HOOKS[table]]
    hooks = tuple(body for body in hook_chain if body.endswith(f"-j {chain}"))
    ahead = 0
    for body in hook_chain:
        if f" {FILTER_PREFIX}" in body or f" {PREFIX}" in body:
            ahead += body not in hooks
        else:
            break
    leading = hook_chain[: ahead + len(hooks)]
    return Found(
        has_chain=chain in policies,
        rules=tuple(body for name, body in rules if name == chain),
        hooks=hooks,
        position=ahead + 1,
        in_place=bool(hooks) and (table == "nat" or hooks[0] in leading),
        policies=policies,
    )


def _families() -> tuple[int, ...]:
    """Those that the kernel has: without IPv6, ip6tables-save fails."""
    return (4, 6) if observe.has_ipv6() else (4,)


def _renewal(spec: GatewaySpec, table: str, found: Found, part: Part) -> list[str]:
    return [
        f":{spec.chain} - [0:0]",
        *(f"-D {HOOKS[table]} {hook}" for hook in found.hooks),
        *(f"-A {spec.chain} {rule}" for rule in part.rules),
        f"-I {HOOKS[table]} {found.position} {part.hook}",
    ]


def _removal(segment: str, table: str, found: Found) -> list[str]:
    lines = [f"-D {HOOKS[table]} {hook}" for hook in found.hooks]
    return [*lines, *(f"{option} {chain_name(segment)}" for option in ("-F", "-X") if found.has_chain)]


def _remove_made(version: int, table: str, names: Sequence[str], policies: Mapping[str, str]) -> None:
    """Remove what is empty. A base chain with a policy belongs to somebody, even if it is empty."""
    present = nftables.table_chains(version, table)
    if present is None:
        return
    chains = [name for name in names if name in present and policies.get(name) == "ACCEPT"]
    whole = "table" in names and present <= set(chains)
    if not nftables.remove_empty(version, chains, table=whole, of=table):
        for name in chains:  # some are in use: take what is not
            nftables.remove_empty(version, [name], table=False, of=table)


def _restore(version: int, table: str, lines: Sequence[str]) -> None:
    if lines:
        text = "\n".join([f"*{table}", *lines, "COMMIT", ""])
        _run([f"{PROGRAMS[version]}-restore", "-w", str(LOCK_WAIT), "--noflush"], text)


def _run(argv: Sequence[str], text: str = "") -> str:
    try:
        done = subprocess.run(
            argv, input=text, capture_output=True, text=True, errors="replace", timeout=TIMEOUT, check=False
        )
    except FileNotFoundError:
        raise HostSetupError(
            f"uplink.nat needs {argv[0]}, which is not installed; apt install iptables, or remove uplink"
        ) from None
    except PermissionError:
        raise HostPermissionError(f"may not run {argv[0]}; {remedy('CAP_NET_ADMIN')}") from None
    except OSError as error:
        raise HostSetupError(f"{argv[0]} cannot be run: {error.strerror}") from None
    except subprocess.TimeoutExpired:
        raise HostSetupError(f"{argv[0]} did not end within {TIMEOUT:.0f} s") from None
    if done.returncode:
        said = " ".join((done.stderr or done.stdout).split()) or f"exit code {done.returncode}"
        if "Permission denied" in said or "you must be root" in said:
            raise HostPermissionError(f"{argv[0]} may not change rules; {remedy('CAP_NET_ADMIN')}")
        raise HostSetupError(f"{argv[0]} refused the rules of uplink.nat: {said[:300]}")
    return done.stdout
