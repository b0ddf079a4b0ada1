"""`l2overlay check FILE|SEGMENT`: every mistake in a peers.toml with line and column (exit 78), or a summary (exit 0)."""

import argparse
from dataclasses import asdict
from pathlib import Path

from l2overlay import keys
from l2overlay.addresses import PeerKey
from l2overlay.cli import output
from l2overlay.cli.init import guess_endpoint, own_name
from l2overlay.cli.peers_edit import find_file
from l2overlay.config.read import load_config, require_own
from l2overlay.config.types import Config
from l2overlay.errors import ConfigError

EXAMPLES = (
    "l2overlay check lan",
    "l2overlay check ./peers.toml --key /etc/l2overlay/lan.key",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file",
        metavar="FILE|SEGMENT",
        help=f"the peers.toml, or a segment's name for {keys.CONFIGURATION_DIR}/SEGMENT.toml",
    )
    parser.add_argument(
        "--key",
        metavar="KEYFILE",
        type=Path,
        help="a private key: also check that the file has a peer with its public key",
    )
    output.add_json_option(parser)


def run(args: argparse.Namespace) -> int:
    args.file = find_file(args.file)
    public = keys.public_key(keys.load(args.key)) if args.key else None
    try:
        config = load_config(args.file)
        node = _own_name_in(config, public, args.file) if public else None
    except ConfigError as error:
        if not args.json:
            raise
        output.print_json(
            "check/1", {"file": str(args.file), "ok": False, "problems": [asdict(p) for p in error.problems]}
        )
        return int(error.exit_code)
    _print_good(config, node, args)
    return 0


def _own_name_in(config: Config, public: PeerKey, source: Path) -> str:
    return require_own(config, public, source=str(source), name=own_name(), endpoint=guess_endpoint()).name


def _print_good(config: Config, node: str | None, args: argparse.Namespace) -> None:
    if args.json:
        found = {"segment": config.segment.name, "peers": len(config.peers), "node": node}
        output.print_json("check/1", {"file": str(args.file), "ok": True, **found, "problems": []})
        return
    count = len(config.peers)
    host = f"; this host is {node}" if node else ""
    print(f"{args.file}: good: segment {config.segment.name}, {count} peer{'s' * (count != 1)}{host}")
