"""Datagrams of ours that come back from the TAP: the route to a peer leads into the bridge that its datagrams carry.

Sealed again, each would come back once more, as fast as the node can. The node looks for them while the way to a peer goes
by its own bridge, and at no other time.

It tells them by their addresses and ports, which follow one another in both families. (IPv4 options would come between
them; our datagrams have none.)

    IPv4  ... source[4] destination[4] | source port[2] destination port[2]
    IPv6  ... source[16] destination[16] | source port[2] destination port[2]
"""

from collections.abc import Iterable
from ipaddress import ip_address

from l2overlay import inet
from l2overlay.addresses import Address
from l2overlay.dataplane.ethernet import ETHERNET_HEADER_LEN, MAX_TAGS, VIRTIO_LEN

_ETHERTYPE = VIRTIO_LEN + ETHERNET_HEADER_LEN - 2
_FLOWS = {inet.IPV4: slice(12, 24), inet.IPV6: slice(8, 44)}
"""Where in the IP header the addresses begin, and the ports behind it end."""
_PROTOCOLS = {inet.IPV4: 9, inet.IPV6: 6}


class OwnDatagrams:
    """What the node's own datagrams to some peers look like."""

    def __init__(self, port: int, ways: Iterable[tuple[str, Address]]) -> None:
        """`port` is ours; each way is our address and that of the peer."""
        self._flows = {_flow(source, port, peer) for source, peer in ways}

    def __bool__(self) -> bool:
        return bool(self._flows)

    def includes(self, frame: bytes) -> bool:
        """Whether a frame from the TAP holds such a datagram, tagged or not. Also of a burst that is cut later."""
        kind, at, _ = inet.past_tags(frame, _ETHERTYPE, MAX_TAGS)
        if kind not in _FLOWS or len(frame) < at + 44:
            return False
        flow = _FLOWS[kind]
        is_udp = frame[at + _PROTOCOLS[kind]] == inet.UDP
        return is_udp and frame[at + flow.start : at + flow.stop] in self._flows


def _flow(source: str, port: int, peer: Address) -> bytes:
    addresses = b"".join(ip_address(host.partition("%")[0]).packed for host in (source, peer.host))
    return addresses + port.to_bytes(2, "big") + peer.port.to_bytes(2, "big")
