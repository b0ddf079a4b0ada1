"""Rules as data: what the tools print is read as it is meant, and a frame's way through them is the kernel's.

That the kernel agrees is seen in `tests/host/test_doctor.py`.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from l2overlay.doctor.nft_rules import parse_nft
from l2overlay.doctor.rulesets import Loss, Probe, losses
from l2overlay.doctor.saved_rules import parse_saved

FRAME: Probe = {
    "in": "br0",
    "out": "br0",
    "physin": "vm1",
    "physout": "tap0",
    "bridged": "1",
    "proto": "tcp",
    "state": "NEW",
}


def saved(*lines: str, policy: str = "ACCEPT", chains: str = "") -> list[Loss]:
    text = "\n".join(["*filter", f":FORWARD {policy} [7:700]", *chains.split("/"), *lines, "COMMIT"])
    return losses(parse_saved("iptables", text), ("ip",), "forward", FRAME)


def native(*lines: str, policy: str = "accept", more: str = "") -> list[Loss]:
    head = ["table inet t { # handle 1", "\tchain f { # handle 2"]
    hook = f"\t\ttype filter hook forward priority filter; policy {policy};"
    text = "\n".join([*head, hook, *(f"\t\t{line}" for line in lines), "\t}", more, "}"])
    return losses(parse_nft(text), ("inet",), "forward", FRAME)


CERTAIN, POSSIBLE, NONE = "certain", "possible", "none"


def told(found: list[Loss]) -> str:
    assert len(found) <= 1, found
    if not found:
        return NONE
    return CERTAIN if found[0].certain else POSSIBLE


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("-A FORWARD -j DROP", CERTAIN),
        ("-A FORWARD -j REJECT --reject-with icmp-host-prohibited", CERTAIN),
        ("-A FORWARD -j LOG --log-prefix x", NONE),
        ("-A FORWARD -i br0 -j DROP", CERTAIN),
        ("-A FORWARD -i br+ -j DROP", CERTAIN),
        ("-A FORWARD -i eth0 -j DROP", NONE),
        ("-A FORWARD ! -i br0 -j DROP", NONE),
        ("-A FORWARD ! -i eth0 -o br0 -j DROP", CERTAIN),
        ("-A FORWARD -m physdev --physdev-in vm1 --physdev-out tap0 -j DROP", CERTAIN),
        ("-A FORWARD -m physdev ! --physdev-in vm1 -j DROP", NONE),
        ("-A FORWARD -m physdev --physdev-is-bridged -j DROP", CERTAIN),
        ("-A FORWARD -m physdev ! --physdev-is-bridged -j DROP", NONE),
        ("-A FORWARD -p udp -j DROP", NONE),
        ('-A FORWARD -p tcp -m comment --comment "it\'s all -j ACCEPT" -j DROP', CERTAIN),
        ("-A FORWARD -s 10.0.0.0/8 -j DROP", POSSIBLE),
        ("-A FORWARD -p tcp -m tcp --dport 25 -j DROP", POSSIBLE),
        ("-A FORWARD -m conntrack --ctstate INVALID -j DROP", NONE),
        ("-A FORWARD -m conntrack --ctstate INVALID,NEW -j DROP", CERTAIN),
        ("[3:180] -A FORWARD -j DROP", CERTAIN),
    ],
)
def test_a_rule_of_iptables_drops_the_frame_surely_or_possibly_or_not_at_all(
    rule: str, expected: str
) -> None:
    assert told(saved(rule)) == expected


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("drop # handle 3", CERTAIN),
        ("counter packets 3 bytes 180 reject with icmpx admin-prohibited # handle 3", CERTAIN),
        ('log prefix "drop all: " level info # handle 3', NONE),
        ('log prefix "x" flags all counter packets 1 bytes 2 drop comment "accept" # handle 3', CERTAIN),
        ('iifname "br0" drop # handle 3', CERTAIN),
        ('iifname "br*" drop # handle 3', CERTAIN),
        ('iifname { "eth0", "br0" } oifname != "eth0" drop # handle 3', CERTAIN),
        ('iifname != { "eth0", "br0" } drop # handle 3', NONE),
        ("meta l4proto { icmp, ipv6-icmp } drop # handle 3", NONE),
        ("ct state invalid drop # handle 3", NONE),
        ("ct state { new, untracked } drop # handle 3", CERTAIN),
        ("ct state vmap { established : accept, related : accept, new : drop } # handle 3", CERTAIN),
        ('iifname vmap { "eth0" : drop } # handle 3', NONE),
        ("ip saddr 10.0.0.0/8 drop # handle 3", POSSIBLE),
        ("iifname @strangers drop # handle 3", POSSIBLE),
        ("udp dport 53 drop # handle 3", NONE),
        ("tcp dport { 25, 110-143 } drop # handle 3", POSSIBLE),
        ("ip protocol udp drop # handle 3", NONE),
    ],
)
def test_a_rule_of_nft_drops_the_frame_surely_or_possibly_or_not_at_all(rule: str, expected: str) -> None:
    assert told(native(rule)) == expected


def test_an_accept_before_it_makes_a_policy_harmless_and_a_possible_one_makes_it_possible() -> None:
    assert told(saved(policy="DROP")) == CERTAIN
    assert told(saved("-A FORWARD -i br0 -o br0 -j ACCEPT", policy="DROP")) == NONE
    assert told(saved("-A FORWARD -d 10.9.0.0/24 -j ACCEPT", policy="DROP")) == POSSIBLE
    assert told(saved("-A FORWARD -p icmp -j ACCEPT", policy="DROP")) == CERTAIN


def test_that_existing_connections_pass_is_told_with_the_loss() -> None:
    (loss,) = saved("-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT", policy="DROP")
    assert (loss.certain, loss.passes_established, loss.packets) == (True, True, 7)


def test_a_jump_comes_back_and_a_goto_does_not() -> None:
    inner = ":USER - [0:0]"
    back = ("-A FORWARD -j USER", "-A FORWARD -j DROP")
    assert told(saved(*back, chains=inner)) == CERTAIN
    assert told(saved(*back, "-A USER -j ACCEPT", chains=inner)) == NONE
    assert told(saved(*back, "-A USER -j RETURN", "-A USER -j ACCEPT", chains=inner)) == CERTAIN
    assert told(saved("-A FORWARD -g USER", "-A FORWARD -j DROP", chains=inner)) == NONE


def test_a_loss_tells_the_chains_on_its_way() -> None:
    (loss,) = saved("-A FORWARD -j USER", "[5:9] -A USER -j DROP", chains=":USER - [0:0]")
    assert (loss.path, loss.text, loss.packets) == (("FORWARD", "USER"), "-A USER -j DROP", 5)


def test_what_is_uncertain_outside_stays_so_inside() -> None:
    rules = ("-A FORWARD -s 10.0.0.0/8 -j USER", "-A USER -j DROP")
    assert told(saved(*rules, chains=":USER - [0:0]")) == POSSIBLE


def test_what_our_own_filter_drops_is_meant() -> None:
    rules = ("-A FORWARD -j L2O-lan-fwd", "-A L2O-lan-fwd -j DROP")
    assert saved(*rules, chains=":L2O-lan-fwd - [0:0]") == []


def test_every_base_chain_of_nft_decides_for_itself() -> None:
    second = """	chain g { # handle 9
		type filter hook forward priority 5; policy drop;
		iifname "eth0" accept # handle 10
	}"""
    (loss,) = native("accept # handle 3", more=second)
    assert loss.path == ("g",)


def test_a_set_over_several_lines_is_one_rule() -> None:
    assert told(native('iifname { "eth0",', '  "br0" } drop # handle 3')) == CERTAIN


def test_a_chain_of_netdev_is_entered_by_the_frames_of_its_link_only() -> None:
    text = """table netdev t { # handle 1
	chain c { # handle 1
		type filter hook ingress device "vm1" priority filter; policy accept;
		drop # handle 2
	}
}"""
    found = parse_nft(text)
    assert len(losses(found, ("netdev",), "ingress", {"in": "vm1"})) == 1
    assert losses(found, ("netdev",), "ingress", {"in": "vm2"}) == []
    assert found[0].chains[0].rules[0].handle == 2


def test_tables_that_another_tool_has_shown_are_not_read_twice() -> None:
    text = "table ip filter {\n\tchain FORWARD {\n\t\ttype filter hook forward priority filter; policy drop;\n\t}\n}\n"
    assert len(parse_nft(text)) == 1
    assert parse_nft(text, frozenset({("ip", "filter")})) == []


def test_ebtables_sees_ethertypes_and_the_bridge_by_its_own_name() -> None:
    text = "*filter\n:FORWARD ACCEPT\n-A FORWARD -p ARP -i vm1 --logical-in br0 --log-level notice -j DROP\n"
    found = parse_saved("ebtables", text)
    arp: Probe = {"ethertype": "ARP", "in": "vm1", "logical_in": "br0"}
    assert told(losses(found, ("bridge",), "forward", arp)) == CERTAIN
    assert losses(found, ("bridge",), "forward", {**arp, "ethertype": "IPv4"}) == []
    assert losses(found, ("bridge",), "forward", {**arp, "logical_in": "br1"}) == []


VOCABULARY = r"""table chain inet t { } ; : * -A -j -i ! FORWARD drop accept vmap iifname ct state == != " ' @s jump hook
type filter priority 0; policy drop; [1:2] counter packets # handle 3 ,"""
WORDS = st.lists(st.sampled_from([*VOCABULARY.split(), "\n"]))


@given(WORDS)
def test_no_text_breaks_the_readers(words: list[str]) -> None:
    text = " ".join(words)
    parse_nft(text)
    parse_nft(f"table inet t {{\n\tchain f {{\n{text}\n\t}}\n}}\n")
    parse_saved("iptables", text)
    parse_saved("iptables", f"*filter\n:FORWARD DROP [1:2]\n-A FORWARD {text}\n")
