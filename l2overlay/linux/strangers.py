"""A second socket at the port of the first, for the time of a flood: what `shield.diversion` sends to it waits there."""

import errno
import socket
import sys
from functools import partial

from l2overlay.addresses import Address
from l2overlay.linux import shield
from l2overlay.linux.recvmmsg import ShortInbox, unpack_name
from l2overlay.linux.udp_addresses import AddressBook
from l2overlay.linux.udp_socket import SO_RCVBUFFORCE, set_buffer, tell_local
from l2overlay.seams import Burst, Doorman

SO_MEMINFO = 55  # <asm-generic/socket.h>
MEMINFO_SIZE, MEMINFO_DROPS = 36, 32  # nine u32, of which the last is SK_MEMINFO_DROPS: <linux/sock_diag.h>
BUFFER_SIZE = 1 << 20
"""Some 2000 INITs, the kernel's own cost included: 0.1 s at 20 000 a second."""


class StrangersSocket:
    """Its datagrams are short; see `recvmmsg`."""

    def __init__(self, first: socket.socket, book: AddressBook) -> None:
        """Open it at the port of `first`, whose names `book` has. Raises OSError."""
        if not ShortInbox.is_possible():
            raise OSError(errno.ENOSYS, "recvmmsg")
        self._first, self._second = first, shield.second_socket(first)
        set_buffer(self._second, SO_RCVBUFFORCE, socket.SO_RCVBUF, BUFFER_SIZE)
        self._tells_local = tell_local(self._second)
        self._inbox = ShortInbox(self._second)
        self._book = book
        self._lost = 0

    def receive(self, limit: int, doorman: Doorman | None) -> tuple[list[Burst], int]:
        """At most `limit` bursts that the doorman admits, and how many were lost since the last call."""
        bursts = []
        for data, host, name, told in self._inbox.receive(limit):
            called = told if self._tells_local else b""
            if doorman is None or doorman(data, len(data) or 1, host, partial(self._stranger, name, called)):
                address = self._book.address_of(unpack_name(self._first.family, name), called)
                bursts.append(Burst(address, len(data) or 1, [data]))
        return bursts, self._newly_lost()

    def close(self) -> None:
        """All comes to the first one again."""
        shield.close_second(self._first, self._second)

    def _stranger(self, name: bytes, called: bytes) -> Address:
        return self._book.stranger(unpack_name(self._first.family, name), called)

    def _newly_lost(self) -> int:
        said = self._second.getsockopt(socket.SOL_SOCKET, SO_MEMINFO, MEMINFO_SIZE)
        before, self._lost = self._lost, int.from_bytes(said[MEMINFO_DROPS:], sys.byteorder)
        return self._lost - before
