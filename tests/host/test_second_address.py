"""A node that is called at another address than its preferred one, through a stateful firewall or a NAT.

caller: eth0 --[under0]-- host: under0, and one address more
"""

from collections.abc import Callable

import pytest

from l2overlay.testing.lab import Lab

MakeLab = Callable[..., Lab]

FIREWALL = """
table inet stateful {
  chain input {
    type filter hook input priority 0; policy drop;
    iifname "lo" accept
    iifname != "under0" accept
    ct state established,related accept
    meta l4proto { icmp, ipv6-icmp } accept
  }
}
"""

NAT = """
table inet nat {
  chain postrouting {
    type nat hook postrouting priority 100;
    meta l4proto udp udp sport 7470 oifname "under0" masquerade to :40000-40010
  }
}
"""
"""Its mapping lets in only what comes from the address that was called."""


@pytest.mark.parametrize("between", [FIREWALL, NAT], ids=["firewall", "nat"])
@pytest.mark.parametrize(
    ("called", "link"), [("198.18.9.9/32", "lo"), ("fd77::9/128", "lo")], ids=["v4-on-lo", "v6-on-lo"]
)
def test_a_node_that_is_called_at_another_address_comes_up_through_a_stateful_firewall_or_a_nat(
    lab: MakeLab, called: str, link: str, between: str
) -> None:
    net = lab()
    caller, host = net.add_underlay(hosts=2)
    net.add_guest(caller)
    net.add_guest(host)
    address = called.partition("/")[0]
    host.ip(f"addr add {called} dev {link}")
    caller.ip(f"route add {called} via {host.ipv6 if ':' in called else host.ipv4}")
    caller.run(["nft", "-f", "-"], stdin=between)
    text = net.write_peers_toml().read_text()
    text = text.replace(f'endpoint = "{caller.ipv4}:7470"\n', "")
    text = text.replace(f'"{host.ipv4}:', f'"[{address}]:' if ":" in address else f'"{address}:')
    assert net.peers_file is not None
    net.peers_file.write_text(text)
    net.start_nodes()
    assert [ping for ping in net.ping_matrix(count=2, families=[4]).values() if not ping.received] == []
