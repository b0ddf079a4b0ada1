"""`l2overlay leave`: the node says goodbye to its peers, undoes its changes to the host, and ends.

A bridge that the node made stays, marked as made by l2overlay, while others have ports in it; `--purge` removes it.
"""

import argparse
from typing import Any

from l2overlay.cli import output
from l2overlay.cli.output import print_answer
from l2overlay.cli.target import add_node_arguments, chosen_run_dir
from l2overlay.control import client
from l2overlay.errors import ExitCode, L2OverlayError

LEAVE_TIMEOUT = 5.0
"""Seconds. The node promises to end within 2 s."""


EXAMPLES = (
    "l2overlay leave lan",
    "l2overlay leave lan --purge",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    add_node_arguments(parser)
    parser.add_argument(
        "--purge",
        action="store_true",
        help="also remove the bridge if others have ports in it (guests lose their connection)",
    )
    output.add_json_option(parser)


def run(args: argparse.Namespace) -> int:
    """Ask, and wait until the node is gone."""
    run_dir = chosen_run_dir(args)
    answer = client.change(run_dir.socket, "leave", purge=args.purge)
    if not run_dir.wait_released(LEAVE_TIMEOUT):
        raise L2OverlayError(
            f"the node (pid {answer['pid']}) is still running after {LEAVE_TIMEOUT:.0f} s; see its log"
        )
    if args.json:
        print_answer(answer)
    else:
        print(f"left segment {answer['segment']}")
        for line in _kept(answer):
            print(line)
    return ExitCode.OK


def _kept(answer: dict[str, Any]) -> list[str]:
    """Says that the bridge stays, and what removes it. Nodes of earlier versions do not report it."""
    ports = answer.get("kept_for") or []
    if not ports:
        return []
    segment, bridge = answer["segment"], answer["bridge"]
    return [
        f"the bridge {bridge} stays, because others have ports in it ({', '.join(ports)}); the next join takes it over",
        f"'l2overlay cleanup {segment} --purge' removes it",
    ]
