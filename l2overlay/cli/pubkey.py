"""`l2overlay pubkey [FILE]`: the public key of the private key in FILE or on stdin."""

import argparse
import sys
from pathlib import Path

from l2overlay import keys
from l2overlay.addresses import format_key
from l2overlay.cli import output

EXAMPLES = ("l2overlay pubkey /etc/l2overlay/lan.key",)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file", metavar="FILE", type=Path, nargs="?", help="the private key's file (default: stdin)"
    )
    output.add_json_option(parser)


def run(args: argparse.Namespace) -> int:
    private = keys.load(args.file) if args.file else _from_stdin()
    public = format_key(keys.public_key(private))
    if args.json:
        output.print_json("pubkey/1", {"public_key": public})
    else:
        print(public)
    return 0


def _from_stdin() -> bytes:
    return keys.parse_secret(sys.stdin.buffer.read(keys.MAX_SECRET_SIZE + 1), "stdin", "private key")
