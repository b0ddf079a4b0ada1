"""Which running node a verb means, and how durations, sizes and peers read in its answer."""

import argparse
import json
from pathlib import Path
from typing import Any

from l2overlay import keys
from l2overlay.control.run_dir import RUN_ROOT, RunDir, default_run_dir, running_segments
from l2overlay.errors import NoDaemonError, UsageError
from l2overlay.suggestion import suggestion

_UNITS = (("day", 86400.0), ("hour", 3600.0), ("minute", 60.0), ("second", 1.0))


def add_node_arguments(parser: argparse.ArgumentParser) -> None:
    """`[SEGMENT]` and `--run-dir`, alike on every verb that asks a node."""
    parser.add_argument(
        "segment", nargs="?", help="the segment's name; may be left out when one node runs here"
    )
    parser.add_argument(
        "--run-dir",
        type=Path,
        metavar="DIR",
        help=f"where the node keeps its socket (default: {RUN_ROOT}/SEGMENT)",
    )


def chosen_run_dir(args: argparse.Namespace, root: Path | None = None) -> RunDir:
    """The run directory that is meant. Raises NoDaemonError when nothing runs, UsageError when it is not clear which."""
    root = root or RUN_ROOT
    if args.run_dir is not None:
        return RunDir(args.run_dir)
    if args.segment is not None:
        return _running(args.segment, root)
    running = list(running_segments(root))
    if not running:
        raise NoDaemonError(f"no node runs on this host; {_how_to_start()}, or name its --run-dir")
    if len(running) > 1:
        names = ", ".join(name for name, _ in running)
        raise UsageError(f"several nodes run here: {names}; say which")
    return running[0][1]


def _running(segment: str, root: Path) -> RunDir:
    """The run directory of that segment. Raises NoDaemonError, with what runs instead, when it has no node."""
    run_dir = RunDir(root / segment_run_dir(segment).path.name)
    if run_dir.holder() is None:
        names = [name for name, _ in running_segments(root)]
        others = (
            f"these run: {', '.join(names)}{suggestion(segment, names)}" if names else _how_to_start(segment)
        )
        raise NoDaemonError(f"no node of a segment {segment} runs on this host; {others}")
    return run_dir


def _how_to_start(segment: str | None = None) -> str:
    """The command that starts a node, with a segment that has a file."""
    installed = sorted(path.stem for path in keys.CONFIGURATION_DIR.glob("*.toml"))
    if segment in installed or (segment is None and len(installed) == 1):
        return f"start one with 'l2overlay join {segment or installed[0]}'"
    known = f" ({', '.join(installed)})" if installed else ", after 'l2overlay init SEGMENT'"
    return f"start one with 'l2overlay join SEGMENT'{known}"


def segment_run_dir(segment: str) -> RunDir:
    """Where the node of that name lives. Raises UsageError for what cannot be a segment's name."""
    if "/" in segment or segment in {".", ".."}:
        raise UsageError(f"{segment!r} is a path, not a segment; did you mean --run-dir {segment}?")
    return default_run_dir(segment)


def print_answer(answer: dict[str, Any]) -> None:
    """The node's answer as it came, with its schema, laid out for reading."""
    print(json.dumps(answer, indent=2))


def duration(seconds: float) -> str:
    """`14 seconds`, `3 minutes`: one unit, as `wg show` has it."""
    for unit, size in _UNITS:
        if seconds >= size:
            count = int(seconds / size)
            return f"{count} {unit}{'s' * (count != 1)}"
    return "less than a second"


def ago(seconds: float | None) -> str:
    """`14 seconds ago`, `never`."""
    if seconds is None:
        return "never"
    return "now" if seconds < 1 else f"{duration(seconds)} ago"


def size(count: int) -> str:
    """Bytes as `12.3 MB`; decimal, as links are sold."""
    if count < 1000:
        return f"{count} B"
    value = float(count)
    for unit in ("kB", "MB", "GB", "TB"):
        value /= 1000
        if value < 999.95 or unit == "TB":
            break
    return f"{value:.1f} {unit}"


def short_time(seconds: float | None) -> str:
    """`0.31 ms`, `12.4 ms`, `1.2 s`."""
    if seconds is None:
        return "-"
    if seconds >= 1:
        return f"{seconds:.1f} s"
    return f"{seconds * 1000:.2f} ms" if seconds < 0.01 else f"{seconds * 1000:.1f} ms"


def peer_state(peer: dict[str, Any]) -> str:
    """`up`, or `down: no answer; next try in 3 s`: the reason and the next try stand with the state."""
    if peer["up"]:
        return "up"
    if peer.get("left") is not None:
        return f"left {duration(peer['left'])} ago"
    reason = f"down: {peer['reason']}" if peer["reason"] else "down"
    return reason if peer["next_try"] is None else f"{reason}; next try in {peer['next_try']:.0f} s"
