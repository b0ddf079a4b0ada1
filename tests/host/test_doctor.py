"""`l2overlay doctor` on real hosts: silent while all is well, and the cause named when one thing is broken.

h1 [br-lab]--tap-lab--(node)== underlay ==(node)--tap-lab--[br-lab] h2
      |  g1                                                  |  g2

Every break is proved to be one, by a guest that loses its ping, wherever it takes frames away at once.
"""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from l2overlay.testing.lab import Family, Guest, Host, Lab, Namespace, child_environment, differences
from tests.host.stations import eventually, frame, speak

MakeLab = Callable[..., Lab]


def doctor(lab: Lab, host: Host, *extra: str) -> "subprocess.CompletedProcess[str]":
    """`l2overlay doctor` in the host, of the lab's node there unless `extra` names something else."""
    env = [f"{name}={value}" for name, value in child_environment().items() if name.startswith("PYTHON")]
    where = [] if "--bridge" in extra else ["--run-dir", str(lab.run_dir(host))]
    argv = ["env", *env, sys.executable, "-m", "l2overlay", "doctor", *where, *extra]
    return host.run(argv, check=False)


def findings(lab: Lab, host: Host, *extra: str) -> list[dict[str, Any]]:
    done = doctor(lab, host, "--json", *extra)
    assert done.returncode in (0, 4), done.stderr
    data = json.loads(done.stdout)
    assert data["schema"] == "l2overlay.doctor/1"
    assert data["ok"] == (not data["findings"]) == (done.returncode == 0)
    found: list[dict[str, Any]] = data["findings"]
    return found


def causes(found: list[dict[str, Any]]) -> list[str]:
    return [finding["cause"] for finding in found]


def the_finding(lab: Lab, host: Host, cause: str, *extra: str) -> dict[str, Any]:
    """The only finding, and it is this one."""
    found = findings(lab, host, *extra)
    assert causes(found) == [cause], found
    return found[0]


def commands(finding: dict[str, Any]) -> list[str]:
    return [" ".join(command) for command in finding["fix"]]


def healthy(lab: Lab, *extra: str) -> tuple[Host, Host, Guest, Guest]:
    h1, h2 = lab.add_underlay(hosts=2)
    g1, g2 = (lab.add_guest(host) for host in (h1, h2))
    lab.write_peers_toml(segment="\n".join(extra))
    lab.start_nodes()
    assert lab.ping(g1, g2.ipv4).received == 3
    return h1, h2, g1, g2


def passes(lab: Lab, one: Guest, other: Guest, family: int = 4) -> bool:
    return lab.ping(one, other.ipv4 if family == 4 else other.ipv6, count=2, wait=0.3).received == 2


def set_sysctl(host: Namespace, name: str, value: str) -> None:
    host.run(["sh", "-c", f"echo {value} > /proc/sys/{name}"])


def sysctl(host: Host, name: str) -> str:
    return host.run(["cat", f"/proc/sys/{name}"]).stdout.strip()


# Health


def test_a_healthy_host_has_no_finding_and_is_left_as_it_was(lab: MakeLab) -> None:
    net = lab()
    h1, *_ = healthy(net)
    assert sysctl(h1, "net/bridge/bridge-nf-call-iptables") == "1"  # alone that is no trouble
    before = net.snapshot(h1)
    done = doctor(net, h1, "-v")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == "lab: nothing is wrong"
    assert doctor(net, h1, "--fix").returncode == 0
    assert differences(before, net.snapshot(h1)) == []


def test_a_host_with_docker_ufw_and_a_stateful_firewall_that_let_the_segment_pass_has_no_finding(
    lab: MakeLab,
) -> None:
    net = lab()
    h1, _, g1, g2 = healthy(net)
    h1.run(["iptables-restore"], stdin=DOCKER.replace(":DOCKER-USER - [0:0]\n", ALLOWING))
    h1.run(["nft", "-f", "-"], stdin=STATEFUL)
    assert passes(net, g1, g2)
    assert findings(net, h1) == []


def test_what_the_segment_s_own_filter_drops_is_no_finding(lab: MakeLab) -> None:
    net = lab()
    h1, h2 = net.add_underlay(hosts=2)
    g1, g2 = (net.add_guest(host) for host in (h1, h2))
    peers = net.write_peers_toml()
    peers.write_text(peers.read_text() + '\n[filter]\ndefault_in = "drop"\n')
    net.start_nodes()
    assert not passes(net, g2, g1)
    assert "L2O-lab" in h1.run(["iptables-save"]).stdout
    assert findings(net, h1) == []


DOCKER = """*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:DOCKER - [0:0]
:DOCKER-ISOLATION-STAGE-1 - [0:0]
:DOCKER-ISOLATION-STAGE-2 - [0:0]
:DOCKER-USER - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -j DOCKER-ISOLATION-STAGE-1
-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -o docker0 -j DOCKER
-A FORWARD -i docker0 ! -o docker0 -j ACCEPT
-A FORWARD -i docker0 -o docker0 -j ACCEPT
-A DOCKER-ISOLATION-STAGE-1 -i docker0 ! -o docker0 -j DOCKER-ISOLATION-STAGE-2
-A DOCKER-ISOLATION-STAGE-1 -j RETURN
-A DOCKER-ISOLATION-STAGE-2 -o docker0 -j DROP
-A DOCKER-ISOLATION-STAGE-2 -j RETURN
-A DOCKER-USER -j RETURN
COMMIT
"""
"""What dockerd writes, with nothing published."""
ALLOWING = ":DOCKER-USER - [0:0]\n-A DOCKER-USER -i br-lab -o br-lab -j ACCEPT\n"
STATEFUL = """table inet guard {
    chain into {
        type filter hook input priority filter; policy drop;
        ct state vmap { established : accept, related : accept, invalid : drop }
        iifname "lo" accept
        meta l4proto { icmp, ipv6-icmp } accept
        udp dport 7470 counter accept
    }
    chain through {
        type filter hook forward priority filter + 10; policy accept;
        iifname "docker0" oifname != "docker0" drop
    }
}
"""


# What others filter


def test_docker_s_forward_policy_is_named_and_the_fix_goes_where_docker_leaves_it(lab: MakeLab) -> None:
    net = lab()
    h1, _, g1, g2 = healthy(net)
    h1.run(["iptables-restore"], stdin=DOCKER)
    assert not passes(net, g1, g2)
    assert passes(net, g1, g2, family=6)
    pinging = g1.popen(["ping", "-i", "0.2", "-c", "30", g2.ipv4])
    finding = the_finding(net, h1, "bridge-nf")
    pinging.terminate()
    assert "(Docker)" in finding["text"]
    assert "net.bridge.bridge-nf-call-iptables = 1" in finding["proof"]
    assert re.search(r"FORWARD policy DROP \[\d+ dropped, \d+ more while we looked\]", finding["proof"][1])
    assert commands(finding) == ["iptables -w -I DOCKER-USER -i br-lab -o br-lab -j ACCEPT"]
    fixed = doctor(net, h1, "--fix")
    assert fixed.returncode == 0
    assert "ran: iptables -w -I DOCKER-USER -i br-lab -o br-lab -j ACCEPT" in fixed.stdout
    assert "back again by: iptables -w -D DOCKER-USER -i br-lab -o br-lab -j ACCEPT" in fixed.stdout
    assert passes(net, g1, g2)


def test_a_forward_policy_of_ip6tables_is_found_by_the_bridge_s_own_flag_too(lab: MakeLab) -> None:
    net = lab()
    h1, _, g1, g2 = healthy(net)
    h1.run(["ip6tables", "-P", "FORWARD", "DROP"])
    set_sysctl(h1, "net/bridge/bridge-nf-call-ip6tables", "0")
    assert findings(net, h1) == []
    h1.ip("link set br-lab type bridge nf_call_ip6tables 1")
    assert not passes(net, g1, g2, family=6)
    finding = the_finding(net, h1, "bridge-nf")
    assert finding["proof"][0] == "br-lab: nf_call_ip6tables 1"
    assert commands(finding) == ["ip6tables -w -I FORWARD -i br-lab -o br-lab -j ACCEPT"]


def test_a_legacy_iptables_is_read_beside_the_other_one(lab: MakeLab) -> None:
    net = lab()
    h1, _, g1, g2 = healthy(net)
    if h1.run(["iptables-legacy", "-P", "FORWARD", "DROP"], check=False).returncode:
        pytest.skip("this kernel has no legacy iptables")
    assert not passes(net, g1, g2)
    finding = the_finding(net, h1, "bridge-nf")
    assert commands(finding) == ["iptables-legacy -w -I FORWARD -i br-lab -o br-lab -j ACCEPT"]


def test_firewalld_s_table_is_named_and_not_opened_without_being_asked(lab: MakeLab) -> None:
    net = lab()
    h1, _, g1, g2 = healthy(net)
    rules = """table inet firewalld { chain filter_FORWARD {
        type filter hook forward priority filter + 10; policy accept;
        ct state { established, related } accept
        iifname "lo" accept
        reject with icmpx admin-prohibited
    }\n}\n"""
    h1.run(["nft", "-f", "-"], stdin=rules)
    assert not passes(net, g1, g2)
    found = findings(net, h1)
    assert set(causes(found)) == {"bridge-nf"}
    assert all("(firewalld)" in finding["text"] for finding in found)
    assert commands(found[0]) == ["firewall-cmd --zone=trusted --add-interface=br-lab"]
    assert not any(finding["is_safe"] for finding in found)


def test_a_rule_that_somebody_wrote_for_the_bridge_is_shown_and_not_overruled(lab: MakeLab) -> None:
    net = lab()
    h1, _, g1, g2 = healthy(net)
    h1.run(["iptables", "-A", "FORWARD", "-m", "physdev", "--physdev-in", "tap-lab", "-j", "DROP"])
    assert not passes(net, g1, g2)
    finding = the_finding(net, h1, "bridge-nf")
    assert "-A FORWARD -m physdev --physdev-in tap-lab -j DROP" in finding["proof"][1]
    assert not finding["is_safe"]


NFT = {
    "nft": """table bridge guard { chain f {
        type filter hook forward priority 0; policy accept;
        ether type arp drop
    }\n}\n""",
    "nft netdev": """table netdev guard { chain f {
        type filter hook ingress device "g1" priority 0; policy accept;
        ether type arp counter drop
    }\n}\n""",
}


@pytest.mark.parametrize("tool", ["ebtables", "nft", "nft netdev"])
def test_a_rule_on_the_bridge_s_own_level_is_found_and_its_removal_is_exact(lab: MakeLab, tool: str) -> None:
    net = lab()
    h1, _, g1, g2 = healthy(net)
    g1.ip("neigh flush all")
    if tool == "ebtables":
        h1.run(["ebtables", "-A", "FORWARD", "-p", "ARP", "-j", "DROP"])
    elif h1.run(["nft", "-f", "-"], stdin=NFT[tool], check=False).returncode:
        pytest.skip(f"this kernel cannot: {tool}")
    assert not passes(net, g1, g2)
    finding = the_finding(net, h1, "bridge-rule")
    assert "drops ARP that crosses br-lab" in finding["text"]
    h1.run(finding["fix"][0])
    assert findings(net, h1) == []
    # The guest asks for the address once a second until it gives up; a request that the rule ate is not repeated sooner.
    eventually(lambda: passes(net, g1, g2), 5.0)


def test_a_firewall_that_shuts_the_node_s_udp_port_is_found(lab: MakeLab) -> None:
    net = lab()
    h1, *_ = healthy(net)
    h1.run(["iptables", "-P", "INPUT", "DROP"])
    found = findings(net, h1)
    assert causes(found)[0] == "underlay-firewall"
    assert commands(found[0]) == ["iptables -w -I INPUT -p udp --dport 7470 -j ACCEPT"]
    assert found[0]["is_safe"]


NFT_SHUT = """table inet guard {
    chain input { type filter hook input priority 0; policy drop; iif lo accept; icmpv6 type nd-neighbor-solicit accept;
        ct state established accept; }
}"""


def without_endpoint(lab: Lab, host: Host, family: Family) -> None:
    """README's set-up: this host calls the others, and nobody can call it."""
    peers = lab.write_peers_toml(family=family)
    endpoint = f"{host.ipv4}:7470" if family == 4 else f"[{host.ipv6}]:7470"
    peers.write_text(peers.read_text().replace(f'endpoint = "{endpoint}"\n', ""))


@pytest.mark.parametrize("family", [4, 6])
def test_a_firewall_is_found_on_the_host_that_is_called_and_on_the_one_that_calls(
    lab: MakeLab, family: Family
) -> None:
    net = lab()
    h1, h2 = net.add_underlay(hosts=2)
    without_endpoint(net, h2, family)
    tool = "iptables" if family == 4 else "ip6tables"
    icmp = ["-A", "INPUT", "-p", "icmp" if family == 4 else "icmpv6", "-j", "ACCEPT"]
    called = (["-A", "INPUT", "-i", "lo", "-j", "ACCEPT"], icmp, ["-P", "INPUT", "DROP"])
    calling = (["-A", "OUTPUT", "-p", "udp", "--dport", "7470", "-j", "DROP"],)
    for host, rules in ((h1, called), (h2, calling)):
        for rule in rules:
            host.run([tool, *rule])
    net.start_nodes()
    finding = the_finding(net, h1, "underlay-firewall")
    assert finding["text"].startswith(
        f"{tool} drops datagrams to the node's own UDP port 7470, in INPUT by its"
    )
    assert "h2 cannot call us" in finding["text"]
    found = findings(net, h2)
    assert causes(found) == ["underlay-firewall", "peer-down"]
    assert "this host's own firewall" in found[1]["advice"]
    h1.run(commands(finding)[0].split())
    h1.run(["nft", "-f", "-"], stdin=NFT_SHUT)
    shut = the_finding(net, h1, "underlay-firewall")
    assert shut["text"].startswith(
        "nft inet drops datagrams to the node's own UDP port 7470, in input by its"
    )
    h1.run(commands(shut)[0].split())
    h2.run([tool, "-F", "OUTPUT"])
    eventually(lambda: net.nodes[0].ask("status")["peers_up"] == 1, 10.0)
    assert findings(net, h1) == []


# The bridge


def test_a_port_with_an_address_is_found(lab: MakeLab) -> None:
    net = lab()
    h1, *_ = healthy(net)
    h1.ip("addr add 10.9.0.77/24 dev g1")
    finding = the_finding(net, h1, "port-address")
    assert commands(finding) == [
        "ip address del 10.9.0.77/24 dev g1",
        "ip address add 10.9.0.77/24 dev br-lab",
    ]
    for command in finding["fix"]:
        h1.run(command)
    assert findings(net, h1) == []


def test_a_port_that_does_not_forward_is_found_and_fixed(lab: MakeLab) -> None:
    net = lab()
    h1, _, g1, g2 = healthy(net)
    h1.run(["bridge", "link", "set", "dev", "g1", "state", "0"])
    assert not passes(net, g1, g2)
    finding = the_finding(net, h1, "stp-port")
    assert "g1 does not forward: disabled" in finding["text"]
    assert doctor(net, h1, "--fix").returncode == 0
    assert passes(net, g1, g2)


def test_stp_that_keeps_a_port_listening_is_found(lab: MakeLab) -> None:
    net = lab()
    h1, *_ = healthy(net)
    h1.ip("link set br-lab type bridge forward_delay 1500", "link set br-lab type bridge stp_state 1")
    h1.ip("link set g1 down", "link set g1 up")
    eventually(lambda: "listening" in h1.run(["bridge", "link", "show", "dev", "g1"]).stdout, 5.0)
    found = findings(net, h1)
    assert {"stp-port", "stp-delay"} <= set(causes(found))
    assert any(finding["text"] == "g1 does not forward: listening (STP)" for finding in found)


def test_a_port_with_a_smaller_mtu_is_found_and_fixed(lab: MakeLab) -> None:
    net = lab()
    h1, _, g1, g2 = healthy(net)
    h1.ip("link set g1 mtu 1300")
    assert net.ping(g2, g1.ipv4, count=1, size=1400, wait=0.3).received == 0
    finding = the_finding(net, h1, "mtu")
    assert finding["text"].startswith("g1 has MTU 1300, the segment 1500")
    assert doctor(net, h1, "--fix").returncode == 0
    assert net.ping(g2, g1.ipv4, count=1, size=1400).received == 1


@pytest.mark.parametrize(("flag", "told"), [("bcast_flood", "broadcast"), ("mcast_flood", "multicast")])
def test_flooding_that_is_off_on_the_tap_is_found_and_fixed(lab: MakeLab, flag: str, told: str) -> None:
    net = lab()
    h1, *_ = healthy(net)
    h1.run(["bridge", "link", "set", "dev", "tap-lab", flag, "off"])
    finding = the_finding(net, h1, "port-flag")
    assert f"tap-lab sends no {told}" in finding["text"]
    assert doctor(net, h1, "--fix").returncode == 0


def test_isolated_ports_are_found(lab: MakeLab) -> None:
    net = lab()
    h1, _, g1, g2 = healthy(net)
    for port in ("tap-lab", "g1"):
        h1.run(["bridge", "link", "set", "dev", port, "isolated", "on"])
    assert not passes(net, g1, g2)
    assert the_finding(net, h1, "port-flag")["text"].startswith("tap-lab and g1 are isolated")
    assert doctor(net, h1, "--fix").returncode == 0
    assert passes(net, g1, g2)


def test_a_snooping_bridge_with_a_querier_and_a_tap_that_is_no_router_port_is_found(lab: MakeLab) -> None:
    net = lab()
    h1, *_ = healthy(net)
    h1.ip("link set br-lab type bridge mcast_snooping 1 mcast_querier 1")
    assert findings(net, h1) == []  # the node made its TAP a router port: nothing is lost
    extra = ("--bridge", "br-lab", "--tap", "g1")  # of g1 no node takes care
    assert causes(findings(net, h1, *extra)) == ["snooping"]
    assert doctor(net, h1, *extra, "--fix").returncode == 0


def test_a_policy_of_nft_s_bridge_family_is_found_and_its_command_works(lab: MakeLab) -> None:
    net = lab()
    (h1,) = net.add_underlay(hosts=1)
    g1, g2 = net.add_guest(h1), net.add_guest(h1)
    h1.run(
        ["nft", "-f", "-"],
        stdin=NFT["nft"].replace("policy accept", "policy drop").replace("arp drop", "arp accept"),
    )
    assert not passes(net, g1, g2)
    finding = the_finding(net, h1, "bridge-rule", "--bridge", "br-lab")
    assert "drops IPv4 and IPv6" in finding["text"]
    h1.run(finding["fix"][0])
    assert passes(net, g1, g2)


def test_a_station_that_is_in_two_places_is_found(lab: MakeLab) -> None:
    """The same MAC on both hosts: h2's guest speaks to everybody, h1's to its neighbour on the bridge only."""
    net = lab()
    h1, h2, *_ = healthy(net)
    twin, beside, far = net.add_guest(h1), net.add_guest(h1), net.add_guest(h2)
    for guest in (twin, far):
        set_sysctl(guest, "net/ipv6/conf/all/disable_ipv6", "1")  # it must not speak by itself
        guest.ip("link set eth0 address 52:54:00:12:34:56")
    speak(beside, frame("ff:ff:ff:ff:ff:ff", beside.mac, b"here"))
    speak(far, frame("ff:ff:ff:ff:ff:ff", "52:54:00:12:34:56", b"I am at h2"))
    node = net.nodes[0]
    eventually(lambda: any(s["mac"] == "52:54:00:12:34:56" for s in node.ask("fdb")["stations"]), 3.0)
    speak(twin, frame(beside.mac, "52:54:00:12:34:56", b"I am at h1"))
    found = findings(net, h1)
    assert causes(found) == ["mac-clash", "mac-clash"]
    assert f"52:54:00:12:34:56 is {twin.label} here and behind h2" in found[0]["text"]
    assert "QEMU's default MAC" in found[1]["text"]


# The underlay, and this host itself


def test_strict_reverse_path_filtering_is_found_when_the_way_back_is_another_one(lab: MakeLab) -> None:
    net = lab()
    h1, _, g1, _ = healthy(net)
    h1.ip("addr add 10.9.0.200/24 dev br-lab", "link add other type bridge", "link set other up")
    set_sysctl(h1, "net/ipv4/conf/br-lab/rp_filter", "1")
    assert net.ping(g1, "10.9.0.200").received == 3
    assert findings(net, h1) == []
    h1.ip("route add 10.9.0.0/25 dev other")
    assert net.ping(g1, "10.9.0.200", count=1, wait=0.3).received == 0
    finding = the_finding(net, h1, "rp-filter")
    assert "net.ipv4.conf.br-lab.rp_filter = 1" in finding["proof"]
    assert commands(finding) == ["sysctl -w net.ipv4.conf.br-lab.rp_filter=2"]
    assert doctor(net, h1, "--fix").returncode == 0
    assert sysctl(h1, "net/ipv4/conf/br-lab/rp_filter") == "2"


def test_an_underlay_that_carries_too_little_is_found(lab: MakeLab) -> None:
    net = lab()
    h1, *_ = healthy(net)
    h1.ip("link set under0 mtu 1200")
    found = findings(net, h1)
    assert "underlay-mtu" in causes(found)
    assert any("carries 1200 bytes, a node needs 1228" in finding["text"] for finding in found)


def test_a_tunnel_into_itself_is_found(lab: MakeLab) -> None:
    net = lab()
    h1, h2, *_ = healthy(net)
    h1.ip("addr add 10.9.0.200/24 dev br-lab", f"route add {h2.ipv4}/32 dev br-lab")
    found = findings(net, h1)
    assert "tunnelled-tunnel" in causes(found)
    told = next(finding for finding in found if finding["cause"] == "tunnelled-tunnel")
    assert told["text"].startswith("datagrams to h2 would leave by br-lab")


def test_a_peer_that_is_down_is_told_with_its_reason(lab: MakeLab) -> None:
    net = lab()
    h1, h2, *_ = healthy(net)
    net.nodes[1].kill()
    eventually(lambda: net.nodes[0].ask("peers")["peers"][0]["up"] is False, 15.0)
    finding = the_finding(net, h1, "peer-down")
    assert finding["text"].startswith(f"peer h2 ({h2.ipv4}:7470) is down: ")


def test_a_peer_that_left_is_told_as_such(lab: MakeLab) -> None:
    net = lab()
    h1, *_ = healthy(net)
    assert net.nodes[1].terminate() == 0
    eventually(lambda: net.nodes[0].ask("peers")["peers"][0]["up"] is False, 5.0)
    assert the_finding(net, h1, "peer-left")["text"] == "peer h2 has left: its node was stopped there"


# Without a node


def test_without_a_node_the_bridge_is_looked_at_all_the_same(lab: MakeLab) -> None:
    net = lab()
    (h1,) = net.add_underlay(hosts=1)
    net.add_guest(h1)
    net.add_guest(h1)
    assert doctor(net, h1, "--bridge", "br-lab").returncode == 0
    h1.run(["iptables", "-P", "FORWARD", "DROP"])
    assert causes(findings(net, h1, "--bridge", "br-lab")) == ["bridge-nf"]
    peers = net.write_peers_toml()
    found = findings(net, h1, "--peers", str(peers))
    assert causes(found) == ["no-node", "bridge-nf"]
    assert commands(found[0]) == [f"l2overlay join --peers {peers}"]


def test_a_tap_that_is_down_and_outside_its_bridge_is_found_and_fixed(lab: MakeLab) -> None:
    net = lab()
    (h1,) = net.add_underlay(hosts=1)
    net.add_guest(h1)
    h1.ip("tuntap add dev tap-lab mode tap")
    extra = ("--bridge", "br-lab", "--tap", "tap-lab")
    assert causes(findings(net, h1, *extra)) == ["link-down", "tap-outside"]
    fixed = json.loads(doctor(net, h1, *extra, "--fix", "--json").stdout)
    assert [" ".join(r["command"]) for r in fixed["repairs"]] == [
        "ip link set tap-lab up",
        "ip link set tap-lab master br-lab",
    ]
    assert fixed["findings"] == []


def test_a_segment_that_is_not_here_ends_with_3_and_without_privilege_with_5(lab: MakeLab) -> None:
    net = lab()
    (h1,) = net.add_underlay(hosts=1)
    missing = doctor(net, h1)
    assert missing.returncode == 3
    assert "--peers FILE or --bridge NAME" in missing.stderr
    assert doctor(net, h1, "--bridge", "br0", "--tap", "x").returncode == 3
    env = [f"{name}={value}" for name, value in child_environment().items() if name.startswith("PYTHON")]
    argv = ["setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin", "env", *env]
    refused = h1.run([*argv, sys.executable, "-m", "l2overlay", "doctor", "--bridge", "lo"], check=False)
    assert refused.returncode == 5
    assert "root has no CAP_NET_ADMIN here" in refused.stderr
