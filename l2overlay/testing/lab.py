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
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Literal

from l2overlay import keys
from l2overlay.addresses import format_key
from l2overlay.testing.capture import Capture
from l2overlay.testing.machines import Guest, Host
from l2overlay.testing.namespace import (
    LabError,
    Namespace,
    existing_namespaces,
    run_command,
    start_time_of,
    stop_processes,
)
from l2overlay.testing.node_process import READY_TIMEOUT, NodeProcess, child_environment
from l2overlay.testing.ping import PingResult, ping
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
    "child_environment",
    "differences",
    "existing_namespaces",
    "start_time_of",
]

Family = Literal[4, 6]
PARALLEL_PINGS = 16
MAX_NODES = 254
"""Hosts and guests are numbered by one octet of their addresses."""

_lab_numbers = itertools.count(1)


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
        return ping(guest, address, count, interval, size, wait)

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


def _try_delete(namespace: Namespace) -> str | None:
    try:
        namespace.delete()
    except LabError as error:
        return str(error)
    return None


def _exit_by_signal(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)
