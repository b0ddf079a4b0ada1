"""A filter on the UDP socket, run by the kernel for each datagram before it is queued (SO_ATTACH_FILTER, socket(7)).

Classic BPF (Linux, Documentation/networking/filter.rst). The program sees a datagram from its UDP header on; the IP header
is at SKF_NET_OFF. It needs no privilege. DATA and TRAIN pass from the known addresses, and one in `PASSING_SHARE` of the
others; all other types pass. The socket counts what is dropped with what it has no room for.
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
SKF_AD_OFF, SKF_NET_OFF = 0xFFFFF000, 0xFFF00000
SKF_AD_RANDOM = 56
_LD_WORD, _LD_HALF, _LD_BYTE = 0x20, 0x28, 0x30  # BPF_LD | BPF_ABS | BPF_W, H, B
_LD_MEM, _STORE = 0x60, 0x02
_JEQ, _JGE, _JUMP, _RETURN = 0x15, 0x35, 0x05, 0x06
_RIGHT_SHIFT = 0x74
_UDP_HEADER_LEN = 8
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
    drop_unless_chosen: list[Instruction] = [
        (_LD_WORD, 0, 0, SKF_AD_OFF + SKF_AD_RANDOM),
        (_JGE, 1, 0, (1 << 32) // PASSING_SHARE),
        (_RETURN, 0, 0, 0xFFFFFFFF),
        (_RETURN, 0, 0, 0),
    ]
    code: list[Instruction] = [
        (_LD_BYTE, 0, 0, _UDP_HEADER_LEN),
        (_JEQ, 2, 0, DATA_TYPE),
        (_JEQ, 1, 0, TRAIN_TYPE),
        (_RETURN, 0, 0, 0xFFFFFFFF),
        (_LD_HALF, 0, 0, 0),
        (_STORE, 0, 0, 0),  # M[0]: the source port
        (_LD_BYTE, 0, 0, SKF_NET_OFF),
        (_RIGHT_SHIFT, 0, 0, 4),
        (_JEQ, 2, 0, 4),
        (_LD_WORD, 0, 0, SKF_NET_OFF + 20),  # the last word of an IPv6 source
        (_JUMP, 0, 0, 1),
        (_LD_WORD, 0, 0, SKF_NET_OFF + 12),
        (_STORE, 0, 0, 1),  # M[1]: the source address
    ]
    sources = sorted({(_last_word(address), address.port) for address in known})
    if len(sources) > MAX_KNOWN:
        return None
    for host, port in sources:
        code += [
            (_LD_MEM, 0, 0, 1),
            (_JEQ, 0, 3, host),
            (_LD_MEM, 0, 0, 0),
            (_JEQ, 0, 1, port),
            (_RETURN, 0, 0, 0xFFFFFFFF),
        ]
    return code + drop_unless_chosen


def attach(sock: socket.socket, code: Sequence[Instruction]) -> bool:
    """Let the kernel run this program; it takes the place of an earlier one. False: the kernel refused."""
    packed = b"".join(_INSTRUCTION.pack(*instruction) for instruction in code)
    buffer = ctypes.create_string_buffer(packed, len(packed))
    try:
        sock.setsockopt(
            socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HL", len(code), ctypes.addressof(buffer))
        )
    except OSError:
        return False
    return True


def detach(sock: socket.socket) -> None:
    """Take the filter off, if there is one: the kernel may have refused it, and a new socket has none."""
    with contextlib.suppress(FileNotFoundError):
        sock.setsockopt(socket.SOL_SOCKET, SO_DETACH_FILTER, 0)


def _last_word(address: Address) -> int:
    return int.from_bytes(ip_address(address.host.partition("%")[0]).packed[-4:], "big")
