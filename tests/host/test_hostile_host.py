"""Hosts on which something that a node wants is not to be had: it says so, and does the rest."""

import json
import time
from collections.abc import Callable

import pytest

from l2overlay.testing.lab import Lab
from tests.host.stations import eventually

MakeLab = Callable[..., Lab]


def test_a_host_whose_ipv6_is_switched_off_joins_and_says_what_it_goes_without(lab: MakeLab) -> None:
    net = lab()
    (h1,) = net.add_underlay(hosts=1)
    h1.run(["sh", "-c", "echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6"])
    net.write_peers_toml(segment='addresses = { h1 = ["10.9.0.1/24", "fd09::1/64"] }')
    (node,) = net.start_nodes("--linger", "0")
    trouble = (
        "IPv6 is switched off on this host (net.ipv6.conf.default.disable_ipv6 = 1): br-lab goes without "
        "fd09::1/64; switch it on, or take that out of [segment.addresses]"
    )
    assert f"degraded: {trouble}" in node.output()
    shown = h1.run(["ip", "-j", "addr", "show", "br-lab"]).stdout
    assert [a["local"] for a in json.loads(shown)[0]["addr_info"] if a["family"] == "inet"] == ["10.9.0.1"]
    h1.run(["sh", "-c", "echo 0 > /proc/sys/net/ipv6/conf/br-lab/disable_ipv6"])
    h1.ip("link set br-lab alias woken")  # any change of a link of ours is looked at
    eventually(lambda: "fd09::1/64" in h1.run(["ip", "addr", "show", "br-lab"]).stdout, 10.0)


@pytest.mark.parametrize("where", ["own link", "on the way"])
def test_an_underlay_below_the_base_datagram_is_told_once_and_is_no_event_a_second(
    lab: MakeLab, where: str
) -> None:
    net = lab()
    hosts = net.add_underlay(hosts=2)
    for host in hosts:
        if where == "own link":
            host.ip("link set under0 mtu 900")
        else:
            host.run(
                [
                    "iptables",
                    "-A",
                    "INPUT",
                    "-i",
                    "under0",
                    "-m",
                    "length",
                    "--length",
                    "901:65535",
                    "-j",
                    "DROP",
                ]
            )
    g1, g2 = (net.add_guest(host) for host in hosts)
    net.start_nodes("--linger", "0")
    assert net.ping(g1, g2.ipv4).received == 3
    node = net.nodes[0]
    eventually(lambda: any(p["path_too_small"] for p in node.ask("peers")["peers"]), 12.0)
    end = time.monotonic() + 3.0
    while time.monotonic() < end:
        net.ping(g1, g2.ipv4, count=2, interval=0.2, size=800, wait=0.2)
    lines = node.output().splitlines()
    small = "degraded: the path to peer h2 does not carry datagrams of 1200 bytes"
    assert sum(line.startswith(small) for line in lines) == 1
    assert not any("underlay changed" in line for line in lines)
