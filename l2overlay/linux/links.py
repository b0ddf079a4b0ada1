"""The link watch: the kernel tells what changes on the host while a node runs.

rtnetlink(7) multicasts a TAP or bridge that is deleted, a port that leaves its bridge, an address or route of the
underlay. The kernel repeats itself (a wireless link every second, IPv6 with every advertised lifetime). So the watch
remembers links and addresses, and tells only what differs.

Order: bind to the groups, then ask for the present state. So nothing that changes in between is lost.
"""

import contextlib
import errno
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import ip_address
from typing import NamedTuple

from l2overlay.linux import rtnetlink
from l2overlay.linux.rtnetlink import IFADDRMSG, IFINFOMSG, RTMSG, attributes, messages, read_u32

# <linux/rtnetlink.h>, <linux/if.h>, <linux/if_link.h>, <linux/if_addr.h>
RTMGRP_LINK = 0x1
RTMGRP_IPV4_IFADDR = 0x10
RTMGRP_IPV4_ROUTE = 0x40
RTMGRP_IPV6_IFADDR = 0x100
RTMGRP_IPV6_ROUTE = 0x400
GROUPS = RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV4_ROUTE | RTMGRP_IPV6_IFADDR | RTMGRP_IPV6_ROUTE
IFF_UP = 0x1
IFF_LOWER_UP = 0x10000
IFLA_IFNAME = 3
IFLA_MTU = 4
IFLA_MASTER = 10
IFA_ADDRESS, IFA_LOCAL, IFA_FLAGS = 1, 2, 8
NOT_USABLE = 0x40 | 0x08
"""IFA_F_TENTATIVE | IFA_F_DADFAILED: an IPv6 address that nothing can be sent from."""
RT_TABLE_LOCAL = 255
RTM_F_CLONED = 0x200

READ_SIZE = 65_536
READS_PER_CALL = 256
"""With a full BGP table the socket may never be empty; the caller comes again."""


class ChangeKind(StrEnum):
    """What happened."""

    LINK_GONE = "link_gone"  # deleted, renamed, or moved to another namespace
    LINK_DOWN = "link_down"  # set down, or its carrier lost
    LINK_UP = "link_up"
    MTU_CHANGED = "mtu_changed"  # `detail` is the new one
    MASTER_CHANGED = "master_changed"  # put into a bridge (`detail` names it) or taken out (empty)
    ADDRESS_ADDED = "address_added"  # usable from now on: after duplicate address detection
    ADDRESS_REMOVED = "address_removed"
    ROUTE_CHANGED = "route_changed"  # any table but `local`; once a call and link, however many they were
    LOST = "lost"  # the kernel told more than we heard: look at everything again


@dataclass(frozen=True, slots=True)
class LinkChange:
    """One change. `link` is empty for LOST, and for a route without a single link."""

    kind: ChangeKind
    link: str = ""
    detail: str = ""
    """The new master or MTU, or the address."""


class _Link(NamedTuple):
    name: str
    up: bool
    master: int
    mtu: int


class LinkWatch:
    """A netlink socket to wait on, and what it has told so far. It does not block. Close it when done."""

    def __init__(self) -> None:
        self._links: dict[int, _Link] = {}
        self._addresses: set[tuple[int, str]] = set()
        self._stale = False
        """The present state could not be read after something was lost."""
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        self._socket.setblocking(False)
        self._socket.bind((0, GROUPS))
        self._asking = (
            rtnetlink.open_netlink()
        )  # kept, because there may be no descriptor left when it is needed
        self._learn_all()

    def fileno(self) -> int:
        """For readiness; -1 once closed."""
        return self._socket.fileno()

    def close(self) -> None:
        """Stop listening."""
        self._socket.close()
        self._asking.close()

    def ports(self, bridge: str) -> tuple[str, ...]:
        """The names of a bridge's ports, as of the last `receive_changes`; empty when there is no such bridge."""
        indices = {index for index, link in self._links.items() if link.name == bridge}
        return tuple(sorted(link.name for link in self._links.values() if link.master in indices))

    def receive_changes(self) -> list[LinkChange]:
        """What has changed since the last call, in order."""
        changes: dict[LinkChange, None] = {}
        lost = False
        for _ in range(READS_PER_CALL):
            try:
                data, (sender, _groups) = self._socket.recvfrom(READ_SIZE)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                lost = True
                continue
            if sender == 0:  # the kernel
                for change in self._changes_in(data):
                    changes.pop(change, None)  # a repeated one stands where it was last true
                    changes[change] = None
        if lost or self._stale:  # what was still queued is older than what is missing from it
            self._stale = True
            with contextlib.suppress(OSError):  # the kernel had no memory: at the next change
                self._learn_all()
                self._stale = False
            return [LinkChange(ChangeKind.LOST), *changes]
        return list(changes)

    def _learn_all(self) -> None:
        self._links.clear()
        self._addresses.clear()
        for question in (rtnetlink.RTM_GETLINK, rtnetlink.RTM_GETADDR):
            for answer in rtnetlink.dump_by(self._asking, question):
                for _ in self._changes_in(answer):
                    pass  # the present state is no news

    def _changes_in(self, data: bytes) -> Iterator[LinkChange]:
        for kind, body in messages(data):
            if kind in (rtnetlink.RTM_NEWLINK, rtnetlink.RTM_DELLINK):
                yield from self._link_changes(kind == rtnetlink.RTM_DELLINK, body)
            elif kind in (rtnetlink.RTM_NEWADDR, rtnetlink.RTM_DELADDR):
                yield from self._address_changes(kind == rtnetlink.RTM_DELADDR, body)
            elif kind in (rtnetlink.RTM_NEWROUTE, rtnetlink.RTM_DELROUTE):
                yield from self._route_changes(body)

    def _link_changes(self, deleted: bool, body: bytes) -> Iterator[LinkChange]:
        family, _, index, flags, _ = IFINFOMSG.unpack_from(body)
        if family != socket.AF_UNSPEC:  # AF_BRIDGE says DELLINK of a port that merely left its bridge
            return
        found = attributes(body[IFINFOMSG.size :])
        name = found.get(IFLA_IFNAME, b"").rstrip(b"\0").decode(errors="replace")
        is_up = flags & (IFF_UP | IFF_LOWER_UP) == IFF_UP | IFF_LOWER_UP
        mtu = read_u32(found.get(IFLA_MTU))
        old = self._links.pop(index, _Link(name, False, 0, mtu))
        if deleted or old.name != name:
            yield LinkChange(ChangeKind.LINK_GONE, old.name)
            old = _Link(name, False, 0, mtu)
        if deleted:
            self._addresses = {known for known in self._addresses if known[0] != index}
            return
        new = self._links[index] = _Link(name, is_up, read_u32(found.get(IFLA_MASTER)), mtu)
        if new.up != old.up:
            yield LinkChange(ChangeKind.LINK_UP if new.up else ChangeKind.LINK_DOWN, name)
        if new.mtu != old.mtu:
            yield LinkChange(ChangeKind.MTU_CHANGED, name, str(new.mtu))
        if new.master != old.master:
            yield LinkChange(ChangeKind.MASTER_CHANGED, name, self._name(new.master))

    def _address_changes(self, removed: bool, body: bytes) -> Iterator[LinkChange]:
        _, prefix_len, flags, _, index = IFADDRMSG.unpack_from(body)
        found = attributes(body[IFADDRMSG.size :])
        packed = found.get(IFA_LOCAL) or found.get(IFA_ADDRESS)
        if packed is None:
            return
        known = (index, f"{ip_address(packed)}/{prefix_len}")
        usable = not removed and not (read_u32(found.get(IFA_FLAGS)) or flags) & NOT_USABLE
        if usable and known not in self._addresses:
            self._addresses.add(known)
            yield LinkChange(ChangeKind.ADDRESS_ADDED, self._name(index), known[1])
        elif not usable and known in self._addresses:
            self._addresses.discard(known)
            yield LinkChange(ChangeKind.ADDRESS_REMOVED, self._name(index), known[1])

    def _route_changes(self, body: bytes) -> Iterator[LinkChange]:
        _, _, _, _, table, _, _, _, flags = RTMSG.unpack_from(body)
        if table == RT_TABLE_LOCAL or flags & RTM_F_CLONED:
            return
        found = attributes(body[RTMSG.size :])
        yield LinkChange(ChangeKind.ROUTE_CHANGED, self._name(read_u32(found.get(rtnetlink.RTA_OIF))))

    def _name(self, index: int) -> str:
        known = self._links.get(index)
        return known.name if known is not None else ""
