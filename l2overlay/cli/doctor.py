"""`l2overlay doctor`: finds out why frames do not arrive. Shows causes, proofs and commands; only `--fix` changes anything.

The exit code is 0 if nothing is wrong (any more), 4 if something is, 5 without the privileges, and 3 if this host has no
such segment.
"""

import argparse
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from l2overlay import keys
from l2overlay.cli import output
from l2overlay.cli.target import configured_segments, known_segments, segment_run_dir
from l2overlay.control import client
from l2overlay.control.run_dir import RUN_ROOT, RunDir, running_segments
from l2overlay.doctor.diagnosis import diagnose, needs_second_look
from l2overlay.doctor.finding import Finding, Severity, command_line
from l2overlay.doctor.repair import Repair, repair
from l2overlay.doctor.view import HostView, SegmentView
from l2overlay.errors import ExitCode, NoDaemonError, UsageError
from l2overlay.suggestion import suggestion

SECOND_LOOK_TIME = 1.0
"""Seconds between two readings of the counters, long enough to see a ping that is sent every second."""
SETTLE_TIME = 0.2
"""Seconds after `--fix`, so that a port that came up forwards frames."""


EXAMPLES = (
    "l2overlay doctor lan",
    "l2overlay doctor --bridge br0 --tap tap0",
    "l2overlay doctor lan --fix",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    parser.add_argument(
        "segment", nargs="?", help="the segment's name; omit it if only one runs or is configured here"
    )
    parser.add_argument("--peers", type=Path, metavar="FILE", help="the segment's peers.toml")
    parser.add_argument("--run-dir", type=Path, metavar="DIR", help="where the node keeps its socket")
    parser.add_argument(
        "--bridge", metavar="NAME", help="examine this bridge, without a peers.toml or a node"
    )
    parser.add_argument("--tap", metavar="NAME", help="with --bridge: the port that leads to the overlay")
    parser.add_argument(
        "--fix",
        action="store_true",
        help="run the commands that are safe, show them, and examine the host again",
    )
    output.add_json_option(parser)


def run(args: argparse.Namespace) -> int:
    """Examine the host and print the findings; with `--fix`, repair it and examine it again."""
    from l2overlay.doctor.observer import check_privileges

    _refuse_mixture(args)
    check_privileges()
    view, findings = _examine(args)
    repairs = repair(findings) if args.fix else []
    if repairs:
        time.sleep(SETTLE_TIME)
        view, findings = _examine(args)
    if args.json:
        output.print_json("doctor/1", _as_data(view, findings, repairs))
    else:
        print(*_lines(view, findings, repairs, verbose=args.verbose), sep="\n")
    return ExitCode.DEGRADED if findings else ExitCode.OK


def _examine(args: argparse.Namespace) -> tuple[HostView, list[Finding]]:
    from l2overlay.doctor.observer import look, look_again

    view = look(_subject(args))
    if needs_second_look(view):
        time.sleep(SECOND_LOOK_TIME)
        view = look_again(view)
    return view, diagnose(view)


# Which segment


def _refuse_mixture(args: argparse.Namespace) -> None:
    if args.bridge is not None and (args.segment or args.peers or args.run_dir):
        raise UsageError("l2overlay doctor: --bridge cannot be combined with SEGMENT, --peers or --run-dir")
    if args.tap is not None and args.bridge is None:
        raise UsageError("l2overlay doctor: --tap needs --bridge")
    if args.segment is not None and args.peers is not None:
        raise UsageError("l2overlay doctor: give either a SEGMENT or --peers FILE")


def _subject(args: argparse.Namespace) -> SegmentView:
    if args.bridge is not None:
        from l2overlay.doctor.subject import segment_of_bridge

        return _present(segment_of_bridge(args.bridge, args.tap))
    peers_file, run_dir = _places(args)
    configured = _configured(peers_file) if peers_file is not None else None
    if run_dir is None and configured is not None:
        run_dir = segment_run_dir(configured.name or "")
    assert run_dir is not None
    return _with_answers(configured, run_dir)


def _places(args: argparse.Namespace) -> tuple[Path | None, RunDir | None]:
    """The peers.toml and the run directory that the arguments name; None for one that they do not."""
    run_dir = RunDir(args.run_dir) if args.run_dir is not None else None
    if args.peers is not None:
        return args.peers, run_dir
    if args.segment is not None:
        return _file_of(args.segment), run_dir or segment_run_dir(args.segment)
    return (None, run_dir) if run_dir is not None else _only_one()


def _only_one() -> tuple[Path | None, RunDir]:
    running = [name for name, _ in running_segments(RUN_ROOT)]
    names = running or configured_segments()
    if not names:
        raise NoDaemonError(
            "no node runs here, and no segment is configured; give --peers FILE or --bridge NAME"
        )
    if len(names) > 1:
        raise UsageError(f"this host has several segments: {', '.join(names)}; name one")
    return _file_of(names[0]), segment_run_dir(names[0])


def _file_of(segment: str) -> Path | None:
    path = keys.CONFIGURATION_DIR / f"{segment}.toml"
    return path if path.exists() else None


def _configured(path: Path) -> SegmentView:
    from l2overlay.config.read import load_config
    from l2overlay.doctor.observer import local_addresses
    from l2overlay.doctor.subject import segment_of_config

    segment = segment_of_config(load_config(path), local_addresses())
    return replace(segment, join=("l2overlay", "join", "--peers", str(path)))


def _with_answers(configured: SegmentView | None, run_dir: RunDir) -> SegmentView:
    """Add what the node answers. Without a node, use what is known otherwise; raises NoDaemonError if nothing is."""
    from l2overlay.doctor.subject import with_node

    try:
        return with_node(configured, *_answers(run_dir))
    except NoDaemonError as error:
        known = configured or _noted(run_dir)
        if known is None:
            raise NoDaemonError(
                f"nothing is known about a segment at {run_dir.path}"
                f"{suggestion(run_dir.path.name, known_segments())}; give --peers FILE or --bridge NAME"
            ) from error
        return replace(known, no_node=str(error))


def _answers(run_dir: RunDir) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What the node answers to `status` and `fdb`."""
    from l2overlay.doctor.observer import is_in_this_namespace

    status = client.ask(run_dir.socket, "status")
    if not is_in_this_namespace(status["pid"]):
        raise NoDaemonError(f"the node at {run_dir.path} runs in another network namespace")
    return status, client.ask(run_dir.socket, "fdb")["stations"]


def _noted(run_dir: RunDir) -> SegmentView | None:
    """The segment according to the state file of a killed node."""
    from l2overlay.doctor.subject import segment_of_bridge

    state = run_dir.read_state() or {}
    if not isinstance(state.get("bridge"), str):
        return None
    return replace(segment_of_bridge(state["bridge"], state.get("tap")), name=state.get("segment"))


def _present(segment: SegmentView) -> SegmentView:
    from l2overlay.doctor.observer import link_names

    names = link_names()
    for name in (segment.bridge, segment.tap):
        if name is not None and name not in names:
            raise NoDaemonError(f"this host has no link {name}; 'ip link' lists the links")
    return segment


# What is printed


def _lines(view: HostView, findings: list[Finding], repairs: list[Repair], *, verbose: bool) -> list[str]:
    lines = [line for done in repairs for line in _repair_lines(done)]
    for finding in findings:
        lines += ["", *_finding_lines(finding)]
    if verbose:
        lines += ["", *(f"not examined: {what}" for what in view.not_examined)]
    where = view.segment.name or view.segment.bridge
    if not findings:
        return [*lines, f"{where}: nothing is wrong" + (" any more" if repairs else "")]
    count = f"{len(findings)} finding{'s' * (len(findings) != 1)}"
    fixable = sum(f.is_safe for f in findings)
    hint = f"; --fix runs the commands marked with * ({fixable})" if fixable and not repairs else ""
    return [*lines, "", f"{where}: {count}{hint}"][0 if repairs else 1 :]


def _finding_lines(finding: Finding) -> list[str]:
    colour = "red" if finding.severity is Severity.ERROR else "yellow"
    mark = "*" if finding.is_safe else " "
    return [
        f"{output.paint(finding.severity, colour)}: {finding.text}",
        *(f"    read   {line}" for line in finding.proof),
        *(f"    run  {mark} {command_line(command)}" for command in finding.fix),
        *([f"    note   {finding.advice}"] if finding.advice else []),
    ]


def _repair_lines(done: Repair) -> list[str]:
    if done.failure:
        return [f"failed: {command_line(done.command)}: {done.failure}"]
    return [
        f"ran: {command_line(done.command)}",
        *(f"     back again by: {command_line(command)}" for command in done.undo),
    ]


def _as_data(view: HostView, findings: list[Finding], repairs: list[Repair]) -> dict[str, Any]:
    """The object of `--json`."""
    return {
        "segment": view.segment.name,
        "bridge": view.segment.bridge,
        "tap": view.segment.tap,
        "ok": not findings,
        "findings": [asdict(finding) for finding in findings],
        "repairs": [asdict(done) for done in repairs],
        "not_examined": list(view.not_examined),
    }
