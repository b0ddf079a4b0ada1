"""The underlay's socket: one UDP port for IPv4 and IPv6, as the `Underlay` seam.

A burst of equal datagrams crosses into the kernel once: UDP_SEGMENT cuts it on the way out (Linux 4.18), UDP_GRO
hands it over joined on the way in (5.0). Single datagrams to many peers cross together: sendmmsg(2). Where the kernel,
libc or the path cannot, datagrams go one by one.

`udp_socket.py` binds the socket and sets its options, `udp_addresses.py` has the names of addresses, `send_errors.py` what
each errno means. All that a datagram passes in the ordinary case is here.
"""

import errno
import socket
import struct
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import partial
from itertools import groupby
from typing import Any, Self

from l2overlay.addresses import Address
from l2overlay.counters import DropReason
from l2overlay.dataplane.wire import DATA_TYPE, TRAIN_TYPE
from l2overlay.linux import shield
from l2overlay.linux.path_limits import PathLimits
from l2overlay.linux.send_errors import BURST_ERRORS, GSO_ERRORS, ICMP_ERRORS, SOURCE_ERRORS, count_refused
from l2overlay.linux.sendmmsg import MAX_MESSAGES, batch_for
from l2overlay.linux.strangers import StrangersSocket
from l2overlay.linux.udp_addresses import AddressBook, Target
from l2overlay.linux.udp_socket import (
    LOOPBACK,
    SO_RXQ_OVFL,
    SOL_UDP,
    TOS_KINDS,
    TOS_SPACE,
    UDP_GRO,
    UDP_SEGMENT,
    ask_for_tos,
    bind,
    never_fragment,
    raise_buffers,
    set_tos,
    supports,
    tell_local,
)
from l2overlay.seams import MAX_BURST_DATAGRAMS, MAX_BURST_LEN, Burst, Doorman, MarkedBurst, burst_limit

FEW_BUFFERS = 4
"""Lists with more buffers are joined: see `_send_each`."""
READ_SIZE = 65_536
PACKET_INFO_SIZE = 20
"""struct in6_pktinfo; struct in_pktinfo has 12."""
ANCILLARY_SIZE = 2 * socket.CMSG_SPACE(4) + socket.CMSG_SPACE(PACKET_INFO_SIZE)
REMEMBERED_TYPES = (bytes([DATA_TYPE]), bytes([TRAIN_TYPE]))
BATCH_FROM = 12
"""Fewer datagrams leave one by one. sendmmsg pays from about eight datagrams on (see `send_bursts`)."""

_U16 = struct.Struct("=H")
_INT = struct.Struct("=i")


def _tos_of(burst: Burst) -> int:
    return burst.tos if isinstance(burst, MarkedBurst) else 0


class LinuxUdp:
    """One bound, non-blocking socket; see `seams.Underlay` for the contract of the batches.

    `gso` and `gro` say whether bursts cross into the kernel whole. `gso` turns false for good when a send shows that
    the link cannot do it.
    """

    def __init__(self, bound: socket.socket, *, gso: bool = True, gro: bool = True) -> None:
        """Take over a bound UDP socket. `gso` and `gro` allow what the kernel may have; False leaves it off."""
        self._socket = bound
        bound.setblocking(False)
        never_fragment(bound)
        self.buffer_sizes = raise_buffers(bound)
        self.gso = gso and supports(bound, SOL_UDP, UDP_SEGMENT, 0)
        self.gro = gro and supports(bound, SOL_UDP, UDP_GRO, 1)
        supports(bound, socket.SOL_SOCKET, SO_RXQ_OVFL, 1)
        self.overflow_count = 0
        """How many datagrams the socket had no room for. The kernel tells this with each burst that is received."""
        self._book = book = AddressBook(bound.family, tells_local=tell_local(bound))
        self._targets, self._addresses, self._names = book.targets, book.addresses, book.names
        self._path_limits = PathLimits()
        self.doorman: Doorman | None = None
        self._strangers: StrangersSocket | None = None
        self._batch = batch_for(bound)
        self._copies_tos = False
        self._tos = 0

    @classmethod
    def open(cls, port: int, host: str = "", *, gso: bool = True, gro: bool = True) -> Self:
        """Bind `port` for IPv4 and IPv6 (IPv4 alone where the kernel has no IPv6), or for the address `host` alone.

        Raises HostSetupError.
        """
        return cls(bind(port, host), gso=gso, gro=gro)

    @classmethod
    def open_loopback(cls) -> Self:
        """Bind a free port of 127.0.0.1, which only this host reaches. Raises HostSetupError."""
        return cls(bind(0, LOOPBACK))

    @property
    def port(self) -> int:
        """The port that is bound, also if 0 was asked for."""
        return int(self._socket.getsockname()[1])

    def fileno(self) -> int:
        """For readiness; -1 once closed."""
        return self._socket.fileno()

    def close(self) -> None:
        """Give the port back."""
        self._close_strangers()
        self._socket.close()
        self._book.close()

    def receive_bursts(self, limit: int) -> list[Burst]:
        """Return the bursts that wait now, at most `limit`. An empty datagram comes as a burst of b"".

        recvmsg and no reused buffer, measured on loopback, microseconds a call for 100 bytes / 44 x 1450 bytes, the
        best of 100 rounds: recvmsg 1.60 / 4.4; recvmsg_into one bytearray and bytes() of its slice 1.83 / 5.9.
        """
        recvmsg, addresses = self._socket.recvmsg, self._addresses
        if self._copies_tos:
            return self._receive_marked(limit)
        bursts: list[Burst] = []
        for _ in range(limit):
            try:
                data, ancillary, _, sockaddr = recvmsg(READ_SIZE, ANCILLARY_SIZE)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno not in ICMP_ERRORS:
                    raise
                continue
            size, called = len(data), b""
            for level, _, value in ancillary:
                if level == SOL_UDP:
                    (size,) = _INT.unpack(value)
                elif level == socket.SOL_SOCKET:
                    (self.overflow_count,) = _INT.unpack(value)
                else:
                    called = value
            address = addresses.get((sockaddr, called))
            if address is None:
                address = self._address_of_untrusted(data, size or 1, sockaddr, called)
                if address is None:
                    continue
            bursts.append(Burst(address, size or 1, [data]))
        return bursts

    def _receive_marked(self, limit: int) -> list[Burst]:
        """`receive_bursts` that also reads the TOS byte. The kernel joins no datagrams of different TOS (GRO)."""
        bursts: list[Burst] = []
        for _ in range(limit):
            try:
                data, ancillary, _, sockaddr = self._socket.recvmsg(READ_SIZE, ANCILLARY_SIZE + TOS_SPACE)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno not in ICMP_ERRORS:
                    raise
                continue
            size, called, tos = len(data), b"", 0
            for level, kind, value in ancillary:
                if level == SOL_UDP:
                    (size,) = _INT.unpack(value)
                elif level == socket.SOL_SOCKET:
                    (self.overflow_count,) = _INT.unpack(value)
                elif (level, kind) in TOS_KINDS:
                    tos = value[0] if len(value) == 1 else _INT.unpack(value)[0]
                else:
                    called = value
            address = self._addresses.get((sockaddr, called))
            if address is None:
                address = self._address_of_untrusted(data, size or 1, sockaddr, called)
            if address is not None:
                bursts.append(MarkedBurst(address, size or 1, [data], tos))
        return bursts

    def copy_tos(self, *, on: bool) -> None:
        """Send each `MarkedBurst` with its mark, and receive marked bursts as `MarkedBurst`."""
        self._copies_tos = on
        ask_for_tos(self._socket, on=on)
        self._use_tos(0)

    def _use_tos(self, tos: int) -> None:
        if tos != self._tos:
            self._tos = tos
            set_tos(self._socket, tos)

    def _send_marked(self, bursts: Sequence[Burst], refused: dict[DropReason, int]) -> int:
        """Send one mark at a time. Returns how many bursts are done.

        The mark is an option of the socket and not ancillary data, so no way of sending has a second form. That costs one
        or two system calls for each change of mark.
        """
        done = 0
        for tos, run in groupby(bursts, _tos_of):
            self._use_tos(tos)
            marked = list(run)
            sent = self._send_each(marked, refused)
            done += sent
            if sent < len(marked):
                break
        return done

    def _address_of_untrusted(
        self, data: bytes, size: int, sockaddr: tuple[Any, ...], called: bytes
    ) -> Address | None:
        """Who sent a burst; None when `doorman` refuses it.

        Only who sends DATA is remembered: so a flood of handshakes makes nobody else be forgotten.
        """
        book = self._book
        if self.doorman is not None:
            stranger = partial(book.stranger, sockaddr, called)
            if not self.doorman(data, size, book.host_bytes(sockaddr), stranger):
                return None
        address = book.address_of(sockaddr, called)
        if data[:1] not in REMEMBERED_TYPES:
            del self._addresses[sockaddr, called]
        return address

    def receive_strangers(self, limit: int) -> tuple[list[Burst], int]:
        """At most `limit` bursts of those kept apart by `shield`, and how many more were lost since the last call."""
        if self._strangers is None:
            return [], 0
        return self._strangers.receive(limit, self.doorman)

    def send_bursts(self, bursts: Sequence[Burst]) -> tuple[int, dict[DropReason, int]]:
        """Send in order. Returns how many bursts are done, and how many datagrams were refused, by reason.

        If the full socket took a burst in part, the burst is not done, and its `buffers` keep what is left of it.

        Bursts of one datagram that follow each other, as a broadcast to many peers makes them, cross into the kernel
        together. Microseconds a datagram of 96 bytes to 4 / 8 / 12 / 16 / 64 peers, `python -m tests.bench.flood`:
        alone 3.7 / 3.6 / 3.6 / 3.6 / 3.5, together 4.2 / 3.4 / 3.1 / 2.9 / 2.6.
        """
        refused: dict[DropReason, int] = {}
        if self._copies_tos:
            return self._send_marked(bursts, refused), refused
        if len(bursts) < BATCH_FROM or self._batch is None:
            return self._send_each(bursts, refused), refused
        done = 0
        while done < len(bursts):
            names, datagrams = self._batch_from(bursts, done)
            # Where too few can go together, several in the ordinary way: looking for a batch costs too.
            run = bursts[done : done + max(len(names), BATCH_FROM)]
            sent = (
                self._send_together(run, names, datagrams, refused)
                if len(names) >= BATCH_FROM
                else self._send_each(run, refused)
            )
            done += sent
            if sent < len(run):
                break
        return done, refused

    def _send_each(self, bursts: Sequence[Burst], refused: dict[DropReason, int]) -> int:
        """Make one system call for each burst. Returns how many are done.

        Many short buffers are joined, measured on loopback, microseconds a send of 44 x 1450 / 64 x 150 / 2 x 1450 bytes:
        joined 8.1 / 5.5 / 4.6, the list as it is 8.6 / 7.6 / 4.4. For one datagram sendto 3.45, sendmsg 3.65. A few long
        ones, which are trains, go as they are: 2 x 22 x 1472 bytes 20.7, joined 22.3.
        """
        sendto, sendmsg, targets = self._socket.sendto, self._socket.sendmsg, self._targets
        for done, burst in enumerate(bursts):
            buffers: Sequence[bytes | bytearray] = burst.buffers
            size = burst.datagram_size
            if len(buffers) > FEW_BUFFERS or len(buffers[0]) <= size:
                buffers = (b"".join(buffers),)
            length = sum(map(len, buffers))
            try:
                sockaddr, source = targets.get(burst.address) or self._book.target_of(burst.address)
                if length <= size:
                    if source:
                        sendmsg(buffers, source, 0, sockaddr)
                    else:
                        sendto(buffers[0], sockaddr)
                elif self.gso and length <= size * MAX_BURST_DATAGRAMS and length <= MAX_BURST_LEN:
                    sendmsg(buffers, [(SOL_UDP, UDP_SEGMENT, _U16.pack(size)), *source], 0, sockaddr)
                elif not self._send_parts(burst, b"".join(buffers), refused):
                    return done
            except BlockingIOError:
                return done
            except OSError as error:
                if not self._send_refused(burst, b"".join(buffers), error.errno, refused):
                    return done
        return len(bursts)

    def _batch_from(self, bursts: Sequence[Burst], start: int) -> tuple[list[bytes], list[bytes]]:
        """Names and datagrams of the bursts from `start` on, up to the first that is more than one datagram."""
        names, datagrams, known = list[bytes](), list[bytes](), self._names
        for burst in bursts[start : start + MAX_MESSAGES]:
            buffers, size = burst.buffers, burst.datagram_size
            if len(buffers) > 2 or len(buffers[0]) > size:  # two: header and ciphertext
                break
            if burst.address.local:  # the headers of a batch have no room for it
                break
            datagram = b"".join(buffers)
            if len(datagram) > size:
                break
            names.append(known.get(burst.address) or self._book.name_of(burst.address))
            datagrams.append(datagram)
        return names, datagrams

    def _send_together(
        self, run: Sequence[Burst], names: list[bytes], datagrams: list[bytes], refused: dict[DropReason, int]
    ) -> int:
        """Send what `_batch_from` found by one system call. Returns how many bursts are done.

        The datagram that stops the call is sent again alone, also if the socket was full, so that every error means the
        same as there. So are some behind it, because refusals come in a row: without a route, one more sendmmsg for
        each would double the cost of a hundred.
        """
        assert self._batch is not None
        return self._batch.send(
            self._socket.fileno(),
            names,
            datagrams,
            lambda number: self._send_each(run[number : number + BATCH_FROM], refused),
        )

    def path_limit(self, address: Address) -> int:
        """The largest datagram (UDP payload, bytes) that the local link towards `address` takes: MTU less headers."""
        return self._path_limits.limit(address.host)

    def forget_paths(self) -> None:
        """Forget what depends on links and routes; the kernel is asked again."""
        self._path_limits.forget()
        self.forget_addresses()

    def shut_hosts(self, hosts: frozenset[str]) -> None:
        """Send nothing to these hosts, because it would come back by our own TAP."""
        self._book.shut(hosts)

    def shield(self, known: Iterable[Address] | None) -> bool:
        """Let the kernel drop most DATA that comes from other addresses than these, and keep everything else from other
        addresses for `receive_strangers`. None lets everything pass again.

        Returns whether a filter is on. It is not if the kernel refuses it, or if the addresses do not fit into it.
        """
        addresses = frozenset(known) if known is not None else None
        code = shield.program(addresses) if addresses is not None else None
        if addresses is not None and code is not None and shield.attach(self._socket, code):
            self._divert_strangers(addresses)
            return True
        shield.detach(self._socket)
        self._close_strangers()
        return False

    def _divert_strangers(self, known: frozenset[Address]) -> None:
        if self._strangers is None:
            with suppress(OSError):  # they come here as before
                self._strangers = StrangersSocket(self._socket, self._book)
        if self._strangers is not None:
            shield.attach(self._socket, shield.diversion(known), shield.SO_ATTACH_REUSEPORT_CBPF)

    def _close_strangers(self) -> None:
        if self._strangers is not None:
            self._strangers.close()
            self._strangers = None

    def forget_addresses(self) -> None:
        """Forget the names of addresses: which one is preferred and what a scope is called may have changed."""
        self._book.forget()

    def _send_refused(
        self, burst: Burst, data: bytes | bytearray, code: int | None, refused: dict[DropReason, int]
    ) -> bool:
        """Try the parts of a burst that was refused as a whole, or count it. Returns False if the socket is full."""
        count = max(1, -(-len(data) // burst.datagram_size))
        if burst.address.local and code in SOURCE_ERRORS and self._book.lets_kernel_choose(burst.address):
            return self._send_parts(burst, data, refused)
        # ECONNREFUSED is the ICMP answer to an earlier datagram. This one was not tried.
        if code == errno.ECONNREFUSED or (count > 1 and code in BURST_ERRORS):
            return self._send_parts(burst, data, refused)
        count_refused(refused, code, count)
        return True

    def _send_parts(self, burst: Burst, data: bytes | bytearray, refused: dict[DropReason, int]) -> bool:
        """Send a burst in pieces that the kernel takes: as large as UDP_SEGMENT allows, and once one is refused, one
        datagram each. Returns False if the socket is full; what is left stays in the burst.

        A link that cannot do GSO says EINVAL or EIO, but older kernels also say EINVAL for datagrams longer than the
        link's MTU. It was the link if the same datagrams then pass one by one, and none is too long.
        """
        target, size, view = self._targets[burst.address], burst.datagram_size, memoryview(data)
        step = size * max(1, burst_limit(size)) if self.gso else size
        gso_refused, alone, position = False, set[int](), 0
        while position < len(data):
            part = view[position : position + step]
            code = self._send_part(part, size, target)
            if code == errno.EAGAIN:
                burst.buffers = [bytes(view[position:])]
                return False
            if code and len(part) > size:
                gso_refused, step = code in GSO_ERRORS, size
                continue
            if gso_refused:
                alone.add(code)
            if code:
                count_refused(refused, code, 1)
            position += len(part)
        if gso_refused and 0 in alone and errno.EMSGSIZE not in alone:
            self.gso = False
        return True

    def _send_part(self, part: memoryview, size: int, target: Target) -> int:
        """Send once. Returns the errno, or 0."""
        sockaddr, source = target
        ancillary = [(SOL_UDP, UDP_SEGMENT, _U16.pack(size)), *source] if len(part) > size else source
        code = 0
        for _ in range(2):
            try:
                self._socket.sendmsg([part], ancillary, 0, sockaddr)
            except OSError as error:
                code = error.errno or errno.EINVAL
                if code == errno.ECONNREFUSED:
                    continue
                return code
            return 0
        return code
