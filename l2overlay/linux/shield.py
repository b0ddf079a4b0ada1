"""Two programs that the kernel runs for each datagram during a flood (SO_ATTACH_FILTER, SO_ATTACH_REUSEPORT_CBPF).

Classic BPF (Linux, Documentation/networking/filter.rst), which needs no privilege. The IP header is at SKF_NET_OFF.

    filter      DATA and TRAIN pass from the known addresses, and one in `PASSING_SHARE` of the others; all other types pass.
                It sees a datagram from its UDP header on. The socket counts what is dropped with what it has no room for.
    diversion   of two sockets at one port, which gets the datagram: 1, that of strangers, all but DATA and TRAIN from
                addresses that are not known, and 0 the rest. It sees a datagram from its payload on.
"""

import contextlib
import ctypes
import socket
import struct
from collections.abc import Iterable, Sequence
from ipaddress import ip_address

from l2overlay.addresses import Address
from l2overlay.dataplane.wire import DATA_TYPE, TRAIN_TYPE

# <asm-generic/socket.h>, <linux/filter.h>, <linux/bpf_common.h>
SO_ATTACH_FILTER, SO_DETACH_FILTER = 26, 27
SO_ATTACH_REUSEPORT_CBPF, SO_DETACH_REUSEPORT_BPF = 51, 68
SKF_AD_OFF, SKF_NET_OFF = 0xFFFFF000, 0xFFF00000
SKF_AD_RANDOM = 56
_LD_WORD, _LD_HALF, _LD_BYTE = 0x20, 0x28, 0x30  # BPF_LD | BPF_ABS | BPF_W, H, B
_LD_MEM, _STORE = 0x60, 0x02
_JEQ, _JGE, _JUMP, _RETURN = 0x15, 0x35, 0x05, 0x06
_RIGHT_SHIFT = 0x74
_UDP_HEADER_LEN = 8
_PASS = 0xFFFFFFFF
_INSTRUCTION = struct.Struct("=HBBI")

PASSING_SHARE = 32
MAX_KNOWN = 800
"""Addresses in a program. The kernel takes 4096 instructions, and each address is five."""

Instruction = tuple[int, int, int, int]
"""Code, jump if true, jump if false, operand."""


def program(known: Iterable[Address]) -> list[Instruction] | None:
    """The filter for these addresses; None for more than `MAX_KNOWN`, since those left out would be cut off.

    Of an IPv6 address the last four bytes count: a spoofer could write all of them.
    """
    sources = _sources(known)
    if len(sources) > MAX_KNOWN:
        return None
    return [
        (_LD_BYTE, 0, 0, _UDP_HEADER_LEN),
        (_JEQ, 2, 0, DATA_TYPE),
        (_JEQ, 1, 0, TRAIN_TYPE),
        (_RETURN, 0, 0, _PASS),
        *_load_source(),
        *_return_if_one_of(sources, _PASS),
        (_LD_WORD, 0, 0, SKF_AD_OFF + SKF_AD_RANDOM),
        (_JGE, 1, 0, (1 << 32) // PASSING_SHARE),
        (_RETURN, 0, 0, _PASS),
        (_RETURN, 0, 0, 0),
    ]


def diversion(known: Iterable[Address]) -> list[Instruction]:
    """Sends to socket 1 what is no DATA and comes from none of these addresses. For at most `MAX_KNOWN`."""
    return [
        (_LD_BYTE, 0, 0, 0),
        (_JEQ, 1, 0, DATA_TYPE),
        (_JEQ, 0, 1, TRAIN_TYPE),
        (_RETURN, 0, 0, 0),
        *_load_source(),
        *_return_if_one_of(_sources(known), 0),
        (_RETURN, 0, 0, 1),
    ]


def _sources(known: Iterable[Address]) -> list[tuple[int, int]]:
    return sorted({(_last_word(address), address.port) for address in known})


def _load_source() -> list[Instruction]:
    """M[0] becomes the source port, M[1] the last word of the source address."""
    return [
        (_LD_BYTE, 0, 0, SKF_NET_OFF),
        (_RIGHT_SHIFT, 0, 0, 4),
        (_JEQ, 4, 0, 4),
        (_LD_HALF, 0, 0, SKF_NET_OFF + 40),
        (_STORE, 0, 0, 0),
        (_LD_WORD, 0, 0, SKF_NET_OFF + 20),
        (_JUMP, 0, 0, 3),
        (_LD_HALF, 0, 0, SKF_NET_OFF + 20),
        (_STORE, 0, 0, 0),
        (_LD_WORD, 0, 0, SKF_NET_OFF + 12),
        (_STORE, 0, 0, 1),
    ]


def _return_if_one_of(sources: Iterable[tuple[int, int]], value: int) -> list[Instruction]:
    code: list[Instruction] = []
    for host, port in sources:
        code += [
            (_LD_MEM, 0, 0, 1),
            (_JEQ, 0, 3, host),
            (_LD_MEM, 0, 0, 0),
            (_JEQ, 0, 1, port),
            (_RETURN, 0, 0, value),
        ]
    return code


def attach(sock: socket.socket, code: Sequence[Instruction], option: int = SO_ATTACH_FILTER) -> bool:
    """Let the kernel run this program; it takes the place of an earlier one. False: the kernel refused."""
    packed = b"".join(_INSTRUCTION.pack(*instruction) for instruction in code)
    buffer = ctypes.create_string_buffer(packed, len(packed))
    try:
        sock.setsockopt(socket.SOL_SOCKET, option, struct.pack("HL", len(code), ctypes.addressof(buffer)))
    except OSError:
        return False
    return True


def detach(sock: socket.socket) -> None:
    """Take the filter off, if there is one: the kernel may have refused it, and a new socket has none."""
    with contextlib.suppress(FileNotFoundError):
        sock.setsockopt(socket.SOL_SOCKET, SO_DETACH_FILTER, 0)


def second_socket(first: socket.socket) -> socket.socket:
    """Another one at the address and port of `first`. Raises OSError.

    SO_REUSEPORT stands only while there are two: otherwise a second node at this port would not be refused.
    """
    second = socket.socket(first.family, socket.SOCK_DGRAM)
    try:
        if first.family == socket.AF_INET6:
            second.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        for each in (first, second):
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        second.bind(first.getsockname()[:2])
    except OSError:
        close_second(first, second)
        raise
    return second


def close_second(first: socket.socket, second: socket.socket) -> None:
    """All datagrams come to `first` again."""
    second.close()
    with contextlib.suppress(OSError):  # before Linux 5.3; the program then names a socket that is not there
        first.setsockopt(socket.SOL_SOCKET, SO_DETACH_REUSEPORT_BPF, 0)
    first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 0)


def _last_word(address: Address) -> int:
    return int.from_bytes(ip_address(address.host.partition("%")[0]).packed[-4:], "big")
