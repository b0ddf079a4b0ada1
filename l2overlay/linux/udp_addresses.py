"""What the UDP socket calls an `Address`, and the reverse, remembered.

Inside the program an IPv4 peer is `Address("192.0.2.1", ...)`; the socket is AF_INET6 and calls it ::ffff:192.0.2.1.

A host may have several addresses. The kernel tells with each datagram which of them was called (IPV6_PKTINFO, ipv6(7)). If
that is not the address that the kernel would answer from, it stands in `Address.local`, and what is sent there leaves from
it, because a NAT or a stateful firewall on the way knows no other.
"""

import errno
import socket
import struct
from ipaddress import IPv6Address
from typing import Any

from l2overlay.addresses import Address
from l2overlay.linux.rtnetlink import Sources
from l2overlay.linux.sendmmsg import pack_name, refused_name
from l2overlay.linux.udp_socket import IP_PKTINFO, IPV6_PKTINFO, plain_host

CACHE_SIZE = 4096
"""Four times the peers of a large segment; a flood of spoofed senders must not grow it."""

MAPPED = "::ffff:"
MAPPED_BYTES = bytes(10) + b"\xff\xff"

_IN_PKTINFO = struct.Struct("=i4s4s")  # link, local address, destination in the header
_IN6_PKTINFO = struct.Struct("=16sI")  # address, link

Ancillary = list[tuple[int, int, bytes]]
Target = tuple[tuple[Any, ...], Ancillary]
"""How the socket is told of an `Address`: the sockaddr, and the local address as an ancillary message if there is one."""


class AddressBook:
    """The names that one socket has for addresses.

    `LinuxUdp` holds the three dictionaries and looks into them itself; it calls a method only for what is not there. So they
    are emptied, and never replaced."""

    def __init__(self, family: int, *, tells_local: bool) -> None:
        """`tells_local`: the socket tells with each datagram which of our addresses was called, and can send from it."""
        self.targets: dict[Address, Target] = {}
        self.addresses: dict[tuple[tuple[Any, ...], bytes], Address] = {}
        self.names: dict[Address, bytes] = {}
        self._called: dict[bytes, str] = {}
        self._family = family
        self._tells_local = tells_local
        self._sources = Sources()
        self._shut: frozenset[str] = frozenset()

    def close(self) -> None:
        """Ask the kernel no more."""
        self._sources.close()

    def forget(self) -> None:
        """Forget all names: which address is preferred and what a scope is called may have changed."""
        self.targets.clear()
        self.names.clear()
        self.addresses.clear()

    def shut(self, hosts: frozenset[str]) -> None:
        """Send nothing to these hosts, because it would come back by our own TAP."""
        if hosts != self._shut:
            self._shut = hosts
            self.forget()

    def target_of(self, address: Address) -> Target:
        """Find out how to send to `address`. Raises OSError if it cannot be reached from here."""
        if address.host in self._shut:
            raise OSError(errno.ELOOP, "it would come back by the TAP")
        source = [self._packet_info(address.local)] if address.local and self._tells_local else []
        target = self.sockaddr_of(address), source
        if len(self.targets) >= CACHE_SIZE:
            self.targets.clear()
        self.targets[address] = target
        return target

    def _packet_info(self, local: str) -> tuple[int, int, bytes]:
        """The ancillary message that makes a datagram leave from `local`. The route still chooses the link."""
        if self._family == socket.AF_INET:
            info = _IN_PKTINFO.pack(0, socket.inet_pton(socket.AF_INET, local), bytes(4))
            return socket.IPPROTO_IP, IP_PKTINFO, info
        mapped = local if ":" in local else f"::ffff:{local}"
        return (
            socket.IPPROTO_IPV6,
            IPV6_PKTINFO,
            _IN6_PKTINFO.pack(socket.inet_pton(socket.AF_INET6, mapped), 0),
        )

    def lets_kernel_choose(self, address: Address) -> bool:
        """Let the kernel choose the local address if the one in `address` is gone. Returns whether it is."""
        if not self.targets[address][1] or self._is_ours(address):
            return False
        self.targets[address] = self.targets[address][0], []
        return True

    def _is_ours(self, address: Address) -> bool:
        return self._sources.is_ours(address.local, scope_of(address.host.partition("%")[2]))

    def sockaddr_of(self, address: Address) -> tuple[Any, ...]:
        """What the socket calls `address`. Raises OSError when it cannot be reached from here."""
        host, _, zone = address.host.partition("%")
        is_ipv6 = ":" in host
        # Never a name: the socket would ask DNS.
        socket.inet_pton(socket.AF_INET6 if is_ipv6 else socket.AF_INET, host)
        sockaddr: tuple[Any, ...]
        if self._family == socket.AF_INET6:
            sockaddr = (host if is_ipv6 else f"::ffff:{host}", address.port, 0, scope_of(zone))
        elif is_ipv6:
            raise OSError(errno.EAFNOSUPPORT, "this host has no IPv6")
        else:
            sockaddr = (host, address.port)
        return sockaddr

    def name_of(self, address: Address) -> bytes:
        """`sockaddr_of` as the kernel's struct. If that raises, a name that the kernel refuses."""
        family = self._family
        try:
            name = pack_name(family, (self.targets.get(address) or self.target_of(address))[0])
        except OSError:
            return refused_name(family)
        if len(self.names) >= CACHE_SIZE:
            self.names.clear()
        self.names[address] = name
        return name

    def address_of(self, sockaddr: tuple[Any, ...], called: bytes) -> Address:
        """The sender of a datagram by its canonical name. `called`: the kernel's message about where it arrived."""
        address = canonical_address(sockaddr)
        if called:
            local, scope = _called_address(called), sockaddr[3] if len(sockaddr) > 3 else 0
            if local != self._sources.preferred(address.host.partition("%")[0], scope):
                address = address._replace(local=local)
        if len(self.addresses) >= CACHE_SIZE:
            self.addresses.clear()
        self.addresses[sockaddr, called] = address
        return address

    def stranger(self, sockaddr: tuple[Any, ...], called: bytes) -> Address:
        """Whom a datagram came from, and where it called us, whatever the kernel prefers: that takes no question."""
        return canonical_address(sockaddr)._replace(local=self._called_name(called))

    def host_bytes(self, sockaddr: tuple[Any, ...]) -> bytes:
        """The host of a sockaddr as `addresses.host_bytes` has it."""
        if self._family == socket.AF_INET:
            return MAPPED_BYTES + socket.inet_aton(sockaddr[0])
        return socket.inet_pton(socket.AF_INET6, sockaddr[0].partition("%")[0])

    def _called_name(self, called: bytes) -> str:
        name = self._called.get(called)
        if name is None:
            if len(self._called) >= CACHE_SIZE:
                self._called.clear()
            name = self._called[called] = _called_address(called) if called else ""
        return name


def canonical_address(sockaddr: tuple[Any, ...]) -> Address:
    """One name for one address: IPv4 dotted also when an IPv6 socket told it, a link-local scope as %interface.

    `sockaddr` is what Python's socket calls it: (host, port) or (host, port, flow label, scope).
    """
    host, port = sockaddr[:2]
    host = host.partition("%")[0]
    if ":" not in host:
        return Address(host, port)
    if host.startswith(MAPPED) and "." in host:  # a tenth of the time that the other way takes
        return Address(host[len(MAPPED) :], port)
    parsed = IPv6Address(host)
    if parsed.ipv4_mapped is not None:
        return Address(str(parsed.ipv4_mapped), port)
    scope = sockaddr[3]
    return Address(f"{parsed}%{_link_name(scope)}" if scope else str(parsed), port)


def _called_address(packet_info: bytes) -> str:
    if len(packet_info) == _IN_PKTINFO.size:
        return socket.inet_ntop(socket.AF_INET, _IN_PKTINFO.unpack(packet_info)[1])
    return plain_host(socket.inet_ntop(socket.AF_INET6, packet_info[:16]))


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
