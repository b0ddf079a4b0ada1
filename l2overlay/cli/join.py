"""`l2overlay join`: run this host's node until it is told to leave."""

import argparse
from pathlib import Path

from l2overlay import keys
from l2overlay.errors import ExitCode, UsageError

DEFAULT_LINGER = 0.25
"""Seconds. Keystrokes follow one another faster than this, and a stray frame every second costs 1 to 2 % of a core
(`python -m tests.bench.linger`)."""
MAX_LINGER = 3600


EXAMPLES = (
    "l2overlay join lan",
    "l2overlay join --peers ./peers.toml --key ./host.key",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    parser.add_argument("segment", nargs="?", help="short for --peers /etc/l2overlay/SEGMENT.toml")
    parser.add_argument("--peers", type=Path, metavar="FILE", help="the segment's peers.toml")
    parser.add_argument(
        "--key",
        type=Path,
        metavar="FILE",
        help="this host's private key (default: /etc/l2overlay/SEGMENT.key)",
    )
    parser.add_argument(
        "--run-dir",
        type=Path,
        metavar="DIR",
        help="directory of the control socket and the state (default: /run/l2overlay/SEGMENT)",
    )
    parser.add_argument(
        "--offload",
        choices=("auto", "off"),
        default="auto",
        help="super-frames on the TAP: all that the kernel supports (auto), or plain frames only (off)",
    )
    parser.add_argument(
        "--linger",
        type=linger_time,
        default=DEFAULT_LINGER,
        metavar="SECONDS",
        help="how long to stay quick after a lone frame; costs 5 %% of a core during that time; "
        f"0: never (default: {DEFAULT_LINGER})",
    )


def linger_time(text: str) -> float:
    """Seconds from 0 to `MAX_LINGER`."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= MAX_LINGER:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds from 0 to {MAX_LINGER}")
    return seconds


def run(args: argparse.Namespace) -> int:
    """Run the node; returns when it has left."""
    from l2overlay.node.start import Options, run_node

    run_node(
        Options(
            peers_file=_peers_file(args),
            key_file=args.key,
            run_dir=args.run_dir,
            offload=args.offload == "auto",
            linger=args.linger,
        )
    )
    return ExitCode.OK


def _peers_file(args: argparse.Namespace) -> Path:
    if args.peers is not None and args.segment is not None:
        raise UsageError("l2overlay join: give a SEGMENT or --peers FILE, not both")
    if args.peers is not None:
        return Path(args.peers)
    if args.segment is None:
        names = ", ".join(sorted(path.stem for path in keys.CONFIGURATION_DIR.glob("*.toml")))
        there = f"in {keys.CONFIGURATION_DIR}: {names}" if names else "'l2overlay init SEGMENT' makes one"
        raise UsageError(f"l2overlay join: which segment? Give its name ({there}) or --peers FILE")
    if "/" in args.segment or args.segment.endswith(".toml"):
        raise UsageError(
            f"l2overlay join: {args.segment!r} is a file, not a segment; write --peers {args.segment}"
        )
    return keys.CONFIGURATION_DIR / f"{args.segment}.toml"
