"""The demo: hosts as namespaces, a real node on each, guests behind their bridges, and proof of what README claims.

`run_demo` is a generator of these steps. Each tells what it saw, and what of this was not as promised:

    Built      hosts, bridges and guests stand; nothing joins them yet
    Joined     every node is READY
    Pinged     every guest has pinged every other one, IPv4 and IPv6
    Carried    a TCP stream from the first guest to the last, and its rate
    Learned    each node's filtering database
    Overheard  a stream with a canary: on the guest's link it is there, on the underlay it is not
    Stopped    nodes ended, every host as it was before them, namespaces, processes and files gone; or
    Kept       everything goes on until `stop_noted`
"""

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from l2overlay.config.limits import DEFAULT_PORT
from l2overlay.demo.eavesdrop import LISTENING
from l2overlay.demo.note import Note, noted
from l2overlay.errors import HostPermissionError, HostSetupError
from l2overlay.linux.privileges import has_capability, remedy
from l2overlay.testing.lab import Family, Guest, Host, Lab, PingResult, child_environment
from l2overlay.testing.namespace import LabError, Namespace, root_is_mount_point, run_command
from l2overlay.testing.snapshot import Snapshot, differences

SEGMENT = "demo"
MIN_HOSTS, MAX_HOSTS = 2, 16
TRANSFER_PORT = 5201
TRANSFER_SECONDS = 2.0
OVERHEARD_SIZE = 4 << 20
NEEDED = {"ip": "iproute2", "bridge": "iproute2", "ping": "iputils-ping"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step of the demo."""

    failures: tuple[str, ...] = ()
    """What was not as promised, one sentence each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Built(Step):
    """The hosts and guests that exist now, with their names and addresses."""

    hosts: list[dict[str, Any]]
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined(Step):
    """For each host, the node's READY line, and the seconds from its start to READY."""

    ready: dict[str, str]
    seconds: dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pinged(Step):
    """The results of all pings, by (from, to, family)."""

    results: Mapping[tuple[str, str, Family], PingResult]


@dataclass(frozen=True, slots=True, kw_only=True)
class Carried(Step):
    """The result of one TCP stream."""

    sender: str
    receiver: str
    bytes: int
    seconds: float
    intact: bool

    @property
    def bits_per_second(self) -> float:
        """Bits per second, as the receiver measured them."""
        return self.bytes * 8 / self.seconds if self.seconds else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Learned(Step):
    """For each host, the answer of `l2overlay fdb`, with the guest's label for each station that is a guest of the demo."""

    stations: dict[str, list[dict[str, Any]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Overheard(Step):
    """What an eavesdropper saw of one stream, on the guest's link and on the underlay (`eavesdrop.Sight`)."""

    canary: str
    guest_link: dict[str, Any]
    underlay: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopped(Step):
    """What the demo left behind after its end. Every list is empty if it left nothing."""

    exit_codes: dict[str, int]
    seconds: float
    """From SIGTERM until all nodes had ended."""
    changed_hosts: list[str]
    namespaces: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    processes: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept(Step):
    """Commands to examine a demo that goes on, and to end it."""

    enter: list[str]
    look: list[str]
    stop: str


def require_host() -> None:
    """Raise unless this process can make namespaces and TAPs."""
    if os.geteuid() != 0:
        raise HostPermissionError(
            f"the demo makes network namespaces, which needs root; run: sudo {own_command()}"
        )
    for capability in ("CAP_SYS_ADMIN", "CAP_NET_ADMIN"):
        if not has_capability(capability):
            advice = remedy(capability, own_command())
            raise HostPermissionError(
                f"the demo makes network namespaces, which needs {capability}; {advice}"
            )
    if not root_is_mount_point():
        raise HostSetupError(
            "this is a chroot whose root is no mount point, where `ip netns exec` cannot work; outside of it run: "
            "mount --bind DIR DIR && chroot DIR ... (DIR is the root's directory)"
        )
    missing = [program for program in NEEDED if shutil.which(program) is None]
    if missing:
        packages = sorted({NEEDED[program] for program in missing})
        raise HostSetupError(f"{', '.join(missing)} not found; run: apt-get install {' '.join(packages)}")
    if not Path("/dev/net/tun").exists():
        raise HostSetupError("/dev/net/tun is missing; run: modprobe tun")


def own_command() -> str:
    """The command line of this program, with the verb."""
    return f"{sys.executable} -m l2overlay demo"


def run_demo(hosts: int = 3, keep: bool = False) -> Generator[Step, None, None]:
    """Run the demo step by step. When the generator is closed or an exception ends it, everything is removed."""
    links_before = host_links()
    with Lab(SEGMENT) as lab, noted(lab) as note:
        yield build(lab, hosts)
        before = snapshots(lab)
        yield join(lab, note)
        yield ping_all(lab)
        yield carry(lab)
        yield learn(lab)
        yield overhear(lab)
        if keep:
            yield keep_running(lab, note)
            return
        stopped = end_nodes(lab, before)
    yield look_for_leftovers(lab, stopped, links_before)


def build(lab: Lab, hosts: int) -> Built:
    """Make hosts with a bridge and a guest each."""
    started_time = time.monotonic()
    for host in lab.add_underlay(hosts):
        lab.add_bridge(host)
        lab.add_guest(host)
    return Built(hosts=[host_data(host) for host in lab.hosts], seconds=time.monotonic() - started_time)


def host_data(host: Host) -> dict[str, Any]:
    """A host and its guests as plain data."""
    return {
        "name": host.label,
        "namespace": host.name,
        "underlay": [host.ipv4, host.ipv6],
        "bridge": host.bridge,
        "guests": [
            {"name": g.label, "namespace": g.name, "addresses": [g.ipv4, g.ipv6], "mac": g.mac}
            for g in host.guests
        ],
    }


def snapshots(lab: Lab) -> dict[str, Snapshot]:
    """The state of every host, by its name."""
    with ThreadPoolExecutor(4) as pool:
        return dict(zip([h.label for h in lab.hosts], pool.map(lab.snapshot, lab.hosts), strict=True))


def join(lab: Lab, note: Note) -> Joined:
    """Run a real `l2overlay join` on every host."""
    lab.write_peers_toml()
    nodes = [lab.start_node(host) for host in lab.hosts]
    note.write()
    seconds = lab.wait_ready()
    ready = {node.host.label: node.ready_line() or "" for node in nodes}
    total = len(nodes) - 1
    return Joined(
        ready=ready,
        seconds=dict(zip(ready, seconds, strict=True)),
        failures=tuple(
            f"{label} does not reach all {total} peers: {line}"
            for label, line in ready.items()
            if f"{total}/{total}" not in line
        ),
    )


def ping_all(lab: Lab) -> Pinged:
    """Ping from every guest to every other one."""
    results = lab.ping_matrix()
    return Pinged(
        results=results,
        failures=tuple(
            f"ping from {a} to {b} over IPv{family}: {r.received} of {r.sent} answered, {r.duplicates} twice"
            for (a, b, family), r in results.items()
            if r.lost or r.duplicates
        ),
    )


def carry(lab: Lab) -> Carried:
    """Send a stream from the first guest to the last for TRANSFER_SECONDS."""
    sender, receiver = lab.guests[0], lab.guests[-1]
    sent, received = transfer(sender, receiver, b"l2overlay", "--seconds", str(TRANSFER_SECONDS))
    intact = received["intact"] and sent["bytes"] == received["bytes"]
    return Carried(
        sender=sender.label,
        receiver=receiver.label,
        bytes=received["bytes"],
        seconds=received["seconds"],
        intact=intact,
        failures=() if intact else ("the stream did not arrive as it was sent",),
    )


def transfer(
    sender: Guest, receiver: Guest, canary: bytes, *limits: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Send one TCP stream of the repeated canary. Returns what the sender and the receiver counted."""
    stream = [receiver.ipv4, str(TRANSFER_PORT), "--canary", canary.hex()]
    server = start_module(receiver, "transfer", "receive", *stream)
    sent = start_module(sender, "transfer", "send", *stream, *limits)
    return last_line(sent), last_line(server)


def start_module(namespace: Namespace, module: str, *argv: str) -> subprocess.Popen[str]:
    """Start a module of this package in the namespace. Returns when it listens, or at once if it does not listen."""
    process = namespace.popen(
        [sys.executable, "-m", f"l2overlay.demo.{module}", *argv],
        stderr=subprocess.STDOUT,
        env=child_environment(),
    )
    if "send" not in argv and (
        process.stdout is None or (said := process.stdout.readline().strip()) != LISTENING
    ):
        rest = process.communicate()[0]
        raise LabError(f"{module} in {namespace.name} did not start: {said} {rest.strip()}")
    return process


def last_line(process: subprocess.Popen[str]) -> dict[str, Any]:
    """The JSON object that a module of this package prints at its end."""
    said = process.communicate(timeout=TRANSFER_SECONDS + 30)[0]
    try:
        found = json.loads(said.splitlines()[-1])
    except (ValueError, IndexError):
        raise LabError(f"{process.args!r} said: {said.strip()}") from None
    return dict(found)


def learn(lab: Lab) -> Learned:
    """Read the FDB of every node. Each node must know where each guest is."""
    labels = {guest.mac: guest.label for guest in lab.guests}
    stations = {
        node.host.label: [{**s, "guest": labels.get(s["mac"])} for s in node.ask("fdb")["stations"]]
        for node in lab.nodes
    }
    return Learned(stations=stations, failures=tuple(misplaced(lab, stations)))


def misplaced(lab: Lab, stations: Mapping[str, Sequence[Mapping[str, Any]]]) -> Iterator[str]:
    """Yield a sentence for each guest that a node does not know or has at the wrong place."""
    for host in lab.hosts:
        places = {s["mac"]: s["peer"] for s in stations[host.label]}
        for guest in lab.guests:
            home = None if guest.host is host else guest.host.label
            if guest.mac not in places:
                yield f"{host.label} does not know {guest.label} ({guest.mac})"
            elif places[guest.mac] != home:
                yield f"{host.label} believes {guest.label} at {places[guest.mac]}, not at {home or 'its own side'}"


def overhear(lab: Lab) -> Overheard:
    """Eavesdrop on one stream twice: on the guest's link, and on the underlay."""
    sender, receiver = lab.guests[0], lab.guests[-1]
    canary = f"canary-{secrets.token_hex(8)}".encode()
    options = ["--port", str(DEFAULT_PORT), "--canary", canary.hex()]
    inside = start_module(sender.host, "eavesdrop", sender.label, *options)
    outside = start_module(sender.host, "eavesdrop", "under0", *options)
    transfer(sender, receiver, canary, "--limit", str(OVERHEARD_SIZE))
    for process in (inside, outside):
        process.send_signal(signal.SIGTERM)
    seen = Overheard(canary=canary.decode(), guest_link=last_line(inside), underlay=last_line(outside))
    return replace(seen, failures=tuple(leaks(seen)))


def leaks(seen: Overheard) -> Iterator[str]:
    """Yield a sentence for each fault: a canary on the underlay, or an eavesdropper that could not have found one."""
    if seen.underlay["canary_frames"]:
        yield f"the underlay carries the canary in the clear ({seen.underlay['canary_frames']} frames)"
    if not seen.guest_link["canary_frames"]:
        yield "the eavesdropper did not find the canary even on the guest's own link"
    if seen.underlay["total_size"] < OVERHEARD_SIZE or not seen.underlay["node_frames"]:
        yield "the stream did not go over the underlay"
    if seen.underlay["missed"]:
        yield f"the eavesdropper missed {seen.underlay['missed']} frames on the underlay"


def keep_running(lab: Lab, note: Note) -> Kept:
    """Leave everything as it is when this process ends."""
    host, guest, other = lab.hosts[0], lab.guests[0], lab.guests[-1]
    note.keep()
    root = "sudo " if "SUDO_USER" in os.environ else ""
    inside = f"{root}ip netns exec {host.name} {sys.executable} -m l2overlay"
    into_guest = f"{root}ip netns exec {guest.name}"
    return Kept(
        enter=[f"{into_guest} bash", f"{into_guest} ping {other.ipv4}"],
        look=[f"{inside} {verb} --run-dir {lab.run_dir(host)}" for verb in ("status", "fdb")],
        stop=f"{root}{own_command()} --stop",
    )


def end_nodes(lab: Lab, before: Mapping[str, Snapshot]) -> Stopped:
    """Send SIGTERM to all nodes. Then every host must be as it was before its node started."""
    started_time = time.monotonic()
    codes = lab.stop_nodes()
    seconds = time.monotonic() - started_time
    after = snapshots(lab)
    return Stopped(
        exit_codes={node.host.label: code for node, code in zip(lab.nodes, codes, strict=True)},
        seconds=seconds,
        changed_hosts=[
            f"{label}: {line}" for label in before for line in differences(before[label], after[label])
        ],
        processes=[
            f"{pid} in {namespace.name}" for namespace in lab.namespaces() for pid in namespace.pids()
        ],
    )


def look_for_leftovers(lab: Lab, stopped: Stopped, links_before: set[str]) -> Stopped:
    """Add the namespaces, links of this machine and files that should be gone."""
    new_links = host_links() - links_before
    stopped = replace(
        stopped,
        namespaces=lab.left_behind(),
        links=sorted(link for link in new_links if SEGMENT in link or "l2o" in link),
        files=[str(lab.folder)] if lab.folder.exists() else [],
    )
    failures = [
        f"the node of {label} ended with {code}" for label, code in stopped.exit_codes.items() if code
    ]
    for what in ("changed_hosts", "namespaces", "links", "processes", "files"):
        failures += [f"left behind ({what.replace('_', ' ')}): {item}" for item in getattr(stopped, what)]
    return replace(stopped, failures=tuple(failures))


def host_links() -> set[str]:
    """The links of this process's network namespace."""
    return {link["ifname"] for link in json.loads(run_command(["ip", "-j", "link"]).stdout)}
