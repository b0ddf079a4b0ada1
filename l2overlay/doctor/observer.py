"""Reads what the checks look at: links, sysctls, routes, rules. Changes nothing, and sees this network namespace only.

Links and sysctls come by `linux.observe`, as for the plan of a node. If a program is missing, `HostView.not_examined` says
what it would have shown.
"""

import contextlib
import itertools
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

from l2overlay.doctor.nft_rules import parse_nft
from l2overlay.doctor.rulesets import Ruleset
from l2overlay.doctor.saved_rules import FAMILIES, parse_saved
from l2overlay.doctor.view import (
    HostView,
    RouteView,
    SegmentView,
    StationView,
)
from l2overlay.errors import HostPermissionError
from l2overlay.linux import observe
from l2overlay.linux.observe import attribute
from l2overlay.linux.privileges import has_capability, remedy
from l2overlay.linux.state import LinkState

if TYPE_CHECKING:
    from pyroute2 import IPRoute

TIMEOUT = 20.0
PROC = Path("/proc")
MAX_ROUTES = 64
"""At most so many peers and neighbours are asked for their routes; a host has few ways out."""
NUD_PERMANENT, NUD_USABLE = 0x80, 0x02 | 0x04 | 0x08 | 0x10
"""NUD_REACHABLE, STALE, DELAY, PROBE: a station was heard with the address."""
LEGACY_TABLES = {"iptables": "ip_tables_names", "ip6tables": "ip6_tables_names"}
BRIDGE_SYSCTLS = tuple(f"bridge-nf-call-{name}" for name in observe.PROGRAMS)


@dataclass(frozen=True, slots=True)
class _Rules:
    rulesets: tuple[Ruleset, ...]
    missing: tuple[str, ...]


def check_privileges() -> None:
    """Raise HostPermissionError unless this process may read rules (and change them)."""
    if not has_capability("CAP_NET_ADMIN"):
        advice = remedy("CAP_NET_ADMIN", "l2overlay doctor ...")
        raise HostPermissionError(
            f"doctor reads the host's packet filter, which needs CAP_NET_ADMIN; {advice}"
        )


def local_addresses() -> list[str]:
    """Every address of this host."""
    with observe.netlink() as ipr:
        return [str(address.ip) for found in observe.read_addresses(ipr).values() for address in found]


def is_in_this_namespace(pid: int) -> bool:
    """Whether the process sees the same network as we do."""
    try:
        return (PROC / f"{pid}/ns/net").samefile(PROC / "self/ns/net")
    except OSError:
        return False


def link_names() -> set[str]:
    """Every link of this namespace."""
    with observe.netlink() as ipr:
        return {link.name for link in observe.read_links(ipr)}


def look(segment: SegmentView) -> HostView:
    """Read everything once."""
    with observe.netlink() as ipr:
        links = _links(ipr, segment)
        view = HostView(segment, links, stations=tuple(_stations(ipr, links, segment)))
        hosts = [peer.host for peer in segment.peers if peer.host is not None]
        routes = tuple(_routes(ipr, links, hosts))
        returns = tuple(_routes(ipr, links, _addresses_behind(ipr, view)))
    rules = _read_rules()
    return replace(
        view,
        sysctls=_sysctls(segment.bridge),
        rulesets=rules.rulesets,
        routes=routes,
        returns=returns,
        reverse_path_drops=_reverse_path_drops(),
        not_examined=(*rules.missing, *_names_not_asked(segment)),
    )


def look_again(view: HostView) -> HostView:
    """Read the counters once more."""
    drops = (*view.reverse_path_drops, *_reverse_path_drops())
    return replace(view, later=_read_rules().rulesets, reverse_path_drops=drops)


# Links


def _links(ipr: "IPRoute", segment: SegmentView) -> tuple[LinkState, ...]:
    """Every link; with the VLANs of the ports if the bridge filters them."""
    links = observe.read_links(ipr)
    bridge = next((link.bridge for link in links if link.name == segment.bridge), None)
    if bridge is None or not bridge.vlan_filtering:
        return links
    vlans = _vlans(ipr)
    return tuple(_with_vlans(link, vlans.get(link.index, frozenset())) for link in links)


def _with_vlans(link: LinkState, vlans: frozenset[int]) -> LinkState:
    return replace(link, port=replace(link.port, vlans=vlans)) if link.port is not None else link


def _vlans(ipr: "IPRoute") -> dict[int, frozenset[int]]:
    found = {}
    for link in ipr.get_vlans():
        spec = link.get_attr("IFLA_AF_SPEC")
        entries = spec.get_attrs("IFLA_BRIDGE_VLAN_INFO") if hasattr(spec, "get_attrs") else []
        found[link["index"]] = frozenset(int(entry["vid"]) for entry in entries)
    return found


def _stations(ipr: "IPRoute", links: tuple[LinkState, ...], segment: SegmentView) -> Iterator[StationView]:
    """The stations that the kernel's bridge has learned."""
    ports = {link.index: link.name for link in links if link.master == segment.bridge}
    for entry in ipr.fdb("dump"):
        mac, port = entry.get_attr("NDA_LLADDR"), ports.get(entry["ifindex"])
        if mac and port and not entry["state"] & NUD_PERMANENT and entry.get_attr("NDA_MASTER"):
            yield StationView(mac, port)


# Routes


def _routes(ipr: "IPRoute", links: tuple[LinkState, ...], hosts: list[str]) -> Iterator[RouteView]:
    from pyroute2.netlink.exceptions import NetlinkError

    by_index = {link.index: link for link in links}
    for host in itertools.islice(dict.fromkeys(hosts), MAX_ROUTES):
        numeric = host.partition("%")[0]
        if not _is_numeric(numeric):
            continue
        try:
            route = ipr.route("get", dst=numeric)[0]
        except NetlinkError:
            continue  # no route: the node tells of it with its peer
        link = by_index.get(route.get_attr("RTA_OIF") or 0)
        if link is not None:
            metrics = route.get_attr("RTA_METRICS")
            hop = route.get_attr("RTA_GATEWAY") or numeric
            station = next((mac for address, mac in _neighbours(ipr, link.index) if address == hop), "")
            yield RouteView(host, link.name, attribute(metrics, "RTAX_MTU", link.mtu), station)


def _neighbours(ipr: "IPRoute", link: int) -> Iterator[tuple[str, str]]:
    """Address and MAC of each neighbour that was heard on a link."""
    for entry in ipr.get_neighbours(ifindex=link):
        if entry.get_attr("NDA_LLADDR"):
            yield entry.get_attr("NDA_DST"), entry.get_attr("NDA_LLADDR")


def _addresses_behind(ipr: "IPRoute", view: HostView) -> list[str]:
    """IPv4 addresses that must be behind the bridge: one of each of its networks, and those that were heard there."""
    bridge = view.bridge
    if bridge is None:
        return []
    networks = [a for a in bridge.addresses if a.version == 4 and a.network.num_addresses > 2]
    found = [str(next(host for host in a.network.hosts() if host != a.ip)) for a in networks]
    for entry in ipr.get_neighbours():
        if entry["ifindex"] == bridge.index and entry["state"] & NUD_USABLE:
            found.append(entry.get_attr("NDA_DST"))
    return [host for host in found if ":" not in host]


def _is_numeric(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _names_not_asked(segment: SegmentView) -> list[str]:
    names = [p.host for p in segment.peers if p.host and not _is_numeric(p.host.partition("%")[0])]
    return (
        [f"the route to {', '.join(names)}: no node is running that has resolved the name"] if names else []
    )


# Sysctls and counters


def _sysctls(bridge: str) -> dict[str, str]:
    """Values by dotted name. A dot in the name of a link stays a dot."""
    paths = {f"net.bridge.{name}": f"bridge/{name}" for name in BRIDGE_SYSCTLS}
    paths |= {f"net.ipv4.conf.{n}.rp_filter": f"ipv4/conf/{n}/rp_filter" for n in ("all", bridge)}
    return {name: value for name, path in paths.items() if (value := observe.read_sysctl(path)) is not None}


def _reverse_path_drops() -> tuple[int, ...]:
    """TcpExt IPReversePathFilter of /proc/net/netstat, which has names in one line and values in the next."""
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = iter((PROC / "net/netstat").read_text().splitlines())
        names = next(line for line in lines if line.startswith("TcpExt:")).split()
        return (int(next(lines).split()[names.index("IPReversePathFilter")]),)
    return ()


# Rules


def _read_rules() -> _Rules:
    rulesets: list[Ruleset] = []
    missing: list[str] = []
    for tool in FAMILIES:
        found = _saved(tool)
        if found is None:
            missing.append(f"the rules of {tool}: {tool}-save is not installed, or the kernel cannot")
        rulesets += found or []
    shown = frozenset((r.family, r.table) for r in rulesets if not r.tool.endswith("-legacy"))
    text = _output("nft", "-a", "list", "ruleset")
    if text is None:
        missing.append("the rules of nftables: nft is not installed, or the kernel cannot")
    return _Rules((*rulesets, *parse_nft(text or "", shown)), tuple(missing))


def _saved(tool: str) -> list[Ruleset] | None:
    """The tables of a tool, of both variants. iptables-legacy is asked only if it has tables: asking may load modules."""
    version = _output(tool, "--version") or ""
    is_legacy = "nf_tables" not in version
    if tool in LEGACY_TABLES:
        in_use = _has_legacy_tables(tool)
        text = _output(f"{tool}-save", "-c") if not is_legacy or in_use else ""
        found = None if text is None else parse_saved(tool, text)
        if in_use and not is_legacy:
            legacy = _output(f"{tool}-legacy-save", "-c")
            return [*(found or []), *parse_saved(f"{tool}-legacy", legacy or "")]
        return found if version else None
    if is_legacy:
        return None
    text = _output(f"{tool}-save", "-c")
    return None if text is None else parse_saved(tool, text)


def _has_legacy_tables(tool: str) -> bool:
    with contextlib.suppress(OSError):
        return bool((PROC / "net" / LEGACY_TABLES[tool]).read_text().strip())
    return False


def _output(*argv: str) -> str | None:
    """What a program prints; None if it is missing or fails."""
    try:
        done = subprocess.run(
            argv, capture_output=True, text=True, errors="replace", timeout=TIMEOUT, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
