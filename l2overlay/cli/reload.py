"""`l2overlay reload`: make the node read its peers.toml again. Prints what changed, or every mistake (exit 78)."""

import argparse

from l2overlay.cli import output
from l2overlay.cli.output import print_answer
from l2overlay.cli.target import add_node_arguments, chosen_run_dir
from l2overlay.control import client
from l2overlay.errors import ExitCode

EXAMPLES = ("l2overlay reload lan",)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    add_node_arguments(parser)
    output.add_json_option(parser)


def run(args: argparse.Namespace) -> int:
    """Ask and print."""
    answer = client.change(chosen_run_dir(args).socket, "reload")
    if args.json:
        print_answer(answer)
    elif answer["errors"]:
        for line in answer["errors"]:
            output.print_error(line)
        output.print_error("the node keeps its old configuration")
    else:
        print(*(answer["changes"] or ["nothing changed"]), sep="\n")
    return ExitCode.CONFIGURATION if answer["errors"] else ExitCode.OK
