"""A live peer that is called elsewhere by a reload, and a key that is on two hosts.

g1 --[br-lab h1]--(node)==+==(node)--[br-lab h2]-- g2
                          |
                    h3: a copy of h2 (second test)
"""

import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from l2overlay.testing.lab import Host, Lab
from tests.host.stations import Flow, eventually, peer_of, status

MakeLab = Callable[..., Lab]


def doctor(net: Lab, host: Host) -> "subprocess.CompletedProcess[str]":
    argv = [sys.executable, "-m", "l2overlay", "doctor", "--run-dir", str(net.run_dir(host))]
    return host.run(argv, check=False, timeout=30)


def test_a_reload_that_gives_a_live_peer_another_endpoint_loses_no_frame(lab: MakeLab) -> None:
    net = lab()
    h1, h2 = net.add_underlay(hosts=2)
    g1, g2 = (net.add_guest(host) for host in (h1, h2))
    other = h2.ipv4.rpartition(".")[0] + ".200"
    h2.ip(f"addr add {other}/24 dev under0")
    node, _ = net.start_nodes()
    assert net.ping(g1, g2.ipv4, count=2, wait=2).received
    with Flow(g1, g2) as there, Flow(g2, g1) as back:
        time.sleep(0.3)
        assert net.peers_file is not None
        net.peers_file.write_text(net.peers_file.read_text().replace(f"{h2.ipv4}:7470", f"{other}:7470"))
        assert node.ask("reload")["errors"] == []
        took = eventually(lambda: peer_of(node, h2.label)["endpoint"] == f"{other}:7470", 3.0)
        time.sleep(0.5)
    print(f"moved {took:.2f} s after the answer")
    assert (there.lost, back.lost, there.repeated, back.repeated) == ([], [], [], [])
    assert "is down" not in node.output()


@pytest.mark.slow
def test_a_key_that_a_cloned_host_has_too_is_named_with_both_addresses(lab: MakeLab) -> None:
    net = lab()
    h1, h2, h3 = net.add_underlay(hosts=3)
    g1, g2, g3 = (net.add_guest(host) for host in (h1, h2, h3))
    net.write_peers_toml([h1, h2])
    node, _ = net.start_node(h1), net.start_node(h2)
    net.wait_ready()
    net.start_node(h3, key_file=net.key_file(h2))
    started = time.monotonic()
    with Flow(g2, g1, interval=0.1), Flow(g3, g1, interval=0.1), Flow(g1, g2, interval=0.1):
        eventually(lambda: "two hosts have its key" in node.output(), 40.0, 0.2)
    print(f"named after {time.monotonic() - started:.1f} s")
    both = (f"{h2.ipv4}:7470", f"{h3.ipv4}:7470")
    (line,) = (line for line in node.output().splitlines() if "two hosts have its key" in line)
    told = status(node)
    (reason,) = (r for r in told["degraded"] if "one key on two hosts" in r)
    done = doctor(net, h1)
    assert done.returncode != 0
    for text in (line, reason, done.stdout):
        assert all(address in text for address in both), text
