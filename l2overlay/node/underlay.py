"""Which way the datagrams to our peers leave this host: to tell a change that matters from the noise of a busy host."""

import itertools
import socket
from collections.abc import Callable, Iterable
from typing import NamedTuple

from l2overlay.addresses import Address
from l2overlay.linux.rtnetlink import route_link

LOOKED_AT = 64
"""Peers whose paths are looked at again, about 60 us each; the ways out of one host are few."""


class Path(NamedTuple):
    """The way out: link and source address, both empty without a route."""

    link: str
    source: str


def path_to(address: Address) -> Path:
    """The path that the kernel would choose now. Connecting a UDP socket sends nothing, and chooses a source address."""
    host, _, zone = address.host.partition("%")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        scope = socket.if_nametoindex(zone) if zone else 0
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((host, address.port, 0, scope) if ":" in host else (host, address.port))
            source = probe.getsockname()[0]
        index = route_link(host, scope)
        return Path(socket.if_indextoname(index) if index else "", source)
    except OSError:
        return Path("", "")


class Paths:
    """The paths to our peers as they were when last looked at."""

    def __init__(self, look: Callable[[Address], Path] = path_to) -> None:
        self.look = look
        """The path that the kernel would choose now."""
        self._known: dict[str, Path] = {}

    def learn(self, address: Address) -> Path:
        """A peer is, or may be, at this address."""
        path = self._known[address.host] = self.look(address)
        return path

    def changed(self, addresses: Iterable[Address], links: frozenset[str]) -> bool:
        """Whether one of the paths is another now, or goes over one of `links`, of which there was news; "" is any link.

        Of many addresses the first are looked at."""
        before, found = self._known, {a.host: self.look(a) for a in itertools.islice(addresses, LOOKED_AT)}
        self._known = found
        used = {path.link for path in (*before.values(), *found.values())}
        moved = any(before.get(host, path) != path for host, path in found.items())
        return moved or bool(links & (used | {""}))
