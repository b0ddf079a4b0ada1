"""Who belongs to the segment and who does not; hosts that come back, move or die while others talk.

g1 --[br-lab h1]--(node)==+==(node)--[br-lab h2]-- g2
                          |
      g3 --[br-lab h3]--(node)
"""

import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from l2overlay import keys
from l2overlay.addresses import format_key
from l2overlay.testing.lab import Host, Lab, NodeProcess
from tests.host.stations import (
    BROADCAST,
    Ear,
    Flow,
    eventually,
    frame,
    peer_of,
    pinging,
    speak,
    stations_of,
    status,
)

MakeLab = Callable[..., Lab]


def three_hosts(net: Lab, family: int = 4) -> list[NodeProcess]:
    """Three hosts with a guest each, all nodes READY; the first frames have taught everyone where the guests are."""
    for host in net.add_underlay(hosts=3):
        net.add_guest(host)
    net.write_peers_toml(family=4 if family == 4 else 6)
    nodes = net.start_nodes()
    assert [r for r in net.ping_matrix(count=2, families=[4]).values() if not r.received] == []
    return nodes


# Who does not belong


def handshakes_in(reason: str) -> int:
    """Of `no answer to 3 handshakes`."""
    found = re.search(r"(\d+) handshakes", reason)
    return int(found[1]) if found else 0


def test_hosts_with_a_wrong_key_secret_suite_or_segment_never_come_up_and_are_named(lab: MakeLab) -> None:
    """h1 and h2 are right; h3 has a key that they do not know, h4 another psk, h5 another suite, h6 another segment."""
    net = lab()
    h1, h2, h3, h4, h5, h6 = net.add_underlay(hosts=6)
    g1, g2, g3 = (net.add_guest(host) for host in (h1, h2, h3))
    for name in ("right.psk", "wrong.psk"):
        keys.save(net.folder / name, keys.generate())
    files = _files_of_strangers(net, h3)
    nodes = {host: net.start_node(host, peers_file=files[host.label]) for host in net.hosts}
    net.wait_ready()
    right = nodes[h1]
    started = time.monotonic()
    eventually(
        lambda: all(handshakes_in(peer_of(right, f"h{n}")["reason"]) >= 3 for n in (3, 4, 5, 6)), 12.0, 0.3
    )
    print(f"all four named after {time.monotonic() - started:.1f} s")
    with Ear(g1) as ear:
        speak(g3, frame(BROADCAST, g3.mac, b"let me in"))
        assert net.ping(g1, g2.ipv4, count=5).lost == 0
        assert net.ping(g3, g1.ipv4, count=2, wait=0.2).received == 0
        assert [one for one in ear.heard() if one[6:12] == bytes.fromhex(g3.mac.replace(":", ""))] == []
    seen = status(right)
    assert [p["name"] for p in seen["peers"] if p["up"]] == ["h2"]
    assert all(p["next_try"] is not None and p["endpoint"] for p in seen["peers"] if not p["up"])
    for host in (h3, h4, h5, h6):
        assert re.search(
            rf"peer {host.label} \({host.ipv4}:7470\) is not up: .+; next try in", right.output()
        )
        assert status(nodes[host])["peers_up"] == 0
    assert seen["drops"]["unknown_peer"] > 0
    assert seen["drops"]["bad_handshake"] > 0
    assert status(nodes[h3])["drops"]["bad_mac1"] > 0
    refused = {one["cause"]: one for one in seen["refused"]}
    assert {"unknown_key", "other_suite", "other_segment"} <= refused.keys()
    assert {"other_psk", "unused_answer"} & refused.keys()
    own_key = format_key(keys.public_key(keys.load(net.key_file(h3))))
    assert own_key in refused["unknown_key"]["stanza"]
    for one in refused.values():
        assert one["text"] in right.output()


def _files_of_strangers(net: Lab, wrong_key_host: Host) -> dict[str, Path]:
    """peers.toml of each host; h3's names the key that h3 really has, as if somebody had mixed up two installations."""
    right = net.write_peers_toml(segment='psk_file = "right.psk"', name="right.toml")
    known = format_key(wrong_key_host.public_key)
    other = keys.generate()
    net.key_file(wrong_key_host).unlink()
    keys.save(net.key_file(wrong_key_host), other)
    mistaken = net.folder / "key.toml"
    mistaken.write_text(right.read_text().replace(known, format_key(keys.public_key(other))))
    psk = net.write_peers_toml(segment='psk_file = "wrong.psk"', name="psk.toml")
    suite = net.write_peers_toml(
        segment='psk_file = "right.psk"\nsuite = "chacha20-poly1305"', name="suite.toml"
    )
    segment = net.folder / "segment.toml"
    segment.write_text(right.read_text().replace('name = "lab"', 'name = "lob"'))
    return {"h1": right, "h2": right, "h3": mistaken, "h4": psk, "h5": suite, "h6": segment}


def test_two_nodes_with_swapped_keys_never_come_up_and_say_so(lab: MakeLab) -> None:
    net = lab()
    h1, h2 = net.add_underlay(hosts=2)
    g1, g2 = (net.add_guest(host) for host in (h1, h2))
    net.write_peers_toml()
    nodes = [net.start_node(h1, key_file=net.key_file(h2)), net.start_node(h2, key_file=net.key_file(h1))]
    net.wait_ready()
    assert [status(node)["node"] for node in nodes] == ["h2", "h1"]
    eventually(lambda: all("3 handshakes" in status(node)["peers"][0]["reason"] for node in nodes), 8.0, 0.1)
    assert net.ping(g1, g2.ipv4, count=2, wait=0.2).received == 0
    for node in nodes:
        seen = status(node)
        assert seen["state"] == "degraded"
        assert "is down: no answer to" in seen["degraded"][0]
        before = node.cpu_seconds()
        time.sleep(0.5)
        assert node.cpu_seconds() - before < 0.05


# Hosts that change


@pytest.mark.parametrize("family", [4, 6], ids=["IPv4", "IPv6"])
def test_traffic_goes_on_within_two_seconds_of_an_address_change(lab: MakeLab, family: int) -> None:
    """First with frames in both directions; then only the far guest talks, and the node that moved must tell by itself."""
    net = lab()
    three_hosts(net, family)
    g1, g2, _ = net.guests
    with Flow(g1, g2) as out, Flow(g2, g1) as back:
        time.sleep(0.1)
        _renumber(net.hosts[0], family, 99)
        for flow in (out, back):
            flow.flows_again(2.0)
    assert out.repeated == back.repeated == []
    eventually(lambda: peer_of(net.nodes[1], "h1")["endpoint"] == f"{_address(family, 99)}:7470", 2.0)
    with Flow(g2, g1) as alone:
        time.sleep(0.1)
        _renumber(net.hosts[0], family, 98)
        alone.flows_again(2.0)
    print(
        f"outage {out.outage():.3f} s out, {back.outage():.3f} s back, {alone.outage():.3f} s when it only hears"
    )
    assert max(out.outage(), back.outage(), alone.outage()) < 2.0


def _address(family: int, number: int) -> str:
    return f"10.77.0.{number}" if family == 4 else f"[fd77::{number}]"


def _renumber(host: Host, family: int, number: int) -> None:
    """Take the host's underlay address away and give it another one."""
    host.run(["ip", f"-{family}", "addr", "flush", "dev", "under0", "scope", "global"])
    length, flags = ("24", "") if family == 4 else ("64", " nodad")
    host.ip(f"addr add {_address(family, number).strip('[]')}/{length} dev under0{flags}")


def test_a_restarted_node_is_usable_within_a_second_of_ready_and_the_others_lose_nothing(
    lab: MakeLab,
) -> None:
    net = lab()
    nodes = three_hosts(net)
    g1, g2, g3 = net.guests
    with Flow(g1, g2) as others, Flow(g1, g3) as to_it, Flow(g3, g1) as from_it:
        time.sleep(0.2)
        assert nodes[2].terminate() == 0
        left_time = time.monotonic()
        time.sleep(0.3)
        again = net.start_node(net.hosts[2])
        again.wait_ready()
        ready_time = time.monotonic()
        for flow in (to_it, from_it):
            flow.flows_again(1.0)
    assert others.lost == []
    for flow in (to_it, from_it):
        first = min(time_ for time_ in flow.arrived.values() if time_ > left_time + 0.1)
        print(f"first frame {first - ready_time:+.3f} s after READY, outage {flow.outage():.3f} s")
        assert first < ready_time + 1.0
        assert flow.repeated == []
        late = [n for n, t in flow.arrived.items() if t - flow.sent_times[n] > 1.1]
        assert late == []  # what waits for a session waits for a second at most: nothing old is delivered


def test_a_peer_killed_under_traffic_is_down_within_eight_seconds_and_the_others_lose_nothing(
    lab: MakeLab,
) -> None:
    net = lab()
    nodes = three_hosts(net)
    g1, g2, g3 = net.guests
    assert all(g3.mac in stations_of(node, "h3") for node in nodes[:2])
    with Flow(g1, g2) as others, Flow(g1, g3), Flow(g2, g3), pinging(net, g2, g1.ipv4, 650, 0.01) as pings:
        time.sleep(0.3)
        nodes[2].kill()
        killed = time.monotonic()
        eventually(lambda: not any(peer_of(node, "h3")["up"] for node in nodes[:2]), 8.0, 0.1)
        print(f"down after {time.monotonic() - killed:.1f} s")
    assert [stations_of(node, "h3") for node in nodes[:2]] == [[], []]
    assert all(peer_of(node, "h3")["reason"].startswith("no answer") for node in nodes[:2])
    assert others.lost == []
    assert pings[0].lost == 0
    again = net.start_node(net.hosts[2])
    again.wait_ready()
    ready = time.monotonic()
    for guest in (g1, g2):
        assert net.ping(guest, g3.ipv4, count=1).received == 1
    assert time.monotonic() - ready < 1.0


# A bridge that was there before


def test_a_bridge_in_use_is_adopted_and_left_without_a_lost_frame(lab: MakeLab) -> None:
    """The host has its address on the bridge, two guests talk over it: joining and leaving does not touch them."""
    net = lab()
    h1, h2 = net.add_underlay(hosts=2)
    net.add_bridge(h1, "lan0")
    g1, beside = net.add_guest(h1), net.add_guest(h1)
    net.add_bridge(h2, "lan0")
    g3 = net.add_guest(h2)
    h1.ip("addr add 10.9.0.100/24 dev lan0", "addr add fd09::100/64 dev lan0 nodad")
    net.write_peers_toml(segment='bridge = "lan0"')
    before = _shape(h1, "lan0")
    with Flow(g1, beside) as local, pinging(net, g1, "10.9.0.100", 250, 0.01) as pings:
        nodes = net.start_nodes()
        assert net.ping(g3, "10.9.0.100", count=3).lost == 0
        assert net.ping(g3, g1.ipv6, count=3).lost == 0
        assert status(nodes[0])["bridge"] == {
            "name": "lan0",
            "ports": [g1.label, beside.label, "tap-lab"],
            "adopted": True,
        }
        assert [node.terminate() for node in nodes] == [0, 0]
        time.sleep(0.1)
    assert local.lost == []
    assert pings[0].lost == 0
    assert _shape(h1, "lan0") == before


def _shape(host: Host, bridge: str) -> dict[str, Any]:
    """What of the bridge is configuration, and its ports."""
    (link,) = json.loads(host.run(["ip", "-j", "-d", "link", "show", "dev", bridge]).stdout)
    ports = json.loads(host.run(["ip", "-j", "link", "show", "master", bridge]).stdout)
    kept = {key: link[key] for key in ("address", "mtu", "flags", "operstate")}
    data = link["linkinfo"]["info_data"]
    changing = {key for key in data if key.endswith("_timer") or key == "topology_change"}
    return {
        **kept,
        "ports": sorted(port["ifname"] for port in ports),
        **{k: v for k, v in data.items() if k not in changing},
    }
