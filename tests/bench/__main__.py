"""`python -m tests.bench`: run the contestants, print the tables, write JSON and the chart.

Order of things: contestants take turns within a repeat, and the order is turned round from repeat to repeat, so that
whatever else the machine does hits all alike. A contestant that is not here or fails is named and left out.
"""

import argparse
import contextlib
import dataclasses
import datetime as dt
import json
import os
import platform
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from l2overlay.testing.namespace import LabError

from .contestants import CONTESTANTS, Contestant, first_line, install_peers
from .flood import flooding_times
from .measures import GROUPS, QUICK, Timing, measure
from .report import (
    GOALS,
    NO_UNDERLAY,
    OWN,
    Results,
    document,
    figures_table,
    goals_table,
    judge,
    picture,
    ratios_table,
    show,
)
from .topology import UNDERLAYS
from .traffic import SENDERS

FLOODED_PEERS = 100
DOCS = Path(__file__).resolve().parents[2] / "docs"


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, measure, show."""
    arguments = parse(argv)
    if os.geteuid():
        print("the benchmark makes network namespaces: run it as root", file=sys.stderr)
        return 5
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if not arguments.no_install:
        with contextlib.suppress(LabError):
            install_peers()
    started = time.monotonic()
    results, versions = Results(), {}
    skipped: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="l2bench-") as folder:
        contestants = list(choose(arguments.only, Path(folder), skipped))
        for contestant in contestants:
            contestant.prepare()
            versions[contestant.name] = contestant.version()
            if contestant.encrypted:
                results.encrypted.add(contestant.name)
            if contestant.userspace:
                results.userspace.add(contestant.name)
        run_all(contestants, arguments, results, skipped)
    if arguments.only is None or OWN in arguments.only:
        results.add(OWN, NO_UNDERLAY, flooding_times(FLOODED_PEERS))
    judged = [judge(goal, results) for goal in GOALS]
    facts = describe(arguments, contestants, versions, skipped, time.monotonic() - started)
    show_all(results, judged, facts)
    write_all(arguments, results, judged, facts)
    return 0


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    names = ", ".join(kind.name for kind in CONTESTANTS)
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench", description=__doc__.splitlines()[0] if __doc__ else ""
    )
    parser.add_argument("--quick", action="store_true", help="one repeat with short trials (under 4 minutes)")
    parser.add_argument("--only", type=comma_list, help=f"contestants, separated by commas: {names}")
    parser.add_argument(
        "--measures", type=comma_list, default=list(GROUPS), help=f"some of {','.join(GROUPS)}"
    )
    parser.add_argument("--repeat", type=int, help="default 3; with --quick 1")
    parser.add_argument("--underlay", choices=("offload", "plain", "both"), default="both")
    parser.add_argument(
        "--json", type=Path, help="where to write the document (default: docs/benchmark.json of a full run)"
    )
    parser.add_argument(
        "--svg", type=Path, help="where to draw the chart (default: docs/benchmark.svg of a full run)"
    )
    parser.add_argument("--sender", choices=sorted(SENDERS), default="packet", help="of single frames")
    parser.add_argument(
        "--no-install", action="store_true", help="leave out contestants that are not installed"
    )
    arguments = parser.parse_args(argv)
    if unknown := set(arguments.measures) - set(GROUPS):
        parser.error(f"no such measure: {', '.join(sorted(unknown))}")
    if arguments.only and (unknown := set(arguments.only) - {kind.name for kind in CONTESTANTS}):
        parser.error(f"no such contestant: {', '.join(sorted(unknown))}; there are {names}")
    if arguments.repeat is None:
        arguments.repeat = 1 if arguments.quick else 3
    return arguments


def comma_list(text: str) -> list[str]:
    """`a, b` as two words."""
    return [part.strip() for part in text.split(",") if part.strip()]


def choose(only: list[str] | None, folder: Path, skipped: dict[str, str]) -> Iterator[Contestant]:
    """Those that were asked for and can run here."""
    for kind in CONTESTANTS:
        if only is not None and kind.name not in only:
            continue
        own_folder = folder / kind.name.replace(" ", "-")
        own_folder.mkdir()
        contestant = kind(own_folder)
        if reason := contestant.missing():
            skipped[kind.name] = reason
            print(f"without {kind.name}: {reason}", flush=True)
        else:
            yield contestant


def underlays(arguments: argparse.Namespace) -> list[str]:
    """Those that the chosen measures need."""
    chosen = ["offload", "plain"] if arguments.underlay == "both" else [arguments.underlay]
    if arguments.measures == ["loss"]:
        chosen = []
    return chosen + (["lossy"] if "loss" in arguments.measures else [])


def run_all(
    contestants: list[Contestant], arguments: argparse.Namespace, results: Results, skipped: dict[str, str]
) -> None:
    """Every contestant on every underlay, repeat by repeat."""
    for repeat in range(arguments.repeat):
        turn = contestants[::-1] if repeat % 2 else contestants
        for underlay in underlays(arguments):
            for contestant in turn:
                run_one(contestant, underlay, arguments, results, skipped, f"{repeat + 1}/{arguments.repeat}")


def run_one(
    contestant: Contestant,
    underlay: str,
    arguments: argparse.Namespace,
    results: Results,
    skipped: dict[str, str],
    turn: str,
) -> None:
    """One contestant on one underlay once; what it said when it failed."""
    timing = dataclasses.replace(QUICK if arguments.quick else Timing(), sender=arguments.sender)
    name, started = contestant.name, time.monotonic()
    found: dict[str, float] = {}
    try:
        for figures in measure(
            contestant,
            underlay,
            tuple(arguments.measures),
            timing,
            lambda figure: results.median(name, underlay, figure),
        ):
            found |= figures
    except (LabError, OSError) as error:
        skipped.setdefault(f"{name}, {underlay}", str(error).splitlines()[0])
        print(f"{turn} {underlay} {name}: {error}\n{last_words(contestant)}", flush=True)
    results.add(name, underlay, found)
    said = "  ".join(f"{figure} {show(figure, value)}" for figure, value in found.items())
    print(f"{turn} {underlay:8}{name:14}{time.monotonic() - started:5.1f} s  {said}", flush=True)


def last_words(contestant: Contestant) -> str:
    """The end of what both ends of the tunnel said."""
    logs = [contestant.log(side) for side in (0, 1)]
    return "\n".join(log.read_text(errors="replace")[-400:] for log in logs if log.exists())


def describe(
    arguments: argparse.Namespace,
    contestants: list[Contestant],
    versions: dict[str, str],
    skipped: dict[str, str],
    elapsed: float,
) -> dict[str, Any]:
    """Date, machine, versions and settings."""
    cpu = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    memory = int(Path("/proc/meminfo").read_text().split()[1]) << 10
    congestion = Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text().strip()
    return {
        "date": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "machine": {"cpu": cpu[0] if cpu else platform.machine(), "cpus": os.cpu_count(), "memory": memory},
        "kernel": platform.release(),
        "python": platform.python_version(),
        "iperf3": first_line(["iperf3", "--version"]),
        "tcp_congestion_control": congestion,
        "versions": versions,
        "settings": {contestant.name: contestant.settings for contestant in contestants},
        "quick": arguments.quick,
        "sender": arguments.sender,
        "repeats": arguments.repeat,
        "elapsed": round(elapsed, 1),
        "left_out": skipped,
    }


def show_all(results: Results, judged: Sequence[Any], facts: dict[str, Any]) -> None:
    """The tables, on stdout."""
    machine = facts["machine"]
    print(
        f"\n{facts['date']}  {machine['cpus']} x {machine['cpu']}, Linux {facts['kernel']}, Python {facts['python']}"
    )
    print(
        f"{facts['repeats']} repeat(s) in {facts['elapsed']:.0f} s, TCP {facts['tcp_congestion_control']}; medians"
    )
    for underlay in (*UNDERLAYS, NO_UNDERLAY):
        if any(underlay in found for found in results.values.values()):
            print(f"\nunderlay: {underlay}\n{figures_table(results, underlay)}")
            if text := ratios_table(results, underlay):
                print(f"\n{text}")
    print(f"\n{goals_table(judged)}")
    for name, reason in facts["left_out"].items():
        print(f"left out: {name}: {reason}")


def write_all(
    arguments: argparse.Namespace, results: Results, judged: Sequence[Any], facts: dict[str, Any]
) -> None:
    """JSON and chart: where asked, and into docs/ when nothing was left out of the run."""
    full = (
        not arguments.quick
        and arguments.only is None
        and set(arguments.measures) == set(GROUPS)
        and arguments.underlay == "both"
    )
    json_file = arguments.json or (DOCS / "benchmark.json" if full else None)
    svg_file = arguments.svg or (DOCS / "benchmark.svg" if full else None)
    if json_file:
        json_file.write_text(json.dumps(document(results, judged, facts), indent=1) + "\n")
    if svg_file:
        svg_file.write_text(picture(results, facts))
    for path in (json_file, svg_file):
        if path:
            print(f"written: {path}")


if __name__ == "__main__":
    raise SystemExit(main())
