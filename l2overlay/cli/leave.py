"""`l2overlay leave`: the node says goodbye to its peers, undoes what it made, and ends."""

import argparse

from l2overlay import control
from l2overlay.cli import output
from l2overlay.cli.asking import add_node_arguments, chosen_run_dir, print_answer
from l2overlay.errors import ExitCode, L2OverlayError

LEAVE_TIMEOUT = 5.0
"""Seconds; the node promises 2."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    add_node_arguments(parser)
    output.add_json_option(parser)


def run(args: argparse.Namespace) -> int:
    """Ask, and wait until the node is gone."""
    run_dir = chosen_run_dir(args)
    answer = control.ask(run_dir.socket, "leave")
    if not run_dir.wait_released(LEAVE_TIMEOUT):
        raise L2OverlayError(
            f"the node (pid {answer['pid']}) is still there after {LEAVE_TIMEOUT:.0f} s; look at its log"
        )
    if args.json:
        print_answer(answer)
    else:
        print(f"left segment {answer['segment']}")
    return ExitCode.OK
