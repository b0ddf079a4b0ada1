"""The state of a host as comparable text, to prove that `leave` undoes all changes of a node.

A snapshot omits what changes by itself: addresses that a bridge has learned, counters, timers, the number of connections,
and `operstate`, which the kernel sets up to a second after the link's flags.
"""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from l2overlay.testing.namespace import Namespace

Snapshot = Mapping[str, tuple[str, ...]]
"""Lines, by the command or folder that they come from."""

VOLATILE_FIELD = re.compile(r"operstate|_timer$|^(rx|tx)_")
VOLATILE_SYSCTL = re.compile(r"nf_conntrack_(count|buckets)|/random|stat")
READ_SYSCTLS = "find /proc/sys/net -type f -perm -u=r -print0 | xargs -0 grep -s ''"


def take_snapshot(namespace: Namespace, *folders: Path) -> Snapshot:
    """Read links, addresses, routes, rules, static FDB entries, sysctls, and the files below `folders`."""
    return {
        "ip link": _link_lines(namespace, ["ip", "-j", "-d", "link"]),
        "ip addr": _link_lines(namespace, ["ip", "-j", "addr"]),
        "ip route": _json_lines(namespace, ["ip", "-j", "route"]),
        "ip -6 route": _json_lines(namespace, ["ip", "-6", "-j", "route"]),
        "bridge fdb": tuple(
            line
            for line in _json_lines(namespace, ["bridge", "-j", "fdb"])
            if re.search("permanent|static", line)
        ),
        "sysctl net": _sysctls(namespace),
        "iptables-save": _rules(namespace, "iptables-save"),
        "ip6tables-save": _rules(namespace, "ip6tables-save"),
        "files": tuple(
            sorted(str(p) for folder in folders for p in [folder, *folder.rglob("*")] if p.exists())
        ),
    }


def differences(before: Snapshot, after: Snapshot) -> list[str]:
    """One line for each line that is new or gone. Empty if the snapshots are equal."""
    found = []
    for source in before:
        gone, new = set(before[source]) - set(after[source]), set(after[source]) - set(before[source])
        found += [f"{source}: gone: {line}" for line in sorted(gone)]
        found += [f"{source}: new: {line}" for line in sorted(new)]
    return found


def _link_lines(namespace: Namespace, argv: list[str]) -> tuple[str, ...]:
    """One line for each field of each link, such as `br-lab linkinfo.info_data.ageing_time=30000`."""
    entries: list[dict[str, Any]] = json.loads(namespace.run(argv).stdout or "[]")
    return tuple(sorted(f"{e['ifname']} {field}" for e in entries if e for field in _fields("", e)))


def _fields(path: str, value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            if not VOLATILE_FIELD.search(key):
                yield from _fields(f"{path}.{key}" if path else key, inner)
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        for inner in value:
            yield f"{path}={json.dumps(inner, sort_keys=True)}"
    else:
        yield f"{path}={json.dumps(value)}"


def _json_lines(namespace: Namespace, argv: list[str]) -> tuple[str, ...]:
    entries = json.loads(namespace.run(argv).stdout or "[]")
    return tuple(sorted(json.dumps(entry, sort_keys=True) for entry in entries))


def _sysctls(namespace: Namespace) -> tuple[str, ...]:
    lines = namespace.run(["sh", "-c", READ_SYSCTLS], check=False).stdout.splitlines()
    return tuple(sorted(line for line in lines if not VOLATILE_SYSCTL.search(line)))


def _rules(namespace: Namespace, program: str) -> tuple[str, ...]:
    script = f"command -v {program} >/dev/null && {program} || true"
    lines = namespace.run(["sh", "-c", script]).stdout.splitlines()
    return tuple(re.sub(r"\[\d+:\d+\]", "[0:0]", line) for line in lines if not line.startswith("#"))
