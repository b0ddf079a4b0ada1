"""sendmmsg(2): many datagrams, each to an address of its own, in one system call.

A broadcast becomes that: the same frame, sealed for each of 100 peers. Python does not have this call; ctypes does, and
trio has loaded ctypes anyway.

    man 2 sendmmsg; struct msghdr: man 2 recvmsg, <bits/socket.h>; struct mmsghdr: <sys/socket.h>;
    struct iovec: man 3type iovec; struct sockaddr_in: man 7 ip; struct sockaddr_in6: man 7 ipv6.

Sizes are the compiler's (`ctypes.sizeof`), so 32-bit machines have theirs. musl has an int and padding where others have
the size_t of msg_iovlen: the same bytes. Its 64-bit sendmmsg is a loop of sendmsg, which saves less.
"""

import ctypes
import socket
import struct
from array import array
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any, Literal

MAX_MESSAGES = 64
"""In one call. That is 7 KiB of headers, and a copy of at most 92 KiB at 1472 bytes a datagram."""

NAME_SIZES = {socket.AF_INET: 16, socket.AF_INET6: 28}
"""sizeof(struct sockaddr_in), sizeof(struct sockaddr_in6)."""

_SOCKADDR_IN = struct.Struct("=H2s4s8x")
"""family, port (network order), address, zero."""
_SOCKADDR_IN6 = struct.Struct("=H2sI16sI")
"""family, port (network order), flow label, address, scope."""
_WORD: Literal["L"] = "L"
"""unsigned long: as wide as a pointer and as size_t in every ABI of Linux."""


class Iovec(ctypes.Structure):
    """struct iovec."""

    _fields_ = (("base", ctypes.c_void_p), ("len", ctypes.c_size_t))


class _Msghdr(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_void_p),
        ("namelen", ctypes.c_uint32),
        ("iov", ctypes.c_void_p),
        ("iovlen", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("controllen", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class Mmsghdr(ctypes.Structure):
    """struct mmsghdr."""

    _fields_ = (("hdr", _Msghdr), ("len", ctypes.c_uint))


def _libc_sendmmsg() -> Any:
    function = getattr(ctypes.CDLL(None), "sendmmsg", None)
    if function is not None:
        function.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int)
        function.restype = ctypes.c_int
    return function


_sendmmsg = _libc_sendmmsg()


class MessageBatch:
    """Headers for `MAX_MESSAGES` datagrams out of one socket, made once; a send fills in names, places and lengths.

    Not for two threads at a time.
    """

    def __init__(self, family: int) -> None:
        """For a socket of AF_INET or AF_INET6: all its names are equally long."""
        self._name_size = NAME_SIZES[socket.AddressFamily(family)]
        names = (ctypes.c_ubyte * (self._name_size * MAX_MESSAGES))()
        self._headers = (Mmsghdr * MAX_MESSAGES)()
        iovecs = (Iovec * MAX_MESSAGES)()
        first_name, first_iovec = ctypes.addressof(names), ctypes.addressof(iovecs)
        for number, header in enumerate(self._headers):
            header.hdr.name = first_name + number * self._name_size
            header.hdr.namelen = self._name_size
            header.hdr.iov = first_iovec + number * ctypes.sizeof(Iovec)
            header.hdr.iovlen = 1
        self._names = memoryview(names).cast("B")
        words = memoryview(iovecs).cast("B").cast(_WORD)
        self._bases, self._lengths = words[::2], words[1::2]

    def send(
        self,
        descriptor: int,
        names: Sequence[bytes],
        datagrams: Sequence[bytes],
        send_alone: Callable[[int], int],
    ) -> int:
        """Send at most `MAX_MESSAGES` datagrams in order, each to its packed name; returns how many are done.

        The call stops at the first message that the kernel does not take, and mostly does not say why. `send_alone` is
        told its number; it sends or counts that one and as many behind it as it likes, and returns how many are done:
        0 when the socket is full, and then this returns too.

        Joined: one copy and one address to ask for, instead of an object of ctypes per datagram.
        """
        count, joined = len(datagrams), b"".join(datagrams)  # `joined` must outlive the calls
        lengths = list(map(len, datagrams))
        self._names[: count * self._name_size] = b"".join(names)
        self._lengths[:count] = array(_WORD, lengths)
        base = ctypes.cast(ctypes.c_char_p(joined), ctypes.c_void_p).value or 0
        self._bases[:count] = array(_WORD, list(accumulate(lengths[:-1], initial=base)))
        first, done = ctypes.addressof(self._headers), 0
        while done < count:
            done += max(0, _sendmmsg(descriptor, first + done * ctypes.sizeof(Mmsghdr), count - done, 0))
            if done < count:
                alone = send_alone(done)
                if not alone:
                    break
                done += alone
        return done


def batch_for(bound: socket.socket) -> MessageBatch | None:
    """A batch for this socket; None if libc or the kernel has no sendmmsg, or a filter of system calls forbids it."""
    if _sendmmsg is None or _sendmmsg(bound.fileno(), None, 0, 0) != 0:
        return None
    return MessageBatch(bound.family)


def pack_name(family: int, sockaddr: tuple[Any, ...]) -> bytes:
    """Python's numeric sockaddr, (host, port) or (host, port, flow label, scope), as the kernel's struct."""
    address, port = socket.inet_pton(family, sockaddr[0]), sockaddr[1].to_bytes(2, "big")
    if family == socket.AF_INET:
        return _SOCKADDR_IN.pack(family, port, address)
    return _SOCKADDR_IN6.pack(family, port, sockaddr[2], address, sockaddr[3])


def refused_name(family: int) -> bytes:
    """A name of no family, in place of one that cannot be packed. The kernel stops there."""
    return b"\xff" * NAME_SIZES[socket.AddressFamily(family)]
