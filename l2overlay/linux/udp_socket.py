"""A bound UDP socket as the underlay needs it: both families, no fragments, large buffers, and what the kernel tells."""

import errno
import socket
from ipaddress import ip_address
from typing import NamedTuple

from l2overlay.errors import HostPermissionError, HostSetupError
from l2overlay.linux.privileges import remedy

# <linux/udp.h>, <linux/in.h>, <linux/in6.h>, <asm-generic/socket.h>: Python does not name them.
SOL_UDP = 17
UDP_SEGMENT = 103
UDP_GRO = 104
IP_MTU_DISCOVER = 10
IPV6_MTU_DISCOVER = 23
PMTUDISC_PROBE = 3  # the same number in both families
SO_SNDBUFFORCE = 32
SO_RCVBUFFORCE = 33
SO_RXQ_OVFL = 40
IP_PKTINFO = 8
IPV6_RECVPKTINFO = 49
IPV6_PKTINFO = 50
IP_RECVTOS = 13
TOS_KINDS = frozenset({(socket.IPPROTO_IP, socket.IP_TOS), (socket.IPPROTO_IPV6, socket.IPV6_TCLASS)})
"""The ancillary data that holds the TOS byte (one byte) or the traffic class (an int)."""
TOS_SPACE = 2 * socket.CMSG_SPACE(4)

RECEIVE_BUFFER_SIZE = 8 << 20
"""20 ms of 3.5 Gbit/s: what arrives while Python does something else."""
SEND_BUFFER_SIZE = 2 << 20
"""About 30 bursts, 17 ms at 1 Gbit/s. It is smaller, because what is too much should wait in the guests' TCP, not here."""
LOOPBACK = "127.0.0.1"


class BufferSizes(NamedTuple):
    """Bytes of payload that the kernel agreed to keep. `wanted`: it agreed to all that was asked for."""

    receive: int
    send: int
    wanted: bool


def bind(port: int, host: str = "") -> socket.socket:
    """A UDP socket for IPv4 and IPv6 (IPv4 alone where the kernel has no IPv6), or for the address `host` alone.

    Raises HostSetupError.
    """
    try:
        bound = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    except OSError:  # ipv6.disable=1
        return _bound(socket.socket(socket.AF_INET, socket.SOCK_DGRAM), (host, port))
    bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    mapped = host if ":" in host or not host else f"::ffff:{host}"
    return _bound(bound, (mapped or "::", port))


def _bound(unbound: socket.socket, sockaddr: tuple[str, int]) -> socket.socket:
    try:
        unbound.bind(sockaddr)
    except OSError as error:
        unbound.close()
        raise _bind_error(*sockaddr, error) from None
    return unbound


def _bind_error(host: str, port: int, error: OSError) -> HostSetupError:
    if error.errno == errno.EADDRINUSE:
        return HostSetupError(
            f"UDP port {port} is in use; `ss -ulpn sport = :{port}` names the process that has it"
        )
    if error.errno == errno.EACCES:
        advice = remedy("CAP_NET_BIND_SERVICE", "l2overlay join ...")
        return HostPermissionError(f"may not bind UDP port {port}; choose one from 1024 up; else {advice}")
    if error.errno == errno.EADDRNOTAVAIL:
        return HostSetupError(f"this host has no address {plain_host(host)}, which listen names")
    return HostSetupError(f"cannot bind UDP port {port}: {error.strerror}")


def never_fragment(bound: socket.socket) -> None:
    """IP_PMTUDISC_PROBE: set DF, ignore what ICMP claims about the path, refuse only what the outgoing link cannot take."""
    bound.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, PMTUDISC_PROBE)
    if bound.family == socket.AF_INET6:
        bound.setsockopt(socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, PMTUDISC_PROBE)


def raise_buffers(bound: socket.socket) -> BufferSizes:
    """Raise both, past the limits of the sysctls if this process may. The kernel doubles the numbers for its bookkeeping."""
    for forced, plain, size in (
        (SO_RCVBUFFORCE, socket.SO_RCVBUF, RECEIVE_BUFFER_SIZE),
        (SO_SNDBUFFORCE, socket.SO_SNDBUF, SEND_BUFFER_SIZE),
    ):
        set_buffer(bound, forced, plain, size)
    receive = bound.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // 2
    send = bound.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) // 2
    return BufferSizes(receive, send, receive >= RECEIVE_BUFFER_SIZE and send >= SEND_BUFFER_SIZE)


def set_buffer(bound: socket.socket, forced: int, plain: int, size: int) -> None:
    """Set the size of a buffer by the option `forced`, by `plain` if this process may not."""
    try:
        bound.setsockopt(socket.SOL_SOCKET, forced, size)
    except PermissionError:
        bound.setsockopt(socket.SOL_SOCKET, plain, size)


def supports(bound: socket.socket, level: int, option: int, value: int) -> bool:
    """Set an option. False if the kernel does not have it."""
    try:
        bound.setsockopt(level, option, value)
    except OSError:
        return False
    return True


def tell_local(bound: socket.socket) -> bool:
    """Ask for the local address of each datagram, unless the socket has but one."""
    if not ip_address(bound.getsockname()[0]).is_unspecified:
        return False
    if bound.family == socket.AF_INET6:
        return supports(bound, socket.IPPROTO_IPV6, IPV6_RECVPKTINFO, 1)
    return supports(bound, socket.IPPROTO_IP, IP_PKTINFO, 1)


def ask_for_tos(bound: socket.socket, *, on: bool) -> None:
    """Whether the kernel tells the TOS byte or traffic class of each datagram."""
    supports(bound, socket.IPPROTO_IP, IP_RECVTOS, int(on))
    if bound.family == socket.AF_INET6:
        supports(bound, socket.IPPROTO_IPV6, socket.IPV6_RECVTCLASS, int(on))


def set_tos(bound: socket.socket, tos: int) -> None:
    """The TOS byte of IPv4 datagrams and the traffic class of IPv6 datagrams that are sent from now on."""
    supports(bound, socket.IPPROTO_IP, socket.IP_TOS, tos)
    if bound.family == socket.AF_INET6:
        supports(bound, socket.IPPROTO_IPV6, socket.IPV6_TCLASS, tos)


def plain_host(host: str) -> str:
    """Without a zone, and IPv4 dotted."""
    return host.partition("%")[0].removeprefix("::ffff:")
