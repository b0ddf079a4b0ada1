"""What a running node asks of its bridge: to forget which stations are behind the TAP.

One rtnetlink message, which the kernel answers before `send` returns: RTM_SETLINK of the family AF_BRIDGE with
IFLA_PROTINFO { IFLA_BRPORT_FLUSH } (linux/if_link.h), what `ip link set TAP type bridge_slave fdb_flush` does. Learned
entries of that port go, static ones stay.
"""

import socket
import struct

from l2overlay.errors import HostSetupError
from l2overlay.linux.rtnetlink import IFINFOMSG, NLMSGHDR, RTATTR

RTM_SETLINK = 19
NLM_F_REQUEST_ACK = 0x5
NLMSG_ERROR = 2
AF_BRIDGE = 7
IFLA_PROTINFO, IFLA_BRPORT_FLUSH = 12, 24
NESTED = 0x8000
_ERROR = struct.Struct("=i")
ANSWER_TIMEOUT = 1.0


def forget_stations(port: str) -> None:
    """Let the bridge learn anew what is behind this port of it. Raises HostSetupError."""
    try:
        number = _ask(flush_request(socket.if_nametoindex(port)))
    except OSError as error:
        raise _failure(port, error) from None
    if number:
        raise _failure(port, OSError(number, ""))


def flush_request(index: int) -> bytes:
    """The message, for the link with this index."""
    flush = RTATTR.pack(RTATTR.size, IFLA_BRPORT_FLUSH)
    protocol = RTATTR.pack(RTATTR.size + len(flush), IFLA_PROTINFO | NESTED) + flush
    body = IFINFOMSG.pack(AF_BRIDGE, 0, index, 0, 0) + protocol
    return NLMSGHDR.pack(NLMSGHDR.size + len(body), RTM_SETLINK, NLM_F_REQUEST_ACK, 1, 0) + body


def _ask(request: bytes) -> int:
    """Ask the kernel. Returns the errno of its answer; 0 means done."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as sock:
        sock.settimeout(ANSWER_TIMEOUT)
        sock.bind((0, 0))
        sock.send(request)
        answer = sock.recv(4096)
    kind = NLMSGHDR.unpack_from(answer)[1]
    return -int(_ERROR.unpack_from(answer, NLMSGHDR.size)[0]) if kind == NLMSG_ERROR else 0


def _failure(port: str, error: OSError) -> HostSetupError:
    why = error.strerror or f"error {error.errno}"
    return HostSetupError(f"the bridge did not forget the stations behind {port}: {why}")
