"""Every change that a node must notice, made by `ip` in a namespace and told within a second."""

import os
import select
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from l2overlay.linux.links import ChangeKind, LinkChange, LinkWatch
from l2overlay.testing.lab import Namespace

from .conftest import inside

NOTICED_WITHIN = 1.0


class Watched:
    """A namespace with a bridge, a veth in it, an underlay address, and a watch that has seen all that."""

    def __init__(self, host: Namespace, watch: LinkWatch) -> None:
        self.host, self.watch = host, watch

    def changes_after(self, *lines: str, until: LinkChange) -> list[LinkChange]:
        """What the watch tells after `ip` ran these lines, up to the change that must come."""
        self.host.ip(*lines)
        changes: list[LinkChange] = []
        deadline = time.monotonic() + NOTICED_WITHIN
        while until not in changes and (left := deadline - time.monotonic()) > 0:
            select.select([self.watch], [], [], left)
            changes += self.watch.receive_changes()
        assert until in changes
        return changes


@pytest.fixture
def watched(namespace: Callable[[], Namespace]) -> Iterator[Watched]:
    host = namespace()
    host.ip(
        "link add br0 type bridge mcast_snooping 0",
        "link add port0 type veth peer name guest0",
        "link add under0 type veth peer name wire0",
        *(f"link set {link} addrgenmode none up" for link in ("br0", "guest0", "port0", "under0", "wire0")),
        "link set port0 master br0",
        "addr add 10.0.0.1/24 dev under0",
    )
    with ExitStack() as stack:
        with inside(host):
            watch = LinkWatch()
        stack.callback(watch.close)
        while select.select([watch], [], [], 0.3)[0]:  # what the set-up itself still has to say
            watch.receive_changes()
        yield Watched(host, watch)


@pytest.mark.parametrize(
    ("line", "change"),
    [
        ("link del port0", LinkChange(ChangeKind.LINK_GONE, "port0")),
        ("link del br0", LinkChange(ChangeKind.LINK_GONE, "br0")),
        ("link set port0 down", LinkChange(ChangeKind.LINK_DOWN, "port0")),
        ("link set guest0 down", LinkChange(ChangeKind.LINK_DOWN, "port0")),  # its carrier
        ("link set under0 mtu 1400", LinkChange(ChangeKind.MTU_CHANGED, "under0", "1400")),
        ("link set port0 nomaster", LinkChange(ChangeKind.MASTER_CHANGED, "port0")),
        ("link set wire0 master br0", LinkChange(ChangeKind.MASTER_CHANGED, "wire0", "br0")),
        ("addr add 10.0.0.9/24 dev under0", LinkChange(ChangeKind.ADDRESS_ADDED, "under0", "10.0.0.9/24")),
        ("addr add fd00::9/64 dev under0", LinkChange(ChangeKind.ADDRESS_ADDED, "under0", "fd00::9/64")),
        ("addr del 10.0.0.1/24 dev under0", LinkChange(ChangeKind.ADDRESS_REMOVED, "under0", "10.0.0.1/24")),
        ("route add default via 10.0.0.2", LinkChange(ChangeKind.ROUTE_CHANGED, "under0")),
        ("route add 2001:db8::/32 dev under0", LinkChange(ChangeKind.ROUTE_CHANGED, "under0")),
        ("route add blackhole 192.0.2.0/24", LinkChange(ChangeKind.ROUTE_CHANGED)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_change_is_told_within_a_second(watched: Watched, line: str, change: LinkChange) -> None:
    watched.changes_after(line, until=change)


def test_a_port_taken_out_of_its_bridge_is_not_told_as_a_link_that_is_gone(watched: Watched) -> None:
    changes = watched.changes_after(
        "link set port0 nomaster", until=LinkChange(ChangeKind.MASTER_CHANGED, "port0")
    )
    assert [c.kind for c in changes if c.link == "port0"] == [ChangeKind.MASTER_CHANGED]


def test_a_renamed_link_is_gone_under_its_old_name_and_up_under_the_new(watched: Watched) -> None:
    changes = watched.changes_after(
        "link set port0 name port1", until=LinkChange(ChangeKind.LINK_UP, "port1")
    )
    assert changes[0] == LinkChange(ChangeKind.LINK_GONE, "port0")


def test_a_link_that_went_down_is_told_when_it_is_up_again(watched: Watched) -> None:
    watched.changes_after("link set port0 down", until=LinkChange(ChangeKind.LINK_DOWN, "port0"))
    watched.changes_after("link set port0 up", until=LinkChange(ChangeKind.LINK_UP, "port0"))


def test_what_the_kernel_repeats_is_told_once(watched: Watched) -> None:
    address = LinkChange(ChangeKind.ADDRESS_ADDED, "under0", "fd00::9/64")
    watched.changes_after("addr add fd00::9/64 dev under0", until=address)
    changes = watched.changes_after(
        "addr change fd00::9/64 dev under0 valid_lft 9999 preferred_lft 9999",
        "link set under0 txqueuelen 999",
        "addr add fd00::10/64 dev under0",
        until=LinkChange(ChangeKind.ADDRESS_ADDED, "under0", "fd00::10/64"),
    )
    assert address not in changes
    assert not [c for c in changes if c.kind in (ChangeKind.LINK_UP, ChangeKind.LINK_DOWN)]


def test_a_local_route_which_every_address_brings_along_is_not_told(watched: Watched) -> None:
    changes = watched.changes_after(
        "route add local 192.0.2.0/24 dev under0",
        "link del br0",
        until=LinkChange(ChangeKind.LINK_GONE, "br0"),
    )
    assert LinkChange(ChangeKind.ROUTE_CHANGED, "under0") not in changes


def test_many_route_changes_of_one_link_are_told_as_one(watched: Watched) -> None:
    lines = [f"route add 192.0.2.{n}/32 dev under0" for n in range(100)]
    watched.host.ip(*lines)
    changes = watched.changes_after("link del br0", until=LinkChange(ChangeKind.LINK_GONE, "br0"))
    assert changes.count(LinkChange(ChangeKind.ROUTE_CHANGED, "under0")) == 1


def test_an_overrun_is_told_as_lost_and_the_watch_knows_the_present_again(watched: Watched) -> None:
    with socket.socket(fileno=os.dup(watched.watch.fileno())) as same:
        same.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    watched.host.ip(
        *(f"route add 192.0.2.{n}/32 dev under0" for n in range(100)), "addr add 10.0.0.9/24 dev under0"
    )
    with inside(watched.host):
        assert LinkChange(ChangeKind.LOST) in watched.watch.receive_changes()
    changes = watched.changes_after(
        "addr del 10.0.0.9/24 dev under0",
        until=LinkChange(ChangeKind.ADDRESS_REMOVED, "under0", "10.0.0.9/24"),
    )
    assert LinkChange(ChangeKind.LOST) not in changes


def test_other_processes_cannot_make_the_watch_believe_anything(watched: Watched) -> None:
    link_gone = bytes.fromhex("20000000 1100 0000 00000000 00000000 0000 0100 02000000 00000000 ffffffff")
    with (
        inside(watched.host),
        socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as forger,
    ):
        port = socket.socket(fileno=os.dup(watched.watch.fileno()))
        with port:
            forger.sendto(link_gone, (port.getsockname()[0], 0))
    assert select.select([watched.watch], [], [], 1)[0]
    assert watched.watch.receive_changes() == []


def test_the_ports_of_a_bridge_are_those_of_now(watched: Watched) -> None:
    assert watched.watch.ports("br0") == ("port0",)
    watched.changes_after(
        "link add vm1 type veth peer name guest1",
        "link set vm1 master br0",
        until=LinkChange(ChangeKind.MASTER_CHANGED, "vm1", "br0"),
    )
    assert watched.watch.ports("br0") == ("port0", "vm1")
    watched.changes_after("link set vm1 nomaster", until=LinkChange(ChangeKind.MASTER_CHANGED, "vm1", ""))
    assert watched.watch.ports("br0") == ("port0",)
    watched.changes_after(
        "link set port0 down", "link set port0 name p", until=LinkChange(ChangeKind.LINK_GONE, "port0")
    )
    assert watched.watch.ports("br0") == ("p",)
    watched.changes_after("link del p", until=LinkChange(ChangeKind.LINK_GONE, "p"))
    assert watched.watch.ports("br0") == ()
    assert watched.watch.ports("no-such-bridge") == ()
