"""The largest datagram that the local link towards a host takes. What the path behind it takes, `PathMtu` finds out."""

import contextlib

from l2overlay.linux.rtnetlink import link_mtu, route_link
from l2overlay.linux.udp_addresses import CACHE_SIZE, scope_of
from l2overlay.seams import MAX_BURST_LEN

IPV4_OVERHEAD = 28
IPV6_OVERHEAD = 48
DEFAULT_MTU = 1500


class PathLimits:
    """The largest datagram that the local link towards each host takes, remembered."""

    def __init__(self) -> None:
        self._limits: dict[str, int] = {}

    def limit(self, host: str) -> int:
        """The largest UDP payload in bytes: the MTU of the link less headers."""
        limit = self._limits.get(host)
        if limit is None:
            limit = _link_limit(host)
            if len(self._limits) >= CACHE_SIZE:
                self._limits.clear()
            self._limits[host] = limit
        return limit

    def forget(self) -> None:
        """Ask the kernel again: a link or route changed."""
        self._limits.clear()


def _link_limit(host: str) -> int:
    host, _, zone = host.partition("%")
    mtu = DEFAULT_MTU
    with contextlib.suppress(OSError):  # no route, or gone between two questions
        link = route_link(host, scope_of(zone))
        if link is not None:
            mtu = link_mtu(link)
    return min(mtu - (IPV6_OVERHEAD if ":" in host else IPV4_OVERHEAD), MAX_BURST_LEN)
