"""recvmmsg(2): many short datagrams, each with its source and the address that was called, in one system call.

What comes from strangers in a flood: nearly all of it is looked at for a moment and dropped. Layouts as in `sendmmsg`;
struct cmsghdr: man 3 cmsg; struct in_pktinfo: man 7 ip; struct in6_pktinfo: man 7 ipv6.
"""

import ctypes
import socket
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

from l2overlay.linux.sendmmsg import MAX_MESSAGES, NAME_SIZES, Iovec, Mmsghdr

MAX_LEN = 256
"""Bytes of a datagram that are kept. A handshake has 152 at most, and what is longer is none."""
_CONTROL_LEN = 64
_CMSG_HEAD = ctypes.sizeof(ctypes.c_size_t) + 8
_MAPPED = bytes(10) + b"\xff\xff"


def _libc_recvmmsg() -> Any:
    function = getattr(ctypes.CDLL(None), "recvmmsg", None)
    if function is not None:
        function.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int, ctypes.c_void_p)
        function.restype = ctypes.c_int
    return function


_recvmmsg = _libc_recvmmsg()


class Short(NamedTuple):
    """One datagram: its bytes, its source's address as 16 bytes, the kernel's name of the source, its packet info."""

    data: bytes
    host: bytes
    name: bytes
    called: bytes


class ShortInbox:
    """Room for `MAX_MESSAGES` datagrams out of one socket. Not for two threads at a time."""

    def __init__(self, bound: socket.socket) -> None:
        """For a socket of AF_INET or AF_INET6 that asks for packet info, and for no other ancillary message."""
        self._descriptor = bound.fileno()
        self._is_ipv6 = bound.family == socket.AF_INET6
        self._name_size = NAME_SIZES[socket.AddressFamily(bound.family)]
        self._called_size = 20 if self._is_ipv6 else 12
        self._room = [
            (ctypes.c_ubyte * (size * MAX_MESSAGES))() for size in (MAX_LEN, self._name_size, _CONTROL_LEN)
        ]
        self._iovecs = (Iovec * MAX_MESSAGES)()
        self._headers = (Mmsghdr * MAX_MESSAGES)()
        data, names, controls = map(ctypes.addressof, self._room)
        for number, (header, iovec) in enumerate(zip(self._headers, self._iovecs, strict=True)):
            iovec.base, iovec.len = data + number * MAX_LEN, MAX_LEN
            header.hdr.iov, header.hdr.iovlen = ctypes.addressof(iovec), 1
            header.hdr.name, header.hdr.namelen = names + number * self._name_size, self._name_size
            header.hdr.control, header.hdr.controllen = controls + number * _CONTROL_LEN, _CONTROL_LEN
        self._fresh = bytes(self._headers)
        self._views = [memoryview(room).cast("B") for room in self._room]

    @staticmethod
    def is_possible() -> bool:
        """Whether libc has the call."""
        return _recvmmsg is not None

    def receive(self, limit: int) -> Iterator[Short]:
        """At most `limit` that wait now. Errors of earlier sends are swallowed."""
        ctypes.memmove(self._headers, self._fresh, len(self._fresh))
        count = _recvmmsg(
            self._descriptor, self._headers, min(limit, MAX_MESSAGES), socket.MSG_DONTWAIT, None
        )
        data, names, controls = self._views
        for number in range(max(0, count)):
            header = self._headers[number]
            at = number * self._name_size
            name = bytes(names[at : at + self._name_size])
            called_at = number * _CONTROL_LEN + _CMSG_HEAD
            called = (
                bytes(controls[called_at : called_at + self._called_size]) if header.hdr.controllen else b""
            )
            host = name[8:24] if self._is_ipv6 else _MAPPED + name[4:8]
            yield Short(bytes(data[number * MAX_LEN : number * MAX_LEN + header.len]), host, name, called)


def unpack_name(family: int, name: bytes) -> tuple[Any, ...]:
    """The kernel's struct as Python's sockaddr; the reverse of `pack_name`."""
    port = int.from_bytes(name[2:4], "big")
    if family == socket.AF_INET:
        return socket.inet_ntop(family, name[4:8]), port
    return socket.inet_ntop(family, name[8:24]), port, 0, int.from_bytes(name[24:28], sys.byteorder)
