"""Which changes attach a namespace or a TAP, and which detach it: pure functions of what the host looks like.

Each refuses first what must not be done, in one line, before anything is changed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from l2overlay.addresses import MacAddress, format_mac
from l2overlay.attach.changes import (
    CreateNamespace,
    CreateTap,
    CreateVeth,
    RemoveLink,
    RemoveNamespace,
    SetUpInside,
)
from l2overlay.attach.mark import Mark
from l2overlay.attach.segment import Guest, Segment
from l2overlay.attach.tools.netns import INSIDE, host_end
from l2overlay.errors import HostSetupError, NoDaemonError, UsageError
from l2overlay.linux.changes import Change, SetMaster, SetSysctl, SetUp
from l2overlay.linux.state import LinkState
from l2overlay.suggestion import suggestion

NAME_MAX_LEN = 15
"""IFNAMSIZ less the terminating zero."""


@dataclass(frozen=True, slots=True)
class HostView:
    """What the plans look at."""

    links: Mapping[str, LinkState] = field(default_factory=dict)
    namespaces: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """All names, and the links in the one that the plan is about."""
    used_namespaces: frozenset[str] = frozenset()
    """That one, if a process is in it."""
    has_ipv6: bool = True


@dataclass(frozen=True, slots=True)
class Attachment:
    """A link that `attach` made."""

    mark: Mark
    link: LinkState


def attachments(host: HostView) -> list[Attachment]:
    """All of them, by name of the link."""
    found = ((Mark.from_alias(link.alias), link) for _, link in sorted(host.links.items()))
    return [Attachment(mark, link) for mark, link in found if mark is not None]


# Attach


def plan_tap(
    segment: Segment, guest: Guest, owner: int, host: HostView, port_mac: MacAddress
) -> list[Change]:
    """A TAP of the guest's name for the user with the number `owner`."""
    bridge = require_bridge(segment, host)
    require_free(guest.name, host, "l2overlay attach tap NAME")
    mark = Mark(segment.name, "tap", guest.name)
    create = CreateTap(guest.name, owner, format_mac(port_mac), max(segment.mtu, bridge.mtu), mark.alias)
    return [create, *_into_bridge(guest.name, segment, host)]


def plan_netns(
    segment: Segment,
    guest: Guest,
    host: HostView,
    port_mac: MacAddress,
    *,
    create: bool = False,
    address: str = "",
    link: str = "",
    inside: str = INSIDE,
) -> list[Change]:
    """A veth into the namespace of the guest's name. An adopted bridge keeps its MTU: it takes the least of its ports."""
    bridge = require_bridge(segment, host)
    link = link or host_end(guest.name)
    require_free(link, host, f"l2overlay attach netns {guest.name} --link NAME")
    require_length(inside, "--inside NAME")
    exists = guest.name in host.namespaces
    if not exists and not create:
        raise UsageError(
            f"no network namespace {guest.name}{suggestion(guest.name, host.namespaces)}; --create makes it, "
            "'ip netns list' lists them"
        )
    if inside in host.namespaces.get(guest.name, ()):
        raise UsageError(
            f"the namespace {guest.name} has a link {inside} already; give another name: --inside NAME"
        )
    mark = Mark(segment.name, "netns", guest.name, made_namespace=not exists)
    veth = CreateVeth(
        link,
        guest.name,
        inside,
        guest.mac_text,
        segment.mtu,
        format_mac(port_mac),
        max(segment.mtu, bridge.mtu),
        mark.alias,
    )
    made = [] if exists else [CreateNamespace(link, guest.name)]
    return [*made, veth, *_into_bridge(link, segment, host), SetUpInside(link, guest.name, inside, address)]


def _into_bridge(link: str, segment: Segment, host: HostView) -> list[Change]:
    """A port has no IPv6 of its own, or it would send solicitations."""
    quiet = [SetSysctl(link, f"ipv6/conf/{link}/disable_ipv6", "1", None)] if host.has_ipv6 else []
    return [*quiet, SetMaster(link, segment.bridge, None), SetUp(link, True, None)]


def require_bridge(segment: Segment, host: HostView) -> LinkState:
    """The bridge. Raises NoDaemonError if it is not there, HostSetupError if it is no bridge."""
    bridge = host.links.get(segment.bridge)
    if bridge is None:
        raise NoDaemonError(
            f"this host has no bridge {segment.bridge}: start the node that makes it with 'l2overlay join {segment.name}'"
        )
    if bridge.kind != "bridge":
        raise HostSetupError(f"{segment.bridge} is not a bridge; set another bridge in [segment]")
    return bridge


def require_free(link: str, host: HostView, how: str) -> None:
    """Raises UsageError for a name that is too long or taken. `how`: the way to give another one."""
    require_length(link, how)
    taken = host.links.get(link)
    if taken is None:
        return
    mark = Mark.from_alias(taken.alias)
    if mark is not None:
        undo = f"'l2overlay detach {mark.kind} {mark.name}' removes it"
        raise UsageError(f"{link} is attached to {mark.segment} already; {undo}, or give another name: {how}")
    raise UsageError(f"this host has a link {link} already; give another name: {how}")


def require_length(link: str, how: str) -> None:
    """Raises UsageError for a name that is too long for a link."""
    length = len(link.encode())
    if length > NAME_MAX_LEN:
        raise UsageError(
            f"{link!r} has {length} bytes, and a link's name at most {NAME_MAX_LEN}; give another one: {how}"
        )


# Detach


@dataclass(frozen=True, slots=True)
class Detaching:
    """What detaches one attachment, and what stays although we made it."""

    changes: tuple[Change, ...]
    kept: str = ""


def plan_detach(
    kind: str, name: str, segment: str | None, host: HostView, *, force: bool = False
) -> Detaching:
    """What removes what `attach KIND NAME` made. Raises UsageError if it made no such thing, or a VM uses it."""
    found = _only(kind, name, segment, host)
    link = found.link
    if kind == "tap" and link.carrier and link.up and not force:
        raise HostSetupError(f"a program holds the TAP {link.name}: stop the VM first, or give --force")
    remove = RemoveLink(link.name, link.alias, link.mac, index=link.index)
    if not found.mark.made_namespace or name not in host.namespaces:
        return Detaching((remove,))
    reason = _why_kept(name, host)
    if reason:
        return Detaching((remove,), f"the namespace {name} stays: {reason}")
    return Detaching((remove, RemoveNamespace(link.name, name)))


def _only(kind: str, name: str, segment: str | None, host: HostView) -> Attachment:
    ours = [a for a in attachments(host) if a.mark.kind == kind and segment in (None, a.mark.segment)]
    found = [a for a in ours if a.mark.name == name]
    if not found:
        names = [a.mark.name for a in ours]
        known = f"; attached are: {', '.join(names)}" if names else ""
        raise UsageError(f"'attach {kind}' made no {name} on this host{suggestion(name, names)}{known}")
    if len(found) > 1:
        segments = ", ".join(a.mark.segment for a in found)
        raise UsageError(f"{name} is attached more than once ({segments}); name one: --segment SEGMENT")
    return found[0]


def _why_kept(namespace: str, host: HostView) -> str:
    """What else is in a namespace that we made. Our link is one of those inside."""
    if namespace in host.used_namespaces:
        return "a process is in it"
    others: Sequence[str] = sorted(host.namespaces[namespace] - {"lo"})
    return f"it has other links ({', '.join(others)})" if len(others) > 1 else ""
