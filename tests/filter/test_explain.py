"""What `[filter]` means: which rule decides about a frame."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6ND_NS, IPv6, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop
from scapy.layers.l2 import ARP, Dot1Q, Ether

from l2overlay.addresses import MacAddress, parse_mac
from l2overlay.errors import FrameError, UsageError
from l2overlay.filter.flow import Flow, NotFilteredError, parse_flows, parse_frame_untrusted
from l2overlay.filter.model import Action, Direction
from l2overlay.filter.rules import Verdict, explain

from .writing import OWN, PEERS, filter_of, rule

MAC_A, MAC_B = parse_mac("52:54:00:00:00:01"), parse_mac("52:54:00:00:00:02")


def flows(text: str, stations: dict[MacAddress, str] | None = None) -> list[Flow]:
    return parse_flows(text, OWN, PEERS, (stations or {}).get)


def decide(table: str, text: str) -> Verdict:
    (flow,) = flows(text)
    return explain(filter_of(table), OWN, flow)


def test_the_first_rule_that_matches_decides() -> None:
    table = rule("in", "drop", protocol="tcp", ports=22) + rule("in", "accept", protocol="tcp")
    assert decide(table, "tcp 10.9.0.1:5 > 10.9.0.2:22 from beta").label == "rule 1"
    assert decide(table, "tcp 10.9.0.1:5 > 10.9.0.2:23 from beta").label == "rule 2"
    verdict = decide(table, "udp 10.9.0.1:5 > 10.9.0.2:22 from beta")
    assert (verdict.action, verdict.label) == (Action.ACCEPT, "default in")
    assert verdict.steps == ("rule 1: no, it is for tcp", "rule 2: no, it is for tcp")


def test_an_established_connection_passes_before_all_rules() -> None:
    table = '[filter]\ndefault_in = "drop"\n' + rule("in", "drop", protocol="tcp")
    assert decide(table, "tcp 10.9.0.1:5 > 10.9.0.2:22 from beta established").label == "established"
    assert decide(table, "tcp 10.9.0.1:5 > 10.9.0.2:22 from beta").label == "rule 1"


def test_neighbour_discovery_passes_a_default_that_drops() -> None:
    (flow,) = flows("icmp fd09::1 > fd09::2 in")
    solicitation = bytes(Ether() / IPv6(src="fd09::1", dst="fd09::2") / ICMPv6ND_NS())
    found = flows(f"{solicitation.hex()} in")[0]
    table = filter_of('[filter]\ndefault_in = "drop"\n')
    assert explain(table, OWN, found).accepted
    assert not explain(table, OWN, flow).accepted


def test_a_direction_without_rules_and_with_default_accept_is_not_filtered() -> None:
    table = rule("in", "drop", protocol="tcp")
    assert decide(table, "tcp 10.9.0.1:5 > 10.9.0.2:22 to beta").accepted


def test_one_rule_serves_both_families() -> None:
    table = rule("in", "drop", source=["10.9.0.0/24", "fd09::/64"])
    assert not decide(table, "tcp 10.9.0.1:5 > 10.9.0.2:22 in").accepted
    assert not decide(table, "tcp [fd09::1]:5 > [fd09::2]:22 in").accepted
    assert decide(table, "tcp [fd08::1]:5 > [fd09::2]:22 in").accepted


def test_a_peer_at_the_remote_end_means_who_sent_it_and_at_the_local_end_which_host_this_is() -> None:
    assert not decide(rule("in", "drop", source="beta"), "tcp 10.9.0.1:5 > 10.9.0.2:22 from beta").accepted
    assert decide(rule("in", "drop", source="beta"), "tcp 10.9.0.1:5 > 10.9.0.2:22 from gamma").accepted
    here, elsewhere = (rule("in", "drop", destination=name) for name in ("alpha", "beta"))
    assert not decide(here, "tcp 10.9.0.1:5 > 10.9.0.2:22 from gamma").accepted
    assert decide(elsewhere, "tcp 10.9.0.1:5 > 10.9.0.2:22 from gamma").accepted


def test_log_goes_on_and_says_so() -> None:
    table = rule("in", "log") + rule("in", "drop", protocol="tcp")
    verdict = decide(table, "tcp 10.9.0.1:5 > 10.9.0.2:22 in")
    assert (verdict.action, verdict.steps) == (Action.DROP, ("rule 1: logs it and goes on",))


GROUPS = """
[[filter.security_groups]]
name = "web"
stations = ["52:54:00:00:00:02"]
[[filter.security_groups.rules]]
protocol = "tcp"
ports = 80
[[filter.security_groups]]
name = "db"
stations = ["52:54:00:00:00:02", "52:54:00:00:00:03"]
[[filter.security_groups.rules]]
remote = "beta"
"""


def test_a_station_in_security_groups_may_what_any_of_them_accepts_and_nothing_else() -> None:
    to_b = "mac 52:54:00:00:00:01 > 52:54:00:00:00:02"
    assert (
        decide(GROUPS, f"tcp 10.9.0.1:5 > 10.9.0.2:80 from gamma {to_b}").label
        == "security group web, rule 1"
    )
    assert (
        decide(GROUPS, f"tcp 10.9.0.1:5 > 10.9.0.2:81 from beta {to_b}").label == "security group db, rule 1"
    )
    refused = decide(GROUPS, f"tcp 10.9.0.1:5 > 10.9.0.2:81 from gamma {to_b}")
    assert (refused.action, refused.label) == (Action.DROP, "security group web+db, default")
    assert decide(GROUPS, "tcp 10.9.0.1:5 > 10.9.0.2:81 from gamma").label == "default in"


def test_rules_come_before_security_groups() -> None:
    table = rule("in", "accept", source="gamma") + GROUPS
    words = "tcp 10.9.0.1:5 > 10.9.0.2:81 from gamma mac 52:54:00:00:00:01 > 52:54:00:00:00:02"
    assert decide(table, words).label == "rule 1"


def test_without_a_direction_both_are_meant() -> None:
    assert [flow.direction for flow in flows("tcp 10.9.0.1:5 > 10.9.0.2:80")] == list(Direction)


def test_from_this_host_is_out_and_to_this_host_is_in() -> None:
    assert flows("tcp 10.9.0.1:5 > 10.9.0.2:80 from alpha")[0].direction is Direction.OUT
    (flow,) = flows("tcp 10.9.0.1:5 > 10.9.0.2:80 from beta to alpha")
    assert (flow.direction, flow.peer) == (Direction.IN, "beta")


def test_a_frame_in_hex_is_placed_by_where_its_stations_are() -> None:
    frame = Ether(src="52:54:00:00:00:01", dst="52:54:00:00:00:02") / IP(src="10.9.0.1", dst="10.9.0.2")
    words = bytes(frame / TCP(sport=5, dport=80)).hex(" ")
    (inward,) = flows(words, {MAC_A: "beta"})
    assert (inward.direction, inward.peer, inward.destination_port) == (Direction.IN, "beta", 80)
    (outward,) = flows(words, {MAC_B: "gamma"})
    assert (outward.direction, outward.peer) == (Direction.OUT, "gamma")


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        (IP(src="10.9.0.1", dst="10.9.0.2", options=[]) / UDP(sport=53, dport=4000), (17, 53, 4000, None)),
        (IP(src="10.9.0.1", dst="10.9.0.2") / ICMP(type=8), (1, None, None, 8)),
        (IPv6(src="fd09::1", dst="fd09::2") / IPv6ExtHdrHopByHop() / TCP(sport=1, dport=2), (6, 1, 2, None)),
        (IPv6(src="fd09::1", dst="fd09::2") / IPv6ExtHdrFragment(offset=0) / UDP(sport=1, dport=2), (17, 1, 2, None)),
        (IPv6(src="fd09::1", dst="fd09::2") / IPv6ExtHdrFragment(offset=5) / UDP(sport=1, dport=2), (17, None, None, None)),
        (IP(src="10.9.0.1", dst="10.9.0.2", frag=5) / UDP(sport=53, dport=4000), (17, None, None, None)),
    ],
)  # fmt: skip
def test_frames_are_read_as_scapy_wrote_them(layers: object, expected: tuple[object, ...]) -> None:
    flow = parse_frame_untrusted(bytes(Ether(src="52:54:00:00:00:01", dst="52:54:00:00:00:02") / layers))
    assert (flow.protocol, flow.source_port, flow.destination_port, flow.icmp_type) == expected


@pytest.mark.parametrize("frame", [Ether() / ARP(), Ether() / Dot1Q(vlan=0) / IP()])
def test_what_iptables_does_not_see_is_said(frame: Ether) -> None:
    with pytest.raises(NotFilteredError):
        flows(bytes(frame).hex())


@pytest.mark.parametrize(
    "text",
    ["", "tcp", "tcp 10.9.0.1:5 10.9.0.2:80", "tcp 10.9.0.1:5 > fd09::2", "icmp 10.9.0.1:5 > 10.9.0.2",
     "tpc 10.9.0.1 > 10.9.0.2", "tcp 10.9.0.1 > 10.9.0.2 from delta", "tcp 10.9.0.1 > 10.9.0.2 form beta",
     "tcp 10.9.0.1:99999 > 10.9.0.2", "tcp 10.9.0.1 > 10.9.0.2 mac x > y", "tcp 10.9.0.1 > 10.9.0.2 from",
     "525400000001525400000002080045"],
)  # fmt: skip
def test_what_cannot_be_understood_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError):
        flows(text)


@given(st.binary(max_size=120))
def test_any_bytes_are_a_flow_or_a_named_error(data: bytes) -> None:
    for kind in (b"\x08\x00", b"\x86\xdd", b""):
        try:
            parse_frame_untrusted(bytes(12) + kind + data)
        except (FrameError, NotFilteredError):
            continue
