"""The node that a verb is about: the segment on the command line, or the only one that runs."""

import argparse
from pathlib import Path

from l2overlay import keys
from l2overlay.control.run_dir import RUN_ROOT, RunDir, default_run_dir, running_segments
from l2overlay.errors import NoDaemonError, UsageError
from l2overlay.suggestion import suggestion


def add_node_arguments(parser: argparse.ArgumentParser) -> None:
    """Add `[SEGMENT]` and `--run-dir`, which every verb that asks a node takes."""
    parser.add_argument("segment", nargs="?", help="the segment's name; omit it if only one node runs here")
    add_run_dir_argument(parser)


def add_run_dir_argument(parser: argparse.ArgumentParser) -> None:
    """Add `--run-dir`."""
    parser.add_argument(
        "--run-dir",
        type=Path,
        metavar="DIR",
        help=f"where the node keeps its socket (default: {RUN_ROOT}/SEGMENT)",
    )


def chosen_run_dir(args: argparse.Namespace, root: Path | None = None) -> RunDir:
    """The run directory that the arguments name. Raises NoDaemonError if no such node runs, UsageError if several do."""
    root = root or RUN_ROOT
    if args.run_dir is not None:
        return RunDir(args.run_dir)
    if args.segment is not None:
        return _running(args.segment, root)
    running = list(running_segments(root))
    if not running:
        raise NoDaemonError(f"no node runs on this host; {_how_to_start()}, or give its --run-dir")
    if len(running) > 1:
        names = ", ".join(name for name, _ in running)
        raise UsageError(f"several nodes run here: {names}; name one of these segments")
    return running[0][1]


def _running(segment: str, root: Path) -> RunDir:
    """The run directory of a segment. If the segment has no node, raises NoDaemonError with the segments that have one."""
    run_dir = RunDir(root / segment_run_dir(segment).path.name)
    if run_dir.holder() is None:
        names = [name for name, _ in running_segments(root)]
        others = f"these run: {', '.join(names)}" if names else _how_to_start(segment)
        hint = suggestion(segment, [*names, *configured_segments()])
        raise NoDaemonError(f"no node of a segment {segment} runs on this host{hint}; {others}")
    return run_dir


def _how_to_start(segment: str | None = None) -> str:
    """The command that starts a node, for a segment that has a peers.toml."""
    installed = configured_segments()
    if segment in installed or (segment is None and len(installed) == 1):
        return f"start one with 'l2overlay join {segment or installed[0]}'"
    known = f" ({', '.join(installed)})" if installed else ", after 'l2overlay init SEGMENT'"
    return f"start one with 'l2overlay join SEGMENT'{known}"


def configured_segments() -> list[str]:
    """The segments that have a peers.toml in the default place."""
    return sorted(path.stem for path in keys.CONFIGURATION_DIR.glob("*.toml"))


def known_segments() -> list[str]:
    """The segments that run on this host, and those that are configured."""
    running = (name for name, _ in running_segments(RUN_ROOT))
    return list(dict.fromkeys([*running, *configured_segments()]))


def segment_run_dir(segment: str) -> RunDir:
    """The run directory of a segment, whether a node runs or not. Raises UsageError if the name cannot be a segment's."""
    if "/" in segment or segment in {".", ".."}:
        raise UsageError(f"{segment!r} is a path, not a segment; did you mean --run-dir {segment}?")
    return default_run_dir(segment)
