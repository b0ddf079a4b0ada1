"""`l2overlay cleanup`: undo what a killed node left on the host. It refuses to run while the node runs.

A bridge that a node made stays while others have ports in it, also after `leave`; `--purge` removes it. Its alias marks it,
so it is found without the run directory, which systemd removes when the service stops.
"""

import argparse
from collections.abc import Iterable
from typing import TYPE_CHECKING

from l2overlay.cli import output
from l2overlay.cli.output import print_answer
from l2overlay.cli.target import add_node_arguments, known_segments, segment_run_dir
from l2overlay.control.run_dir import RUN_ROOT, RunDir, segment_holder
from l2overlay.errors import ExitCode, HostSetupError, L2OverlayError, UsageError
from l2overlay.suggestion import suggestion

if TYPE_CHECKING:
    from l2overlay.linux.apply import Undone
    from l2overlay.linux.features.bridge import RemoveBridge

CLEANUP_SCHEMA = "l2overlay.cleanup/1"


EXAMPLES = (
    "l2overlay cleanup",
    "l2overlay cleanup lan --purge",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    add_node_arguments(parser)
    parser.add_argument(
        "--purge",
        action="store_true",
        help="remove a bridge that a node made, even if others have ports in it (guests lose their connection)",
    )
    output.add_json_option(parser)


def run(args: argparse.Namespace) -> int:
    """Undo, remove the files, and say what was done."""
    done = {
        str(run_dir.path): clean(run_dir, segment, purge=args.purge) for run_dir, segment in _chosen(args)
    }
    if args.json:
        undone = {path: list(found.lines) for path, found in done.items()}
        kept = {path: [bridge.line for bridge in found.kept] for path, found in done.items()}
        print_answer({"schema": CLEANUP_SCHEMA, "undone": undone, "kept": kept})
    else:
        print(*(_report(done.values()) or [f"nothing to undo{_hint(args.segment)}"]), sep="\n")
    return ExitCode.OK


def clean(run_dir: RunDir, segment: str | None, *, purge: bool = False) -> "Undone":
    """Undo what the state of a dead node says, and remove its files. Raises L2OverlayError if the node is alive.

    Bridges that carry the mark of `segment` are removed too; None means the segment that the state names.
    """
    from l2overlay.linux import apply
    from l2overlay.linux.features.bridge import RemoveBridge
    from l2overlay.linux.undo import Undo
    from l2overlay.node.attachment import load_undo

    pid = run_dir.holder()
    if pid is not None:
        raise L2OverlayError(
            f"the node of {run_dir.path} is running (pid {pid}); stop it with 'l2overlay leave'"
        )
    run_dir.require_own()
    try:
        noted = load_undo(run_dir)
    except HostSetupError as error:
        raise HostSetupError(f"{error}; nothing was undone: check 'ip link', then remove the file") from None
    steps = noted.changes if noted is not None else ()
    known = {change.link for change in steps if isinstance(change, RemoveBridge)}
    steps += tuple(b for b in _marked(segment or _segment_in(run_dir)) if b.link not in known)
    undone = apply.undo(Undo(steps), keep_used=not purge)
    run_dir.remove_files()
    return undone


def _report(found: "Iterable[Undone]") -> list[str]:
    lines = []
    for undone in found:
        lines += [f"undone: {line}" for line in undone.lines]
        lines += [f"kept: {bridge.line}; --purge removes it" for bridge in undone.kept]
    return lines


def _hint(segment: str | None) -> str:
    """The segment that a mistyped name probably means."""
    known = known_segments()
    return suggestion(segment, known) if segment is not None and segment not in known else ""


def _segment_in(run_dir: RunDir) -> str | None:
    segment = (run_dir.read_state() or {}).get("segment")
    return segment if isinstance(segment, str) else None


def _marked(segment: str | None) -> "list[RemoveBridge]":
    """Changes that remove the bridges with the mark of the segment; none while a node of it runs on this host."""
    from l2overlay.linux import host
    from l2overlay.linux.feature import ALIAS_PREFIX

    if segment is None or segment_holder(segment):
        return []
    return [bridge for bridge in host.marked_bridges() if bridge.alias == ALIAS_PREFIX + segment]


def _chosen(args: argparse.Namespace) -> list[tuple[RunDir, str | None]]:
    """The run directory that the arguments name, or all in the default place whose node is dead; each with its segment."""
    if args.run_dir is not None:
        return [(RunDir(args.run_dir), args.segment)]
    if args.segment is not None:
        return [(segment_run_dir(args.segment), args.segment)]
    found = [RunDir(path) for path in sorted(RUN_ROOT.glob("*")) if path.is_dir()]
    if found and all(run_dir.holder() is not None for run_dir in found):
        raise UsageError("every node on this host is running; stop one with 'l2overlay leave SEGMENT'")
    chosen = [(run_dir, run_dir.path.name) for run_dir in found if run_dir.holder() is None]
    names = {run_dir.path.name for run_dir in found}
    return [*chosen, *((RunDir(RUN_ROOT / name), name) for name in _marked_segments() if name not in names)]


def _marked_segments() -> list[str]:
    from l2overlay.linux import host
    from l2overlay.linux.feature import ALIAS_PREFIX

    names = {bridge.alias.removeprefix(ALIAS_PREFIX) for bridge in host.marked_bridges()}
    return sorted(name for name in names if name and "/" not in name and name not in {".", ".."})
