"""`l2overlay attach TOOL [NAME]`: how a VM, a container or a lab tool joins the segment.

For most tools it prints a script, and changes nothing. `attach netns NAME` and `attach tap NAME` change this host: a veth
into a namespace, a TAP for a VM. `--apply` makes the TAP of a tool whose guests need one. `detach` takes that back.
"""

import argparse
import os
import pwd
import re
import secrets
import socket
from collections.abc import Sequence
from dataclasses import replace
from ipaddress import AddressValueError, IPv4Address, IPv4Network, NetmaskValueError, ip_interface
from pathlib import Path
from typing import TYPE_CHECKING, Any

from l2overlay import keys
from l2overlay.addresses import MacAddress, PeerKey
from l2overlay.attach.macs import free_mac
from l2overlay.attach.programs import Version, version_of
from l2overlay.attach.recipe import Recipe, Tool
from l2overlay.attach.segment import Guest, Segment, TapOf
from l2overlay.attach.tools import TOOLS
from l2overlay.attach.tools.netns import INSIDE, host_end
from l2overlay.cli import output
from l2overlay.cli.target import add_run_dir_argument, chosen_run_dir, configured_segments
from l2overlay.control import client
from l2overlay.errors import ExitCode, HostPermissionError, L2OverlayError, NoDaemonError, UsageError
from l2overlay.suggestion import suggestion

if TYPE_CHECKING:
    from l2overlay.attach.plan import HostView
    from l2overlay.linux.changes import Change

EXAMPLES = (
    "l2overlay attach",
    "l2overlay attach docker",
    "l2overlay attach netns web --create --address 10.9.0.50/24",
    "l2overlay attach tap vm1 --user alice",
    "l2overlay attach qemu vm1 --user alice",
)
ONLY_FOR = {
    "create": ("netns",),
    "address": ("netns", "lxc", "nspawn", "podman", "multus", "containerlab"),
    "link": ("netns",),
    "inside": ("netns",),
}
"""Options that only some tools take."""
TUN = Path("/dev/net/tun")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    parser.add_argument("tool", nargs="?", metavar="TOOL", help=f"one of {', '.join(TOOLS)}")
    parser.add_argument("name", nargs="?", metavar="NAME", help="of the namespace, TAP, VM or container")
    parser.add_argument(
        "--segment", help="the segment's name; omit it if only one runs or is configured here"
    )
    parser.add_argument(
        "--peers", type=Path, metavar="FILE", help="the segment's peers.toml, if no node runs"
    )
    add_run_dir_argument(parser)
    parser.add_argument("--user", metavar="USER", help="who runs the VM (default: who calls sudo, or root)")
    parser.add_argument("--apply", action="store_true", help="make the TAP of the VM too (root)")
    parser.add_argument(
        "--subnet", type=_subnet, metavar="NET", help="hand out addresses of this IPv4 subnet, 10.9.0.0/24"
    )
    parser.add_argument(
        "--gateway", type=_gateway, metavar="ADDRESS", help="the segment's router, if it has one"
    )
    parser.add_argument("--create", action="store_true", help="netns: make the namespace if it is missing")
    parser.add_argument(
        "--address", type=_address, metavar="A/LEN", help="an address for the guest, where it is told one"
    )
    parser.add_argument("--link", metavar="LINK", help="netns: the name of the end in the bridge (veth-NAME)")
    parser.add_argument("--inside", metavar="LINK", help=f"netns: the name of the end inside ({INSIDE})")
    output.add_json_option(parser)


def run(args: argparse.Namespace) -> int:
    """Print what joins, or do it."""
    if args.tool is None:
        _print_tools(args.json)
        return ExitCode.OK
    tool = _tool(args.tool)
    _refuse_mixture(tool, args)
    host = _look(args.name if tool.name == "netns" else None)
    segment = _segment(args, host)
    guest = _guest(tool, segment, args, host)
    if tool.name in ("netns", "tap") and args.name is not None:
        _act(tool, segment, guest, args, host)
        return ExitCode.OK
    made: list[Change] = []
    if args.apply and guest.tap is TapOf.NOBODY:
        made = _make_tap(segment, guest, host)
        guest = replace(guest, tap=TapOf.ATTACH)
    version = version_of(tool.program) if tool.program is not None else Version(())
    _print_recipe(tool, segment, guest, version, made, args.json)
    return ExitCode.OK


# What was asked


def _tool(name: str) -> Tool:
    if name not in TOOLS:
        raise UsageError(
            f"l2overlay attach: no tool {name!r}{suggestion(name, TOOLS)}; 'l2overlay attach' lists them"
        )
    return TOOLS[name]


def _refuse_mixture(tool: Tool, args: argparse.Namespace) -> None:
    for option, tools in ONLY_FOR.items():
        if getattr(args, option) and tool.name not in tools:
            raise UsageError(f"l2overlay attach: --{option} is for {', '.join(tools)}, not for {tool.name}")
    if args.apply and not tool.makes_tap:
        raise UsageError(
            f"l2overlay attach: --apply makes a TAP, and {tool.name} needs none: run what 'attach {tool.name}' prints"
        )
    if tool.name == "netns" and args.name is None and (args.create or args.link):
        raise UsageError("l2overlay attach netns: which namespace? NAME comes after `netns`")
    if args.name is not None and not _NAME.fullmatch(args.name):
        raise UsageError(
            f"l2overlay attach: {args.name!r} is not a name; use letters, digits and any of _ . + - (not first)"
        )


def _address(text: str) -> str:
    try:
        interface = ip_interface(text)
    except ValueError:
        interface = None
    if interface is None or "/" not in text:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not an address with its prefix; write it as 10.9.0.33/24"
        )
    return str(interface)


def _subnet(text: str) -> IPv4Network:
    try:
        return IPv4Network(text)
    except (AddressValueError, NetmaskValueError, ValueError) as error:
        raise argparse.ArgumentTypeError(f"{error}; write it as 10.9.0.0/24") from None


def _gateway(text: str) -> IPv4Address:
    try:
        return IPv4Address(text)
    except AddressValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not an IPv4 address") from None


# The segment and the guest


def _look(namespace: str | None) -> "HostView":
    from l2overlay.attach.observe import look

    return look(namespace)


def _segment(args: argparse.Namespace, host: "HostView") -> Segment:
    """As the node has it; without a node, as peers.toml has it. Raises NoDaemonError if there is neither."""
    from l2overlay.attach.known import segment_of_config, segment_of_node
    from l2overlay.config.read import load_config

    macs = [link.mac for link in host.links.values()]
    if args.peers is None:
        try:
            socket_path = chosen_run_dir(args).socket
            status, fdb = client.ask(socket_path, "status"), client.ask(socket_path, "fdb")
            return segment_of_node(status, fdb["stations"], macs)
        except NoDaemonError:
            file = _file_without_node(args)
            if file is None:
                raise
    else:
        file = args.peers
    config = load_config(file)
    hostname = socket.gethostname().split(".")[0]
    return segment_of_config(config, _own_key(config.segment.name), hostname, macs)


def _file_without_node(args: argparse.Namespace) -> Path | None:
    configured = configured_segments()
    if args.run_dir is None and args.segment is None and len(configured) > 1:
        raise UsageError(f"this host has several segments: {', '.join(configured)}; name one with --segment")
    name = args.segment or (configured[0] if configured and args.run_dir is None else None)
    return keys.CONFIGURATION_DIR / f"{name}.toml" if name in configured else None


def _own_key(segment: str) -> PeerKey | None:
    """None if this user may not read it: then nobody has to know it."""
    try:
        return keys.public_key(keys.load(keys.default_key_path(segment)))
    except (L2OverlayError, OSError):
        return None


def _guest(tool: Tool, segment: Segment, args: argparse.Namespace, host: "HostView") -> Guest:
    from l2overlay.attach.known import explain_missing_slice, require_own_address, slice_of
    from l2overlay.attach.plan import require_free

    name = args.name or _free_name(tool, host)
    part = slice_of(segment, args.subnet)
    if part is None and tool.needs_slice:
        raise explain_missing_slice(segment, tool.name)
    if args.gateway is not None and part is not None and args.gateway not in part.subnet:
        raise UsageError(f"the gateway {args.gateway} is not in {part.subnet}")
    if args.address:
        require_own_address(segment, args.address)
    address = args.address or (f"{part.static(name)}/{part.subnet.prefixlen}" if part is not None else "")
    mac = free_mac(segment.key, segment.name, name, segment.stations)
    tap = _whose_tap(name, segment, host) if tool.makes_tap else TapOf.NOBODY
    if tool.makes_tap and tap is TapOf.NOBODY:
        require_free(name, host, f"l2overlay attach {tool.name} NAME")
    return Guest(name, mac, _user(args.user), part, address, args.gateway, tap)


def _free_name(tool: Tool, host: "HostView") -> str:
    """The tool's usual one, with a number that no link has: vm1, vm2."""
    if not tool.makes_tap:
        return tool.guest
    base = tool.guest.rstrip("0123456789")
    names = (tool.guest, *(f"{base}{number}" for number in range(2, len(host.links) + 3)))
    return next(name for name in names if name not in host.links)


def _whose_tap(name: str, segment: Segment, host: "HostView") -> TapOf:
    """A TAP that no process has to hold, in the bridge of the segment. That of a node is another kind."""
    from l2overlay.attach.mark import Mark

    link = host.links.get(name)
    if link is None or not link.persistent or link.master != segment.bridge:
        return TapOf.NOBODY
    return TapOf.ATTACH if link.alias == Mark(segment.name, "tap", name).alias else TapOf.OTHERS


def _user(name: str | None) -> str:
    """The user's name; empty for root. Raises UsageError if there is no such user."""
    wanted = name or os.environ.get("SUDO_USER") or "root"
    try:
        found = pwd.getpwuid(int(wanted)) if wanted.isdecimal() else pwd.getpwnam(wanted)
    except (KeyError, OverflowError):
        known = [entry.pw_name for entry in pwd.getpwall()]
        raise UsageError(f"this host has no user {wanted!r}{suggestion(wanted, known)}") from None
    return "" if found.pw_uid == 0 else found.pw_name


def _uid(user: str) -> int:
    return pwd.getpwnam(user).pw_uid if user else 0


# What is done


def _act(tool: Tool, segment: Segment, guest: Guest, args: argparse.Namespace, host: "HostView") -> None:
    """Attach a namespace or make a TAP, and tell."""
    is_tap = tool.name == "tap"
    changes = _make_tap(segment, guest, host) if is_tap else _join_namespace(segment, guest, args, host)
    undo = f"l2overlay detach {tool.name} {guest.name}"
    notes = _notes(segment, guest if is_tap else None)
    if args.json:
        data = _head_data(tool, segment, guest) | {
            "link": changes[-1].link,
            "changes": [change.line for change in changes],
            "changed": True,
            "notes": notes,
            "undo": [undo],
        }
        output.print_json("attach/1", data)
        return
    print(_done_line(tool, segment, guest, args), *notes, f"'{undo}' takes it back", sep="\n")


def _done_line(tool: Tool, segment: Segment, guest: Guest, args: argparse.Namespace) -> str:
    if tool.name == "tap":
        return f"TAP {guest.name} of {guest.user or 'root'} is in {segment.bridge}; give the VM the MAC {guest.mac_text}"
    inside, link = args.inside or INSIDE, args.link or host_end(guest.name)
    address = f" with {args.address}" if args.address else ""
    return f"{inside} ({guest.mac_text}) in {guest.name}{address} is joined to {segment.bridge} by {link}"


def _make_tap(segment: Segment, guest: Guest, host: "HostView") -> "list[Change]":
    from l2overlay.attach.plan import plan_tap

    return _applied(plan_tap(segment, guest, _uid(guest.user), host, _port_mac()))


def _join_namespace(
    segment: Segment, guest: Guest, args: argparse.Namespace, host: "HostView"
) -> "list[Change]":
    from l2overlay.attach.plan import plan_netns

    changes = plan_netns(
        segment,
        guest,
        host,
        _port_mac(),
        create=args.create,
        address=args.address or "",
        link=args.link or "",
        inside=args.inside or INSIDE,
    )
    return _applied(changes)


def _applied(changes: "list[Change]") -> "list[Change]":
    from l2overlay.linux.apply import apply_changes

    require_privileges("attach")
    apply_changes(changes)
    return changes


def require_privileges(verb: str) -> None:
    """Raise HostPermissionError unless this process may change links."""
    from l2overlay.linux.privileges import has_capability, remedy

    if not has_capability("CAP_NET_ADMIN"):
        advice = remedy("CAP_NET_ADMIN", f"l2overlay {verb} ...")
        raise HostPermissionError(f"{verb} changes links, which needs CAP_NET_ADMIN; {advice}")


def _port_mac() -> MacAddress:
    """Of the end in the bridge. It begins with fe, as libvirt does: a bridge without a MAC of its own takes the lowest."""
    return MacAddress(b"\xfe" + secrets.token_bytes(5))


def _notes(segment: Segment, vm: Guest | None) -> list[str]:
    """What a person has to know besides. `vm`: who is to open a TAP."""
    notes = []
    if not segment.is_running:
        notes.append(f"no node of {segment.name} runs: start it with 'l2overlay join {segment.name}'")
    if vm is not None and vm.user and TUN.exists() and TUN.stat().st_mode & 0o006 != 0o006:
        notes.append(
            f"{vm.user} may not open {TUN} (mode {TUN.stat().st_mode & 0o777:04o}); as root: chmod 666 {TUN}"
        )
    return notes


# What is printed


def _print_tools(as_json: bool) -> None:
    if as_json:
        tools = [{"name": tool.name, "title": tool.title} for tool in TOOLS.values()]
        output.print_json("attach/1", {"tools": tools})
        return
    output.print_table(("TOOL", "JOINS"), [(tool.name, tool.title) for tool in TOOLS.values()])


def _print_recipe(
    tool: Tool, segment: Segment, guest: Guest, version: Version, made: "Sequence[Change]", as_json: bool
) -> None:
    recipe = tool.make(segment, guest, version)
    notes = _notes(segment, guest if tool.makes_tap else None)
    if as_json:
        data = _head_data(tool, segment, guest) | _recipe_data(tool, recipe, version)
        output.print_json(
            "attach/1", data | {"changes": [c.line for c in made], "notes": notes, "changed": bool(made)}
        )
        return
    head = [f"segment {segment.name}, bridge {segment.bridge}, MTU {segment.mtu}: {tool.title}"]
    if tool.program is not None:
        head.append(_version_line(tool, version))
    if guest.slice is not None:
        head.append(
            f"this host may hand out {guest.slice.first} to {guest.slice.last} of {guest.slice.subnet}"
        )
    head += [f"done: {change.line}" for change in made]
    print(recipe.script([*head, *(f"note: {note}" for note in notes)]))


def _version_line(tool: Tool, version: Version) -> str:
    assert tool.program is not None
    title = tool.program.title
    if not version.installed:
        return f"{title} is not installed here: these lines are for version {version}"
    return f"{title} {version} is installed" + (f" ({version.detail})" if version.detail else "")


def _head_data(tool: Tool, segment: Segment, guest: Guest) -> dict[str, Any]:
    part = guest.slice
    return {
        "tool": tool.name,
        "segment": segment.name,
        "bridge": segment.bridge,
        "mtu": segment.mtu,
        "name": guest.name,
        "mac": guest.mac_text,
        "user": guest.user or "root",
        "address": guest.address or None,
        "slice": None
        if part is None
        else {
            "subnet": str(part.subnet),
            "range": str(part.part),
            "pool": str(part.pool),
            "first": str(part.first),
            "last": str(part.last),
        },
    }


def _recipe_data(tool: Tool, recipe: Recipe, version: Version) -> dict[str, Any]:
    program = tool.program
    return {
        "program": None
        if program is None
        else {
            "title": program.title,
            "version": str(version),
            "installed": version.installed,
            "detail": version.detail or None,
        },
        "steps": [
            {"why": s.why, "script": s.script, "file": s.file or None, "text": s.text or None}
            for s in recipe.steps
        ],
        "pitfall": recipe.pitfall,
        "checks": list(recipe.checks),
        "undo": list(recipe.undo),
    }
