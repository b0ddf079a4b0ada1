"""`uplink = { nat = "eth0" }`: this node is the gateway of the segment. Rules (`linux/nat.py`) and sysctls.

IPv4 forwards by the interface that a datagram came in by, so the bridge and the uplink forward, and nobody else.
IPv6 forwards only if `all.forwarding` is set (`ip6_forward`). To set it changes every interface: it writes `forwarding` of
each, and drops the default routes that came by router advertisements, unless accept_ra is 2. So in this order:

    accept_ra = 2          of each interface that takes advertisements now
    forwarding = 1         of those that have it already: no change, but its inverse comes after that of `all`
    all.forwarding = 1
    forwarding = 0         of those that did not forward, except the bridge, which must tell its guests that it is a router
"""

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from l2overlay.errors import HostSetupError
from l2overlay.linux import nat
from l2overlay.linux.changes import Change
from l2overlay.linux.feature import Feature, HostSpec
from l2overlay.linux.nat import GatewaySpec
from l2overlay.linux.observe import SYSCTL_ROOT, read_sysctl
from l2overlay.linux.state import HostState

if TYPE_CHECKING:
    from pyroute2 import IPRoute

_SEGMENT = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_ABSENT = re.compile(r"([46]\.(nat|filter)=[A-Za-z,]{1,80} ?){0,4}")
_PATH = re.compile(r"ipv[46]/conf/(?!\.\.?/)[^/\s]{1,15}/(forwarding|accept_ra|rp_filter)")


@dataclass(frozen=True, slots=True)
class NatUplink:
    """What the configuration asks for."""

    uplink: str


@dataclass(frozen=True, slots=True)
class GatewayFacts:
    """What the plan needs to know of the host besides links and addresses."""

    missing: tuple[str, ...]
    """See `nat.missing`."""
    absent: str
    """See `nat.absent_parts`."""
    sysctls: Mapping[str, str]
    """forwarding, accept_ra and rp_filter of every interface, by path."""


@dataclass(frozen=True, slots=True)
class SetForwarding(Change):
    """Write a sysctl that concerns forwarding; of any interface, and of `all`. `link` is the bridge for whose sake."""

    path: str
    value: str
    was: str | None

    @property
    def line(self) -> str:
        return f"set net.{self.path.replace('/', '.')} = {self.value} for {self.link}"

    @property
    def inverse(self) -> Change | None:
        return None if self.was is None else SetForwarding(self.link, self.path, self.was, None)

    @property
    def target(self) -> tuple[object, ...]:
        return (type(self), self.path)

    @property
    def is_plausible(self) -> bool:
        return bool(_PATH.fullmatch(self.path)) and self.value in {"0", "1", "2"}

    def apply(self, ipr: "IPRoute") -> None:
        with contextlib.suppress(FileNotFoundError):  # its interface is gone, and the value with it
            (SYSCTL_ROOT / self.path).write_text(self.value)


@dataclass(frozen=True, slots=True)
class InstallGateway(Change):
    """Put the rules of a gateway in place."""

    spec: GatewaySpec
    absent: str

    @property
    def line(self) -> str:
        subnets = ", ".join(map(str, self.spec.networks))
        return (
            f"lead {subnets} of {self.link} out by {self.spec.uplink} (chains {self.spec.chain} of iptables)"
        )

    @property
    def inverse(self) -> Change:
        return RemoveGateway(self.link, self.spec.segment, self.absent)

    def apply(self, ipr: "IPRoute") -> None:
        nat.install(self.spec)


@dataclass(frozen=True, slots=True)
class RemoveGateway(Change):
    """Remove the rules of a segment's gateway."""

    segment: str
    absent: str
    """What `nat.absent_parts` said before the first rule."""

    @property
    def line(self) -> str:
        return f"remove the gateway of {self.link} (chains {nat.chain_name(self.segment)} of iptables)"

    @property
    def inverse(self) -> None:
        return None

    @property
    def target(self) -> tuple[object, ...]:
        return (type(self), self.segment)

    @property
    def is_plausible(self) -> bool:
        return bool(_SEGMENT.fullmatch(self.segment)) and bool(_ABSENT.fullmatch(self.absent))

    def apply(self, ipr: "IPRoute") -> None:
        nat.remove(self.segment, self.absent)


@dataclass(frozen=True, slots=True)
class NoteTables(Change):
    """Changes nothing. Its inverse outlives that of `InstallGateway`: [filter] may use a table when the gateway goes."""

    absent: str

    @property
    def line(self) -> str:
        return f"note which tables of iptables are made for {self.link}"

    @property
    def inverse(self) -> Change:
        return RemoveTables(self.link, self.absent)

    def apply(self, ipr: "IPRoute") -> None:
        pass


@dataclass(frozen=True, slots=True)
class RemoveTables(Change):
    """Remove the tables of iptables that were not there, if they are empty."""

    absent: str

    @property
    def line(self) -> str:
        return f"remove what iptables made for {self.link}, where it is empty"

    @property
    def inverse(self) -> None:
        return None

    @property
    def target(self) -> tuple[object, ...]:
        return (type(self), self.link)

    @property
    def is_plausible(self) -> bool:
        return bool(_ABSENT.fullmatch(self.absent))

    def apply(self, ipr: "IPRoute") -> None:
        nat.remove_tables(self.absent)


class Gateway(Feature):
    """Leads the segment out while the spec wants it; otherwise takes away what was made for it."""

    undo_kinds = (SetForwarding, RemoveGateway, RemoveTables)

    def links(self, spec: HostSpec) -> tuple[str, ...]:
        wanted = spec.wanted(NatUplink)
        return (wanted.uplink,) if wanted is not None else ()

    def observe(self, spec: HostSpec) -> object | None:
        wanted = _gateway_spec(spec)
        if wanted is None:
            return None
        return GatewayFacts(nat.missing(wanted), nat.absent_parts(wanted), _read_sysctls())

    def refuse(self, spec: HostSpec, state: HostState, *, tap_open: bool) -> None:
        missing = _missing_uplink(spec, state)
        if missing and not tap_open:
            raise HostSetupError(
                f"{missing}; correct uplink in this host's stanza, or make the interface first"
            )

    def plan(self, spec: HostSpec, state: HostState, made: Sequence[Change]) -> list[Change]:
        wanted, facts = _gateway_spec(spec), state.fact(GatewayFacts)
        if wanted is None or facts is None:
            return [change for change in made if isinstance(change, SetForwarding | RemoveGateway)]
        sysctls = list(_sysctls(wanted, facts.sysctls))
        back = [c for c in made if isinstance(c, SetForwarding) and not _is_still_wanted(c.path, wanted)]
        rules = [InstallGateway(spec.bridge, wanted, facts.absent)] if facts.missing else []
        noted = any(isinstance(change, RemoveTables) for change in made)
        tables = [NoteTables(spec.bridge, facts.absent)] if rules and facts.absent and not noted else []
        return [*back, *sysctls, *tables, *rules]

    def notes(self, spec: HostSpec, state: HostState) -> list[str]:
        wanted = _gateway_spec(spec)
        if wanted is None:
            return []
        subnets = ", ".join(map(str, wanted.networks))
        return [f"this host is the gateway of {subnets}, out by {wanted.uplink}"]

    def troubles(self, spec: HostSpec, state: HostState) -> list[str]:
        missing = _missing_uplink(spec, state)
        return [f"{missing}; nothing of the segment goes out until it is there"] if missing else []


def _gateway_spec(spec: HostSpec) -> GatewaySpec | None:
    wanted = spec.wanted(NatUplink)
    if wanted is None:
        return None
    networks = tuple(dict.fromkeys(address.network for address in spec.addresses))
    return GatewaySpec(spec.segment, spec.bridge, wanted.uplink, networks)


def _missing_uplink(spec: HostSpec, state: HostState) -> str:
    wanted = spec.wanted(NatUplink)
    return f"there is no interface {wanted.uplink}" if wanted and wanted.uplink not in state.links else ""


def _read_sysctls() -> dict[str, str]:
    paths = [
        f"{family}/conf/{folder.name}/{name}"
        for family, names in (("ipv4", ("forwarding", "rp_filter")), ("ipv6", ("forwarding", "accept_ra")))
        for folder in sorted((SYSCTL_ROOT / family / "conf").glob("*"))
        for name in names
    ]
    return {path: value for path in paths if (value := read_sysctl(path)) is not None}


def _is_still_wanted(path: str, wanted: GatewaySpec) -> bool:
    """Whether a gateway of this kind may have written the sysctl."""
    if path.startswith("ipv6/"):
        return bool(wanted.of_family(6))
    uplink = f"ipv4/conf/{wanted.uplink}/"
    return bool(wanted.of_family(4)) and (path.startswith(uplink) or path == _forwarding(4, wanted.bridge))


def _sysctls(wanted: GatewaySpec, now: Mapping[str, str]) -> Iterator[SetForwarding]:
    bridge, uplink = wanted.bridge, wanted.uplink
    if wanted.of_family(4):
        yield from _set(bridge, _forwarding(4, bridge), "1", now, born_with=_forwarding(4, "default"))
        yield from _set(bridge, _forwarding(4, uplink), "1", now)
        strict = f"ipv4/conf/{uplink}/rp_filter"  # the larger of this and that of `all` is in force
        if now.get(strict) in {"0", "1"} and "1" in {now[strict], now.get("ipv4/conf/all/rp_filter")}:
            yield from _set(bridge, strict, "2", now)
    if wanted.of_family(6) and now.get(_forwarding(6, "all")) == "0":
        yield from _forward_ipv6(bridge, now)
    elif wanted.of_family(6):
        yield from _set(bridge, _forwarding(6, bridge), "1", now, born_with=_forwarding(6, "default"))


def _forward_ipv6(bridge: str, now: Mapping[str, str]) -> Iterator[SetForwarding]:
    links = [link for path in now if (link := path.split("/")[2]) != "all" and path == _forwarding(6, link)]
    others = [link for link in links if link != bridge]
    for link in others:
        if now.get(f"ipv6/conf/{link}/accept_ra") == "1" and link != "default":
            yield from _set(bridge, f"ipv6/conf/{link}/accept_ra", "2", now)
    for link in links:
        if now[_forwarding(6, link)] == "1":
            yield SetForwarding(bridge, _forwarding(6, link), "1", "1")
    yield SetForwarding(bridge, _forwarding(6, "all"), "1", "0")
    for link in others:
        if now[_forwarding(6, link)] == "0":
            yield SetForwarding(bridge, _forwarding(6, link), "0", "0")


def _set(
    bridge: str, path: str, value: str, now: Mapping[str, str], *, born_with: str = ""
) -> Iterator[SetForwarding]:
    """`born_with`: the sysctl whose value the path has when its link is made; the bridge may not be there yet."""
    was = now.get(path, now.get(born_with))
    if was is not None and was != value:
        yield SetForwarding(bridge, path, value, was)


def _forwarding(version: int, link: str) -> str:
    return f"ipv{version}/conf/{link}/forwarding"
