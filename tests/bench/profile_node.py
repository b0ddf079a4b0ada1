"""`python -m tests.bench.profile_node`: where the time of a node goes under load, by perf and (where there is one) py-spy.

perf sees the whole process: kernel, interpreter, cipher, copies. Below Python 3.12 (`-X perf`) it cannot name Python
functions; py-spy can, by sampling from outside, so neither needs a change to the node.
"""

import argparse
import re
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from l2overlay.testing.namespace import run_command

from .contestants import NAMES, L2Overlay
from .measures import running
from .topology import Topology
from .traffic import Iperf, packet_sender

WARM_UP = 1.0
CIPHERS = re.compile(r"_rust|libcrypto|libssl")
"""The wheels of `cryptography` hold OpenSSL inside their own library."""
COPIES = re.compile(r"mem(cpy|move|set|cmp)")
SHOWN = 25


def main(argv: Sequence[str] | None = None) -> int:
    """Start two nodes, load them, sample both."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.profile_node")
    parser.add_argument(
        "--load", choices=("tcp", "small", "large"), default="tcp", help="small: 64-byte frames"
    )
    parser.add_argument("--rate", type=float, default=100_000, help="frames a second (not for tcp)")
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--underlay", choices=("offload", "plain"), default="offload")
    parser.add_argument(
        "--py-spy", default=shutil.which("py-spy"), help="path of py-spy, when it is not on PATH"
    )
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="l2prof-") as folder:
        node = L2Overlay(Path(folder))
        node.prepare()
        with running(node, arguments.underlay) as topology:
            load = threading.Thread(target=put_load, args=(topology, arguments), daemon=True)
            load.start()
            time.sleep(WARM_UP)
            for name, pid in zip(NAMES, node.pids, strict=True):
                show_perf(f"node {name}", pid, arguments.seconds, Path(folder))
            for name, pid in zip(NAMES, node.pids, strict=True):
                if arguments.py_spy:
                    show_functions(arguments.py_spy, f"node {name}", pid, arguments.seconds, Path(folder))
            load.join()
    return 0


def put_load(topology: Topology, arguments: argparse.Namespace) -> None:
    """Traffic from guest a to guest b for as long as the samplers run, and a little longer."""
    seconds = WARM_UP + arguments.seconds * (4 if arguments.py_spy else 2) + 4
    if arguments.load == "tcp":
        result = Iperf(topology).run(seconds)
        print(f"TCP meanwhile: {result.bits_per_second / 1e9:.2f} Gbit/s")
        return
    sender = packet_sender(topology.guests[0], 64 if arguments.load == "small" else 1400)
    topology.guests[1].run(["iptables", "-I", "INPUT", "-p", "udp", "-j", "DROP"], check=False)
    sent = sender.send(arguments.rate, seconds)
    print(f"frames meanwhile: {sent.frames / sent.elapsed:.0f} a second")
    sender.close()


def show_perf(title: str, pid: int, seconds: float, folder: Path) -> None:
    """Shares of the process's time by kind, then the heaviest functions."""
    data = folder / f"{pid}.data"
    run_command(
        [
            "perf",
            "record",
            "-q",
            "-F",
            "1999",
            "-p",
            str(pid),
            "-o",
            str(data),
            "--",
            "sleep",
            f"{seconds:g}",
        ],
        timeout=seconds + 30,
    )
    report = run_command(
        [
            "perf",
            "report",
            "-i",
            str(data),
            "--no-children",
            "--sort",
            "dso,symbol",
            "--stdio",
            "-t",
            "|",
            "-g",
            "none",
        ],
        timeout=120,
    ).stdout
    rows = [line.split("|") for line in report.splitlines() if line.strip() and not line.startswith("#")]
    kinds: Counter[str] = Counter()
    print(f"\n{title}, by perf")
    for share, dso, symbol in (
        (float(row[0].rstrip("% ")), row[1].strip(), row[2].strip()) for row in rows if len(row) > 2
    ):
        kinds[kind_of(dso, symbol)] += share  # type: ignore[assignment]
    for kind, total in kinds.most_common():
        print(f"  {total:5.1f} %  {kind}")
    for row in rows[:SHOWN]:
        print(f"      {row[0].strip():>7}  {row[1].strip()[:34]:34}  {row[2].strip()}")


def kind_of(dso: str, symbol: str) -> str:
    """In the words of docs/performance.md."""
    if symbol.startswith("[k]"):
        return "kernel"
    if COPIES.search(symbol):
        return "copies"
    if CIPHERS.search(dso):
        return "AEAD and its call"
    return "interpreter" if "python" in dso else "libraries"


def show_functions(py_spy: str, title: str, pid: int, seconds: float, folder: Path) -> None:
    """Python functions by their own time, with the C code that they call."""
    raw = folder / f"{pid}.raw"
    argv = [
        py_spy,
        "record",
        "-p",
        str(pid),
        "-d",
        f"{max(1, round(seconds))}",
        "-r",
        "500",
        "-f",
        "raw",
        "-o",
        str(raw),
    ]
    run_command(argv, timeout=seconds + 30)
    own: Counter[str] = Counter()
    for line in raw.read_text().splitlines():
        stack, _, count = line.rpartition(" ")
        own[re.sub(r":\d+\)$", ")", stack.split(";")[-1])] += int(count)
    samples = sum(own.values()) or 1
    print(f"\n{title}, by py-spy (own time)")
    for function, hits in own.most_common(SHOWN):
        print(f"  {100 * hits / samples:5.1f} %  {function}")


if __name__ == "__main__":
    sys.exit(main())
