"""A peer whose host or router says by ICMP why nobody answers.

h1 --+-- h2: no node runs there
     +-- 10.x.x.x: no such host
"""

from collections.abc import Callable

import pytest

from l2overlay.testing.lab import Host, Lab
from tests.host.stations import eventually, peer_of, status

MakeLab = Callable[..., Lab]


@pytest.mark.parametrize("family", [4])
def test_a_host_without_a_node_and_an_address_without_a_host_are_told_from_silence(
    lab: MakeLab, family: int
) -> None:
    net = lab()
    h1, h2, h3 = net.add_underlay(hosts=3)
    for host in (h1, h2, h3):
        net.add_guest(host)
    file = net.write_peers_toml(family=4 if family == 4 else 6)
    h3.ip("link set under0 down")
    node = net.start_node(h1, peers_file=file)
    node.wait_ready()
    closed, gone = (_address(host, family) for host in (h2, h3))

    def reasons() -> list[str]:
        return [peer_of(node, "h2")["reason"], peer_of(node, "h3")["reason"]]

    eventually(
        lambda: (
            reasons()
            == [
                f"port closed at {closed} (ICMP): is the node running there?",
                f"host {gone} is unreachable (ICMP): is it on, and is its address right?",
            ]
        ),
        15.0,
        0.3,
    )
    assert any("port closed" in trouble for trouble in status(node)["degraded"])
    net.start_node(h2, peers_file=file)
    eventually(lambda: peer_of(node, "h2")["up"], 10.0, 0.2)
    assert not any("port closed" in trouble for trouble in status(node)["degraded"])


def _address(host: Host, family: int) -> str:
    return f"{host.ipv4}:7470" if family == 4 else f"[{host.ipv6}]:7470"
