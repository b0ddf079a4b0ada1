"""Hosts, guests and nodes of a segment as network namespaces on one machine.

    l2o-PID-N-sw    the underlay: one switch, `under`
        |  under0: 10.77.0.1/24 fd77::1/64           |  under0: 10.77.0.2/24 fd77::2/64
    l2o-PID-N-h1  [bridge br-lab]--tap--(node)       l2o-PID-N-h2  [bridge br-lab]--tap--(node)
        |  g1                                            |  g2
    l2o-PID-N-g1  eth0: 10.9.0.1/24 fd09::1/64       l2o-PID-N-g2  eth0: 10.9.0.2/24 fd09::2/64

    with Lab() as lab:
        h1, h2 = lab.add_underlay(hosts=2)
        g1, g2 = lab.add_guest(h1), lab.add_guest(h2)
        lab.write_peers_toml()
        for host in (h1, h2):
            lab.start_node(host)
        lab.wait_ready()
        assert lab.ping(g1, g2.ipv4, count=10).lost == 0

A lab creates and removes its own namespaces, and changes nothing else on the machine. It removes everything when the block
ends, also after an error, Ctrl-C, SIGTERM or SIGHUP, and when the set-up itself fails half-way.
"""

import contextlib
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Literal

import l2overlay
from l2overlay import keys
from l2overlay.addresses import format_key
from l2overlay.testing.capture import Capture
from l2overlay.testing.namespace import (
    LabError,
    Namespace,
    existing_namespaces,
    run_command,
    signal_group,
    start_time_of,
    stop_processes,
)
from l2overlay.testing.snapshot import Snapshot, differences, take_snapshot

__all__ = [
    "Capture",
    "Guest",
    "Host",
    "Lab",
    "LabError",
    "Namespace",
    "NodeProcess",
    "PingResult",
    "Snapshot",
    "differences",
    "existing_namespaces",
    "start_time_of",
]

Family = Literal[4, 6]
READY_TIMEOUT = 20.0
"""Seconds. A cold start compiles the package's bytecode first; a warm start should take at most 1.5 s."""
POLL_INTERVAL = 0.01
PARALLEL_PINGS = 16
MAX_NODES = 254
"""Hosts and guests are numbered by one octet of their addresses."""

_lab_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class PingResult:
    """The counts of one `ping`. Times are seconds, None if no answer came."""

    sent: int
    received: int
    duplicates: int
    rtt: float | None
    """The average."""
    rtt_max: float | None

    @property
    def lost(self) -> int:
        """Echo requests without an answer."""
        return self.sent - self.received


class Host(Namespace):
    """A machine with the link `under0` on the underlay. It may have a bridge, guests behind the bridge, and a node."""

    def __init__(self, name: str, label: str, number: int) -> None:
        super().__init__(name)
        self.number = number
        self.label = label
        """The node's name in peers.toml, and the name of the host's port of the switch."""
        self.ipv4 = f"10.77.0.{number}"
        self.ipv6 = f"fd77::{number:x}"
        self.bridge: str | None = None
        self.guests: list[Guest] = []
        self.private_key = b""
        self.public_key = b""

    def has_link(self, link: str) -> bool:
        """Whether the host has a link of that name now."""
        return self.run(["ip", "link", "show", "dev", link], check=False).returncode == 0


class Guest(Namespace):
    """A station: a namespace with `eth0`. The other end of `eth0` is a link of the host with the guest's label."""

    def __init__(self, name: str, label: str, number: int, host: Host, mtu: int) -> None:
        super().__init__(name)
        self.label = label
        self.host = host
        self.mtu = mtu
        self.ipv4 = f"10.9.0.{number}"
        self.ipv6 = f"fd09::{number:x}"
        self.mac = f"52:54:09:00:00:{number:02x}"

    def attach(self, bridge: str) -> None:
        """Plug the guest into a bridge of its host."""
        self.host.ip(f"link set {self.label} master {bridge}")

    def detach(self) -> None:
        """Take the guest out of its bridge."""
        self.host.ip(f"link set {self.label} nomaster")


class NodeProcess:
    """A real `l2overlay join` in a host. Its output goes to a file, and errors show it."""

    def __init__(
        self, host: Host, peers_file: Path, key_file: Path, run_dir: Path, log: Path, *extra: str
    ) -> None:
        self.host = host
        self.run_dir = run_dir
        self.log = log
        self.started_time = time.monotonic()
        argv = [sys.executable, "-m", "l2overlay", "join", "--peers", str(peers_file), "--key", str(key_file)]
        with log.open("wb") as output:
            self.process = host.popen(
                [*argv, "--run-dir", str(run_dir), *extra], stdout=output, env=child_environment()
            )

    @property
    def pid(self) -> int:
        """The pid of the node itself, because `ip netns exec` becomes the program that it starts."""
        return self.process.pid

    def output(self) -> str:
        """What the node has printed so far."""
        return self.log.read_text(errors="replace")

    def ready_line(self) -> str | None:
        """The line that begins with READY, or None if it has not come yet."""
        return next((line for line in self.output().splitlines() if line.startswith("READY")), None)

    def wait_ready(self, timeout: float = READY_TIMEOUT) -> float:
        """Wait for READY, and return the seconds since the start. A LabError shows the node's output."""
        deadline = time.monotonic() + timeout
        while self.ready_line() is None:
            if self.process.poll() is not None:
                raise LabError(
                    f"the node of {self.host.label} ended with {self.process.returncode}:\n{self.output()}"
                )
            if time.monotonic() > deadline:
                raise LabError(
                    f"the node of {self.host.label} was not READY in {timeout:g} s:\n{self.output()}"
                )
            time.sleep(POLL_INTERVAL)
        return time.monotonic() - self.started_time

    def ask(self, verb: str, *extra: str, timeout: float = 10.0) -> Any:
        """Run `l2overlay VERB --json` for this node, and parse its output."""
        argv = [sys.executable, "-m", "l2overlay", verb, "--json", "--run-dir", str(self.run_dir), *extra]
        env = [f"{name}={value}" for name, value in child_environment().items() if name.startswith("PYTHON")]
        return json.loads(self.host.run(["env", *env, *argv], timeout=timeout).stdout)

    def terminate(self, timeout: float = 5.0) -> int:
        """Send SIGTERM, and return the exit code. If the node does not end, kill it and raise LabError."""
        signal_group(self.process, signal.SIGTERM)
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise LabError(
                f"the node of {self.host.label} did not end within {timeout:g} s:\n{self.output()}"
            ) from None

    def kill(self) -> None:
        """Send SIGKILL, and wait. The node leaves behind what a crash would leave."""
        signal_group(self.process, signal.SIGKILL)
        self.process.wait()

    def resident_memory(self) -> int:
        """Bytes of memory that the node holds now (VmRSS, proc(5))."""
        found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{self.pid}/status").read_text())
        return int(found[1]) * 1024 if found else 0

    def cpu_seconds(self) -> float:
        """Processor time that the node has used, user and system."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Lab:
    """All namespaces, processes and files of one set-up. The head of this file shows an example."""

    def __init__(self, segment: str = "lab") -> None:
        self.segment = segment
        self.prefix = f"l2o-{os.getpid()}-{next(_lab_numbers)}"
        self.hosts: list[Host] = []
        self.guests: list[Guest] = []
        self.nodes: list[NodeProcess] = []
        self.peers_file: Path | None = None
        self.folder = Path(tempfile.mkdtemp(prefix=f"{self.prefix}-"))
        """Keys, peers.toml, run directories, logs and captures."""
        self._switch: Namespace | None = None
        self._others: list[Namespace] = []
        self._files = itertools.count(1)
        self._abandoned = False
        self._old_signals: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "Lab":
        self._end_by_signal_cleanly()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    # Set-up

    def add_underlay(
        self, hosts: int, mtu: int = 1500, host_mtus: Sequence[int] = (), names: Sequence[str] = ()
    ) -> list[Host]:
        """Make hosts on one switch. `host_mtus` and `names` are those of the first ones; the others get `mtu` and hN."""
        first = len(self.hosts) + 1
        if first + hosts > MAX_NODES + 1:
            raise LabError(f"a lab has at most {MAX_NODES} hosts")
        labels = [*names, *(f"h{number}" for number in range(first + len(names), first + hosts))]
        new = [Host(f"{self.prefix}-{label}", label, number) for number, label in enumerate(labels, first)]
        switch = self._switch or self._add_switch()
        self._create(new)
        self.hosts += new
        mtus = [*host_mtus, *[mtu] * (hosts - len(host_mtus))]
        ports = [_underlay_port(host, host_mtu) for host, host_mtu in zip(new, mtus, strict=True)]
        switch.ip(*itertools.chain.from_iterable(ports))
        for host in new:
            host.ip(*_underlay_addresses(host))
        self._make_keys(new)
        return new

    def add_host(self, mtu: int = 1500) -> Host:
        """Add one more host to the underlay."""
        return self.add_underlay(1, mtu)[0]

    def add_bridge(self, host: Host, name: str | None = None) -> str:
        """Make a bridge before the node starts. By default it has the name that the node adopts."""
        host.bridge = name or f"br-{self.segment}"
        host.ip(
            f"link add {host.bridge} type bridge forward_delay 0 mcast_snooping 0",
            f"link set {host.bridge} up",
        )
        return host.bridge

    def add_guest(
        self, host: Host, label: str | None = None, *, mtu: int = 1500, attach: bool = True
    ) -> Guest:
        """Make a station in the host's bridge, which is made if missing. Without `attach` it is in no bridge yet."""
        number = len(self.guests) + 1
        guest = Guest(f"{self.prefix}-{label or f'g{number}'}", label or f"g{number}", number, host, mtu)
        self._create([guest])
        self.guests.append(guest)
        host.guests.append(guest)
        host.ip(
            f"link add {guest.label} mtu {mtu} type veth peer name eth0 netns {guest.name}",
            f"link set {guest.label} up addrgenmode none",
        )
        guest.ip(
            f"link set eth0 address {guest.mac} mtu {mtu} up",
            f"addr add {guest.ipv4}/24 dev eth0",
            f"addr add {guest.ipv6}/64 dev eth0 nodad",
        )
        if attach:
            guest.attach(host.bridge or self.add_bridge(host))
        return guest

    def _add_switch(self) -> Namespace:
        self._switch = Namespace(f"{self.prefix}-sw")
        self._create([self._switch])
        self._switch.ip("link add under type bridge forward_delay 0 mcast_snooping 0", "link set under up")
        return self._switch

    def _create(self, namespaces: Sequence[Namespace]) -> None:
        """Make namespaces in one call. If this fails, the lab knows their names and removes them."""
        self._others += [n for n in namespaces if n not in self._others]
        run_command(["ip", "-batch", "-"], stdin="".join(f"netns add {n.name}\n" for n in namespaces))
        for namespace in namespaces:
            namespace.prepare()

    # Nodes

    def write_peers_toml(
        self,
        hosts: Sequence[Host] | None = None,
        *,
        family: Family = 4,
        port: int = 7470,
        segment: str = "",
        stanza: str = "",
        name: str = "peers.toml",
    ) -> Path:
        """Write the segment's file, with a stanza and an endpoint for each host (by default for all of the lab).

        `segment` is added as lines of TOML to `[segment]`, `stanza` to every `[[peers]]`.
        """
        lines = ["[segment]", f'name = "{self.segment}"', segment]
        for host in self.hosts if hosts is None else hosts:
            address = host.ipv4 if family == 4 else f"[{host.ipv6}]"
            lines += [
                "",
                "[[peers]]",
                f'name = "{host.label}"',
                f'public_key = "{format_key(host.public_key)}"',
            ]
            lines += [f'endpoint = "{address}:{port}"', stanza]
        path = self.folder / name
        path.write_text("\n".join(lines) + "\n")
        self.peers_file = path
        return path

    def key_file(self, host: Host) -> Path:
        """The file with the host's private key, mode 0600."""
        return self.folder / f"{host.label}.key"

    def run_dir(self, host: Host) -> Path:
        """The `--run-dir` of the host's node."""
        return self.folder / f"run-{host.label}"

    def start_node(
        self, host: Host, *extra: str, peers_file: Path | None = None, key_file: Path | None = None
    ) -> NodeProcess:
        """Start `l2overlay join` in the host with `extra` arguments. Does not wait for READY."""
        peers = peers_file or self.peers_file or self.write_peers_toml()
        log = self.folder / f"join-{host.label}-{next(self._files)}.log"
        node = NodeProcess(host, peers, key_file or self.key_file(host), self.run_dir(host), log, *extra)
        self.nodes.append(node)
        return node

    def start_nodes(self, *extra: str) -> list[NodeProcess]:
        """Start a node on every host, and wait until all are READY."""
        nodes = [self.start_node(host, *extra) for host in self.hosts]
        self.wait_ready()
        return nodes

    def wait_ready(self, timeout: float = READY_TIMEOUT) -> list[float]:
        """Wait until every running node is READY. Returns the seconds that each took."""
        return [
            node.wait_ready(timeout)
            for node in self.nodes
            if node.process.poll() is None or not node.ready_line()
        ]

    def _make_keys(self, hosts: Sequence[Host]) -> None:
        for host in hosts:
            host.private_key = keys.generate()
            host.public_key = keys.public_key(host.private_key)
            keys.save(self.key_file(host), host.private_key)

    # Looking

    def ping(
        self,
        guest: Namespace,
        address: str,
        count: int = 3,
        interval: float = 0.05,
        size: int = 56,
        wait: float = 1.0,
    ) -> PingResult:
        """Send echo requests from `guest`. `size` is the ICMP payload, `wait` how long to wait for the last answer."""
        argv = [
            "ping",
            "-n",
            "-q",
            "-c",
            str(count),
            "-i",
            f"{interval:g}",
            "-W",
            f"{wait:g}",
            "-s",
            str(size),
            address,
        ]
        timeout = count * (interval + wait) + 10.0
        return _ping_result(guest.run(argv, check=False, timeout=timeout))

    def ping_matrix(
        self, guests: Sequence[Guest] | None = None, count: int = 3, families: Iterable[Family] = (4, 6)
    ) -> dict[tuple[str, str, Family], PingResult]:
        """Ping from every guest to every other one, in parallel. Results are by (from, to, family)."""
        chosen = self.guests if guests is None else guests
        pairs = [(a, b, family) for family in families for a in chosen for b in chosen if a is not b]
        with ThreadPoolExecutor(PARALLEL_PINGS) as pool:
            results = pool.map(lambda p: self.ping(p[0], p[1].ipv4 if p[2] == 4 else p[1].ipv6, count), pairs)
            return {
                (a.label, b.label, family): result
                for (a, b, family), result in zip(pairs, results, strict=True)
            }

    def capture(self, namespace: Namespace, link: str, expression: str = "") -> Capture:
        """Capture the frames of a link during a `with` block. `expression` is one of pcap-filter(7)."""
        return Capture(namespace, link, expression, self.folder / f"capture-{next(self._files)}.pcap")

    def snapshot(self, namespace: Namespace) -> Snapshot:
        """The state of a namespace and, if it is a host, of its node's run directory. Compare two with `differences`."""
        folders = [self.run_dir(namespace)] if isinstance(namespace, Host) else []
        return take_snapshot(namespace, *folders)

    # The end

    def namespaces(self) -> list[Namespace]:
        """All namespaces of the lab: first guests, then hosts, then the switch."""
        named = [*self.guests, *self.hosts]
        return [*named, *(n for n in self._others if n not in named)]

    def stop_nodes(self) -> list[int]:
        """Send SIGTERM to all nodes at once. Returns their exit codes."""
        stop_processes([node.process for node in self.nodes])
        return [node.process.returncode for node in self.nodes]

    def close(self) -> None:
        """Stop all processes, and remove all namespaces and files. A second Ctrl-C does not interrupt this."""
        if self._abandoned:
            self._restore_signals()
            return
        with self._signals_ignored():
            namespaces = self.namespaces()
            stop_processes([process for namespace in namespaces for process in namespace.processes()])
            problems = [problem for namespace in namespaces if (problem := _try_delete(namespace))]
            shutil.rmtree(self.folder, ignore_errors=True)
        self._restore_signals()
        if problems:
            raise LabError("; ".join(problems))

    def abandon(self) -> None:
        """Leave everything running when the block ends. The caller must end it later."""
        self._abandoned = True

    def left_behind(self) -> list[str]:
        """Namespaces of this lab that still exist."""
        return [name for name in existing_namespaces() if name.startswith(f"{self.prefix}-")]

    def _end_by_signal_cleanly(self) -> None:
        """Turn SIGTERM and SIGHUP into SystemExit, so that the block ends as it does on Ctrl-C."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGHUP):
                self._old_signals[number] = signal.signal(number, _exit_by_signal)

    def _restore_signals(self) -> None:
        while self._old_signals:
            signal.signal(*self._old_signals.popitem())

    @contextlib.contextmanager
    def _signals_ignored(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        old = {n: signal.signal(n, signal.SIG_IGN) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
        try:
            yield
        finally:
            for number, previous in old.items():
                signal.signal(number, previous)


def child_environment() -> dict[str, str]:
    """Our environment, for a child that imports the same l2overlay and does not buffer its output."""
    package_parent = str(Path(l2overlay.__file__).parent.parent)
    path = os.pathsep.join(filter(None, [package_parent, os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}


def _underlay_port(host: Host, mtu: int) -> list[str]:
    return [
        f"link add {host.label} mtu {mtu} type veth peer name under0 mtu {mtu} netns {host.name}",
        f"link set {host.label} master under up addrgenmode none",
    ]


def _underlay_addresses(host: Host) -> list[str]:
    return [
        "link set under0 up",
        f"addr add {host.ipv4}/24 dev under0",
        f"addr add {host.ipv6}/64 dev under0 nodad",
    ]


def _ping_result(done: subprocess.CompletedProcess[str]) -> PingResult:
    counts = re.search(r"(\d+) packets transmitted, (\d+) received", done.stdout)
    if not counts:
        raise LabError(f"ping said: {(done.stderr or done.stdout).strip()}")
    duplicates = re.search(r"\+(\d+) duplicates", done.stdout)
    times = re.search(r"= [\d.]+/([\d.]+)/([\d.]+)/", done.stdout)
    return PingResult(
        sent=int(counts[1]),
        received=int(counts[2]),
        duplicates=int(duplicates[1]) if duplicates else 0,
        rtt=float(times[1]) / 1000 if times else None,
        rtt_max=float(times[2]) / 1000 if times else None,
    )


def _try_delete(namespace: Namespace) -> str | None:
    try:
        namespace.delete()
    except LabError as error:
        return str(error)
    return None


def _exit_by_signal(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)
