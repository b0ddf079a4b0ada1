"""`l2overlay events`: what happened lately; with `-f`, what happens, until Ctrl-C or the end of the node."""

import argparse
import datetime as dt
import json
from typing import Any

from l2overlay.cli import output
from l2overlay.cli.asking import add_node_arguments, chosen_run_dir
from l2overlay.control import client
from l2overlay.errors import ExitCode


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    add_node_arguments(parser)
    parser.add_argument("-f", "--follow", action="store_true", help="go on with what happens next")
    output.add_json_option(parser)


def run(args: argparse.Namespace) -> int:
    """Ask and print, one line an event; with `--json` one object a line."""
    for event in client.follow(chosen_run_dir(args).socket, "events", follow=args.follow):
        print(json.dumps(event) if args.json else event_line(event), flush=True)
    return ExitCode.OK


def event_line(event: dict[str, Any]) -> str:
    """`2025-01-31 12:00:00 peer athens is up at 192.0.2.1:7470`, in local time."""
    moment = dt.datetime.fromtimestamp(event["time"], dt.UTC).astimezone()
    return f"{moment:%Y-%m-%d %H:%M:%S} {event['text']}"
