"""Hosts on which something that a node wants is switched off: it says so, and does the rest."""

import json
from collections.abc import Callable

from stations import eventually

from l2overlay.demo.lab import Lab

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
