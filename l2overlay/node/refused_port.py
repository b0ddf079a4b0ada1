"""Why a silent peer does not answer, where a host or router on the way says it: ICMP and ICMPv6 errors.

A socket of its own asks: one empty datagram, from a port that is used once, to the peer's endpoint. The errors come to that
socket (IP_RECVERR, ip(7)), so the one that carries frames neither hears of them nor loses a send to them. ICMP is not
authenticated: what it says changes the words of `status`, and no session, timer or address.

Limit: a Linux router without a route to the peer, or with an `unreachable` one, counts each error twice against one error a
second and address (ip_error and icmpv4_xrlim_allow of Linux 6.18 share their tokens). Handshakes are more frequent than
every 2 s, so after the first two or three such a router says nothing, to this socket neither.
"""

import errno
import socket
from collections.abc import Callable

import trio

from l2overlay.addresses import Address, PeerKey
from l2overlay.linux.udp_addresses import scope_of

IP_RECVERR = 11
IPV6_RECVERR = 25
ANSWER_TIME = 3.5
"""Seconds. A router that finds no neighbour says so after three ARP requests, a second apart."""
MAX_QUESTIONS = 4
"""Under way at once; of more silent peers some are asked at a later report. With 16 a node with 997 silent peers took 0.2 %
of a core more (tests/host/test_limits.py)."""
KEEP_TIME = 40.0
"""Seconds that an answer is worth telling: a silent peer is asked several times meanwhile."""

WORDS = {
    errno.ECONNREFUSED: "port closed at {} (ICMP): is the node running there?",
    errno.EHOSTUNREACH: "host {} is unreachable (ICMP): is it on, and is its address right?",
    errno.ENETUNREACH: "no route to {} (ICMP): is the address right?",
    errno.EACCES: "{} is refused by a firewall on the way (ICMP)",
}
"""What a host, router or firewall said about the address."""


class RefusedPorts:
    """What ICMP says of the endpoints of peers that do not answer."""

    def __init__(self, nursery: trio.Nursery, clock: Callable[[], float]) -> None:
        self._nursery = nursery
        self._clock = clock
        self._asking: set[PeerKey] = set()
        self._said: dict[PeerKey, tuple[Address, str, float]] = {}

    def ask(self, key: PeerKey, address: Address) -> None:
        """The peer does not answer at `address`: find out whether somebody says why."""
        if key not in self._asking and len(self._asking) < MAX_QUESTIONS:
            self._asking.add(key)
            self._nursery.start_soon(self._ask, key, address)

    def forget(self, key: PeerKey) -> None:
        """The peer answers."""
        self._said.pop(key, None)

    def reason(self, key: PeerKey, address: Address | None) -> str | None:
        """Why the peer does not answer at `address`, as far as somebody said it lately."""
        where, text, time = self._said.get(key, (None, "", 0.0))
        is_same = where is not None and address is not None and where[:2] == address[:2]
        return text if is_same and self._clock() < time + KEEP_TIME else None

    async def _ask(self, key: PeerKey, address: Address) -> None:
        try:
            code = await icmp_error(address)
        finally:
            self._asking.discard(key)
        self.forget(key)
        if code in WORDS:
            self._said[key] = address, WORDS[code].format(address), self._clock()


async def icmp_error(address: Address) -> int:
    """The errno that ICMP gives for `address` within `ANSWER_TIME`; 0 when nobody says anything."""
    host, _, zone = address.host.partition("%")
    is_v6 = ":" in host
    try:
        with socket.socket(socket.AF_INET6 if is_v6 else socket.AF_INET, socket.SOCK_DGRAM) as asking:
            asking.setblocking(False)
            if is_v6:
                asking.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVERR, 1)
            else:
                asking.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
            asking.connect((host, address.port, 0, scope_of(zone)) if is_v6 else (host, address.port))
            asking.send(b"")
            with trio.move_on_after(ANSWER_TIME):
                await trio.lowlevel.wait_readable(asking)
                asking.recv(1)
    except OSError as error:
        return error.errno or 0
    return 0
