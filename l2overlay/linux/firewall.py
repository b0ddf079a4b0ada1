"""The kernel's rules for one segment: installs, checks and removes them, so that nothing of them is left.

    install    iptables-restore --test of both families, then both for real; when the second fails the first is undone
    move       the .map chains of both families anew, nothing else
    look       whether all is as `install` left it; repaired by `install` again
    remove     hooks and chains, then what iptables-nft made for us and nobody else uses by now

What the rules are is written by `iptables.py`. The programs are those on PATH: the variant (nf_tables or legacy) is the
system's choice, and rules must be where the system's other rules are. All functions block: the node calls them in a thread.
"""

import re
import subprocess
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from l2overlay.addresses import MacAddress
from l2overlay.errors import HostPermissionError, HostSetupError
from l2overlay.linux import iptables, nftables, rtnetlink
from l2overlay.linux.iptables import FAMILIES, FilterSpec, Ruleset, Saved
from l2overlay.linux.privileges import remedy

PROGRAMS = {4: "iptables", 6: "ip6tables"}
LOCK_WAIT = 5
"""Seconds to wait while somebody else changes rules (`-w`; only the legacy variant has a lock)."""
TIMEOUT = 20.0
NF_BRIDGE_SYSCTLS = Path("/proc/sys/net/bridge")
LEGACY_TABLES = {
    4: Path("/proc/thread-self/net/ip_tables_names"),
    6: Path("/proc/thread-self/net/ip6_tables_names"),
}
# <linux/if_link.h>
IFLA_IFNAME, IFLA_LINKINFO, IFLA_INFO_DATA = 3, 18, 2
NF_CALL_ATTRIBUTES = {"nf_call_iptables": 36, "nf_call_ip6tables": 37}
BUILT_IN = ("INPUT", "FORWARD", "OUTPUT")


@dataclass(frozen=True, slots=True)
class Counted:
    """What a rule has seen."""

    frames: int = 0
    size: int = 0


class Firewall:
    """The rules of one segment on this host, and the stations that they know. Several threads may call it."""

    def __init__(self, segment: str) -> None:
        self.segment = segment
        self.stations: Mapping[MacAddress, str] = {}
        """By station, the name of the peer that it is behind, as the kernel's rules have it."""
        self.variant = ""
        """"nf_tables" or "legacy"; empty before `install`."""
        self._spec: FilterSpec | None = None
        self._rules: dict[int, Ruleset] = {}
        self._lock = threading.Lock()

    @property
    def spec(self) -> FilterSpec | None:
        """What is in force; None for nothing."""
        return self._spec

    def install(self, spec: FilterSpec, stations: Mapping[MacAddress, str] | None = None) -> None:
        """Put the rules in place, whatever is there. If it raises HostSetupError, nothing has changed."""
        with self._lock:
            known = {**(self.stations if stations is None else stations), **dict(spec.fixed)}
            followed = {mac: peer for mac, peer in known.items() if peer in spec.followed}
            self.variant = find_variant()
            rules = {version: iptables.render(spec, followed, version) for version in FAMILIES}
            saved = {version: read_saved(version, self.segment) for version in FAMILIES}
            texts = {v: iptables.install_text(rules[v], saved[v]) for v in FAMILIES}
            for version in FAMILIES:
                restore(version, texts[version], test=True)
            self._apply(texts)
            self._spec, self._rules, self.stations = spec, rules, followed

    def _apply(self, texts: Mapping[int, str]) -> None:
        """Apply IPv4, then IPv6. If IPv6 is refused, the old IPv4 rules come back."""
        restore(4, texts[4])
        try:
            restore(6, texts[6])
        except HostSetupError:
            saved = read_saved(4, self.segment)
            old = self._rules.get(4)
            restore(4, iptables.install_text(old, saved) if old else iptables.removal_text(saved))
            raise

    def move(self, stations: Mapping[MacAddress, str]) -> None:
        """Rewrite the chains that say where stations are. If it raises HostSetupError, one family may have changed."""
        with self._lock:
            spec = self._spec
            if spec is None:
                return
            for version in FAMILIES:
                maps = iptables.render_maps(spec, stations, version)
                restore(version, iptables.maps_text(maps))
                chains = {**self._rules[version].chains, **maps}
                self._rules[version] = Ruleset(chains, self._rules[version].hooks)
            self.stations = dict(stations)

    def look(self) -> tuple[list[str], dict[int, dict[str, Counted]]]:
        """What others have changed since `install` (hooks lost, chains flushed or gone), and what rules have counted, by
        family and label. Raises HostSetupError if it cannot look."""
        with self._lock:
            saved = {version: read_saved(version, self.segment) for version in self._rules}
            problems = [
                f"{PROGRAMS[version]}: {problem}"
                for version, rules in self._rules.items()
                for problem in iptables.missing(rules, saved[version])
            ]
            if self._spec is not None:
                problems += flags_off(self._spec.bridge)
        counted = {
            v: {label: Counted(*count) for label, count in s.counters.items()} for v, s in saved.items()
        }
        return problems, counted

    def repair(self) -> None:
        """Put back what `look` found missing."""
        spec = self._spec
        if spec is not None:
            self.install(spec)

    def forget(self) -> None:
        """The rules were removed."""
        with self._lock:
            self._spec, self._rules, self.stations = None, {}, {}


def remove(segment: str, absent: str) -> list[str]:
    """Remove all chains and hooks of a segment, and what of `absent` (see `absent_parts`) is empty.

    Returns what was done, in words. Raises HostSetupError.
    """
    done = []
    for version in FAMILIES:
        saved = read_saved(version, segment)
        text = iptables.removal_text(saved)
        if text:
            restore(version, text)
            done.append(f"remove the chains {iptables.chain_name(segment, '*')} of {PROGRAMS[version]}")
        _remove_made(version, saved, absent)
    return done


def absent_parts() -> str:
    """What of the tables is not there yet: `4:table,INPUT,FORWARD,OUTPUT 6:INPUT`. Legacy always keeps its tables."""
    if find_variant() != "nf_tables":
        return ""
    parts = []
    for version in FAMILIES:
        chains = nftables.table_chains(version)
        names = [name for name in BUILT_IN if name not in (chains or ())]
        names = names if chains is not None else ["table", *names]
        if names:
            parts.append(f"{version}:{','.join(names)}")
    return " ".join(parts)


def _remove_made(version: int, saved: Saved, absent: str) -> None:
    """Remove what is empty. A base chain with a policy belongs to somebody, even if it is empty."""
    names = dict(part.split(":", 1) for part in absent.split()).get(str(version), "").split(",")
    present = nftables.table_chains(version) if names != [""] else None
    if present is None:
        return
    chains = [name for name in names if name in present and saved.policies.get(name) == "ACCEPT"]
    table = "table" in names and present <= set(chains)
    if not nftables.remove_empty(version, chains, table=table):
        for name in chains:  # some are in use: take what is not
            nftables.remove_empty(version, [name], table=False)


def find_variant() -> str:
    """The variant of iptables on this system: `nf_tables` or `legacy`. Raises HostSetupError without iptables."""
    said = _run([PROGRAMS[4], "--version"], "").stdout
    found = re.search(r"\((nf_tables|legacy)\)", said)
    return found[1] if found else "legacy"


def other_variant_note(variant: str) -> str | None:
    """A sentence if the other variant of iptables has a filter table, whose rules see our frames as well."""
    if variant == "nf_tables":
        used = any("filter" in _lines(path) for path in LEGACY_TABLES.values())
        return "iptables-legacy has a filter table too; its rules see the same frames" if used else None
    used = any(nftables.table_chains(version) for version in FAMILIES)
    return "iptables-nft has a filter table too; its rules see the same frames" if used else None


def bridge_nf_was_on() -> bool:
    """Whether frames of every bridge meet iptables already. Raises HostSetupError if bridge netfilter is not loaded."""
    if not NF_BRIDGE_SYSCTLS.is_dir():
        raise HostSetupError(
            "the kernel's bridge netfilter is not loaded, and loading it would filter every bridge of this host; "
            "load it, and leave the others alone, by: modprobe br_netfilter && sysctl -w "
            "net.bridge.bridge-nf-call-iptables=0 net.bridge.bridge-nf-call-ip6tables=0 "
            "net.bridge.bridge-nf-call-arptables=0"
        )
    return any(
        _lines(NF_BRIDGE_SYSCTLS / f"bridge-nf-call-{name}") == ["1"] for name in ("iptables", "ip6tables")
    )


def flags_off(bridge: str) -> list[str]:
    """Which of the bridge's own flags are off, in words; none for a bridge that does not exist."""
    for answer in rtnetlink.dump(rtnetlink.RTM_GETLINK):
        for kind, body in rtnetlink.messages(answer):
            found = (
                rtnetlink.attributes(body[rtnetlink.IFINFOMSG.size :])
                if kind == rtnetlink.RTM_NEWLINK
                else {}
            )
            if found.get(IFLA_IFNAME, b"").rstrip(b"\0") == bridge.encode():
                info = rtnetlink.attributes(found.get(IFLA_LINKINFO, b""))
                data = rtnetlink.attributes(info.get(IFLA_INFO_DATA, b""))
                return [
                    f"{name} of {bridge} is off"
                    for name, n in NF_CALL_ATTRIBUTES.items()
                    if data.get(n) == b"\0"
                ]
    return []


def read_saved(version: int, segment: str) -> Saved:
    """Read our part of the filter table. Raises HostSetupError."""
    program = f"{PROGRAMS[version]}-save"
    done = _run([program, "-c", "-t", "filter"], "")
    if done.returncode:
        raise _refusal(program, done)
    return iptables.parse_saved(done.stdout, segment)


def restore(version: int, text: str, *, test: bool = False) -> None:
    """Run iptables-restore, which does all of the text or nothing. Raises HostSetupError."""
    if not text:
        return
    program = f"{PROGRAMS[version]}-restore"
    argv = [program, "-w", str(LOCK_WAIT), "--noflush", *(["--test"] if test else [])]
    done = _run(argv, text)
    if done.returncode:
        raise _refusal(program, done, text)


def _run(argv: Sequence[str], text: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            argv, input=text, capture_output=True, text=True, errors="replace", timeout=TIMEOUT, check=False
        )
    except FileNotFoundError:
        raise HostSetupError(
            f"[filter] needs {argv[0]}, which is not installed; apt install iptables, or remove [filter]"
        ) from None
    except PermissionError:
        raise HostPermissionError(f"may not run {argv[0]}; {remedy('CAP_NET_ADMIN')}") from None
    except OSError as error:
        raise HostSetupError(f"{argv[0]} cannot be run: {error.strerror}") from None
    except subprocess.TimeoutExpired:
        raise HostSetupError(f"{argv[0]} did not end within {TIMEOUT:.0f} s") from None


def _refusal(program: str, done: subprocess.CompletedProcess[str], text: str = "") -> HostSetupError:
    said = " ".join((done.stderr or done.stdout).split()) or f"exit code {done.returncode}"
    if "xtables lock" in said:
        return HostSetupError(
            f"{program}: another process has held the xtables lock for {LOCK_WAIT} s; try again when it is done"
        )
    if "Permission denied" in said or "you must be root" in said:
        return HostPermissionError(f"{program} may not change rules; {remedy('CAP_NET_ADMIN')}")
    line = re.search(r"line:? (\d+)", said)
    lines = text.splitlines()
    where = f" at `{lines[int(line[1]) - 1][:120]}`" if line and 0 < int(line[1]) <= len(lines) else ""
    return HostSetupError(f"{program} refused the rules of [filter]{where}: {said[:300]}")


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except OSError:
        return []
