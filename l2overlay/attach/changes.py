"""The changes of the host that `attach netns` and `attach tap` make. Each knows its inverse; see `linux/changes.py`.

Every link that is made here gets an alias (`mark.py`) before anything else can fail, and is removed only while it has that
alias and the MAC that it was given: so an undo never removes a link that somebody else made under the same name.
"""

import contextlib
import errno
import fcntl
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_interface
from pathlib import Path
from typing import TYPE_CHECKING

from l2overlay.linux.changes import Change
from l2overlay.linux.observe import read_link
from l2overlay.linux.tap import IFF_NO_PI, IFF_TAP, IFF_VNET_HDR, TUNSETIFF, open_tun_device

if TYPE_CHECKING:
    from pyroute2 import IPRoute

NAMESPACES = Path("/run/netns")
# <linux/if_tun.h>
TUNSETPERSIST = 0x400454CB
TUNSETOWNER = 0x400454CC
IFF_TUN_EXCL = 0x8000
"""Refuse a name that is taken, where TUNSETIFF would join the TAP of that name."""
_IFREQ = struct.Struct("16sH22x")


@dataclass(frozen=True, slots=True)
class RemoveLink(Change):
    """Remove a link if it still is the one that was made."""

    alias: str
    mac: str

    @property
    def line(self) -> str:
        return f"remove {self.link}"

    @property
    def inverse(self) -> None:
        return None

    def apply(self, ipr: "IPRoute") -> None:
        link = read_link(ipr, self.link)
        if link is None or (link.alias, link.mac) != (self.alias, self.mac):
            raise OSError(errno.ENODEV, f"{self.link} is not the link that was made")
        ipr.link("del", index=link.index)


@dataclass(frozen=True, slots=True)
class CreateNamespace(Change):
    """A network namespace with its loopback up. `link` is the link that is going to lead into it."""

    namespace: str

    @property
    def line(self) -> str:
        return f"make the network namespace {self.namespace}"

    @property
    def inverse(self) -> Change:
        return RemoveNamespace(self.link, self.namespace)

    def apply(self, ipr: "IPRoute") -> None:
        from pyroute2 import netns

        netns.create(self.namespace)
        with inside(self.namespace) as inner:
            inner.link("set", index=1, state="up")  # loopback is the first link of each namespace


@dataclass(frozen=True, slots=True)
class RemoveNamespace(Change):
    """Remove the name of a network namespace; it goes when nobody uses it."""

    namespace: str

    @property
    def line(self) -> str:
        return f"remove the network namespace {self.namespace}"

    @property
    def inverse(self) -> None:
        return None

    def apply(self, ipr: "IPRoute") -> None:
        from pyroute2 import netns

        netns.remove(self.namespace)


@dataclass(frozen=True, slots=True)
class CreateVeth(Change):
    """A pair of veths: `link` on the host, `inside` in the namespace."""

    namespace: str
    inside: str
    inside_mac: str
    inside_mtu: int
    mac: str
    mtu: int
    alias: str

    @property
    def line(self) -> str:
        return f"make {self.link} with its other end {self.inside} ({self.inside_mac}) in {self.namespace}"

    @property
    def inverse(self) -> Change:
        return RemoveLink(self.link, self.alias, self.mac)

    def apply(self, ipr: "IPRoute") -> None:
        peer = {
            "ifname": self.inside,
            "address": self.inside_mac,
            "mtu": self.inside_mtu,
            "net_ns_fd": self.namespace,
        }
        ipr.link("add", ifname=self.link, kind="veth", address=self.mac, mtu=self.mtu, peer=peer)
        try:
            ipr.link("set", index=self.find_link(), ifalias=self.alias)
        except BaseException:  # without its alias the inverse would not know it
            ipr.link("del", index=self.find_link())
            raise


@dataclass(frozen=True, slots=True)
class CreateTap(Change):
    """A persistent TAP that one user may open."""

    owner: int
    """The user's number."""
    mac: str
    mtu: int
    alias: str

    @property
    def line(self) -> str:
        return f"make the TAP {self.link} for the user {self.owner}"

    @property
    def inverse(self) -> Change:
        return RemoveLink(self.link, self.alias, self.mac)

    def apply(self, ipr: "IPRoute") -> None:
        """It becomes persistent at the very end: until then it goes with the descriptor, whatever ends this process."""
        fd = open_tun_device()
        try:
            flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | IFF_TUN_EXCL
            fcntl.ioctl(fd, TUNSETIFF, _IFREQ.pack(self.link.encode(), flags))
            fcntl.ioctl(fd, TUNSETOWNER, self.owner)
            index = self.find_link()
            ipr.link("set", index=index, ifalias=self.alias)
            ipr.link("set", index=index, address=self.mac, mtu=self.mtu)
            fcntl.ioctl(fd, TUNSETPERSIST, 1)
        finally:
            os.close(fd)


@dataclass(frozen=True, slots=True)
class SetUpInside(Change):
    """Set the other end of a veth up, with an address if there is one."""

    namespace: str
    inside: str
    address: str

    @property
    def line(self) -> str:
        return f"set {self.inside} in {self.namespace} up" + (
            f", with {self.address}" if self.address else ""
        )

    @property
    def inverse(self) -> None:
        return None  # it goes with the pair

    def apply(self, ipr: "IPRoute") -> None:
        with inside(self.namespace) as inner:
            (index,) = inner.link_lookup(ifname=self.inside)
            inner.link("set", index=index, state="up")
            if self.address:
                interface = ip_interface(self.address)
                inner.addr(
                    "add", index=index, address=str(interface.ip), prefixlen=interface.network.prefixlen
                )


@contextlib.contextmanager
def inside(namespace: str) -> "Iterator[IPRoute]":
    """An IPRoute in a namespace that exists. Raises OSError."""
    from pyroute2 import IPRoute

    with IPRoute(netns=str(NAMESPACES / namespace), flags=0) as ipr:  # 0: do not make a missing one
        yield ipr
