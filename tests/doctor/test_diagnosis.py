"""Every check, on a host of which one thing is broken; silence on one of which nothing is."""

from dataclasses import replace
from ipaddress import ip_interface

import pytest

from l2overlay.doctor.diagnosis import diagnose, needs_second_look
from l2overlay.doctor.finding import Finding, Severity, command_line
from l2overlay.doctor.view import PeerView, RouteView, StationView
from tests.doctor.views import (
    HEALTHY,
    NODE,
    PEER,
    TAP,
    UPLINK,
    VM,
    Break,
    broken,
    with_link,
    with_nft,
    with_saved,
    with_segment,
    with_sysctls,
    with_view,
    without_link,
)

DOCKER = (
    ":FORWARD DROP [25:2100]",
    ":DOCKER-USER - [0:0]",
    "[9:9] -A FORWARD -j DOCKER-USER",
    "[0:0] -A DOCKER-USER -j RETURN",
)
UFW = (
    ":FORWARD DROP [25:2100]",
    ":ufw-before-forward - [0:0]",
    "-A FORWARD -j ufw-before-forward",
    "-A ufw-before-forward -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
    "-A ufw-before-forward -p icmp -m icmp --icmp-type 8 -j ACCEPT",
)
FIREWALLD = """table inet firewalld { # handle 7
	chain filter_FORWARD { # handle 1
		type filter hook forward priority filter + 10; policy accept;
		ct state { established, related } accept # handle 2
		reject with icmpx admin-prohibited # handle 3
	}
}"""
NFT_BRIDGE = """table bridge t { # handle 1
	chain c { # handle 1
		type filter hook forward priority 0; policy accept;
		oifname "tap-lan" drop # handle 6
	}
}"""
INPUT_DROP = ":INPUT DROP [3:300]"
ESTABLISHED = "-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"
USUAL_INPUT = (
    INPUT_DROP,
    "-A INPUT -i lo -j ACCEPT",
    ESTABLISHED,
    "-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT",
)
NFT_INPUT = """table inet filter { # handle 1
\tchain input { # handle 1
\t\ttype filter hook input priority filter; policy drop;
\t\tiif "lo" accept # handle 2
\t\tct state established,related accept # handle 3
\t\ticmp type echo-request accept # handle 4
\t\ticmpv6 type { nd-neighbor-solicit, nd-router-advert } accept # handle 5
\t\tip6 saddr fe80::/10 accept # handle 6
\t}
}
"""
UNCALLED = with_segment(peers=(PeerView("beta", up=False),))
"""As README has it: beta has no endpoint, and has not called yet."""


def accept(chain: str, tool: str = "iptables") -> str:
    return f"{tool} -w -I {chain} -i br-lan -o br-lan -j ACCEPT"


CASES: dict[str, tuple[tuple[Break, ...], str, str, str, bool]] = {
    # what is broken, the cause, a part of the text, the first command, whether --fix runs it
    "Docker": (
        (with_saved("iptables", *DOCKER),),
        "bridge-nf",
        "IPv4 passes iptables (Docker)",
        accept("DOCKER-USER"),
        True,
    ),
    "ufw": ((with_saved("iptables", *UFW),), "bridge-nf", "(ufw)", accept("FORWARD"), True),
    "firewalld": (
        (with_sysctls(), with_nft(FIREWALLD), with_view(sysctls={"net.bridge.bridge-nf-call-iptables": "1"})),
        "bridge-nf",
        "IPv4 passes nft inet (firewalld)",
        "firewall-cmd --zone=trusted --add-interface=br-lan",
        False,
    ),
    "a policy of nobody's": (
        (with_saved("ip6tables", ":FORWARD DROP [1:1]"),),
        "bridge-nf",
        "IPv6 passes ip6tables, which drops it in FORWARD by its policy",
        accept("FORWARD", "ip6tables"),
        True,
    ),
    "the bridge's own flag": (
        (
            with_saved("iptables", ":FORWARD DROP [1:1]"),
            with_view(sysctls={}),
            with_link("br-lan", bridge_nf_calls=frozenset({"iptables"})),
        ),
        "bridge-nf",
        "unicast through br-lan is lost while ARP works",
        accept("FORWARD"),
        True,
    ),
    "a rule for this bridge": (
        (with_saved("iptables", ":FORWARD ACCEPT [0:0]", "-A FORWARD -i br-lan -j DROP"),),
        "bridge-nf",
        "in FORWARD",
        accept("FORWARD"),
        False,
    ),
    "a rule before routing": (
        (with_saved("iptables", ":PREROUTING ACCEPT [0:0]", "-A PREROUTING -i br-lan -j DROP", table="raw"),),
        "bridge-nf",
        "in PREROUTING",
        "iptables -t raw -D PREROUTING -i br-lan -j DROP",
        False,
    ),
    "a rule whose counter grows": (
        (
            with_saved(
                "iptables",
                ":FORWARD ACCEPT [0:0]",
                "[4:9] -A FORWARD -s 10.9.0.5/32 -j DROP",
                later=(":FORWARD ACCEPT [0:0]", "[6:9] -A FORWARD -s 10.9.0.5/32 -j DROP"),
            ),
        ),
        "bridge-nf",
        "in FORWARD",
        accept("FORWARD"),
        False,
    ),
    "arptables": (
        (with_saved("arptables", ":FORWARD DROP [0:0]"),),
        "bridge-nf-arp",
        "arptables drops ARP",
        "arptables -t filter -P FORWARD ACCEPT",
        False,
    ),
    "ebtables": (
        (with_saved("ebtables", ":FORWARD ACCEPT", "-A FORWARD -p IPv4 -i vm1 -j DROP"),),
        "bridge-rule",
        "ebtables drops IPv4 that crosses br-lan",
        "ebtables -t filter -D FORWARD -p IPv4 -i vm1 -j DROP",
        False,
    ),
    "ebtables for the host": (
        (with_saved("ebtables", ":INPUT DROP"),),
        "bridge-rule",
        "drops frames for this host itself (10.9.0.200/24 on br-lan)",
        "ebtables -t filter -P INPUT ACCEPT",
        False,
    ),
    "nft bridge": (
        (with_nft(NFT_BRIDGE),),
        "bridge-rule",
        "nft bridge drops IPv4, IPv6 and ARP",
        "nft delete rule bridge t c handle 6",
        False,
    ),
    "a shut UDP port": (
        (with_saved("iptables", INPUT_DROP),),
        "underlay-firewall",
        "drops datagrams to the node's own UDP port 7470",
        "iptables -w -I INPUT -p udp --dport 7470 -j ACCEPT",
        True,
    ),
    "a half-shut UDP port": (
        (
            with_saved("iptables", INPUT_DROP, ESTABLISHED),
            with_segment(node=None, peers=(replace(PEER, up=None),)),
        ),
        "underlay-firewall",
        "only answers to our own calls pass",
        "iptables -w -I INPUT -p udp --dport 7470 -j ACCEPT",
        True,
    ),
    "a shut way out": (
        (with_saved("iptables", ":OUTPUT ACCEPT [0:0]", "-A OUTPUT -o eth0 -p udp -j DROP"),),
        "underlay-firewall",
        "drops datagrams from the node's own UDP port 7470",
        "iptables -w -I OUTPUT -p udp --sport 7470 -j ACCEPT",
        False,
    ),
    "a shut UDP port while a peer without endpoint has to call": (
        (with_saved("iptables", *USUAL_INPUT), UNCALLED),
        "underlay-firewall",
        "only answers to our own calls pass: beta cannot call us, and has no endpoint",
        "iptables -w -I INPUT -p udp --dport 7470 -j ACCEPT",
        True,
    ),
    "the same in nft": (
        (with_nft(NFT_INPUT), UNCALLED),
        "underlay-firewall",
        "beta cannot call us, and has no endpoint",
        "nft insert rule inet filter input udp dport 7470 accept",
        False,
    ),
    "the same for IPv6": (
        (
            with_saved("ip6tables", *USUAL_INPUT),
            UNCALLED,
            with_link("eth0", addresses=(ip_interface("2001:db8::1/64"),)),
        ),
        "underlay-firewall",
        "ip6tables drops datagrams to the node's own UDP port 7470",
        "ip6tables -w -I INPUT -p udp --dport 7470 -j ACCEPT",
        True,
    ),
    "a way in that is shut before INPUT": (
        (
            with_saved("iptables", ":PREROUTING ACCEPT [0:0]", "-A PREROUTING -p udp -j DROP", table="raw"),
            UNCALLED,
        ),
        "underlay-firewall",
        "drops datagrams to the node's own UDP port 7470, in PREROUTING",
        "iptables -t raw -D PREROUTING -p udp -j DROP",
        False,
    ),
    "a way out that is shut by the far side's port": (
        (with_saved("iptables", ":OUTPUT ACCEPT [0:0]", "-A OUTPUT -p udp -m udp --dport 7470 -j DROP"),),
        "underlay-firewall",
        "drops datagrams from the node's own UDP port 7470",
        "iptables -w -I OUTPUT -p udp --sport 7470 -j ACCEPT",
        False,
    ),
    "bridge down": (
        (with_link("br-lan", up=False),),
        "link-down",
        "the bridge br-lan",
        "ip link set br-lan up",
        True,
    ),
    "TAP down": (
        (with_link("tap-lan", up=False),),
        "link-down",
        "the TAP tap-lan",
        "ip link set tap-lan up",
        True,
    ),
    "TAP outside": (
        (with_link("tap-lan", master="", port=None),),
        "tap-outside",
        "tap-lan is not a port",
        "ip link set tap-lan master br-lan",
        True,
    ),
    "TAP in another bridge": (
        (with_link("tap-lan", master="br0"),),
        "tap-outside",
        "tap-lan is not a port",
        "ip link set tap-lan master br-lan",
        False,
    ),
    "no TAP": ((without_link("tap-lan"),), "no-tap", "there is no TAP tap-lan", "", False),
    "address on a port": (
        (with_link("vm1", addresses=(ip_interface("10.9.0.9/24"),)),),
        "port-address",
        "vm1 is a port of br-lan and has 10.9.0.9/24",
        "ip address del 10.9.0.9/24 dev vm1",
        False,
    ),
    "address on the TAP": (
        (with_link("tap-lan", addresses=(ip_interface("2001:db8::9/64"),)),),
        "port-address",
        "has 2001:db8::9/64",
        "ip address del 2001:db8::9/64 dev tap-lan",
        False,
    ),
    "STP blocks": (
        (
            with_link("br-lan", bridge_stp=True, bridge_forward_delay=2.0),
            with_link("vm1", port_state="blocking"),
        ),
        "stp-port",
        "vm1 does not forward: blocking (STP)",
        "",
        False,
    ),
    "port disabled": (
        (with_link("vm1", port_state="disabled"),),
        "stp-port",
        "vm1 does not forward: disabled",
        "bridge link set dev vm1 state 3",
        True,
    ),
    "STP waits": (
        (with_link("br-lan", bridge_stp=True),),
        "stp-delay",
        "deaf for 30 s",
        "ip link set br-lan type bridge forward_delay 400",
        False,
    ),
    "no broadcast": (
        (with_link("tap-lan", port_bcast_flood=False),),
        "port-flag",
        "no ARP",
        "bridge link set dev tap-lan bcast_flood on",
        True,
    ),
    "no unknown unicast": (
        (with_link("tap-lan", port_flood=False),),
        "port-flag",
        "has not learned",
        "bridge link set dev tap-lan flood on",
        True,
    ),
    "no learning": (
        (with_link("vm1", port_learning=False),),
        "port-flag",
        "learns no stations",
        "bridge link set dev vm1 learning on",
        True,
    ),
    "isolated": (
        (with_link("tap-lan", port_isolated=True), with_link("vm1", port_isolated=True)),
        "port-flag",
        "tap-lan and vm1 are isolated",
        "bridge link set dev tap-lan isolated off",
        True,
    ),
    "snooping": (
        (with_link("tap-lan", port_mcast_router=1),),
        "snooping",
        "as soon as a querier is on the LAN",
        "ip link set tap-lan type bridge_slave mcast_router 2",
        True,
    ),
    "VLANs": (
        (with_link("br-lan", bridge_vlan_filtering=True), with_link("vm1", port_vlans=frozenset({1, 20}))),
        "vlan-filter",
        "tap-lan is no member of 1, 20",
        "bridge vlan add dev tap-lan vid 1",
        False,
    ),
    "small port": (
        (with_link("vm1", mtu=1300),),
        "mtu",
        "vm1 has MTU 1300, the segment 1500",
        "ip link set vm1 mtu 1500",
        True,
    ),
    "large port": (
        (with_link("vm1", mtu=9500),),
        "mtu",
        "vm1 has MTU 9500",
        "ip link set vm1 mtu 1500",
        False,
    ),
    "small underlay": (
        (with_view(routes=(RouteView("192.0.2.2", "eth0", 1200),)), with_link("eth0", mtu=1200)),
        "underlay-mtu",
        "carries 1200 bytes, a node needs 1228",
        "ip link set eth0 mtu 1228",
        False,
    ),
    "one MAC on two ports": (
        (with_link("vm1", mac=TAP.mac),),
        "mac-clash",
        "tap-lan and vm1 have the same MAC",
        "ip link set vm1 address fe:00:00:00:00:05",
        False,
    ),
    "bridge with the TAP's MAC": (
        (with_link("br-lan", mac=TAP.mac),),
        "mac-clash",
        "br-lan has the MAC of tap-lan",
        "ip link set br-lan address fe:00:00:00:00:05",
        False,
    ),
    "a port's MAC behind a peer": (
        (with_segment(node=replace(NODE, stations={VM.mac: "beta"})),),
        "mac-clash",
        f"{VM.mac} is vm1 here and behind beta",
        "",
        False,
    ),
    "a station here and there": (
        (with_segment(node=replace(NODE, stations={"52:54:00:aa:00:01": "beta"})),),
        "mac-clash",
        "52:54:00:aa:00:01 is vm1 here and behind beta",
        "",
        False,
    ),
    "QEMU's default MAC": (
        (with_view(stations=(StationView("52:54:00:12:34:56", "vm1"),)),),
        "mac-clash",
        "a VM behind vm1 has QEMU's default MAC",
        "",
        False,
    ),
    "strict rp_filter": (
        (with_sysctls(rp_filter="1"), with_view(returns=(RouteView("10.9.0.1", "eth0", 1500),))),
        "rp-filter",
        "the way back to 10.9.0.1 is by eth0",
        "sysctl -w net.ipv4.conf.br-lan.rp_filter=2",
        True,
    ),
    "rp_filter that drops now": (
        (with_sysctls(rp_filter="1"), with_view(reverse_path_drops=(4, 9))),
        "rp-filter",
        "just now",
        "sysctl -w net.ipv4.conf.br-lan.rp_filter=2",
        True,
    ),
    "a tunnel into itself": (
        (with_view(routes=(RouteView("192.0.2.2", "br-lan", 1500, "52:54:00:aa:00:02"),)),),
        "tunnelled-tunnel",
        "datagrams to beta would leave by br-lan",
        "",
        False,
    ),
    "no node": (
        (with_segment(node=None, no_node="no node answers at /run/x", join=("l2overlay", "join", "lan")),),
        "no-node",
        "no node of lan answers",
        "l2overlay join lan",
        False,
    ),
    "degraded": (
        (with_segment(node=replace(NODE, troubles=("the TAP is gone", "peer beta (x) is down: y"))),),
        "node-degraded",
        "the TAP is gone",
        "",
        False,
    ),
    "one key on two hosts": (
        (
            with_segment(
                node=replace(
                    NODE,
                    troubles=(
                        "one key on two hosts: beta answers at 192.0.2.1:7 and at 192.0.2.9:7 in turn",
                    ),
                )
            ),
        ),
        "node-degraded",
        "beta answers at 192.0.2.1:7 and at 192.0.2.9:7",
        "",
        False,
    ),
    "peer left": (
        (with_segment(peers=(replace(PEER, up=False, reason="it left", left=True),)),),
        "peer-left",
        "peer beta has left",
        "",
        False,
    ),
    "frames lost in the queue of the TAP": (
        (with_segment(node=replace(NODE, lost={"tap_overflow": 9775})),),
        "tap-overflow",
        "the queue of tap-lan was full: 9775 frames of this host's side were lost since the node started",
        "ip link set tap-lan txqueuelen 4000",
        False,
    ),
    "datagrams lost in the queue of the socket": (
        (with_segment(node=replace(NODE, lost={"receive_overflow": 12})),),
        "receive-overflow",
        "the node's UDP socket was full: 12 datagrams of peers were lost since it started",
        "",
        False,
    ),
    "clock behind the stamp": (
        (with_segment(node=replace(NODE, stamp_lead=86_400.0)),),
        "clock-or-stamp",
        "clock or stamp: this host's clock is 86400 s behind the stamp of the node's last handshake",
        "",
        False,
    ),
    "handshake refused": (
        (with_segment(node=replace(NODE, refused=(("192.0.2.9:7470 calls with the key K", "[[peers]]"),))),),
        "handshake-refused",
        "192.0.2.9:7470 calls with the key K",
        "",
        False,
    ),
    "peer down": (
        (with_segment(peers=(replace(PEER, up=False, reason="no answer"),)),),
        "peer-down",
        "peer beta (192.0.2.2:7470) is down: no answer",
        "",
        False,
    ),
}


def test_a_healthy_host_has_no_finding() -> None:
    assert diagnose(HEALTHY) == []
    assert not needs_second_look(HEALTHY)


@pytest.mark.parametrize("name", CASES)
def test_what_is_broken_is_the_only_finding_with_its_proof_and_its_command(name: str) -> None:
    breaks, cause, text, command, is_safe = CASES[name]
    found = diagnose(broken(*breaks))
    assert [finding.cause for finding in found] == [cause], found
    assert text in found[0].text
    assert [command_line(c) for c in found[0].fix[:1]] == ([command] if command else [])
    assert found[0].is_safe == is_safe
    assert found[0].proof


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case[4]])
def test_whatever_may_be_run_by_itself_can_be_taken_back(name: str) -> None:
    for finding in diagnose(broken(*CASES[name][0])):
        assert len(finding.undo) == len(finding.fix) > 0


def only(*breaks: Break) -> Finding:
    (finding,) = diagnose(broken(*breaks))
    return finding


HARMLESS: dict[str, tuple[Break, ...]] = {
    "a policy that no frame of a bridge meets": (
        with_saved("iptables", ":FORWARD DROP [9:9]"),
        with_view(sysctls={}),
    ),
    "a policy behind an accept": (
        with_saved("iptables", ":FORWARD DROP [9:9]", "-A FORWARD -i br-lan -j ACCEPT"),
    ),
    "a rule for one address, at rest": (
        with_saved("iptables", ":FORWARD ACCEPT [0:0]", "[4:9] -A FORWARD -s 10.9.0.5/32 -j DROP"),
    ),
    "a rule for another bridge": (with_saved("ebtables", ":FORWARD ACCEPT", "-A FORWARD -i vm9 -j DROP"),),
    "an odd EtherType": (with_saved("ebtables", ":FORWARD ACCEPT", "-A FORWARD -p 0x88CC -j DROP"),),
    "a stateful firewall while all peers are up": (with_saved("iptables", INPUT_DROP, ESTABLISHED),),
    "a strict rp_filter with one way back": (with_sysctls(rp_filter="1"),),
    "a loose one with two": (with_view(returns=(RouteView("10.9.0.1", "eth0", 1500),)),),
    "a port that nobody is plugged into": (with_link("vm1", carrier=False, port_state="disabled"),),
    "a shut UDP port of the IP version that no stranger comes by": (
        with_saved("ip6tables", *USUAL_INPUT),
        UNCALLED,
    ),
    "a shut UDP port of one of two links": (
        with_saved("iptables", ":INPUT ACCEPT [0:0]", "-A INPUT -i eth0 -p udp -j DROP"),
        UNCALLED,
        lambda view: replace(view, links=(*view.links, replace(UPLINK, index=9, name="eth1"))),
    ),
    "an INPUT that lets the port in": (
        with_saved("iptables", *USUAL_INPUT, "-A INPUT -p udp -m udp --dport 7470 -j ACCEPT"),
        UNCALLED,
    ),
    "one isolated port": (with_link("vm1", port_isolated=True),),
    "the own underlay through an uplink in the bridge": (
        with_view(routes=(RouteView("192.0.2.2", "br-lan", 1500),)),
        with_link("eth0", master="br-lan", addresses=()),
    ),
    "the own underlay through a bond in the bridge whose next hop was heard there": (
        with_view(
            routes=(RouteView("192.0.2.2", "br-lan", 1500, "52:54:00:aa:00:09"),),
            stations=(StationView("52:54:00:aa:00:09", "eth0"),),
        ),
        with_link("eth0", master="br-lan", addresses=(), kind="bond"),
    ),
}


@pytest.mark.parametrize("name", HARMLESS)
def test_what_takes_no_frame_is_no_finding(name: str) -> None:
    assert diagnose(broken(*HARMLESS[name])) == []


def test_the_proof_has_the_switch_the_policy_and_what_it_counted_while_we_looked() -> None:
    later = (":FORWARD DROP [28:2400]", *DOCKER[1:])
    finding = only(with_saved("iptables", *DOCKER, later=later))
    assert finding.proof == (
        "net.bridge.bridge-nf-call-iptables = 1",
        "iptables -t filter: chain FORWARD policy DROP [25 dropped, 3 more while we looked]",
    )


def test_a_peer_is_not_blamed_for_the_firewall_of_this_host() -> None:
    down = with_segment(peers=(replace(PEER, up=False, reason="no answer"),))
    (blamed,) = diagnose(broken(down))
    assert "on beta: is its node running" in blamed.advice
    for rule in ("-A OUTPUT -p udp -j DROP", "-A INPUT -p udp -j DROP"):
        firewall, peer = diagnose(
            broken(with_saved("iptables", ":OUTPUT ACCEPT", ":INPUT ACCEPT", rule), down)
        )
        assert (firewall.cause, peer.cause) == ("underlay-firewall", "peer-down")
        assert "this host's own firewall drops the node's datagrams" in peer.advice


@pytest.mark.parametrize(
    "text",
    [
        "192.0.2.2:7470 calls with another suite: make suite equal in both peers.toml",
        "peer beta (192.0.2.2:7470) answers, and the answer cannot be read: is the psk equal on both hosts?",
    ],
)
def test_a_peer_that_is_heard_and_refused_is_not_looked_for_behind_a_closed_port(text: str) -> None:
    down = with_segment(
        peers=(replace(PEER, up=False, reason="no answer to 12 handshakes"),),
        node=replace(NODE, refused=((text, ""),)),
    )
    peer, refused = diagnose(broken(down))
    assert (peer.cause, refused.cause) == ("peer-down", "handshake-refused")
    assert "open?" not in peer.advice
    assert "192.0.2.2:7470 is heard" in peer.advice
    other = with_segment(
        peers=(replace(PEER, up=False, reason="no answer to 12 handshakes"),),
        node=replace(NODE, refused=((text.replace("192.0.2.2", "192.0.2.22"), ""),)),
    )
    assert "is UDP port 7470 open?" in diagnose(broken(other))[0].advice


def test_a_peer_that_is_down_behind_the_only_nic_in_the_bridge_is_no_tunnel_into_itself() -> None:
    view = broken(
        with_view(
            routes=(RouteView("192.0.2.2", "br-lan", 1500, "52:54:00:aa:00:09"),),
            stations=(StationView("52:54:00:aa:00:09", "eth0"),),
        ),
        with_link("eth0", master="br-lan", addresses=(), kind="veth"),
        with_segment(peers=(replace(PEER, up=False, reason="no answer"),)),
    )
    assert [finding.cause for finding in diagnose(view)] == ["peer-down"]


def test_a_next_hop_that_nobody_heard_among_guests_is_a_warning() -> None:
    view = broken(with_view(routes=(RouteView("192.0.2.2", "br-lan", 1500),)))
    (finding,) = diagnose(view)
    assert (finding.cause, finding.severity) == ("tunnelled-tunnel", Severity.WARNING)


def test_a_way_into_a_bridge_without_another_port_is_a_tunnel_into_itself_whoever_was_heard() -> None:
    view = broken(
        with_view(routes=(RouteView("192.0.2.2", "br-lan", 1500),)),
        lambda view: replace(view, links=tuple(link for link in view.links if link.name != "vm1")),
    )
    assert [finding.cause for finding in diagnose(view)] == ["tunnelled-tunnel"]


def test_a_loss_calls_for_a_second_look() -> None:
    assert needs_second_look(broken(with_saved("iptables", *DOCKER)))


def test_what_is_only_possible_is_a_warning_and_comes_after_what_is_certain() -> None:
    found = diagnose(broken(*CASES["a rule whose counter grows"][0], *CASES["TAP down"][0]))
    assert [finding.severity for finding in found] == [Severity.ERROR, Severity.WARNING]


def test_without_a_tap_the_ports_of_a_bridge_are_looked_at_among_themselves() -> None:
    view = broken(
        with_saved("iptables", *DOCKER),
        with_segment(tap=None, node=None, peers=(), port=None, name=None, mtu=None),
    )
    assert [finding.cause for finding in diagnose(view)] == ["bridge-nf"]


HOOK = "[0:0] -A FORWARD -j L2O-lan-fwd"
OWN = ":L2O-lan-fwd - [0:0]"


def test_what_lets_the_bridge_pass_comes_behind_the_segment_s_own_filter() -> None:
    finding = only(with_saved("iptables", ":FORWARD DROP [1:1]", OWN, HOOK))
    assert command_line(finding.fix[0]) == "iptables -w -I FORWARD 2 -i br-lan -o br-lan -j ACCEPT"
    assert finding.is_safe


def test_a_place_before_the_segment_s_own_filter_is_left_to_a_person() -> None:
    finding = only(with_saved("iptables", *DOCKER, OWN, HOOK))
    assert command_line(finding.fix[0]) == accept("DOCKER-USER")
    assert not finding.is_safe
