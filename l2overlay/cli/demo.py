"""`l2overlay demo`: build a whole segment on one machine, show what it does, and remove it again."""

import argparse
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict
from typing import Any

from l2overlay.cli.output import add_json_option, paint, print_error, print_json
from l2overlay.demo.demo import (
    MAX_HOSTS,
    MIN_HOSTS,
    Built,
    Carried,
    Joined,
    Kept,
    Learned,
    Overheard,
    Pinged,
    Step,
    Stopped,
    require_host,
    run_demo,
)
from l2overlay.demo.drawing import drawing
from l2overlay.demo.note import stop_noted
from l2overlay.errors import ExitCode, L2OverlayError

SHOWN_GUESTS = 8
"""A table shows at most this many guests; JSON has all of them."""


EXAMPLES = (
    "l2overlay demo",
    "l2overlay demo --hosts 5 --keep",
    "l2overlay demo --stop",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`--hosts`, `--keep`, `--stop`, `--json`."""
    parser.description = (
        "Joins hosts (network namespaces) into one segment with real nodes, lets guests behind them talk, shows "
        "what an eavesdropper sees, takes everything down and proves that nothing is left. Needs root."
    )
    parser.add_argument(
        "--hosts", type=host_count, default=3, metavar="N", help=f"{MIN_HOSTS} to {MAX_HOSTS}; default 3"
    )
    parser.add_argument("--keep", action="store_true", help="leave everything running, to look around")
    parser.add_argument("--stop", action="store_true", help="end what --keep (or a killed demo) left running")
    add_json_option(parser)


def host_count(text: str) -> int:
    """The value of `--hosts`."""
    if not text.isdecimal() or not MIN_HOSTS <= int(text) <= MAX_HOSTS:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from {MIN_HOSTS} to {MAX_HOSTS}")
    return int(text)


def run(args: argparse.Namespace) -> int:
    """The exit code is 0 if everything was as promised, 1 if not."""
    require_host()
    if args.stop:
        return stop(args.json)
    return run_json(args) if args.json else run_told(args)


def stop(as_json: bool) -> int:
    """`--stop`."""
    stopped = stop_noted()
    if as_json:
        print_json("demo-stop/1", {"stopped": stopped})
    else:
        print(f"stopped: {', '.join(stopped)}" if stopped else "no demo is running")
    return ExitCode.OK


def run_told(args: argparse.Namespace) -> int:
    """Print each step as it happens."""
    started_time = time.monotonic()
    failures: list[str] = []
    print(
        f"{args.hosts} hosts (network namespaces) in one segment; frames between them travel in encrypted UDP\n"
    )
    print(*drawing(args.hosts), "", sep="\n")
    with closing(run_demo(args.hosts, args.keep)) as steps:
        for step in steps:
            headline, *rest = lines_about(step)
            print(paint(f"[{time.monotonic() - started_time:5.1f} s]", "dim"), headline, flush=True)
            print(*(f"    {line}" for line in rest), sep="\n", end="\n" if rest else "")
            for failure in step.failures:
                print_error(f"    FAILED: {failure}")
            failures += step.failures
    print(
        paint(f"{len(failures)} FAILED", "red")
        if failures
        else paint("everything works as promised", "green")
    )
    return ExitCode.RUNTIME if failures else ExitCode.OK


def lines_about(step: Step) -> list[str]:
    """A headline, and the lines below it."""
    match step:
        case Built():
            return [
                f"{len(step.hosts)} hosts are up, each with a bridge and a guest; nothing connects them yet"
            ]
        case Joined():
            return [
                f"all nodes are READY, the slowest after {max(step.seconds.values()):.2f} s",
                *joined_lines(step),
            ]
        case Pinged():
            return [f"every guest has pinged every other one: {pinged_total(step)}", *pinged_lines(step)]
        case Carried():
            return [carried_line(step)]
        case Learned():
            return ["each node has learned where the guests are", *learned_lines(step)]
        case Overheard():
            return [
                f"a stream that repeats {step.canary!r}, as an eavesdropper sees it",
                *overheard_lines(step),
            ]
        case Stopped():
            return [f"nodes ended {step.seconds:.2f} s after SIGTERM", *stopped_lines(step)]
        case Kept():
            return ["the demo goes on", *kept_lines(step)]
    raise L2OverlayError(f"a step without words: {step}")


def carried_line(step: Carried) -> str:
    rate = f"{step.bits_per_second / 1e9:.2f} Gbit/s ({step.bytes / 1e6:.0f} MB in {step.seconds:.1f} s)"
    return f"TCP from {step.sender} to {step.receiver}: {rate}, {'intact' if step.intact else 'DAMAGED'}"


def joined_lines(step: Joined) -> Iterator[str]:
    for label, line in step.ready.items():
        yield f"{label}: {line}"


def pinged_total(step: Pinged) -> str:
    results = step.results.values()
    return f"{sum(r.received for r in results)} of {sum(r.sent for r in results)} answered"


def pinged_lines(step: Pinged) -> Iterator[str]:
    guests = sorted({a for a, _, _ in step.results}, key=lambda label: int(label[1:]))
    shown = guests[:SHOWN_GUESTS]
    yield "average round trip in ms, IPv4/IPv6" + ("" if shown == guests else f" (of {len(shown)} guests)")
    yield "from\\to".ljust(9) + "".join(label.ljust(11) for label in shown).rstrip()
    for a in shown:
        cells = (
            "-" if a == b else f"{pinged_cell(step, a, b, 4)}/{pinged_cell(step, a, b, 6)}" for b in shown
        )
        yield a.ljust(9) + "".join(cell.ljust(11) for cell in cells).rstrip()


def pinged_cell(step: Pinged, a: str, b: str, family: Any) -> str:
    rtt = step.results[a, b, family].rtt
    return "lost" if rtt is None else f"{rtt * 1000:.2f}"


def learned_lines(step: Learned) -> Iterator[str]:
    for label, stations in step.stations.items():
        known = sorted((s for s in stations if s["guest"]), key=lambda s: int(s["guest"][1:]))
        places = [f"{s['guest']} {'at ' + s['peer'] if s['peer'] else 'here'}" for s in known[:SHOWN_GUESTS]]
        more = [f"and {len(known) - SHOWN_GUESTS} more"] if len(known) > SHOWN_GUESTS else []
        yield f"{label}: {', '.join(places + more)}"


def overheard_lines(step: Overheard) -> Iterator[str]:
    for name, seen in (("the guest's own link", step.guest_link), ("the underlay", step.underlay)):
        yield (
            f"{name + ':':<22}{seen['canary_frames']:>6} of {seen['frames']:>6} frames contain it "
            f"({seen['total_size'] / 1e6:.1f} MB)"
        )
    yield f"of the bytes on the underlay {step.underlay['commonest_byte']:.2%} have the commonest value (noise: 0.39 %)"
    yield "the first bytes of a datagram there:"
    yield bytes.fromhex(step.underlay["sample"])[:32].hex(" ")


def stopped_lines(step: Stopped) -> Iterator[str]:
    if not step.failures:
        yield "each host is as it was before (links, addresses, routes, sysctls, rules, files);"
        yield "the namespaces, processes and files of the demo are gone"


def kept_lines(step: Kept) -> Iterator[str]:
    yield "enter a guest:    " + step.enter[0]
    yield from (f"                  {line}" for line in step.enter[1:])
    yield "ask a node:       " + step.look[0]
    yield from (f"                  {line}" for line in step.look[1:])
    yield "end it:           " + step.stop


def run_json(args: argparse.Namespace) -> int:
    """All steps as one object."""
    with closing(run_demo(args.hosts, args.keep)) as steps:
        done = list(steps)
    failures = [failure for step in done for failure in step.failures]
    data = {type(step).__name__.lower(): step_data(step) for step in done}
    print_json("demo/1", {"ok": not failures, "failures": failures, **data})
    return ExitCode.RUNTIME if failures else ExitCode.OK


def step_data(step: Step) -> dict[str, Any]:
    """A step's fields as JSON takes them."""
    if isinstance(step, Pinged):
        pings = [{"from": a, "to": b, "family": f, **asdict(r)} for (a, b, f), r in step.results.items()]
        return {"pings": pings}
    data = asdict(step)
    data.pop("failures")
    return {**data, "bits_per_second": round(step.bits_per_second)} if isinstance(step, Carried) else data
