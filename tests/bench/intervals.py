"""`python -m tests.bench.intervals`: the idle round trip by how often an echo is sent, beside other tunnels.

Contestants take turns within a round, and every second round goes through them in the opposite order. A variant is
l2overlay with other options of `join`, or from another checkout:

    python -m tests.bench.intervals --variant 'linger 0=--linger 0' --checkout before=/tmp/before
"""

import argparse
import os
import shlex
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from l2overlay.testing.namespace import LabError

from .contestants import CONTESTANTS, Contestant, L2Overlay, install_peers
from .measures import running
from .traffic import Pinger, median, percentile

INTERVALS = (0.002, 0.005, 0.02, 0.05, 0.2, 1.0)
ROUNDS = 5
SECONDS = 3.0
"""For each figure, but at least `MIN_ECHOES`."""
MIN_ECHOES = 12
WARM_UP = 0.5
"""Seconds of echoes at the interval that are not counted."""
DEFAULT_ONLY = ("l2overlay", "vde_plug", "fastd")

Times = dict[tuple[str, float], list[list[float]]]
"""Round trips in seconds, by contestant and interval, one list a round."""


class Variant(L2Overlay):
    """l2overlay with options, or from another checkout."""

    def __init__(self, folder: Path, name: str, options: Sequence[str], checkout: Path | None) -> None:
        super().__init__(folder)
        self.name = name
        self.options = options
        self._checkout = checkout

    def _program(self) -> list[str]:
        if self._checkout is None:
            return super()._program()
        # `python -m` looks into the working directory first, then into PYTHONPATH.
        return ["env", f"--chdir={self._checkout}", f"PYTHONPATH={self._checkout}", *super()._program()]


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print one table of medians and one of p99."""
    arguments = parse(argv)
    if os.geteuid():
        print("the benchmark makes network namespaces: run it as root", file=sys.stderr)
        return 5
    install_peers()
    times: Times = {}
    with tempfile.TemporaryDirectory(prefix="l2bench-") as folder:
        contestants = [c for c in choose(arguments, Path(folder)) if not c.missing()]
        for contestant in contestants:
            contestant.prepare()
        for number in range(arguments.rounds):
            for contestant in contestants[::-1] if number % 2 else contestants:
                run(contestant, arguments, times)
    names = list(dict.fromkeys(name for name, _ in times))
    for title, share in (("median", 0.5), ("p99", 0.99)):
        show(title, share, names, arguments.intervals, times)
    return 0


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.intervals")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument(
        "--intervals", type=lambda text: tuple(map(float, text.split(","))), default=INTERVALS
    )
    parser.add_argument("--only", type=lambda text: text.split(","), default=list(DEFAULT_ONLY))
    parser.add_argument("--variant", action="append", default=[], metavar="NAME=OPTIONS")
    parser.add_argument("--checkout", action="append", default=[], metavar="NAME=FOLDER")
    return parser.parse_args(argv)


def choose(arguments: argparse.Namespace, folder: Path) -> list[Contestant]:
    """Those of `--only`, then the variants."""
    found: list[Contestant] = [
        kind(folder / kind.name) for kind in CONTESTANTS if kind.name in arguments.only
    ]
    for text in arguments.variant:
        name, _, options = text.partition("=")
        found.append(Variant(folder / name.replace(" ", "-"), name, shlex.split(options), None))
    for text in arguments.checkout:
        name, _, checkout = text.partition("=")
        found.append(Variant(folder / name.replace(" ", "-"), name, (), Path(checkout).resolve()))
    for contestant in found:
        contestant.folder.mkdir()
    return found


def run(contestant: Contestant, arguments: argparse.Namespace, times: Times) -> None:
    """One contestant once, all intervals."""
    try:
        with running(contestant, "offload") as topology:
            pinger = Pinger(topology.guests[0])
            try:
                for interval in arguments.intervals:
                    pinger.round_trips(max(2, int(WARM_UP / interval)), interval)
                    count = max(MIN_ECHOES, int(arguments.seconds / interval))
                    found = pinger.round_trips(count, interval)
                    times.setdefault((contestant.name, interval), []).append(found)
                    print(
                        f"{contestant.name:14}{interval * 1e3:>7g} ms  {median(found) * 1e6:.0f} us",
                        flush=True,
                    )
            finally:
                pinger.close()
    except (LabError, OSError) as error:
        print(f"{contestant.name}: {error}", flush=True)


def show(title: str, share: float, names: Sequence[str], intervals: Sequence[float], times: Times) -> None:
    """A table: microseconds, the median of the rounds."""
    print(f"\n{title}, us" + "".join(f"{interval * 1e3:>9g} ms" for interval in intervals))
    for name in names:
        cells = []
        for interval in intervals:
            rounds = [percentile(found, share) for found in times.get((name, interval), []) if found]
            cells.append(f"{median(rounds) * 1e6:>12.0f}")
        print(f"{name:{len(title) + 4}}" + "".join(cells))


if __name__ == "__main__":
    raise SystemExit(main())
