"""`python -m tests.bench.siege`: what TCP of the established carries while a stranger sends datagrams with a bad tag.

    guest a --- host a ====== host b --- guest b      one iperf3 stream from a to b
                  stranger --/                        DATA with the session's own index, from another port of host a

Turns: without an attack, under attack with the shield (`l2overlay/linux/shield.py`), under attack without it.
With `--init`, INITs with forged sources instead: `init_siege`.
"""

import argparse
import json
import os
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from . import init_siege
from .contestants import NAMES, L2Overlay
from .measures import running
from .topology import UNDERLAY_ADDRESS, Topology, inside
from .traffic import SEND_BUFFER, FrameSender, Iperf, median

DATA_TYPE, TRAIN_TYPE = 4, 5
UDP_AT = 20
SECONDS = 6
PORT = 7470
START = 2.0
"""Seconds of attack before the measurement: the shield is up by then."""
UNSHIELDED = (
    "import runpy, sys; from l2overlay.linux import shield; "
    "shield.attach = lambda *_: False; sys.argv[0] = 'l2overlay'; "
    "runpy.run_module('l2overlay', run_name='__main__', alter_sys=True)"
)


class Unshielded(L2Overlay):
    """The same program, whose kernel refuses every filter."""

    name = "unshielded"

    def _program(self) -> list[str]:
        return [sys.executable, "-c", UNSHIELDED]


class Siege:
    """Datagrams with the index of the session that carries traffic to host b, and a random tag."""

    def __init__(self, topology: Topology, rate: float, seconds: float) -> None:
        port, index = inside(topology.hosts[1], _overhear)
        datagram = bytes([DATA_TYPE, 0, 0, 0]) + index + (1 << 40).to_bytes(8, "little") + os.urandom(84)
        self._sender = FrameSender(inside(topology.hosts[0], lambda: _stranger(port)), datagram)
        self._rate, self._seconds, self.sent_rate = rate, seconds, 0.0
        self._thread = os.fork()
        if not self._thread:
            with suppress(OSError):
                self._sender.send(rate, seconds)
            os._exit(0)

    def end(self) -> None:
        """Wait until it is over."""
        self._sender.close()
        with suppress(ProcessLookupError):
            os.kill(self._thread, signal.SIGKILL)
        os.waitpid(self._thread, 0)


def _stranger(port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
    sock.connect((UNDERLAY_ADDRESS[1], port))
    return sock


def _overhear() -> tuple[int, bytes]:
    """Host b's port and the index in a datagram to it."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0800)) as ear:
        ear.bind(("under0", 0x0800))
        ear.settimeout(20.0)
        while True:
            packet, sender = ear.recvfrom(65536)
            if sender[2] != socket.PACKET_OUTGOING and packet[UDP_AT + 8] in (DATA_TYPE, TRAIN_TYPE):
                port = int.from_bytes(packet[UDP_AT + 2 : UDP_AT + 4], "big")
                return port, packet[UDP_AT + 12 : UDP_AT + 16]


def measure(contestant: L2Overlay, rate: float) -> tuple[float, dict[str, int]]:
    """Bits a second, and the drops of host b."""
    with running(contestant, "offload") as topology:
        iperf = Iperf(topology)
        siege: list[Siege] = []

        def begin() -> None:
            siege.append(Siege(topology, rate, SECONDS + START + 2))

        iperf.run(2)  # trains have grown
        if rate:
            starter = threading.Timer(0.5, lambda: iperf.run(2))
            starter.start()
            begin()
            starter.join()
        carried = iperf.run(SECONDS).bits_per_second
        for each in siege:
            each.end()
        return carried, drops(contestant, topology)


def drops(contestant: L2Overlay, topology: Topology) -> dict[str, int]:
    """What host b has dropped, by reason."""
    run_dir = contestant.folder / f"run-{NAMES[1]}"
    argv = [sys.executable, "-m", "l2overlay", "status", "--json", "--run-dir", str(run_dir)]
    said = topology.hosts[1].run(argv, check=False).stdout
    found: dict[str, int] = {}
    with suppress(ValueError):
        collect(json.loads(said), found)
    return found


def collect(said: object, found: dict[str, int]) -> None:
    """Every `drops` anywhere in the answer; the largest of each reason, since totals repeat what peers count."""
    if isinstance(said, dict):
        for name, value in said.items():
            if name == "drops" and isinstance(value, dict):
                for reason, count in value.items():
                    if count:
                        found[reason] = max(count, found.get(reason, 0))
            else:
                collect(value, found)
    elif isinstance(said, list):
        for value in said:
            collect(value, found)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure in turns and print a line a run, then medians."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.siege")
    parser.add_argument("--init", action="store_true", help="INITs with forged sources")
    parser.add_argument("--rate", type=float, help="datagrams a second (default: 50000; INITs: 20000)")
    parser.add_argument(
        "--checkout",
        action="append",
        default=[],
        metavar="NAME=FOLDER",
        help="with --init: beside another version",
    )
    parser.add_argument("--repeat", type=int, default=3, help="default: %(default)s")
    arguments = parser.parse_args(argv)
    arguments.rate = arguments.rate or (20_000.0 if arguments.init else 50_000.0)
    if arguments.init:
        return init_siege.run(arguments)
    rates: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="l2siege-") as folder:
        for _ in range(arguments.repeat):
            for name, kind, rate in (
                ("calm", L2Overlay, 0.0),
                ("shielded", L2Overlay, arguments.rate),
                ("unshielded", Unshielded, arguments.rate),
            ):
                home = Path(tempfile.mkdtemp(dir=folder))
                contestant = kind(home)
                contestant.prepare()
                carried, lost = measure(contestant, rate)
                rates.setdefault(name, []).append(carried)
                print(f"{name:12}{carried * 1e-9:6.2f} Gbit/s  {lost}", flush=True)
    calm = median(rates["calm"])
    for name, found in rates.items():
        print(f"{name:12}{median(found) * 1e-9:6.2f} Gbit/s {median(found) / calm:6.0%} of calm")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
