"""`l2overlay peers [list|add|remove]`: the peers of a segment."""

import argparse
from typing import cast

from l2overlay.addresses import format_key, format_mac
from l2overlay.cli import output, peers_edit
from l2overlay.config import load_config


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="list|add|remove")
    listing = actions.add_parser(
        "list", help="show all (the default)", description="List the peers of a peers.toml."
    )
    listing.add_argument("--file", metavar="FILE|SEGMENT", help="the peers.toml, or a segment's name")
    output.add_json_option(listing)
    listing.set_defaults(run_action=run_list)
    peers_edit.add_subparsers(actions)


def run(args: argparse.Namespace) -> int:
    return cast(int, args.run_action(args))


def run_list(args: argparse.Namespace) -> int:
    """What the file says; nobody is asked."""
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
        output.print_json("peers/1", {"file": str(path), "peers": peers})
    else:
        output.print_table(
            ("NAME", "ENDPOINT", "PUBLIC KEY"), ([p["name"], p["endpoint"], p["public_key"]] for p in peers)
        )
    return 0
