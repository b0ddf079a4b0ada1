"""The underlay's socket: one UDP port for IPv4 and IPv6, as the `Udp` seam.

A burst of equal datagrams crosses into the kernel once: UDP_SEGMENT cuts it on the way out (Linux 4.18), UDP_GRO
hands it over joined on the way in (5.0). Single datagrams to many peers cross together: sendmmsg(2). Where the kernel,
libc or the path cannot, datagrams go one by one.

Datagrams are never fragmented: IP_PMTUDISC_PROBE sets DF, ignores what ICMP claims about the path, and refuses only
what the outgoing link itself cannot take. The path's own limit is found by our probes.

Addresses: inside, an IPv4 peer is `Address("192.0.2.1", ...)`; the socket is AF_INET6 and calls it ::ffff:192.0.2.1.

A host may have several addresses. The kernel tells with each datagram which of them was called (IPV6_PKTINFO, ipv6(7)).
Where that is not the address that the kernel would answer from, it stands in `Address.local`, and what is sent there leaves
from it: a NAT or a stateful firewall on the way knows no other.
"""

import contextlib
import errno
import socket
import struct
from collections.abc import Iterable, Sequence
from ipaddress import IPv6Address, ip_address
from typing import Any, NamedTuple, Self

from l2overlay.addresses import Address
from l2overlay.counters import DropReason
from l2overlay.errors import HostPermissionError, HostSetupError
from l2overlay.linux import shield
from l2overlay.linux.privileges import remedy
from l2overlay.linux.rtnetlink import Sources, link_mtu, route_link
from l2overlay.linux.sendmmsg import MAX_MESSAGES, batch_for, pack_name, refused_name
from l2overlay.seams import MAX_BURST_DATAGRAMS, MAX_BURST_LEN, Burst, burst_limit

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

FEW_BUFFERS = 4
"""Longer lists are joined: see `_send_each`."""
RECEIVE_BUFFER_SIZE = 8 << 20
"""20 ms of 3.5 Gbit/s: what arrives while Python does something else."""
SEND_BUFFER_SIZE = 2 << 20
"""About 30 bursts. Smaller than the other: what is too much is to wait in the guests' TCP, not here, at 1 Gbit/s 17 ms."""
READ_SIZE = 65_536
PACKET_INFO_SIZE = 20
"""struct in6_pktinfo; struct in_pktinfo has 12."""
ANCILLARY_SIZE = 2 * socket.CMSG_SPACE(4) + socket.CMSG_SPACE(PACKET_INFO_SIZE)
ADDRESS_CACHE_SIZE = 4096
"""Four times the peers of a large segment; a flood of spoofed senders must not grow it."""

BATCH_FROM = 12
"""Fewer datagrams leave one by one: filling in the headers pays from about eight on (see `send_bursts`)."""

IPV4_OVERHEAD = 28
IPV6_OVERHEAD = 48
DEFAULT_MTU = 1500
LOOPBACK = "127.0.0.1"

SEND_ERRORS = {
    errno.EPERM: DropReason.SEND_REFUSED,
    errno.EACCES: DropReason.SEND_REFUSED,
    errno.ENETUNREACH: DropReason.SEND_UNREACHABLE,
    errno.EHOSTUNREACH: DropReason.SEND_UNREACHABLE,
    errno.EADDRNOTAVAIL: DropReason.SEND_UNREACHABLE,
    errno.ENETDOWN: DropReason.SEND_UNREACHABLE,
    errno.EAFNOSUPPORT: DropReason.SEND_UNREACHABLE,
    errno.ENODEV: DropReason.SEND_UNREACHABLE,
    errno.ENXIO: DropReason.SEND_UNREACHABLE,
    errno.ELOOP: DropReason.SEND_LOOP,
    errno.EMSGSIZE: DropReason.SEND_TOO_LONG,
    errno.ENOBUFS: DropReason.SEND_NO_BUFFER,
    errno.ENOMEM: DropReason.SEND_NO_BUFFER,
}
"""Why a datagram did not leave; what is not here is SEND_FAILED."""
GSO_ERRORS = (errno.EIO, errno.EINVAL, errno.ENOPROTOOPT, errno.EOPNOTSUPP)
"""What a send says when the kernel or the link cannot cut bursts. EINVAL has other causes too: see `_send_parts`."""
SOURCE_ERRORS = (errno.EINVAL, errno.EADDRNOTAVAIL, errno.ENETUNREACH, errno.EHOSTUNREACH)
"""What a send says when the local address that it was to leave from is not ours any more. All have other causes too."""
BURST_ERRORS = (*GSO_ERRORS, errno.EMSGSIZE)
"""What a send says of a burst whose datagrams may well go in another way."""
ICMP_ERRORS = frozenset(
    (
        errno.ECONNREFUSED,
        errno.EHOSTUNREACH,
        errno.ENETUNREACH,
        errno.EHOSTDOWN,
        errno.ENETDOWN,
        errno.ENONET,
        errno.ENOPROTOOPT,
        errno.EOPNOTSUPP,
        errno.EPROTO,
        errno.EMSGSIZE,
        errno.EACCES,
        errno.ECONNRESET,
    )
)
"""An ICMP error about an earlier send, told at the next receive (ip(7)); nothing to do with what waits there."""

_U16 = struct.Struct("=H")
_INT = struct.Struct("=i")
_IN_PKTINFO = struct.Struct("=i4s4s")  # link, local address, destination in the header
_IN6_PKTINFO = struct.Struct("=16sI")  # address, link

_Ancillary = list[tuple[int, int, bytes]]
_Target = tuple[tuple[Any, ...], _Ancillary]
"""How the socket is told of an `Address`: the sockaddr, and the local address as an ancillary message if there is one."""


class BufferSizes(NamedTuple):
    """Bytes of payload that the kernel agreed to keep; `wanted` was what was asked for."""

    receive: int
    send: int
    wanted: bool


class LinuxUdp:
    """One bound, non-blocking socket; see `seams.Udp` for the contract of the batches.

    `gso` and `gro` say whether bursts cross into the kernel whole. `gso` turns false for good when a send shows that
    the link cannot do it.
    """

    def __init__(self, bound: socket.socket, *, gso: bool = True, gro: bool = True) -> None:
        """Take over a bound UDP socket. `gso` and `gro` are used where the kernel has them, left alone when false."""
        self._socket = bound
        bound.setblocking(False)
        _never_fragment(bound)
        self.buffer_sizes = _raise_buffers(bound)
        self.gso = gso and _supports(bound, SOL_UDP, UDP_SEGMENT, 0)
        self.gro = gro and _supports(bound, SOL_UDP, UDP_GRO, 1)
        _supports(bound, socket.SOL_SOCKET, SO_RXQ_OVFL, 1)
        self.overflow_count = 0
        """What the socket had no room for, as the kernel counted before the last burst that was received."""
        self._tells_local = _tell_local(bound)
        self._sources = Sources()
        self._shut: frozenset[str] = frozenset()
        self._targets: dict[Address, _Target] = {}
        self._addresses: dict[tuple[tuple[Any, ...], bytes], Address] = {}
        self._names: dict[Address, bytes] = {}
        self._path_limits: dict[str, int] = {}
        self._batch = batch_for(bound)

    @classmethod
    def open(cls, port: int, host: str = "", *, gso: bool = True, gro: bool = True) -> Self:
        """Bind `port` for IPv4 and IPv6 (IPv4 alone where the kernel has no IPv6), or of the address `host` alone.

        Raises HostSetupError.
        """
        return cls(_bind(port, host), gso=gso, gro=gro)

    @classmethod
    def open_loopback(cls) -> Self:
        """One at a free port of 127.0.0.1, which only this host reaches. Raises HostSetupError."""
        return cls(_bind(0, LOOPBACK))

    @property
    def port(self) -> int:
        """The port that is bound: of use when 0 was asked for."""
        return int(self._socket.getsockname()[1])

    def fileno(self) -> int:
        """For readiness; -1 once closed."""
        return self._socket.fileno()

    def close(self) -> None:
        """Give the port back."""
        self._socket.close()
        self._sources.close()

    def receive_bursts(self, limit: int) -> list[Burst]:
        """At most `limit` bursts that wait now; fewer when drained. An empty datagram comes as a burst of b"".

        recvmsg and no reused buffer, measured on loopback, microseconds a call for 100 bytes / 44 x 1450 bytes, the
        best of 100 rounds: recvmsg 1.60 / 4.4; recvmsg_into one bytearray and bytes() of its slice 1.83 / 5.9.
        """
        recvmsg, addresses = self._socket.recvmsg, self._addresses
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
            address = addresses.get((sockaddr, called)) or self._address_of(sockaddr, called)
            bursts.append(Burst(address, size or 1, [data]))
        return bursts

    def send_bursts(self, bursts: Sequence[Burst]) -> tuple[int, dict[DropReason, int]]:
        """Send in order; returns how many bursts are done, and the datagrams refused by reason.

        A burst that the full socket took in part is not done, and keeps in `buffers` what is left of it.

        Bursts of one datagram that follow each other, as a broadcast to many peers makes them, cross into the kernel
        together. Microseconds a datagram of 96 bytes to 4 / 8 / 12 / 16 / 64 peers, `python -m tests.bench.flood`:
        alone 3.7 / 3.6 / 3.6 / 3.6 / 3.5, together 4.2 / 3.4 / 3.1 / 2.9 / 2.6.
        """
        refused: dict[DropReason, int] = {}
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
        """One system call a burst; returns how many are done.

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
                sockaddr, source = targets.get(burst.address) or self._target_of(burst.address)
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
        """Names and datagrams of the bursts from `start` on, up to one that is more than one datagram."""
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
            names.append(known.get(burst.address) or self._name_of(burst.address))
            datagrams.append(datagram)
        return names, datagrams

    def _send_together(
        self, run: Sequence[Burst], names: list[bytes], datagrams: list[bytes], refused: dict[DropReason, int]
    ) -> int:
        """What `_batch_from` found in one system call; returns how many bursts are done.

        What stops it, a full socket too, is sent again alone: so every error means what it means there. So are some
        behind it, for refusals come in a row: where no route is left a call for each would double what 100 cost.
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
        limit = self._path_limits.get(address.host)
        if limit is None:
            limit = _link_limit(address.host)
            if len(self._path_limits) >= ADDRESS_CACHE_SIZE:
                self._path_limits.clear()
            self._path_limits[address.host] = limit
        return limit

    def forget_paths(self) -> None:
        """A link or route changed: ask the kernel again for every path limit."""
        self._path_limits.clear()
        self.forget_addresses()

    def shut_hosts(self, hosts: frozenset[str]) -> None:
        """Send nothing to these: what leaves for them would come back by our own TAP."""
        if hosts != self._shut:
            self._shut = hosts
            self.forget_addresses()

    def shield(self, known: Iterable[Address] | None) -> bool:
        """Let the kernel drop most DATA that comes from none of these addresses; None: let everything pass again.

        Returns whether a filter is on: not when the kernel refuses it, nor when a peer would find no place in it.
        """
        code = shield.program(known) if known is not None else None
        if code is not None and shield.attach(self._socket, code):
            return True
        shield.detach(self._socket)
        return False

    def forget_addresses(self) -> None:
        """A link, address or route changed: ask again which address is preferred, and what a scope is called."""
        self._targets.clear()
        self._names.clear()
        self._addresses.clear()

    def _send_refused(
        self, burst: Burst, data: bytes | bytearray, code: int | None, refused: dict[DropReason, int]
    ) -> bool:
        """A burst was refused as a whole: try its parts where that can help, else count it. False: the socket is full."""
        count = max(1, -(-len(data) // burst.datagram_size))
        if burst.address.local and code in SOURCE_ERRORS and self._lets_kernel_choose(burst.address):
            return self._send_parts(burst, data, refused)
        # ECONNREFUSED is the ICMP answer to an earlier datagram, this one was not even tried.
        if code == errno.ECONNREFUSED or (count > 1 and code in BURST_ERRORS):
            return self._send_parts(burst, data, refused)
        _count_refused(refused, code, count)
        return True

    def _send_parts(self, burst: Burst, data: bytes | bytearray, refused: dict[DropReason, int]) -> bool:
        """Send a burst in pieces that the kernel takes: as large as UDP_SEGMENT allows, then, when one is refused, one
        datagram each. False when the socket is full; what is left stays in the burst.

        A link that cannot do GSO says EINVAL or EIO; older kernels say EINVAL too when the datagrams are longer than
        the link's MTU. Only what then passes one by one, and was not too long, tells them apart.
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
                _count_refused(refused, code, 1)
            position += len(part)
        if gso_refused and 0 in alone and errno.EMSGSIZE not in alone:
            self.gso = False
        return True

    def _send_part(self, part: memoryview, size: int, target: _Target) -> int:
        """One send; returns its errno, 0 when it went."""
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

    def _target_of(self, address: Address) -> _Target:
        """How to send to `address`. Raises OSError when it cannot be reached from here."""
        if address.host in self._shut:
            raise OSError(errno.ELOOP, "it would come back by the TAP")
        source = [self._packet_info(address.local)] if address.local and self._tells_local else []
        target = self._sockaddr_of(address), source
        if len(self._targets) >= ADDRESS_CACHE_SIZE:
            self._targets.clear()
        self._targets[address] = target
        return target

    def _packet_info(self, local: str) -> tuple[int, int, bytes]:
        """The ancillary message that makes a datagram leave from `local`; the link is still the route's."""
        if self._socket.family == socket.AF_INET:
            info = _IN_PKTINFO.pack(0, socket.inet_pton(socket.AF_INET, local), bytes(4))
            return socket.IPPROTO_IP, IP_PKTINFO, info
        mapped = local if ":" in local else f"::ffff:{local}"
        return (
            socket.IPPROTO_IPV6,
            IPV6_PKTINFO,
            _IN6_PKTINFO.pack(socket.inet_pton(socket.AF_INET6, mapped), 0),
        )

    def _lets_kernel_choose(self, address: Address) -> bool:
        """Whether our own address in `address` is gone, and what is sent there leaves from another from now on."""
        if not self._targets[address][1] or self._is_ours(address):
            return False
        self._targets[address] = self._targets[address][0], []
        return True

    def _is_ours(self, address: Address) -> bool:
        return self._sources.is_ours(address.local, scope_of(address.host.partition("%")[2]))

    def _sockaddr_of(self, address: Address) -> tuple[Any, ...]:
        """What the socket calls `address`. Raises OSError when it cannot be reached from here."""
        host, _, zone = address.host.partition("%")
        is_ipv6 = ":" in host
        socket.inet_pton(
            socket.AF_INET6 if is_ipv6 else socket.AF_INET, host
        )  # never a name: that would ask DNS
        sockaddr: tuple[Any, ...]
        if self._socket.family == socket.AF_INET6:
            sockaddr = (host if is_ipv6 else f"::ffff:{host}", address.port, 0, scope_of(zone))
        elif is_ipv6:
            raise OSError(errno.EAFNOSUPPORT, "this host has no IPv6")
        else:
            sockaddr = (host, address.port)
        return sockaddr

    def _name_of(self, address: Address) -> bytes:
        """`_sockaddr_of` as the kernel's struct; where that raises, one that the kernel refuses."""
        family = self._socket.family
        try:
            name = pack_name(family, (self._targets.get(address) or self._target_of(address))[0])
        except OSError:
            return refused_name(family)
        if len(self._names) >= ADDRESS_CACHE_SIZE:
            self._names.clear()
        self._names[address] = name
        return name

    def _address_of(self, sockaddr: tuple[Any, ...], called: bytes) -> Address:
        """The canonical name of whom a datagram came from; `called` is the kernel's word about where it arrived."""
        address = canonical_address(sockaddr)
        if called:
            local, scope = _called_address(called), sockaddr[3] if len(sockaddr) > 3 else 0
            if local != self._sources.preferred(address.host.partition("%")[0], scope):
                address = address._replace(local=local)
        if len(self._addresses) >= ADDRESS_CACHE_SIZE:
            self._addresses.clear()
        self._addresses[sockaddr, called] = address
        return address


def canonical_address(sockaddr: tuple[Any, ...]) -> Address:
    """One name for one address: IPv4 dotted also when an IPv6 socket told it, a link-local scope as %interface.

    `sockaddr` is what Python's socket calls it: (host, port) or (host, port, flow label, scope).
    """
    host, port = sockaddr[:2]
    host = host.partition("%")[0]
    if ":" not in host:
        return Address(host, port)
    parsed = IPv6Address(host)
    if parsed.ipv4_mapped is not None:
        return Address(str(parsed.ipv4_mapped), port)
    scope = sockaddr[3]
    return Address(f"{parsed}%{_link_name(scope)}" if scope else str(parsed), port)


def _called_address(packet_info: bytes) -> str:
    if len(packet_info) == _IN_PKTINFO.size:
        return socket.inet_ntop(socket.AF_INET, _IN_PKTINFO.unpack(packet_info)[1])
    return _plain_host(socket.inet_ntop(socket.AF_INET6, packet_info[:16]))


def _plain_host(host: str) -> str:
    """Without a zone, and IPv4 dotted."""
    return host.partition("%")[0].removeprefix("::ffff:")


def _tell_local(bound: socket.socket) -> bool:
    """Ask for the local address of each datagram, unless the socket has but one."""
    if not ip_address(bound.getsockname()[0]).is_unspecified:
        return False
    if bound.family == socket.AF_INET6:
        return _supports(bound, socket.IPPROTO_IPV6, IPV6_RECVPKTINFO, 1)
    return _supports(bound, socket.IPPROTO_IP, IP_PKTINFO, 1)


def _bind(port: int, host: str = "") -> socket.socket:
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
        return HostSetupError(f"this host has no address {_plain_host(host)}, which listen names")
    return HostSetupError(f"cannot bind UDP port {port}: {error.strerror}")


def _never_fragment(bound: socket.socket) -> None:
    bound.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, PMTUDISC_PROBE)
    if bound.family == socket.AF_INET6:
        bound.setsockopt(socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, PMTUDISC_PROBE)


def _raise_buffers(bound: socket.socket) -> BufferSizes:
    """Raise both, past the sysctl limits where we may. The kernel doubles what it is told, for its own bookkeeping."""
    for forced, plain, size in (
        (SO_RCVBUFFORCE, socket.SO_RCVBUF, RECEIVE_BUFFER_SIZE),
        (SO_SNDBUFFORCE, socket.SO_SNDBUF, SEND_BUFFER_SIZE),
    ):
        try:
            bound.setsockopt(socket.SOL_SOCKET, forced, size)
        except PermissionError:
            bound.setsockopt(socket.SOL_SOCKET, plain, size)
    receive = bound.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // 2
    send = bound.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) // 2
    return BufferSizes(receive, send, receive >= RECEIVE_BUFFER_SIZE and send >= SEND_BUFFER_SIZE)


def _supports(bound: socket.socket, level: int, option: int, value: int) -> bool:
    try:
        bound.setsockopt(level, option, value)
    except OSError:
        return False
    return True


def scope_of(zone: str) -> int:
    """The index of a link by its name or number; 0 for none. Raises OSError when there is no such link."""
    if not zone or zone.isdecimal():
        return int(zone or 0)
    try:
        return socket.if_nametoindex(zone)
    except OSError:  # it carries no errno
        raise OSError(errno.ENODEV, f"no link {zone}") from None


def _link_name(index: int) -> str:
    try:
        return socket.if_indextoname(index)
    except OSError:  # gone since the datagram came; the number is as good a zone
        return str(index)


def _link_limit(host: str) -> int:
    host, _, zone = host.partition("%")
    mtu = DEFAULT_MTU
    with contextlib.suppress(OSError):  # no route, or gone between two questions
        link = route_link(host, scope_of(zone))
        if link is not None:
            mtu = link_mtu(link)
    return min(mtu - (IPV6_OVERHEAD if ":" in host else IPV4_OVERHEAD), MAX_BURST_LEN)


def _count_refused(refused: dict[DropReason, int], code: int | None, count: int) -> None:
    reason = SEND_ERRORS.get(code or 0, DropReason.SEND_FAILED)
    refused[reason] = refused.get(reason, 0) + count
