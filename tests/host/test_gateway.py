"""`uplink = { nat = "wan0" }`: a guest of one host reaches the world behind another host.

g1 -- [br-lab] -- h1 ====== h2 -- [br-lab: 10.9.0.254/24 fd09::fe/64]      ====: the overlay
                             |wan0: 203.0.113.2/24 2001:db8::2/64
                             |eth0: 203.0.113.1/24 2001:db8::1/64
                          world: 198.51.100.1, 2001:db8:1::1 on lo; knows no way to the segment
"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from l2overlay.testing.lab import Host, Lab, Namespace, differences
from l2overlay.testing.snapshot import take_snapshot
from tests.host.test_node_lifecycle import call

MakeLab = Callable[..., Lab]
WORLD = ("198.51.100.1", "2001:db8:1::1")
ADDRESSES = 'addresses = { h2 = ["10.9.0.254/24", "fd09::fe/64"] }'


class Site:
    """The drawing above, with no node yet."""

    def __init__(self, net: Lab) -> None:
        self.net = net
        self.h1, self.h2 = net.add_underlay(hosts=2)
        self.guest = net.add_guest(self.h1)
        self.world = Namespace(f"{net.prefix}-world")
        self.world.create()
        self.h2.ip(
            f"link add wan0 type veth peer name eth0 netns {self.world.name}",
            "addr add 203.0.113.2/24 dev wan0",
            "addr add 2001:db8::2/64 dev wan0 nodad",
            "link set wan0 up",
            "route add default via 203.0.113.1",
            "route add default via 2001:db8::1",
        )
        self.world.ip(
            "link set lo up",
            "link set eth0 up",
            "addr add 203.0.113.1/24 dev eth0",
            "addr add 2001:db8::1/64 dev eth0 nodad",
            f"addr add {WORLD[0]}/32 dev lo",
            f"addr add {WORLD[1]}/128 dev lo",
        )
        self.guest.ip("route add default via 10.9.0.254", "route add default via fd09::fe")

    def write(self, uplink: str = 'uplink = { nat = "wan0" }', **wanted: str) -> Path:
        """peers.toml with `uplink` in the stanza of h2."""
        path = self.net.write_peers_toml(segment=wanted.get("segment", ADDRESSES))
        before, h2, after = path.read_text().partition('name = "h2"\n')
        path.write_text(f"{before}{h2}{uplink}\n{after}")
        return path

    def reaches(self, *addresses: str) -> bool:
        """Whether the guest reaches all of them within 5 s."""
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            if all(self.net.ping(self.guest, address, count=1, wait=0.5).received for address in addresses):
                return True
        return False

    def run(self, *argv: str) -> str:
        """A command in h2."""
        return self.h2.run([*argv]).stdout


@pytest.fixture(name="site")
def sites(lab: MakeLab) -> Iterator[Site]:
    made = Site(lab())
    yield made
    made.world.delete()


def everything(host: Host) -> dict[str, tuple[str, ...]]:
    return {name: lines for name, lines in take_snapshot(host).items() if name != "bridge fdb"}


def awkward(site: Site) -> None:
    """A host where each trap is set: FORWARD DROP of Docker or ufw, strict rp_filter, a router of a single interface."""
    site.run("iptables", "-P", "FORWARD", "DROP")
    site.run("ip6tables", "-P", "FORWARD", "DROP")
    site.run("iptables", "-A", "FORWARD", "-i", "nobody", "-j", "DROP")
    site.run("sysctl", "-qw", "net.ipv4.conf.all.rp_filter=1", "net.ipv6.conf.under0.forwarding=1")


def test_a_guest_reaches_the_world_behind_another_host_and_leave_undoes_it(site: Site) -> None:
    awkward(site)
    site.write()
    before = everything(site.h2)
    site.net.start_nodes()
    assert site.reaches(*WORLD)
    assert site.run("sysctl", "-n", "net.ipv4.ip_forward").strip() == "0"
    assert site.run("sysctl", "-n", "net.ipv4.conf.under0.forwarding").strip() == "0"
    assert site.net.nodes[1].terminate() == 0
    assert differences(before, everything(site.h2)) == []


def test_cleanup_after_a_kill_undoes_the_gateway(site: Site) -> None:
    site.write()
    before = everything(site.h2)
    site.net.start_nodes()
    site.net.nodes[1].kill()
    assert differences(before, everything(site.h2))
    call(site.net, site.h2, "cleanup", "lab")
    assert differences(before, everything(site.h2)) == []


def test_a_node_that_was_killed_takes_its_gateway_over_and_undoes_it_at_the_end(site: Site) -> None:
    site.write()
    before = everything(site.h2)
    site.net.start_nodes()
    site.net.nodes[1].kill()
    node = site.net.start_node(site.h2)
    node.wait_ready()
    assert site.reaches(*WORLD)
    assert node.terminate() == 0
    assert differences(before, everything(site.h2)) == []


def test_a_reload_adds_the_gateway_changes_it_and_takes_it_away(site: Site) -> None:
    site.write(uplink="")
    site.net.start_nodes()
    without = everything(site.h2)
    for uplink, out in (("wan0", True), ("under0", False), ("wan0", True)):
        site.write(f'uplink = {{ nat = "{uplink}" }}')
        call(site.net, site.h2, "reload")
        assert f"-o {uplink} -j L2U-lab" in site.run("iptables-save")
        assert site.net.ping(site.guest, WORLD[0], wait=0.5).received == (3 if out else 0)
    site.write(uplink="")
    call(site.net, site.h2, "reload")
    assert differences(without, everything(site.h2)) == []


def test_the_keeper_puts_back_what_somebody_takes_away(site: Site) -> None:
    site.write()
    site.net.start_nodes()
    site.run("iptables", "-t", "nat", "-F")
    site.run("ip6tables", "-F", "FORWARD")
    site.run("iptables", "-I", "FORWARD", "1", "-j", "DROP")
    site.run("sysctl", "-qw", "net.ipv6.conf.all.forwarding=0", "net.ipv4.conf.wan0.forwarding=0")
    deadline = time.monotonic() + 15
    while not site.reaches(*WORLD):
        assert time.monotonic() < deadline, site.net.nodes[1].output()
    time.sleep(6)  # a node that agrees with the kernel about what is right repairs once
    assert site.net.nodes[1].output().count("repaired: ") == 1


def test_an_uplink_that_is_not_there_is_refused_and_nothing_has_changed(site: Site) -> None:
    site.write('uplink = { nat = "wan7" }')
    before = everything(site.h2)
    node = site.net.start_node(site.h2)
    assert node.process.wait(15) != 0
    assert "there is no interface wan7; correct uplink in this host's stanza" in node.output()
    assert differences(before, everything(site.h2)) == []


def test_the_gateway_filters_what_guests_send_out_too(site: Site) -> None:
    path = site.write()
    rule = '[[filter.rules]]\ndirection = "in"\naction = "drop"\ndestination = "198.51.100.0/24"\n'
    path.write_text(path.read_text() + f'[filter]\ndefault_in = "accept"\n{rule}')
    before = everything(site.h2)
    site.net.start_nodes()
    assert site.reaches(WORLD[1], "203.0.113.1")
    assert site.net.ping(site.guest, WORLD[0], wait=0.5).received == 0
    assert site.net.nodes[1].terminate() == 0
    assert differences(before, everything(site.h2)) == []


FILTER = (
    '[filter]\ndefault_in = "accept"\n[[filter.rules]]\ndirection = "in"\naction = "drop"\nprotocol = "gre"\n'
)


@pytest.mark.parametrize("order", ["filter first", "gateway first"])
def test_whatever_goes_first_filter_or_gateway_nothing_is_left(site: Site, order: str) -> None:
    """iptables-nft makes a table for whichever comes first, and the other one uses it too."""
    uplink = 'uplink = { nat = "wan0" }'
    first, second = (("", FILTER), (uplink, "")) if order == "filter first" else ((uplink, ""), ("", FILTER))
    before: dict[str, tuple[str, ...]] = {}
    for outer, rules in (first, (uplink, FILTER), second):
        path = site.write(outer)
        path.write_text(path.read_text() + rules)
        if not before:
            before = everything(site.h2)
            site.net.start_nodes()
        else:
            call(site.net, site.h2, "reload")
    assert site.net.nodes[1].terminate() == 0
    assert differences(before, everything(site.h2)) == []
