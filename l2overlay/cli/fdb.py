"""`l2overlay fdb`: the filtering database, which says behind which peer each station is."""

import argparse

from l2overlay.cli import output
from l2overlay.cli.output import ago, print_answer
from l2overlay.cli.target import add_node_arguments, chosen_run_dir
from l2overlay.control import client
from l2overlay.errors import ExitCode

EXAMPLES = ("l2overlay fdb lan",)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    add_node_arguments(parser)
    output.add_json_option(parser)


def run(args: argparse.Namespace) -> int:
    """Ask and print."""
    answer = client.ask(chosen_run_dir(args).socket, "fdb")
    if args.json:
        print_answer(answer)
        return ExitCode.OK
    rows = [
        (
            station["mac"],
            station["vlan"] or None,
            station["peer"] or "this host",
            "static" if station["static"] else ago(station["age"]),
        )
        for station in answer["stations"]
    ]
    output.print_table(("STATION", "VLAN", "WHERE", "HEARD"), rows)
    return ExitCode.OK
