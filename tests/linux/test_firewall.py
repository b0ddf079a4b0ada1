"""iptables driven for real in a namespace, and what it is told when it refuses."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from l2overlay.errors import HostPermissionError, HostSetupError
from l2overlay.linux import firewall
from l2overlay.linux.features.netfilter import RemoveFilter, SetBridgeFlag
from l2overlay.linux.firewall import Firewall, absent_parts, find_variant, remove
from l2overlay.linux.iptables import FilterSpec
from l2overlay.linux.undo import Undo
from l2overlay.testing.namespace import Namespace
from tests.filter.writing import OWN, filter_of, rule

from .conftest import inside

TABLE = '[filter]\ndefault_in = "drop"\n' + rule("in", "accept", source="beta")


def spec(table: str = TABLE) -> FilterSpec:
    return FilterSpec("lab", "tap-lab", "br-lab", OWN, filter_of(table))


@pytest.fixture
def host(namespace: Callable[[], Namespace]) -> Iterator[Namespace]:
    made = namespace()
    with inside(made):
        yield made


def ruleset(host: Namespace) -> str:
    return host.run(["nft", "list", "ruleset"]).stdout


def test_the_tables_that_iptables_made_for_us_go_with_us(host: Namespace) -> None:
    absent = absent_parts()
    assert absent == "4:table,INPUT,FORWARD,OUTPUT 6:table,INPUT,FORWARD,OUTPUT"
    Firewall("lab").install(spec())
    assert len(remove("lab", absent)) == 2
    assert ruleset(host) == ""


def test_a_base_chain_that_somebody_uses_by_now_stays_with_its_table(host: Namespace) -> None:
    absent = absent_parts()
    Firewall("lab").install(spec())
    host.run(["iptables", "-A", "FORWARD", "-s", "192.0.2.1", "-j", "DROP"])
    host.run(["ip6tables", "-P", "INPUT", "DROP"])
    remove("lab", absent)
    left = ruleset(host)
    assert "192.0.2.1" in left
    assert "policy drop" in left
    assert "L2O" not in left
    assert left.count("chain ") == 2


def test_what_was_there_before_is_not_taken_for_ours(host: Namespace) -> None:
    host.run(["iptables", "-N", "MINE"])
    host.run(["iptables", "-P", "FORWARD", "ACCEPT"])
    before = ruleset(host)
    absent = absent_parts()
    assert "table" not in absent.split()[0]
    Firewall("lab").install(spec())
    remove("lab", absent)
    assert ruleset(host) == before


def test_installing_again_is_the_same_as_installing_once(host: Namespace) -> None:
    wall = Firewall("lab")
    wall.install(spec())
    once = ruleset(host)
    wall.install(spec())
    Firewall("lab").install(spec())  # of the node that comes after one that was killed
    assert ruleset(host) == once
    assert wall.look()[0] == []


def test_two_segments_keep_out_of_each_others_chains(host: Namespace) -> None:
    one, other = Firewall("lab"), Firewall("lab-in")
    one.install(spec())
    other.install(FilterSpec("lab-in", "tap-in", "br-in", OWN, filter_of(TABLE)))
    assert (one.look()[0], other.look()[0]) == ([], [])
    remove("lab", "")
    assert other.look()[0] == []
    assert "tap-lab" not in host.run(["iptables-save"]).stdout


def test_a_refused_reload_leaves_the_rules_that_were_in_force(
    host: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    wall = Firewall("lab")
    wall.install(spec())
    before, real = ruleset(host), firewall.restore

    def refusing(version: int, text: str, *, test: bool = False) -> None:
        if version == 6 and not test:
            raise HostSetupError("no")
        real(version, text, test=test)

    monkeypatch.setattr(firewall, "restore", refusing)
    with pytest.raises(HostSetupError):
        wall.install(spec(TABLE + rule("in", "accept", protocol="udp")))
    assert ruleset(host) == before
    assert wall.look()[0] == []


def test_every_kind_of_rule_is_one_that_both_families_take(host: Namespace) -> None:
    many = "".join(
        rule("in", action, **keys)
        for action, keys in (
            ("log", {}),
            ("reject", {"protocol": "tcp", "ports": "1-5"}),
            ("reject", {"protocol": "udp", "ports": [7, "8-9"], "source_ports": [1, 2, 3]}),
            ("drop", {"protocol": "sctp", "ports": 1}),
            ("drop", {"protocol": 88}),
            ("drop", {"protocol": "gre", "state": "invalid"}),
            ("accept", {"protocol": "esp", "rate": "5/h", "burst": 3}),
            ("accept", {"protocol": "icmp", "rate": "100000/s"}),
            ("reject", {"state": "new", "source": ["beta", "02:00:00:00:00:01"]}),
        )
    )
    Firewall("lab").install(spec(many))


def test_undo_of_a_filter_outlives_the_process() -> None:
    undo = Undo(
        (SetBridgeFlag("br", "nf_call_iptables", False, None, index=3), RemoveFilter("br", "lab", "4:table"))
    )
    assert Undo.from_json(undo.to_json()) == undo
    with pytest.raises(HostSetupError):
        Undo.from_json(undo.to_json().replace("nf_call_iptables", "vlan_filtering"))


@pytest.mark.parametrize(
    ("said", "kind", "words"),
    [
        ("Another app is currently holding the xtables lock; still 5s", HostSetupError, "has held the xtables lock"),
        ("Could not fetch rule set generation id: Permission denied (you must be root)", HostPermissionError, "may not"),
        ("iptables-restore v1.8.9: line 2 failed", HostSetupError, "at `second`: iptables-restore"),
        ("", HostSetupError, "exit code 1"),
    ],
)  # fmt: skip
def test_a_refusal_is_one_clear_line(
    monkeypatch: pytest.MonkeyPatch, said: str, kind: type[HostSetupError], words: str
) -> None:
    def refuse(argv: list[str], text: str) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(argv, 1, "", said)

    monkeypatch.setattr(firewall, "_run", refuse)
    with pytest.raises(kind, match=words) as caught:
        firewall.restore(4, "first\nsecond\n")
    assert "\n" not in str(caught.value)
    assert caught.type is kind


def test_without_the_programs_the_way_to_get_them_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(HostSetupError, match="apt install iptables"):
        find_variant()


def test_a_kernel_without_bridge_netfilter_is_told_with_the_commands(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(firewall, "NF_BRIDGE_SYSCTLS", tmp_path / "absent")
    with pytest.raises(HostSetupError, match="modprobe br_netfilter && sysctl -w"):
        firewall.bridge_nf_was_on()
