"""Reads what the plans of `attach` and `detach` look at."""

import contextlib
from pathlib import Path

from l2overlay.attach import changes
from l2overlay.attach.plan import HostView
from l2overlay.linux.observe import has_ipv6, netlink, read_links


def look(namespace: str | None = None) -> HostView:
    """This host, and the one namespace that a plan is about; the others are known by name only."""
    with netlink() as ipr:
        links = {link.name: link for link in read_links(ipr)}
    names = namespaces()
    return HostView(
        links=links,
        namespaces={name: _links_in(name) if name == namespace else frozenset() for name in names},
        used_namespaces=_used(namespace) if namespace in names else frozenset(),
        has_ipv6=has_ipv6(),
    )


def namespaces() -> list[str]:
    """The names that `ip netns` knows."""
    try:
        return sorted(path.name for path in changes.NAMESPACES.iterdir())
    except OSError:
        return []


def _links_in(namespace: str) -> frozenset[str]:
    """Empty for a namespace that this process may not enter."""
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        with changes.inside(namespace) as inner:
            return frozenset(link.get_attr("IFLA_IFNAME") for link in inner.link("dump"))
    except (OSError, NetlinkError):
        return frozenset()


def _used(namespace: str | None) -> frozenset[str]:
    """The namespace, if a process is in it (nsfs: a namespace is an inode)."""
    if namespace is None:
        return frozenset()
    with contextlib.suppress(OSError):
        wanted = (changes.NAMESPACES / namespace).stat()
        for process in Path("/proc").glob("[0-9]*/ns/net"):
            with contextlib.suppress(OSError):
                if process.stat().st_ino == wanted.st_ino:
                    return frozenset({namespace})
    return frozenset()
