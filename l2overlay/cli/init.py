"""`l2overlay init SEGMENT`: this host's key, and a commented peers.toml with its stanza. Overwrites nothing."""

import argparse
import re
import shlex
import socket
from pathlib import Path

from l2overlay import files, keys
from l2overlay.addresses import Address, format_key
from l2overlay.cli import output
from l2overlay.config import parse_config
from l2overlay.config_limits import DEFAULT_AGEING_TIME, DEFAULT_MTU, DEFAULT_PORT, MAX_PEER_NAME
from l2overlay.config_values import peer_name, segment_name, split_endpoint
from l2overlay.errors import HostPermissionError, HostSetupError, UsageError

_FILE = """\
# The segment {segment!r} of l2overlay. This file is the same on every host.
# docs/peers.toml.md explains every key; 'l2overlay check {path}' finds mistakes.

[segment]
name = "{segment}"

# Made when missing; an existing bridge is adopted and left in place:
# bridge = "br-{segment}"
# tap = "tap-{segment}"
# The guests' MTU; the underlay may carry less:
# mtu = {mtu}
# Seconds until a silent station is forgotten:
# ageing_time = {ageing_time:g}
# UDP port of hosts without an endpoint below:
# listen = {port}
# Or "chacha20-poly1305", for hosts without AES instructions:
# suite = "aes-gcm"
# One more secret that all hosts share ('l2overlay keygen {segment}.psk' makes one):
# psk_file = "{segment}.psk"
# What a host puts on its bridge:
# addresses = {{ {name} = ["10.9.0.1/24", "fd00:9::1/64"] }}

# One [[peers]] stanza per host; a host knows its own by its key.
# 'l2overlay peers add NAME KEY --endpoint HOST:PORT' appends one.

{remark}
{stanza}"""

_GUESSED = "# The endpoint is a guess from the default route: where do the other hosts reach this one?"
_UNKNOWN = "# No default route, so no endpoint: this host calls the others, which need one."
_GIVEN = "# This host."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("segment", metavar="SEGMENT", help="the name of the LAN to make")
    parser.add_argument(
        "--dir",
        type=Path,
        default=keys.CONFIGURATION_DIR,
        help="where the two files go (default: %(default)s)",
    )
    parser.add_argument("--name", help="this host's name among the peers (default: its host name)")
    parser.add_argument("--endpoint", metavar="HOST:PORT", help="where the others reach this host")
    output.add_json_option(parser)


def run(args: argparse.Namespace) -> int:
    name = args.name or own_name()
    _check_words(args.segment, name, args.endpoint)
    key_path, file_path = args.dir / f"{args.segment}.key", args.dir / f"{args.segment}.toml"
    _refuse_existing(key_path, file_path)
    private = keys.generate()
    public = keys.public_key(private)
    text = peers_file(args.segment, name, public, args.endpoint, file_path)
    parse_config(text, str(file_path), base_dir=args.dir)  # a long name does not fit its interfaces
    _make_directory(args.dir)
    keys.save(key_path, private)
    files.write_new(file_path, text, 0o644)
    if args.json:
        places = {"key_file": str(key_path), "file": str(file_path)}
        output.print_json(
            "init/1", {"segment": args.segment, "name": name, "public_key": format_key(public), **places}
        )
    else:
        _print_next_steps(args.segment, key_path, file_path)
    return 0


def own_name() -> str:
    """The host's name as a peer's name."""
    short = socket.gethostname().partition(".")[0].lower()
    return re.sub("[^a-z0-9-]+", "-", short).strip("-")[:MAX_PEER_NAME] or "node"


def guess_endpoint() -> str | None:
    """The source address of the default route, IPv4 first, with the default port; None without a route."""
    # connecting a UDP socket only asks the routing table; the targets are documentation's (RFC 5737, RFC 3849)
    for family, target in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((target, 9))
                return str(Address(probe.getsockname()[0], DEFAULT_PORT))
        except OSError:
            continue
    return None


def peers_file(segment: str, name: str, public: bytes, endpoint: str | None, path: Path) -> str:
    """The text of a new peers.toml."""
    guessed = guess_endpoint() if endpoint is None else None
    return _FILE.format(
        segment=segment,
        name=name if re.fullmatch("[A-Za-z0-9_-]+", name) else f'"{name}"',
        path=shlex.quote(str(path)),
        mtu=DEFAULT_MTU,
        ageing_time=DEFAULT_AGEING_TIME,
        port=DEFAULT_PORT,
        remark=_GIVEN if endpoint else _GUESSED if guessed else _UNKNOWN,
        stanza=keys.own_stanza(name, public, endpoint or guessed),
    )


def _check_words(segment: str, name: str, endpoint: str | None) -> None:
    try:
        segment_name(segment)
        peer_name(name)
        if endpoint is not None:
            split_endpoint(endpoint)
    except ValueError as error:
        raise UsageError(f"l2overlay init: {error}") from None


def _refuse_existing(key_path: Path, file_path: Path) -> None:
    for path in (file_path, key_path):
        if path.exists():
            advice = f"; to make only the key: l2overlay keygen {key_path}" if path == file_path else ""
            raise UsageError(f"{path} exists already and is never overwritten{advice}")


def _make_directory(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except PermissionError:
        raise HostPermissionError(f"{path}: this user may not make it; run the command with sudo") from None
    except OSError as error:
        raise HostSetupError(f"{path}: cannot be made: {error.strerror}") from None


def _print_next_steps(segment: str, key_path: Path, file_path: Path) -> None:
    default = key_path == keys.default_key_path(segment)
    key_option = "" if default else f" --key {shlex.quote(str(key_path))}"
    print(f"{key_path}: this host's private key; it stays here")
    print(f"{file_path}: the segment, with this host as its first peer")
    print(
        "Next: look at its endpoint, add the other hosts ('l2overlay peers add'), copy the file to all of them, and"
    )
    print(f"      l2overlay join --peers {shlex.quote(str(file_path))}{key_option}")
