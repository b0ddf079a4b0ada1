"""`l2overlay events`: recent events; with `-f`, also new ones, until Ctrl-C or until the node ends."""

import argparse
import datetime as dt
import json
from typing import Any

from l2overlay.cli import output
from l2overlay.cli.target import add_node_arguments, chosen_run_dir
from l2overlay.control import client
from l2overlay.errors import ExitCode

EXAMPLES = (
    "l2overlay events -f",
    "l2overlay events lan --json",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    add_node_arguments(parser)
    parser.add_argument("-f", "--follow", action="store_true", help="also print new events as they happen")
    output.add_json_option(parser)


def run(args: argparse.Namespace) -> int:
    """Ask and print one event per line, or one JSON object per line."""
    for event in client.follow(chosen_run_dir(args).socket, "events", follow=args.follow):
        print(json.dumps(event) if args.json else event_line(event), flush=True)
    return ExitCode.OK


def event_line(event: dict[str, Any]) -> str:
    """`2025-01-31 12:00:00 peer athens is up at 192.0.2.1:7470`, in local time."""
    moment = dt.datetime.fromtimestamp(event["time"], dt.UTC).astimezone()
    return f"{moment:%Y-%m-%d %H:%M:%S} {event['text']}"
