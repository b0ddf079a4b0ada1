"""What the kernel counts of one link, by one rtnetlink message (`struct rtnl_link_stats64` of linux/if_link.h).

The directions of a TAP are those of the kernel: it sends what the node reads. What it drops on the way to the node had no
room in the queue of the TAP. What it drops on the way from the node never reached the bridge.
"""

import struct
from dataclasses import dataclass

from l2overlay.linux import rtnetlink

IFLA_IFNAME, IFLA_STATS64 = 3, 23
_STATS = struct.Struct(
    "=8Q"
)  # rx_packets, tx_packets, rx_bytes, tx_bytes, rx_errors, tx_errors, rx_dropped, tx_dropped


@dataclass(frozen=True, slots=True)
class LinkCounters:
    """Frames that the kernel dropped since the link was made."""

    index: int
    rx_dropped: int
    """Errors included."""
    tx_dropped: int


def read_link_counters(link: str) -> LinkCounters | None:
    """The counters of the link with this name; None if there is none, or the kernel does not answer."""
    try:
        return _parse(rtnetlink.ask_link(link))
    except OSError:
        return None


def _parse(answer: bytes) -> LinkCounters | None:
    for kind, body in rtnetlink.messages(answer):
        if kind == rtnetlink.RTM_NEWLINK:
            index = rtnetlink.IFINFOMSG.unpack_from(body)[2]
            stats = rtnetlink.attributes(body[rtnetlink.IFINFOMSG.size :]).get(IFLA_STATS64, b"")
            if len(stats) >= _STATS.size:
                _, _, _, _, rx_errors, tx_errors, rx_dropped, tx_dropped = _STATS.unpack_from(stats)
                return LinkCounters(index, rx_errors + rx_dropped, tx_errors + tx_dropped)
    return None
