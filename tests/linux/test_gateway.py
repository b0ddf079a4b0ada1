"""The gateway: the plan without a host, and the rules in namespaces with both variants of iptables."""

import dataclasses
from collections.abc import Callable
from ipaddress import ip_interface, ip_network

import pytest

from l2overlay.addresses import derive_macs
from l2overlay.errors import HostSetupError
from l2overlay.linux import host, nat, observe
from l2overlay.linux.apply import apply_changes
from l2overlay.linux.changes import Change
from l2overlay.linux.feature import HostSpec
from l2overlay.linux.features.gateway import (
    Gateway,
    GatewayFacts,
    InstallGateway,
    NatUplink,
    RemoveGateway,
    SetForwarding,
)
from l2overlay.linux.nat import GatewaySpec
from l2overlay.linux.state import HostState, LinkState
from l2overlay.linux.undo import Undo
from l2overlay.testing.lab import Namespace

from .conftest import inside

MACS = derive_macs(bytes(range(32)))
ADDRESSES = tuple(map(ip_interface, ("10.9.0.254/24", "fd09::fe/64")))
SPEC = HostSpec(
    "lab", "tap-lab", "br-lab", 1500, MACS.tap, MACS.bridge, ADDRESSES, extras=(NatUplink("eth0"),)
)
ETH0 = LinkState(2, "eth0", "52:54:00:00:00:01", 1500)
NOTHING = Undo()
WANTED = GatewaySpec("lab", "br-lab", "eth0", (ip_network("10.9.0.0/24"), ip_network("fd09::/64")))
SYSCTLS = {
    **{
        f"ipv{v}/conf/{link}/forwarding": "0"
        for v in (4, 6)
        for link in ("all", "default", "eth0", "eth1", "lo")
    },
    **{f"ipv6/conf/{link}/accept_ra": "1" for link in ("all", "default", "eth0", "lo")},
    **{f"ipv4/conf/{link}/rp_filter": "0" for link in ("all", "default", "eth0", "eth1")},
    "ipv6/conf/eth1/accept_ra": "0",
}


def planned(
    spec: HostSpec = SPEC, made: Undo = NOTHING, missing: str = "all", **sysctls: str
) -> list[Change]:
    changed = {path.replace("__", "/"): value for path, value in sysctls.items()}
    facts = GatewayFacts((missing,) if missing else (), "", {**SYSCTLS, **changed})
    state = HostState(None, None, (), (), {}, has_ipv6=True, links={"eth0": ETH0}, facts=(facts,))
    return Gateway().plan(spec, state, made.changes)


def written(changes: list[Change], family: str) -> list[str]:
    return [
        f"{c.path}={c.value}" for c in changes if isinstance(c, SetForwarding) and c.path.startswith(family)
    ]


def test_the_host_keeps_the_default_routes_that_it_has_from_router_advertisements() -> None:
    """The kernel drops them when all.forwarding is set, unless accept_ra is 2 by then."""
    order = [line.removeprefix("ipv6/conf/") for line in written(planned(), "ipv6")]
    assert order[:3] == ["eth0/accept_ra=2", "lo/accept_ra=2", "all/forwarding=1"]
    assert order[3:] == ["default/forwarding=0", "eth0/forwarding=0", "eth1/forwarding=0", "lo/forwarding=0"]


def test_an_interface_that_forwarded_before_does_so_again_after_the_undo() -> None:
    changes = planned(ipv6__conf__eth1__forwarding="1")
    values = dict(SYSCTLS, **{"ipv6/conf/eth1/forwarding": "1"})
    before = dict(values)
    for change in (*changes, *Undo.of(changes).changes):
        if isinstance(change, SetForwarding):
            if change.path == "ipv6/conf/all/forwarding":  # as the kernel does it
                values.update(
                    {p: change.value for p in values if p.startswith("ipv6/") and "forwarding" in p}
                )
            values[change.path] = change.value
    assert {path: values[path] for path in before} == before


def test_a_host_that_is_a_router_already_stays_as_it_is() -> None:
    routed = {path: "1" for path in SYSCTLS if path.endswith("forwarding")}
    facts = GatewayFacts((), "", {**SYSCTLS, **routed})
    state = HostState(None, None, (), (), {}, has_ipv6=True, links={"eth0": ETH0}, facts=(facts,))
    assert Gateway().plan(SPEC, state, ()) == []


@pytest.mark.parametrize(
    ("everywhere", "there", "becomes"), [("1", "0", "2"), ("0", "1", "2"), ("0", "0", "")]
)
def test_a_strict_rp_filter_of_the_uplink_becomes_loose(everywhere: str, there: str, becomes: str) -> None:
    changes = planned(ipv4__conf__all__rp_filter=everywhere, ipv4__conf__eth0__rp_filter=there)
    loose = [c for c in changes if isinstance(c, SetForwarding) and c.path.endswith("rp_filter")]
    assert loose == ([SetForwarding("br-lab", "ipv4/conf/eth0/rp_filter", "2", there)] if becomes else [])


def test_another_uplink_gives_the_sysctls_of_the_first_back() -> None:
    made = Undo.of(planned())
    changes = planned(dataclasses.replace(SPEC, extras=(NatUplink("eth1"),)), made)
    assert changes[0] == SetForwarding("br-lab", "ipv4/conf/eth0/forwarding", "0", None)
    assert SetForwarding("br-lab", "ipv4/conf/eth1/forwarding", "1", "0") in changes


def test_a_gateway_that_is_not_wanted_any_more_is_taken_away_once() -> None:
    made = Undo.of(planned())
    without = dataclasses.replace(SPEC, extras=())
    changes = planned(without, made)
    assert changes == list(made.changes)
    assert planned(without, Undo.of(changes).after(made.without(changes))) == []


def test_a_change_that_raises_host_setup_error_takes_those_before_it_back(
    namespace: Callable[[], Namespace], monkeypatch: pytest.MonkeyPatch
) -> None:
    """iptables may refuse after the sysctls are written."""
    there = namespace()
    monkeypatch.setattr(nat, "PROGRAMS", {4: "iptables", 6: "no-such-program"})
    with inside(there):
        forward = there.run(["sysctl", "-n", "net.ipv4.conf.lo.forwarding"]).stdout
        changes = [
            SetForwarding("br-lab", "ipv4/conf/lo/forwarding", "1", "0"),
            InstallGateway("br-lab", WANTED, nat.absent_parts(WANTED)),
        ]
        with pytest.raises(HostSetupError, match="no-such-program"):
            apply_changes(changes)
    assert there.run(["sysctl", "-n", "net.ipv4.conf.lo.forwarding"]).stdout == forward


@pytest.mark.parametrize("variant", ["nft", "legacy"])
def test_the_rules_are_read_back_as_they_were_written_and_go_to_the_last(
    namespace: Callable[[], Namespace], monkeypatch: pytest.MonkeyPatch, variant: str
) -> None:
    there = namespace()
    programs = {4: f"iptables-{variant}", 6: f"ip6tables-{variant}"}
    monkeypatch.setattr(nat, "PROGRAMS", programs)
    for program in programs.values():
        there.run([program, "-A", "FORWARD", "-i", "nobody", "-j", "DROP"])
        if variant == "legacy":  # it never gives its tables back
            there.run([program, "-t", "nat", "-L"])
    before = rules(there, programs)
    with inside(there):
        absent = nat.absent_parts(WANTED)
        assert len(nat.missing(WANTED)) == 4
        for _ in range(2):
            nat.install(WANTED)
            assert nat.missing(WANTED) == ()
        there.run([programs[4], "-I", "FORWARD", "1", "-j", "DROP"])
        assert len(nat.missing(WANTED)) == 1
        nat.install(WANTED)
        assert nat.missing(WANTED) == ()
        there.run([programs[4], "-D", "FORWARD", "-j", "DROP"])
        nat.remove("lab", absent)
    assert rules(there, programs) == before


def test_a_kernel_without_ipv6_gets_the_rules_of_ipv4_only(
    namespace: Callable[[], Namespace], monkeypatch: pytest.MonkeyPatch
) -> None:
    there = namespace()
    monkeypatch.setattr(nat, "PROGRAMS", {4: "iptables", 6: "no-such-program"})
    monkeypatch.setattr(observe, "has_ipv6", lambda: False)
    with inside(there):
        absent = nat.absent_parts(WANTED)
        nat.install(WANTED)
        assert nat.missing(WANTED) == ()
        nat.remove("lab", absent)
    assert "L2U" not in there.run(["iptables-save"]).stdout


def rules(namespace: Namespace, programs: dict[int, str]) -> list[str]:
    said = [namespace.run([f"{program}-save"]).stdout for program in programs.values()]
    return [line for text in said for line in text.splitlines() if line and line[0] in "*-"]


def test_the_hook_stands_behind_those_of_the_filter_and_before_those_of_others() -> None:
    text = "*filter\n:FORWARD DROP [0:0]\n:L2U-lab - [0:0]\n"
    ours, filtered, docker = (
        "-A FORWARD -j L2U-lab\n",
        "-A FORWARD -j L2O-lab-fwd\n",
        "-A FORWARD -j DOCKER-USER\n",
    )
    behind = nat.parse_found(text + filtered + ours + docker, "filter", "lab")
    assert (behind.position, behind.in_place) == (2, True)
    lost = nat.parse_found(text + filtered + docker + ours, "filter", "lab")
    assert (lost.position, lost.in_place) == (2, False)


def test_a_subnet_that_is_valid_everywhere_is_forwarded_and_not_masqueraded() -> None:
    spec = dataclasses.replace(WANTED, networks=(ip_network("2003:a::/64"), ip_network("fd09::/64")))
    parts = nat.render(spec, 6)
    assert parts["nat"].rules == ("-s fd09::/64 -j MASQUERADE",)
    assert len(parts["filter"].rules) == 4
    assert nat.render(spec, 4) == {}


def test_an_interface_that_goes_is_a_trouble_and_does_not_keep_the_rest_from_being_repaired() -> None:
    state = HostState(None, None, (), (), {}, has_ipv6=True)
    with pytest.raises(HostSetupError, match="there is no interface eth0; correct uplink"):
        Gateway().refuse(SPEC, state, tap_open=False)
    Gateway().refuse(SPEC, state, tap_open=True)
    assert any("there is no interface eth0" in trouble for trouble in host.host_troubles(SPEC, state))
    assert RemoveGateway("br-lab", "lab", "") in Undo.of(planned()).changes
