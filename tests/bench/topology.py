"""Two hosts, two guests and the underlay between them: what every contestant gets, alike.

    guest a            host a                                host b            guest b
    eth0 10.99.0.1 --- guest0 ]bridge[ tunnel - under0 ====== under0 - tunnel ]bridge[ guest0 --- 10.99.0.2 eth0
                              MTU 1500 or 9000        underlay, MTU 1500

The underlay is one of
    offload   a veth pair as the kernel makes it: segments of any size cross it whole
    plain     the same pair with TSO, GSO and tx-udp-segmentation off and GRO on at both ends, as on a wire
    lossy     plain, through a bridge in a fifth namespace that drops each datagram by chance, before any GRO joined it
"""

import contextlib
import ctypes
import os
import re
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from l2overlay.testing.namespace import LabError, Namespace

UNDERLAYS = ("offload", "plain", "lossy")
UNDERLAY_ADDRESS = ("192.0.2.1", "192.0.2.2")
GUEST_ADDRESS = ("10.99.0.1", "10.99.0.2")
GUEST_MAC = ("02:00:00:00:00:0a", "02:00:00:00:00:0b")
UNDERLAY_MTU = 1500
TAP_QUEUE_LEN = 1000
"""Frames that wait in a TAP for its reader; the same for all, whatever a tool sets by itself."""
UDP_BUFFER = 4 << 20
"""SO_RCVBUF and SO_SNDBUF of every tunnel's UDP sockets, asked for in bytes."""
SO_SNDBUFFORCE, SO_RCVBUFFORCE = 32, 33
SYS_PIDFD_GETFD = 438
CLONE_NEWNET = 0x40000000

T = TypeVar("T")
_libc = ctypes.CDLL(None, use_errno=True)


class Topology:
    """Five namespaces at most, by `with`; all gone after the block."""

    def __init__(self, underlay: str, mtu: int = 1500) -> None:
        self.underlay = underlay
        self.mtu = mtu
        tag = f"l2b{os.getpid()}"
        self.hosts = (Namespace(f"{tag}-ha"), Namespace(f"{tag}-hb"))
        self.guests = (Namespace(f"{tag}-ga"), Namespace(f"{tag}-gb"))
        self.wire = Namespace(f"{tag}-w")
        self._bridges = ["", ""]

    def __enter__(self) -> "Topology":
        try:
            for namespace in (*self.hosts, *self.guests, self.wire):
                namespace.create()
            self._join_hosts()
            for side in (0, 1):
                self._add_guest(side)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for namespace in (*self.guests, *self.hosts, self.wire):
            with contextlib.suppress(LabError):
                namespace.delete()

    def _join_hosts(self) -> None:
        a, b = self.hosts
        if self.underlay == "lossy":
            self._join_through_wire()
        else:
            a.ip(f"link add dev under0 type veth peer name under0 netns {b.name}")
        for side, host in enumerate(self.hosts):
            if self.underlay != "offload":
                host.run(plain_wire("under0", gro=True))
            host.ip(
                f"addr add {UNDERLAY_ADDRESS[side]}/24 dev under0",
                f"link set under0 mtu {UNDERLAY_MTU} up",
            )

    def _join_through_wire(self) -> None:
        self.wire.ip("link add dev br0 type bridge", "link set br0 up")
        for side, host in enumerate(self.hosts):
            self.wire.ip(
                f"link add dev w{side} type veth peer name under0 netns {host.name}",
                f"link set w{side} master br0 up",
            )
            self.wire.run(plain_wire(f"w{side}", gro=False))

    def set_loss(self, fraction: float) -> None:
        """Drop this share of the datagrams in each direction, each by its own throw. Only on a lossy underlay."""
        rules = ["flush ruleset", "table netdev loss {"]
        if fraction:
            for side in (0, 1):
                rules.append(
                    f"chain w{side} {{\ntype filter hook ingress device w{side} priority 0\n"
                    f"numgen random mod 100000 < {round(fraction * 100000)} counter drop\n}}"
                )
        self.wire.run(["nft", "-f", "-"], stdin="\n".join([*rules, "}"]))

    def _add_guest(self, side: int) -> None:
        guest, host = self.guests[side], self.hosts[side]
        guest.run(["sh", "-c", "echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6"])
        host.ip(f"link add dev guest0 mtu {self.mtu} type veth peer name eth0 netns {guest.name}")
        guest.ip(
            f"link set eth0 address {GUEST_MAC[side]} mtu {self.mtu} up",
            f"addr add {GUEST_ADDRESS[side]}/24 dev eth0",
        )
        host.ip("link set guest0 up")

    def make_bridge(self, side: int) -> None:
        """For a contestant that does not make its own."""
        self._bridges[side] = "br0"
        self.hosts[side].run(
            ["sh", "-c", "for d in all default; do echo 1 > /proc/sys/net/ipv6/conf/$d/disable_ipv6; done"]
        )
        self.hosts[side].ip("link add dev br0 type bridge forward_delay 0", "link set br0 up")
        self.attach(side, "guest0", "br0")

    def attach(self, side: int, link: str, bridge: str = "br0") -> None:
        """Put a link into the side's bridge, at the segment's MTU."""
        self.hosts[side].ip(f"link set {link} mtu {self.mtu} master {bridge} up")

    def attach_tap(self, side: int, link: str) -> None:
        """Wait for a tunnel's TAP, then put it into the bridge with the queue that all get."""
        wait_until(lambda: self.has_link(side, link), 5.0, f"{link} did not appear")
        self.hosts[side].ip(f"link set {link} txqueuelen {TAP_QUEUE_LEN}")
        self.attach(side, link)

    def has_link(self, side: int, link: str) -> bool:
        """Whether the host has a link of this name."""
        return self.hosts[side].run(["ip", "link", "show", link], check=False).returncode == 0

    def limit_mss(self, mss: int) -> None:
        """Make the guests' TCP announce at most this MSS, their MTU stays: an MSS clamp that costs nothing."""
        for guest in self.guests:
            guest.ip(f"route replace 10.99.0.0/24 dev eth0 advmss {mss}")

    def underlay_datagrams(self) -> int:
        """Datagrams that left host a on the underlay; a GSO burst counts as one where the underlay offloads."""
        return int(self.hosts[0].run(["cat", "/sys/class/net/under0/statistics/tx_packets"]).stdout)


def plain_wire(link: str, *, gro: bool) -> list[str]:
    """The ethtool call that takes the segmentation offloads from a link."""
    options = ["tso", "off", "gso", "off", "tx-udp-segmentation", "off", "gro", "on" if gro else "off"]
    return ["ethtool", "-K", link, *options]


def wait_until(condition: Callable[[], bool], timeout: float, otherwise: str) -> None:
    """Poll; LabError when it does not become true in time."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise LabError(f"{otherwise} within {timeout:g} s")
        time.sleep(0.02)


def inside(namespace: Namespace, make: Callable[[], T]) -> T:
    """Call `make` in the namespace: a socket that it opens stays there. (A thread of its own enters, and ends.)"""

    def enter() -> T:
        with Path("/run/netns", namespace.name).open("rb") as handle:
            if _libc.setns(handle.fileno(), CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")
        return make()

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(enter).result()


def raise_udp_buffers(pids: list[int]) -> int:
    """Give every UDP socket of these processes UDP_BUFFER bytes each way, from outside; returns how many sockets there were.

    Not every tool has an option for it; borrowed through pidfd_getfd(2), all get the same.
    """
    return sum(_raise_buffers_of(pid) for pid in pids)


def _raise_buffers_of(pid: int) -> int:
    count = 0
    handle = os.pidfd_open(pid)
    try:
        for number in _socket_numbers(pid):
            borrowed = _libc.syscall(SYS_PIDFD_GETFD, handle, number, 0)
            if borrowed < 0:
                continue
            with socket.socket(fileno=borrowed) as peer_socket:
                if peer_socket.type == socket.SOCK_DGRAM and peer_socket.family in (
                    socket.AF_INET,
                    socket.AF_INET6,
                ):
                    peer_socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, UDP_BUFFER)
                    peer_socket.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, UDP_BUFFER)
                    count += 1
    finally:
        os.close(handle)
    return count


def _socket_numbers(pid: int) -> Iterator[int]:
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            if re.match(r"socket:", str(entry.readlink())):
                yield int(entry.name)
