"""`l2overlay init SEGMENT`: make this host's key, and a commented peers.toml with its stanza. Overwrites nothing."""

import argparse
import contextlib
import re
import shlex
import socket
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Interface, IPv6Interface
from pathlib import Path

from l2overlay import files, keys
from l2overlay.addresses import Address, format_key
from l2overlay.cli import output
from l2overlay.cli.addresses_edit import address_list, toml_key
from l2overlay.config.limits import DEFAULT_AGEING_TIME, DEFAULT_MTU, DEFAULT_PORT, MAX_PEER_NAME
from l2overlay.config.read import load_config, parse_config
from l2overlay.config.types import Config, PeerConfig
from l2overlay.config.values import interface_address, peer_name, segment_name, split_endpoint
from l2overlay.errors import L2OverlayError, UsageError

Interface = IPv4Interface | IPv6Interface

MAX_SEGMENTS = 100
"""How many ports are tried, from the default port upwards. With more segments, choose the ports by hand."""

_FILE = """\
# The segment {segment!r} of l2overlay. This file is the same on every host.
# docs/peers.toml.md explains every key; 'l2overlay check {path}' finds mistakes.

[segment]
name = "{segment}"

# Created if missing; an existing bridge is used and left in place:
# bridge = "br-{segment}"
# tap = "tap-{segment}"
# The MTU of the guests; that of the underlay may be smaller:
# mtu = {mtu}
# Seconds until a silent station is forgotten:
# ageing_time = {ageing_time:g}
# UDP port of hosts without an endpoint below:
{listen_line}
# Or "chacha20-poly1305", for hosts without AES instructions:
# suite = "aes-gcm"
# An additional secret that all hosts share ('l2overlay keygen {segment}.psk' makes one):
# psk_file = "{segment}.psk"
# The addresses that each host puts on its bridge:
{addresses_line}

# One [[peers]] stanza per host; a host finds its own stanza by its key.
# 'l2overlay peers add NAME KEY --address ADDRESS/LENGTH --endpoint HOST:PORT' appends one.

{remark}
{stanza}"""

_EXAMPLE_ADDRESSES = ("10.9.0.1/24", "fd00:9::1/64")
_GUESSED = (
    "# The endpoint is a guess from the default route: make sure that the other hosts reach this one there."
)
_UNKNOWN = (
    "# There is no default route, so no endpoint: this host must call the others, and they need endpoints."
)
_GIVEN = "# This host."


EXAMPLES = ("l2overlay init lan --address 10.9.0.1/24 --endpoint 192.0.2.1:7470",)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("segment", metavar="SEGMENT", help="the name of the new LAN")
    parser.add_argument(
        "--dir",
        type=Path,
        default=keys.CONFIGURATION_DIR,
        help="where the two files go (default: %(default)s)",
    )
    parser.add_argument("--name", help="this host's name among the peers (default: its host name)")
    parser.add_argument("--endpoint", metavar="HOST:PORT", help="where the others reach this host")
    parser.add_argument(
        "--address",
        metavar="ADDRESS/LENGTH",
        action="append",
        default=[],
        help="this host's own address on the LAN, as 10.9.0.1/24; may be repeated",
    )
    output.add_json_option(parser)


def run(args: argparse.Namespace) -> int:
    name = args.name or own_name()
    _check_words(args.segment, name, args.endpoint, args.address)
    key_path, file_path = args.dir / f"{args.segment}.key", args.dir / f"{args.segment}.toml"
    _refuse_existing(key_path, file_path)
    private = keys.generate()
    public = keys.public_key(private)
    port = free_port(args.dir)
    text = peers_file(args.segment, name, public, args.endpoint, file_path, args.address, port)
    # finds a name that is too long for its interfaces, and an address given twice
    config = parse_config(text, str(file_path), base_dir=args.dir)
    files.make_directory(args.dir)
    keys.save(key_path, private)
    files.write_new(file_path, text, 0o644)
    if args.json:
        places = {"key_file": str(key_path), "file": str(file_path)}
        output.print_json(
            "init/1", {"segment": args.segment, "name": name, "public_key": format_key(public), **places}
        )
    else:
        print(*next_steps(config, key_path, file_path), sep="\n")
    return 0


def own_name() -> str:
    """The host's name in the form of a peer's name."""
    short = socket.gethostname().partition(".")[0].lower()
    return re.sub("[^a-z0-9-]+", "-", short).strip("-")[:MAX_PEER_NAME] or "node"


def guess_endpoint(port: int = DEFAULT_PORT) -> str | None:
    """The source address of the default route (IPv4 first) with the port; None if there is no route."""
    # connecting a UDP socket only asks the routing table; the targets are for documentation (RFC 5737, RFC 3849)
    for family, target in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((target, 9))
                return str(Address(probe.getsockname()[0], port))
        except OSError:
            continue
    return None


def free_port(directory: Path) -> int:
    """The first port, from the default one, that no other segment in `directory` and no program on this host uses."""
    taken = _ports_of_segments(directory)
    for port in range(DEFAULT_PORT, DEFAULT_PORT + MAX_SEGMENTS):
        if port not in taken and _is_unbound(port):
            return port
    return DEFAULT_PORT


def _ports_of_segments(directory: Path) -> set[int]:
    """All ports in the files: a host listens on the port of its endpoint, or on that of the segment."""
    taken: set[int] = set()
    for path in directory.glob("*.toml"):
        with contextlib.suppress(L2OverlayError):  # a broken file of another segment does not matter here
            config = load_config(path)
            taken |= {config.segment.listen, *(p.endpoint.port for p in config.peers if p.endpoint)}
    return taken


def _is_unbound(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True


def peers_file(
    segment: str,
    name: str,
    public: bytes,
    endpoint: str | None,
    path: Path,
    addresses: Sequence[str] = (),
    port: int = DEFAULT_PORT,
) -> str:
    """The text of a new peers.toml."""
    guessed = guess_endpoint(port) if endpoint is None else None
    addresses_line = f"addresses = {{ {toml_key(name)} = {address_list(addresses or _EXAMPLE_ADDRESSES)} }}"
    return _FILE.format(
        segment=segment,
        path=shlex.quote(str(path)),
        mtu=DEFAULT_MTU,
        ageing_time=DEFAULT_AGEING_TIME,
        listen_line=f"{'# ' if port == DEFAULT_PORT else ''}listen = {port}",
        addresses_line=f"{'' if addresses else '# '}{addresses_line}",
        remark=_GIVEN if endpoint else _GUESSED if guessed else _UNKNOWN,
        stanza=keys.own_stanza(name, public, endpoint or guessed),
    )


def _check_words(segment: str, name: str, endpoint: str | None, addresses: Sequence[str]) -> None:
    try:
        segment_name(segment)
        peer_name(name)
        if endpoint is not None:
            split_endpoint(endpoint)
        for address in addresses:
            interface_address(address)
    except ValueError as error:
        raise UsageError(f"l2overlay init: {error}") from None


def _refuse_existing(key_path: Path, file_path: Path) -> None:
    for path in (file_path, key_path):
        if path.exists():
            advice = f"; to make only the key: l2overlay keygen {key_path}" if path == file_path else ""
            raise UsageError(f"{path} already exists and is never overwritten{advice}")


def next_steps(config: Config, key_path: Path, file_path: Path) -> list[str]:
    """The next commands, up to a ping that the other host answers."""
    (own,) = config.peers
    mine = config.segment.addresses.get(own.name, ())
    what = f"{own.name}, endpoint {own.endpoint or 'none'}, address {', '.join(map(str, mine)) or 'none'}"
    return [
        f"{key_path}: this host's private key; it stays here",
        f"{file_path}: the segment, with this host as its first peer: {what}",
        *_remarks(own, mine, file_path),
        "",
        "Next, with one more host:",
        *_prompted(_commands(config, key_path, file_path)),
    ]


def _remarks(own: PeerConfig, mine: Sequence[Interface], file_path: Path) -> Iterator[str]:
    if not own.endpoint:
        yield "This host has no default route, so no endpoint was guessed: the other host needs one (--endpoint)."
    if not mine:
        yield (
            f"Without --address, this host itself has no address on the LAN, and only what is in its bridge can be reached; "
            f"'addresses' in {file_path} gives it one."
        )


def _commands(config: Config, key_path: Path, file_path: Path) -> list[tuple[str, str, str]]:
    """Host, command and remark of the first steps in README, with the names of this segment."""
    (own,) = config.peers
    name = config.segment.name
    key, file = shlex.quote(str(key_path)), shlex.quote(str(file_path))
    other = "beta" if own.name != "beta" else "alpha"
    theirs = [neighbour(address) for address in config.segment.addresses.get(own.name, ())]
    options = "".join(f" --address {address}" for address in theirs)
    options += "" if own.endpoint else " --endpoint HOST:PORT"
    installed = file_path == keys.CONFIGURATION_DIR / f"{name}.toml"
    place, join = (name, name) if installed else (file, f"--peers {file} --key {key}")
    last = f"ping -c 3 {theirs[0].ip}" if theirs else f"l2overlay status {name}"
    return [
        (other, f"l2overlay keygen {key}", f"prints {other}'s public key"),
        (
            own.name,
            f"l2overlay peers add {other} KEY{options} --file {place}",
            f"KEY is what {other} printed",
        ),
        (own.name, f"scp {file} {other}:{shlex.quote(str(file_path.parent))}/", ""),
        ("both", f"l2overlay join {join}", "stays in the foreground"),
        (own.name, last, "in another terminal"),
    ]


def _prompted(commands: Sequence[tuple[str, str, str]]) -> list[str]:
    hosts, lines, remarks = zip(*commands, strict=True)
    left, right = max(map(len, hosts)) + 1, max(map(len, lines))
    return [
        f"  {f'{host}#':<{left}} {f'{line:<{right}}  # {remark}' if remark else line}"
        for host, line, remark in zip(hosts, lines, remarks, strict=True)
    ]


def neighbour(address: Interface) -> Interface:
    """For an example: the next address in the same network that a host can have, or the previous one."""
    for number in (1, -1):
        with contextlib.suppress(ValueError):
            return interface_address(f"{address.ip + number}/{address.network.prefixlen}")
    return address
