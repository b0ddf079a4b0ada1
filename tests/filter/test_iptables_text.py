"""What is given to iptables-restore, and what is read from iptables-save."""

import re

import pytest

from l2overlay.addresses import MacAddress, parse_mac
from l2overlay.linux.iptables import (
    FilterSpec,
    Saved,
    chain_name,
    install_text,
    mac_matches,
    missing,
    own_chain,
    parse_saved,
    removal_text,
    render,
    render_maps,
)

from .writing import OWN, filter_of, rule

STATIONS = {
    parse_mac(f"52:54:00:00:00:{n:02x}"): name for n, name in ((1, "beta"), (2, "gamma"), (3, "beta"))
}
NOTHING = Saved((), (), {}, {}, {}, {})


def spec_of(table: str) -> FilterSpec:
    return FilterSpec("lab", "tap-lab", "br-lab", OWN, filter_of(table))


def chains(table: str, version: int = 4) -> dict[str, tuple[str, ...]]:
    return dict(render(spec_of(table), STATIONS, version).chains)


def test_a_direction_in_which_nothing_is_filtered_has_no_chain_and_no_hook() -> None:
    rules = render(spec_of(rule("in", "drop", protocol="tcp")), {}, 4)
    assert set(rules.chains) == {"L2O-lab-in", "L2O-lab-in.0", "L2O-lab-fwd"}
    assert [chain for chain, _ in rules.hooks] == ["FORWARD", "INPUT"]


def test_established_connections_are_the_first_rule_of_each_direction() -> None:
    table = '[filter]\ndefault_in = "drop"\ndefault_out = "drop"\n'
    for name in ("L2O-lab-in", "L2O-lab-out"):
        assert "RELATED,ESTABLISHED" in chains(table)[name][0]


def test_a_peer_named_by_a_rule_has_a_chain_with_the_rules_that_can_match_its_stations() -> None:
    found = chains(rule("in", "drop", source="beta") + rule("in", "accept", source="gamma", protocol="tcp"))
    assert [line.count("rule 1") for line in found["L2O-lab-in.1"]] == [1, 0]
    assert "rule 2" in found["L2O-lab-in.2"][0]
    assert len(found["L2O-lab-in.0"]) == 1  # the default
    assert [re.findall(r"-g (\S+)", line)[0][-1] for line in found["L2O-lab-in.map"]] == ["1", "2", "0"]


def test_a_moved_station_changes_the_map_chains_and_nothing_else() -> None:
    spec = spec_of(rule("in", "drop", source="beta") + rule("out", "drop", destination="beta"))
    moved = {**STATIONS, parse_mac("52:54:00:00:00:01"): "gamma"}
    before, after = render(spec, STATIONS, 4).chains, render(spec, moved, 4).chains
    assert {name for name in before if before[name] != after[name]} == {"L2O-lab-in.map", "L2O-lab-out.map"}
    maps = render_maps(spec, moved, 4)
    assert maps == {name: after[name] for name in maps}


def test_rules_for_another_host_are_not_rendered() -> None:
    assert "rule 1" not in str(chains(rule("in", "drop", destination="beta", protocol="tcp")))
    assert "rule 1" in str(chains(rule("in", "drop", destination=OWN, protocol="tcp")))


def test_a_rule_with_addresses_of_one_family_is_only_in_that_family() -> None:
    table = rule("in", "drop", source="10.9.0.0/24")
    assert "rule 1" in str(chains(table, 4))
    assert "rule 1" not in str(chains(table, 6))


def test_more_than_fifteen_ports_are_several_rules() -> None:
    ports = list(range(1, 60, 2))
    lines = [
        x for x in chains(rule("in", "drop", protocol="tcp", ports=ports))["L2O-lab-in.0"] if "rule 1" in x
    ]
    assert len(lines) == 2
    assert all(len(re.search(r"--dports (\S+)", line)[1].split(",")) == 15 for line in lines)  # type: ignore[index]


def run_program(match: str, frame: bytes) -> int:
    """The classic BPF of an xt_bpf match, over an Ethernet header (bpf(4))."""
    found = re.search(r'"(\d+),([^"]*)"', match)
    assert found is not None
    code = [tuple(map(int, step.split())) for step in found[2].split(",")]
    assert len(code) == int(found[1]) <= 64
    value, at = 0, 0
    while True:
        kind, yes, no, k = code[at]
        at += 1
        if kind in (40, 32):
            offset, size = k - ((1 << 32) - 0x200000), 2 if kind == 40 else 4
            value = int.from_bytes(frame[offset : offset + size], "big")
        elif kind == 21:
            at += yes if value == k else no
        else:
            assert kind == 6
            return k


@pytest.mark.parametrize("source", [True, False])
@pytest.mark.parametrize("count", [1, 2, 40, 41, 100])
def test_the_programs_match_their_stations_and_no_other(source: bool, count: int) -> None:
    macs = [MacAddress(bytes([0x52, n % 3, 0, 0, 1, n])) for n in range(count)]
    matches = mac_matches(macs, source=source)

    def matched(mac: bytes) -> bool:
        frame = bytes(6) + mac if source else mac + bytes(6)
        return any(run_program(match, frame + b"\x08\x00") for match in matches)

    assert all(matched(mac) for mac in macs)
    assert not any(matched(mac[:5] + bytes([mac[5] ^ 0x80])) for mac in macs)
    assert not any(matched(bytes([0x02]) + mac[1:]) for mac in macs)


def test_every_chain_name_fits_the_kernel_with_the_longest_segment() -> None:
    for part in ("fwd", "in.map", "out.map", "out.9999"):
        assert len(chain_name("a" * 15, part)) <= 28


def test_chains_of_another_segment_are_not_ours() -> None:
    ours = own_chain("lab")
    assert all(
        ours.fullmatch(name) for name in render(spec_of(rule("in", "drop", source="beta")), {}, 4).chains
    )
    assert not any(
        ours.fullmatch(name) for name in ("L2O-lab-in-in", "L2O-lab-b-fwd", "L2O-la-in", "L2O-lab-inn")
    )


SAVED = """\
*filter
:INPUT ACCEPT [1:2]
:FORWARD DROP [3:4]
:DOCKER-USER - [0:0]
:L2O-lab-fwd - [0:0]
:L2O-lab-in - [0:0]
:L2O-lab-in.old - [0:0]
:L2O-other-fwd - [0:0]
[7:8] -A INPUT -m physdev --physdev-in tap-lab -j L2O-lab-in
[9:10] -A FORWARD -j L2O-other-fwd
[9:10] -A FORWARD -j L2O-lab-fwd
[1:1] -A FORWARD -j DOCKER-USER
[5:300] -A L2O-lab-in -m comment --comment established -j RETURN
[2:100] -A L2O-lab-in -p tcp -m comment --comment "rule 1" -j DROP
[1:60] -A L2O-lab-in -p tcp -m comment --comment "rule 1" -j REJECT --reject-with tcp-reset
[1:60] -A L2O-lab-in.old -m comment --comment beta -g L2O-lab-in.1
COMMIT
"""


def test_what_is_saved_is_read_as_far_as_it_concerns_us() -> None:
    saved = parse_saved(SAVED, "lab")
    assert saved.chains == ("L2O-lab-fwd", "L2O-lab-in", "L2O-lab-in.old")
    assert [chain for chain, _ in saved.hooks] == ["INPUT", "FORWARD"]
    assert saved.counters == {"in established": (5, 300), "in rule 1": (3, 160)}
    assert saved.first["FORWARD"] == "-j L2O-lab-fwd"  # another segment's hook may stand before ours
    assert saved.policies["FORWARD"] == "DROP"


def test_installing_replaces_hooks_and_removes_stale_chains_and_touches_no_other() -> None:
    text = install_text(render(spec_of(rule("in", "drop", protocol="tcp")), {}, 4), parse_saved(SAVED, "lab"))
    lines = text.splitlines()
    assert "-D INPUT -m physdev --physdev-in tap-lab -j L2O-lab-in" in lines
    assert lines.index("-I FORWARD 1 -j L2O-lab-fwd") > lines.index("-D FORWARD -j L2O-lab-fwd")
    assert lines[-3:] == ["-F L2O-lab-in.old", "-X L2O-lab-in.old", "COMMIT"]
    assert "DOCKER" not in text
    assert "other" not in text
    assert not any(line.startswith(":FORWARD") for line in lines)  # it would set the policy


def test_removal_undoes_hooks_and_chains_and_is_empty_when_there_is_nothing() -> None:
    text = removal_text(parse_saved(SAVED, "lab"))
    assert text.count("\n-D ") == 2
    assert text.count("\n-X ") == 3
    assert removal_text(NOTHING) == ""


def test_a_lost_hook_a_flushed_chain_and_a_hook_behind_another_are_found() -> None:
    rules = render(spec_of(rule("in", "drop", protocol="tcp")), {}, 4)
    assert "FORWARD has lost our hook" in missing(rules, NOTHING)
    behind = SAVED.replace("-A FORWARD -j L2O-other-fwd", "-A FORWARD -j DOCKER-FORWARD")
    found = missing(rules, parse_saved(behind, "lab"))
    assert "FORWARD has our hook behind another rule" in found
    assert "the chain L2O-lab-in.0 is gone" in found
    flushed = re.sub(r"\[\d+:\d+\] -A L2O-lab-in .*\n", "", behind)
    assert "the chain L2O-lab-in was changed" in missing(rules, parse_saved(flushed, "lab"))
