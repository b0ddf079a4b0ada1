"""`l2overlay peers add` and `peers remove`: append or cut one stanza of a peers.toml.

The file is edited as text, which keeps comments and order. The result is parsed again, and must differ from the file in
exactly that peer. Only then does it replace the file (atomically, with the same mode and owner).
"""

import argparse
import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Interface, IPv6Interface
from pathlib import Path

from l2overlay import files
from l2overlay.addresses import format_key, parse_key
from l2overlay.cli import output
from l2overlay.cli.addresses_edit import with_addresses, without_addresses
from l2overlay.config.diff import ConfigDiff, diff_configs
from l2overlay.config.positions import positions
from l2overlay.config.read import load_config, parse_config
from l2overlay.config.types import Config, PeerConfig
from l2overlay.config.values import (
    interface_address,
    peer_name,
    public_key_text,
    quote,
    segment_name,
    split_endpoint,
)
from l2overlay.errors import L2OverlayError, UsageError
from l2overlay.keys import CONFIGURATION_DIR, is_private_key_of, load, own_stanza
from l2overlay.suggestion import suggestion

Interface = IPv4Interface | IPv6Interface

_HERE = Path("peers.toml")


def add_subparsers(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the actions `add` and `remove`. Each sets `run_action`, a function that takes the arguments."""
    add = subparsers.add_parser("add", help="append a stanza", description="Append a stanza to a peers.toml.")
    add.add_argument("name", metavar="NAME", help="the new peer's name")
    add.add_argument("key", metavar="KEY", help="its public key (on that host, 'l2overlay pubkey' prints it)")
    add.add_argument("--endpoint", metavar="HOST:PORT", help="where the other hosts reach it")
    add.add_argument(
        "--address",
        metavar="ADDRESS/LENGTH",
        action="append",
        default=[],
        help="its own address on the LAN, as 10.9.0.2/24; may be repeated",
    )
    _add_common(add, run_add)
    remove = subparsers.add_parser(
        "remove",
        help="remove a stanza",
        description="Remove a peer's stanza, with the comment lines directly above it, from a peers.toml.",
    )
    remove.add_argument("peer", metavar="NAME|KEY", help="the peer, by its name or public key")
    _add_common(remove, run_remove)


def _add_common(parser: argparse.ArgumentParser, run_action: Callable[[argparse.Namespace], int]) -> None:
    parser.add_argument(
        "--file",
        metavar="FILE|SEGMENT",
        help=f"the peers.toml, or a segment's name for {CONFIGURATION_DIR}/SEGMENT.toml (default: ./{_HERE}, "
        f"or the only segment there)",
    )
    output.add_json_option(parser)
    parser.set_defaults(run_action=run_action)


def run_add(args: argparse.Namespace) -> int:
    """Append a stanza, and add the addresses to those of the segment."""
    _check_words(args)
    file = _PeersFile.read(find_file(args.file))
    _refuse_private_key(args.key, file)
    text = with_addresses(file.text, args.name, args.address)
    text = text if text.endswith("\n") else f"{text}\n"
    stanza = own_stanza(args.name, parse_key(args.key), args.endpoint)
    addresses = dict(file.config.segment.addresses)
    if args.address:
        addresses[args.name] = tuple(map(interface_address, args.address))
    _replace(
        file,
        f"{text}\n{stanza}",
        f"{file.path} with {args.name} added",
        addresses,
        lambda diff: len(diff.added) == 1 and not diff.removed,
    )
    return _report(args, "added", args.name, args.key, file.path, args.address)


def run_remove(args: argparse.Namespace) -> int:
    """Remove a stanza, and the peer's addresses."""
    file = _PeersFile.read(find_file(args.file))
    peer = _find_peer(file.config, args.peer, file.path)
    text = without_stanza(file.text, file.config.peers.index(peer))
    addresses = {name: listed for name, listed in file.config.segment.addresses.items() if name != peer.name}
    _replace(
        file,
        without_addresses(text, peer.name),
        f"{file.path} without {peer.name}",
        addresses,
        lambda diff: diff.removed == (peer,) and not diff.added,
    )
    return _report(args, "removed", peer.name, format_key(peer.public_key), file.path, ())


def find_file(given: str | None) -> Path:
    """The peers.toml that `--file` names, or the default one. Raises UsageError if there is no default."""
    if given is not None:
        is_name = "/" not in given and "." not in given and not Path(given).is_file()
        return CONFIGURATION_DIR / f"{_segment(given)}.toml" if is_name else Path(given)
    if _HERE.exists():
        return _HERE
    installed = sorted(CONFIGURATION_DIR.glob("*.toml"))
    if len(installed) == 1:
        return installed[0]
    names = ", ".join(path.stem for path in installed) or "no segment"
    raise UsageError(f"no ./{_HERE}, and {names} in {CONFIGURATION_DIR}: name one with --file")


def _segment(name: str) -> str:
    try:
        return segment_name(name)
    except ValueError as error:
        raise UsageError(f"--file: {error}") from None


@dataclass(frozen=True, slots=True)
class _PeersFile:
    path: Path
    text: str
    """With LF as the only line ending."""
    config: Config
    line_end: str

    @classmethod
    def read(cls, path: Path) -> "_PeersFile":
        config = load_config(path)
        text = path.read_bytes().decode()
        line_end = "\r\n" if "\r\n" in text else "\n"
        return cls(path, text.replace("\r\n", "\n"), config, line_end)


def without_stanza(text: str, index: int) -> str:
    """`text` without `[[peers]]` number `index` and the comment lines directly above it. Raises UsageError."""
    place = positions(text).places[("peers", index)]
    if not text.startswith("[[", place.key):
        raise UsageError(
            "the peers of this file are in one list, not in [[peers]] stanzas; edit the file by hand"
        )
    start = text.rfind("\n", 0, place.key) + 1
    end = text.find("\n", place.end) + 1 or len(text)
    above, below = text[:start], text[end:]
    above = re.sub(r"(?:^[ \t]*#[^\n]*\n)+\Z", "", above, flags=re.MULTILINE)
    if not above or above.endswith("\n\n"):
        below = re.sub(r"\A(?:[ \t]*\n)+", "", below)
    return above + below if below.strip() else above.rstrip("\n") + "\n"


def _find_peer(config: Config, wanted: str, path: Path) -> PeerConfig:
    for peer in config.peers:
        if wanted in (peer.name, format_key(peer.public_key)):
            return peer
    hint = suggestion(wanted, (peer.name for peer in config.peers))
    raise UsageError(f"{path} has no peer {quote(wanted)}{hint}")


def _check_words(args: argparse.Namespace) -> None:
    if "/" in args.key and not is_key(args.key) and Path(args.key).exists():
        raise UsageError(
            f"l2overlay peers add: {args.key} is a file; KEY is what 'l2overlay pubkey {args.key}' prints on that host"
        )
    try:
        peer_name(args.name)
        public_key_text(args.key)
        if args.endpoint is not None:
            split_endpoint(args.endpoint)
        for address in args.address:
            interface_address(address)
    except ValueError as error:
        raise UsageError(f"l2overlay peers add: {error}") from None


def is_key(text: str) -> bool:
    """Whether a text is 32 bytes in base64, which may contain a slash."""
    try:
        parse_key(text)
    except ValueError:
        return False
    return True


def _refuse_private_key(text: str, file: _PeersFile) -> None:
    """Refuse the private key of a peer, or of a file next to this one: the file will be copied to every host."""
    key = parse_key(text)
    owner = next((p.name for p in file.config.peers if is_private_key_of(key, p.public_key)), None)
    beside = {path.parent for path in (file.path, CONFIGURATION_DIR / "x")}
    where = next((path for folder in beside for path in folder.glob("*.key") if _holds(path, key)), None)
    if owner is not None or where is not None:
        whose = f"the PRIVATE key of {owner}" if owner is not None else f"the PRIVATE key in {where}"
        raise UsageError(
            f"l2overlay peers add: this is {whose}; KEY is the public key, which 'l2overlay pubkey' prints on that host"
        )


def _holds(path: Path, key: bytes) -> bool:
    try:
        return load(path) == key
    except L2OverlayError:
        return False


def _replace(
    file: _PeersFile,
    text: str,
    source: str,
    addresses: dict[str, tuple[Interface, ...]],
    is_meant: Callable[[ConfigDiff], bool],
) -> None:
    """Write `text` if it differs from the old file only in one peer and in the segment's `addresses`."""
    new = text.replace("\n", file.line_end).encode()
    config = parse_config(new, source, base_dir=file.path.parent)
    diff = diff_configs(file.config, config)
    same_segment = config.segment == replace(file.config.segment, addresses=addresses)
    if not is_meant(diff) or not same_segment or diff.changed or diff.filter or diff.protect:
        raise UsageError(
            f"{file.path} is written in a way that this command does not understand; edit it by hand"
        )
    files.replace(file.path, new)


def _report(
    args: argparse.Namespace, done: str, name: str, key: str, path: Path, addresses: Sequence[str]
) -> int:
    if args.json:
        output.print_json(f"peers-{args.action}/1", {"file": str(path), "name": name, "public_key": key})
        return 0
    print(f"{path}: {done} {name}; copy the file to every host and run 'l2overlay reload' there")
    if addresses:
        installed = path.parent == CONFIGURATION_DIR
        join = f"l2overlay join {path.stem if installed else f'--peers {shlex.quote(str(path))}'}"
        print(f"Where no node runs yet: '{join}'. Then: ping -c 3 {interface_address(addresses[0]).ip}")
    return 0
