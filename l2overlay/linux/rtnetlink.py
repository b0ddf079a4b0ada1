"""rtnetlink (RFC 3549) as far as a running node reads it: messages, their attributes, and a few questions.

The plan of a node and its changes go through pyroute2 (`observe.py`, `apply.py`), which costs 125 ms and 24 MB to import.
What is here is asked and heard while frames flow. All numbers are in host byte order; attributes are padded to four bytes.

    struct nlmsghdr  length u32 | type u16 | flags u16 | sequence u32 | port u32
    struct rtattr    length u16 | type u16 | value
"""

import contextlib
import errno
import fcntl
import socket
import struct
from collections.abc import Iterator

NLMSGHDR = struct.Struct("=IHHII")
IFINFOMSG = struct.Struct("=BxHiII")  # family, ARP type, index, flags, change mask
IFADDRMSG = struct.Struct("=BBBBI")  # family, prefix length, flags, scope, index
RTMSG = struct.Struct(
    "=BBBBBBBBI"
)  # family, dst length, src length, tos, table, protocol, scope, type, flags
RTATTR = struct.Struct("=HH")
_U32 = struct.Struct("=I")

NDMSG = struct.Struct("=BxxxiHBB")  # family, index, state, flags, type

NLM_F_REQUEST = 1
NLM_F_DUMP = 0x300
NLMSG_DONE = 3
RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK = 16, 17, 18
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26
RTM_NEWNEIGH, RTM_GETNEIGH = 28, 30
RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_PREFSRC, RTA_VIA = 1, 4, 5, 7, 18
NDA_DST, NDA_LLADDR, NDA_MASTER = 1, 2, 9
AF_BRIDGE = 7
IFLA_IFNAME = 3
RTN_LOCAL = 2
SIOCGIFMTU = 0x8921
ANSWER_SIZE = 65_536
ANSWER_TIMEOUT = 2.0
"""Seconds. The kernel answers before `send` returns, so this ends only what would never end."""


def messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield type and body of every message that one recv gave."""
    while len(data) >= NLMSGHDR.size:
        length, kind, _, _, _ = NLMSGHDR.unpack_from(data)
        if length < NLMSGHDR.size:
            return
        yield kind, data[NLMSGHDR.size : length]
        data = data[_aligned(length) :]


def attributes(data: bytes) -> dict[int, bytes]:
    """Attributes by type, without its flag bits. If a type repeats, the last one counts."""
    found = {}
    while len(data) >= RTATTR.size:
        length, kind = RTATTR.unpack_from(data)
        if length < RTATTR.size:
            break
        found[kind & 0x3FFF] = data[RTATTR.size : length]
        data = data[_aligned(length) :]
    return found


def read_u32(value: bytes | None) -> int:
    """An attribute that is a u32; 0 when it is absent."""
    return _U32.unpack(value)[0] if value is not None and len(value) == _U32.size else 0


def route_link(host: str, scope: int = 0) -> int | None:
    """The index of the link by which a datagram to the numeric address leaves; None without a route."""
    with _asked(RTM_GETROUTE, NLM_F_REQUEST, _route_question(host, scope)) as netlink:
        answer = netlink.recv(ANSWER_SIZE)
    for kind, route in messages(answer):
        if kind == RTM_NEWROUTE:
            return read_u32(attributes(route[RTMSG.size :]).get(RTA_OIF)) or None
    return None


class Sources:
    """Asks about the addresses of the network namespace in which it was made. A question takes about 8 us."""

    def __init__(self) -> None:
        self._netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        self._netlink.setblocking(False)  # the answer is there before `send` returns

    def preferred(self, host: str, scope: int = 0) -> str:
        """The address that the kernel would send from to `host`; "" without a route."""
        source = attributes(self._route(host, scope)[RTMSG.size :]).get(RTA_PREFSRC, b"")
        return (
            socket.inet_ntop(socket.AF_INET6 if len(source) > 4 else socket.AF_INET, source) if source else ""
        )

    def is_ours(self, host: str, scope: int = 0) -> bool:
        """Whether a link of this host has the address now."""
        route = self._route(host, scope)
        return bool(route) and RTMSG.unpack_from(route)[7] == RTN_LOCAL

    def close(self) -> None:
        """Ask no more."""
        self._netlink.close()

    def _route(self, host: str, scope: int) -> bytes:
        """The body of the kernel's answer; b"" when there is no route."""
        try:
            self._netlink.send(_request(RTM_GETROUTE, NLM_F_REQUEST, _route_question(host, scope)))
            answer = self._netlink.recv(ANSWER_SIZE)
        except OSError:
            return b""
        return next((route for kind, route in messages(answer) if kind == RTM_NEWROUTE), b"")


def next_hop(host: str, scope: int = 0) -> tuple[int, str]:
    """The link by which a datagram to `host` leaves, and the next hop there. Raises OSError without a route."""
    with _asked(RTM_GETROUTE, NLM_F_REQUEST, _route_question(host, scope)) as netlink:
        answer = netlink.recv(ANSWER_SIZE)
    for kind, route in messages(answer):
        if kind == RTM_NEWROUTE:
            found = attributes(route[RTMSG.size :])
            gateway = found.get(RTA_GATEWAY) or found.get(RTA_VIA, b"")[2:]
            return read_u32(found.get(RTA_OIF)), _host_of(gateway) if gateway else host
    raise OSError(errno.EHOSTUNREACH, f"no route to {host}")


def neighbour(link: int, host: str) -> bytes:
    """The MAC of a neighbour on a link, as last heard; b"" when it is not known."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    wanted = socket.inet_pton(family, host)
    for entry, found in _neighbours(family):
        if entry[1] == link and found.get(NDA_DST) == wanted:
            return found.get(NDA_LLADDR, b"")
    return b""


def station_port(bridge: str, mac: bytes) -> str:
    """The port behind which a bridge has learned a station; "" when it has not."""
    index = socket.if_nametoindex(bridge)
    for entry, found in _neighbours(AF_BRIDGE):
        if found.get(NDA_LLADDR) == mac and read_u32(found.get(NDA_MASTER)) == index:
            return socket.if_indextoname(entry[1])
    return ""


def _neighbours(family: int) -> Iterator[tuple[tuple[int, ...], dict[int, bytes]]]:
    for answer in dump(RTM_GETNEIGH, family):
        for kind, body in messages(answer):
            if kind == RTM_NEWNEIGH and len(body) >= NDMSG.size:
                yield NDMSG.unpack_from(body), attributes(body[NDMSG.size :])


def _host_of(address: bytes) -> str:
    return socket.inet_ntop(socket.AF_INET6 if len(address) > 4 else socket.AF_INET, address)


def dump(question: int, family: int = socket.AF_UNSPEC) -> Iterator[bytes]:
    """Yield the whole answer to RTM_GETLINK, RTM_GETADDR or RTM_GETNEIGH, as recv gives it."""
    with open_netlink() as netlink:
        yield from dump_by(netlink, question, family)


def dump_by(netlink: socket.socket, question: int, family: int = socket.AF_UNSPEC) -> Iterator[bytes]:
    """The same by a socket that `open_netlink` opened before, so that no new descriptor is needed."""
    _drop_rest(netlink)
    body = IFINFOMSG.pack(family, 0, 0, 0, 0)
    netlink.send(_request(question, NLM_F_REQUEST | NLM_F_DUMP, body))
    while True:
        answer = netlink.recv(ANSWER_SIZE)
        yield answer
        if not answer or any(kind <= NLMSG_DONE for kind, _ in messages(answer)):
            return


def ask_link(link: str) -> bytes:
    """The kernel's answer to RTM_GETLINK for one link: an error message when there is none. Raises OSError."""
    body = IFINFOMSG.pack(socket.AF_UNSPEC, 0, 0, 0, 0) + _attribute(IFLA_IFNAME, link.encode() + b"\0")
    with _asked(RTM_GETLINK, NLM_F_REQUEST, body) as netlink:
        return netlink.recv(ANSWER_SIZE)


def _drop_rest(netlink: socket.socket) -> None:
    """Read what is left of an answer that was given up."""
    netlink.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while netlink.recv(ANSWER_SIZE):
            pass
    netlink.settimeout(ANSWER_TIMEOUT)


def open_netlink() -> socket.socket:
    """A socket for one question after another. Raises OSError."""
    netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
    netlink.settimeout(ANSWER_TIMEOUT)
    return netlink


def link_mtu(index: int) -> int:
    """The MTU of a link. Raises OSError when there is none of that index."""
    request = struct.pack("16sI12x", socket.if_indextoname(index).encode(), 0)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        answer = fcntl.ioctl(any_socket.fileno(), SIOCGIFMTU, request)
    return int(struct.unpack_from("16xi", answer)[0])


def _asked(question: int, flags: int, body: bytes) -> socket.socket:
    netlink = open_netlink()
    netlink.send(_request(question, flags, body))
    return netlink


def _request(question: int, flags: int, body: bytes) -> bytes:
    return NLMSGHDR.pack(NLMSGHDR.size + len(body), question, flags, 1, 0) + body


def _route_question(host: str, scope: int) -> bytes:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    destination = socket.inet_pton(family, host)
    body = RTMSG.pack(family, len(destination) * 8, 0, 0, 0, 0, 0, 0, 0) + _attribute(RTA_DST, destination)
    return body + (_attribute(RTA_OIF, _U32.pack(scope)) if scope else b"")


def _attribute(kind: int, value: bytes) -> bytes:
    length = RTATTR.size + len(value)
    return RTATTR.pack(length, kind) + value.ljust(_aligned(length) - RTATTR.size, b"\0")


def _aligned(length: int) -> int:
    return (length + 3) & ~3
