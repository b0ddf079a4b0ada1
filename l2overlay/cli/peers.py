"""`l2overlay peers [list|add|remove]`: list the peers of the running node or of a peers.toml, add one, remove one."""

import argparse
from typing import Any, cast

from l2overlay.addresses import format_key, format_mac
from l2overlay.cli import output, peers_edit
from l2overlay.cli.output import ago, peer_state, print_answer, short_time
from l2overlay.cli.target import add_node_arguments, chosen_run_dir
from l2overlay.config.read import load_config
from l2overlay.control import client
from l2overlay.errors import ExitCode

EXAMPLES = (
    "l2overlay peers list lan",
    "l2overlay peers list --file lan",
    "l2overlay peers add beta KEY --address 10.9.0.2/24 --endpoint 192.0.2.2:7470",
    "l2overlay peers remove beta",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb and of its actions."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="list|add|remove")
    listing = actions.add_parser(
        "list", help="show all (the default)", description="List the peers of the running node."
    )
    add_node_arguments(listing)
    listing.add_argument(
        "--file", metavar="FILE|SEGMENT", help="list the peers of a peers.toml instead, without asking a node"
    )
    output.add_json_option(listing)
    listing.set_defaults(run_action=run_list)
    peers_edit.add_subparsers(actions)


def run(args: argparse.Namespace) -> int:
    """Run the action."""
    return cast(int, args.run_action(args))


def run_list(args: argparse.Namespace) -> int:
    """Ask the node, or read the file."""
    if args.file is not None:
        return _list_file(args)
    answer = client.ask(chosen_run_dir(args).socket, "peers")
    if args.json:
        print_answer(answer)
        return ExitCode.OK
    rows = [_row(peer) for peer in answer["peers"]]
    output.print_table(("PEER", "ENDPOINT", "STATE", "RTT", "LAST HEARD", "PUBLIC KEY"), rows)
    return ExitCode.OK


def _row(peer: dict[str, Any]) -> tuple[object, ...]:
    return (
        peer["name"],
        peer["endpoint"],
        peer_state(peer),
        short_time(peer["rtt"]),
        ago(peer["last_heard"]),
        peer["public_key"],
    )


def _list_file(args: argparse.Namespace) -> int:
    path = peers_edit.find_file(args.file)
    peers = [
        {
            "name": peer.name,
            "public_key": format_key(peer.public_key),
            "endpoint": str(peer.endpoint) if peer.endpoint else None,
            "macs": [format_mac(mac) for mac in peer.macs],
        }
        for peer in load_config(path).peers
    ]
    if args.json:
        output.print_json("peers-file/1", {"file": str(path), "peers": peers})
    else:
        output.print_table(
            ("NAME", "ENDPOINT", "PUBLIC KEY"), ([p["name"], p["endpoint"], p["public_key"]] for p in peers)
        )
    return ExitCode.OK
