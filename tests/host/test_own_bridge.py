"""A route to a peer that leads into the node's own bridge: by its TAP it feeds on itself, by a NIC in the bridge it is fine.

g1 --[br-lab h1 (node)]--under0-- (switch) --under0--[(node) h2 br-lab]-- g2
"""

from collections.abc import Callable

import pytest

from l2overlay.testing.lab import Guest, Host, Lab, NodeProcess
from tests.host.stations import eventually, status
from tests.host.test_doctor import causes, findings

MakeLab = Callable[..., Lab]


def two_hosts(net: Lab) -> tuple[Host, Host, Guest, Guest]:
    h1, h2 = net.add_underlay(hosts=2)
    return h1, h2, net.add_guest(h1), net.add_guest(h2)


def named(node: NodeProcess, words: str) -> bool:
    return any(words in line for line in status(node)["degraded"])


def test_a_route_to_a_peer_into_the_own_bridge_feeds_nothing_and_is_named(lab: MakeLab) -> None:
    net = lab()
    h1, h2, g1, g2 = two_hosts(net)
    h1.ip("addr add 10.9.0.200/24 dev br-lab")
    node, _ = net.start_nodes()
    assert net.ping(g1, g2.ipv4, count=2).received
    assert net.ping(h1, g2.ipv4, count=2).received
    before = status(node)["counters"]["tx_datagrams"]
    h1.ip(f"route add {h2.ipv4}/32 via {g2.ipv4} dev br-lab")
    flood(h1, g2)
    assert status(node)["counters"]["tx_datagrams"] - before < 500
    eventually(lambda: named(node, f"nothing is sent to {h2.ipv4}: its route leads into br-lab"), 5.0)
    assert "tunnelled-tunnel" in causes(findings(net, h1))
    h1.ip(f"route del {h2.ipv4}/32 dev br-lab")
    eventually(lambda: net.ping(g1, g2.ipv4, count=1, wait=0.3).received > 0, 10.0)
    eventually(lambda: status(node)["state"] == "ok", 3.0)


def flood(host: Host, guest: Guest) -> None:
    """Datagrams that cannot arrive, for two seconds."""
    for _ in range(10):
        host.run(["ping", "-c1", "-W0.2", guest.ipv4], check=False)


def test_a_next_hop_in_the_own_bridge_that_nobody_hears_is_named(lab: MakeLab) -> None:
    net = lab()
    h1, h2, _, _ = two_hosts(net)
    node, _ = net.start_nodes()
    h1.ip(f"route add {h2.ipv4}/32 dev br-lab")
    eventually(lambda: named(node, f"the route to {h2.ipv4} leads into br-lab"), 12.0)
    h1.ip(f"route del {h2.ipv4}/32 dev br-lab")
    eventually(lambda: status(node)["state"] == "ok", 10.0)


@pytest.mark.parametrize("reload", [False, True], ids=["join", "reload"])
def test_an_endpoint_that_lies_in_a_bridge_without_another_port_is_refused(
    lab: MakeLab, reload: bool
) -> None:
    net = lab()
    h1, h2 = net.add_underlay(hosts=2)
    right = net.write_peers_toml().read_text()
    assert net.peers_file is not None
    wrong = right.replace(f'"{h2.ipv4}:', '"10.9.0.77:').replace(
        'name = "lab"', 'name = "lab"\naddresses = {h1 = ["10.9.0.1/24"]}', 1
    )
    net.peers_file.write_text(right if reload else wrong)
    node = net.start_node(h1)
    node.wait_ready()
    if reload:
        net.peers_file.write_text(wrong)
        node.ask("reload")
    eventually(lambda: any("nothing is sent to 10.9.0.77" in line for line in status(node)["degraded"]), 3.0)
    assert "nothing is sent to 10.9.0.77: its route leads into br-lab and back by tap-lab" in node.output()


def test_a_host_whose_only_nic_is_in_the_bridge_works_and_has_no_finding(lab: MakeLab) -> None:
    """As Proxmox has it: vmbr0 holds the NIC and the TAP, and has the host's address."""
    net = lab()
    h1, h2, g1, g2 = two_hosts(net)
    prefix = h1.run(["ip", "-4", "-o", "addr", "show", "under0"]).stdout.split()[3]
    h1.ip(f"addr del {prefix} dev under0", "link set under0 master br-lab", f"addr add {prefix} dev br-lab")
    h2.run(["sysctl", "-qw", "net.ipv4.conf.all.arp_ignore=1"])
    nodes = net.start_nodes()
    assert net.ping(g1, g2.ipv4, count=3).received
    assert status(nodes[0])["state"] == "ok"
    assert "tunnelled-tunnel" not in causes(findings(net, h1))
    assert nodes[1].terminate() == 0
    eventually(lambda: status(nodes[0])["peers"][0]["up"] is False, 8.0)
    assert "tunnelled-tunnel" not in causes(findings(net, h1))
    assert status(nodes[0])["drops"]["own_datagram"] == 0
