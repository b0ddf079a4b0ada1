"""`l2overlay cleanup`: undo what a killed node left on the host. Refuses while the node runs."""

import argparse

from l2overlay.cli import output
from l2overlay.cli.asking import add_node_arguments, print_answer, segment_run_dir
from l2overlay.errors import ExitCode, L2OverlayError, UsageError
from l2overlay.node.rundir import RUN_ROOT, RunDir

CLEANUP_SCHEMA = "l2overlay.cleanup/1"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    add_node_arguments(parser)
    output.add_json_option(parser)


def run(args: argparse.Namespace) -> int:
    """Undo, remove the files, and say what was done."""
    done = {str(run_dir.path): clean(run_dir) for run_dir in _chosen(args)}
    if args.json:
        print_answer({"schema": CLEANUP_SCHEMA, "undone": done})
    else:
        lines = [f"undone: {line}" for lines in done.values() for line in lines]
        print(*(lines or ["nothing to undo"]), sep="\n")
    return ExitCode.OK


def clean(run_dir: RunDir) -> list[str]:
    """Undo what the state of a dead node says and remove its files. Raises L2OverlayError while it lives."""
    from l2overlay.linux import host
    from l2overlay.node.site import read_undo

    pid = run_dir.holder()
    if pid is not None:
        raise L2OverlayError(
            f"the node of {run_dir.path} is running (pid {pid}); stop it with 'l2overlay leave'"
        )
    undo = read_undo(run_dir)
    if undo is None and run_dir.state.exists():
        raise L2OverlayError(f"{run_dir.state} cannot be read; look at 'ip link' and remove the file")
    lines = host.undo(undo) if undo is not None else []
    run_dir.remove_files()
    return lines


def _chosen(args: argparse.Namespace) -> list[RunDir]:
    """Named, or every one in the default place whose node is dead."""
    if args.run_dir is not None:
        return [RunDir(args.run_dir)]
    if args.segment is not None:
        return [segment_run_dir(args.segment)]
    found = [RunDir(path) for path in sorted(RUN_ROOT.glob("*")) if path.is_dir()]
    if found and all(run_dir.holder() is not None for run_dir in found):
        raise UsageError("every node of this host is running; stop one with 'l2overlay leave SEGMENT'")
    return [run_dir for run_dir in found if run_dir.holder() is None]
