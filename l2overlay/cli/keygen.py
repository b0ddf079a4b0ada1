"""`l2overlay keygen [FILE]`: a new private key, on stdout like `wg genkey`, or in FILE with mode 0600.

A missing directory of FILE is created, so that this can be the first command on a new host.
"""

import argparse
from pathlib import Path

from l2overlay import files, keys
from l2overlay.addresses import format_key
from l2overlay.cli import output

EXAMPLES = ("l2overlay keygen /etc/l2overlay/lan.key",)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file",
        metavar="FILE",
        type=Path,
        nargs="?",
        help="write the key to this new file, and print the public key",
    )
    output.add_json_option(parser)


def run(args: argparse.Namespace) -> int:
    private = keys.generate()
    public = format_key(keys.public_key(private))
    if args.file:
        files.make_directory(args.file.parent)
        keys.save(args.file, private)
    shown = public if args.file else format_key(private)
    if args.json:
        secret = {"file": str(args.file)} if args.file else {"private_key": shown}
        output.print_json("keygen/1", {**secret, "public_key": public})
    else:
        print(shown)
    return 0
