"""`python -m tests.bench.linger`: what `join --linger` gives an echo, and what it costs, by how often echoes come.

Two nodes in namespaces, a guest behind each; `ping` from one to the other. CPU is the mean of both nodes.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from functools import partial

from l2overlay.testing.lab import Lab

SECONDS = 5.0
INTERVALS = (0.005, 0.05, 0.2, 1.0)
LINGERS = (0.0, 0.25, 2.0)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.linger")
    parser.add_argument(
        "--seconds", type=float, default=SECONDS, help=f"for each figure (default: {SECONDS:g})"
    )
    seconds = parser.parse_args(argv).seconds
    print(f"{'linger':>8}{'echo every':>12}{'round trip':>12}{'CPU of a node':>15}")
    for linger in LINGERS:
        with Lab() as lab:
            for host in lab.add_underlay(hosts=2):
                lab.add_guest(host)
            lab.write_peers_toml()
            lab.start_nodes("--linger", f"{linger:g}")
            lab.ping(lab.guests[0], lab.guests[1].ipv4)
            time.sleep(linger + 0.5)
            show(linger, "never", *measure(lab, lambda: time.sleep(seconds)))
            for interval in INTERVALS:
                show(
                    linger,
                    f"{interval:g} s",
                    *measure(lab, partial(echoes, lab, interval, seconds)),
                )
    return 0


def echoes(lab: Lab, interval: float, seconds: float) -> float | None:
    """The average round trip."""
    one, other = lab.guests
    return lab.ping(one, other.ipv4, count=max(2, int(seconds / interval)), interval=interval).rtt


def measure(lab: Lab, work: Callable[[], float | None]) -> tuple[float | None, float]:
    """What `work` returns, and the share of a core that a node took meanwhile."""
    before, began = sum(node.cpu_seconds() for node in lab.nodes), time.monotonic()
    found = work()
    spent = sum(node.cpu_seconds() for node in lab.nodes) - before
    return found, spent / len(lab.nodes) / (time.monotonic() - began)


def show(linger: float, every: str, round_trip: float | None, cpu: float) -> None:
    """A line of the table."""
    shown = "-" if round_trip is None else f"{round_trip * 1e6:.0f} us"
    print(f"{linger:>6g} s{every:>12}{shown:>12}{cpu:>14.1%}", flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
