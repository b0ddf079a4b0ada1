"""Host changes: the plan on made-up states, then plan, apply and undo on real links in a namespace.

[br-lab]--tap-lab--(a held TAP, no node)
   |
 port0--guest0     where a test wants a bridge that is in use
"""

import dataclasses
import json
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from ipaddress import ip_interface
from pathlib import Path

import pytest

from l2overlay.addresses import derive_macs, format_mac
from l2overlay.errors import ExitCode, HostPermissionError, HostSetupError
from l2overlay.linux.apply import apply_changes, undo
from l2overlay.linux.changes import AddAddress, RemoveAddress, SetMac, SetMaster, SetMtu, SetUp
from l2overlay.linux.feature import HostSpec
from l2overlay.linux.features.bridge import CreateBridge, KeepMac, RemoveBridge, SetAlias
from l2overlay.linux.features.tap import HearAllMulticast
from l2overlay.linux.host import (
    bridge_ports,
    host_notes,
    host_troubles,
    leftovers,
    marked_bridges,
    observe_host,
    plan_host,
)
from l2overlay.linux.state import BridgeState, HostState, LinkState, TapState
from l2overlay.linux.tap import LinuxTap, check_privileges
from l2overlay.linux.undo import Undo
from l2overlay.testing.lab import Namespace
from l2overlay.testing.snapshot import Snapshot, differences, take_snapshot

from .conftest import inside, wait_for_carrier

MACS = derive_macs(bytes(range(32)))
SPEC = HostSpec("lab", "tap-lab", "br-lab", 1500, MACS.tap, MACS.bridge)
ADDRESSED = dataclasses.replace(SPEC, addresses=(ip_interface("10.1.0.1/24"), ip_interface("fd01::1/64")))
EMPTY = HostState(None, None, (), (), {}, has_ipv6=True)
BRIDGE = LinkState(
    index=3,
    name="br-lab",
    kind="bridge",
    mac="52:54:00:00:00:01",
    mtu=1500,
    bridge=BridgeState(),
)
OURS = dataclasses.replace(BRIDGE, alias="l2overlay lab", mac=format_mac(MACS.bridge))
TAP = dataclasses.replace(BRIDGE, index=4, name="tap-lab", kind="tun", bridge=None, tap=TapState())
PORT = dataclasses.replace(
    BRIDGE, index=5, name="port0", kind="veth", bridge=None, mac="52:54:00:00:00:02", master="br-lab"
)
A_BRIDGE_IN_USE = (
    "link add br-lab type bridge",
    "link add port0 type veth peer name guest0",
    "link set port0 master br-lab",
    *(f"link set {link} up" for link in ("guest0", "port0", "br-lab")),
    "addr add 10.2.0.1/24 dev br-lab",
)


# From scapy: Ether()/IPv6(src="fe80::5")/..., a general MLDv1 query with a delay of 1 ms, and who has fe80::1.
MLD_QUERY = bytes.fromhex(
    "333300000001 020000000005 86dd 6000000000200001 fe800000000000000000000000000005"
    "ff020000000000000000000000000001 3a00050200000100 82008022 0001 0000 00000000000000000000000000000000"
)
NEIGHBOUR_SOLICITATION = bytes.fromhex(
    "3333ff000001 020000000005 86dd 6000000000183aff fe800000000000000000000000000005"
    "ff0200000000000000000001ff000001 87007d9f 00000000 fe800000000000000000000000000001"
)


def state(**changed: object) -> HostState:
    return dataclasses.replace(EMPTY, **changed)  # type: ignore[arg-type]


# The plan


def test_two_keys_give_four_unicast_local_macs_and_a_tap_never_the_lowest_of_a_bridge() -> None:
    macs = [*MACS, *derive_macs(bytes(32))]
    assert len(set(macs)) == 4
    assert all(mac[0] & 0b11 == 0b10 for mac in macs)
    assert MACS.tap[0] == 0xFE
    assert derive_macs(bytes(range(32))) == MACS


def test_on_an_empty_host_the_bridge_comes_first_and_the_tap_is_up_last() -> None:
    plan = plan_host(SPEC, EMPTY)
    assert [type(c) for c in plan if c.link == "tap-lab"][-2:] == [SetMaster, SetUp]
    assert plan[0] == CreateBridge("br-lab", format_mac(MACS.bridge), 1500, "l2overlay lab")
    assert Undo.of(plan).changes == (RemoveBridge("br-lab", format_mac(MACS.bridge), "l2overlay lab"),)


def test_an_adopted_bridge_keeps_mac_mtu_and_state_whatever_the_segment_says() -> None:
    spec = dataclasses.replace(SPEC, mtu=9000)
    plan = plan_host(spec, state(bridge=BRIDGE, ports=(PORT,)))
    assert [c for c in plan if c.link == "br-lab"] == []


@pytest.mark.parametrize("ports", [(), (dataclasses.replace(PORT, mac="fe:ff:00:00:00:00"),)])
def test_an_adopted_bridge_that_would_take_the_taps_mac_keeps_its_own(ports: tuple[LinkState, ...]) -> None:
    plan = plan_host(SPEC, state(bridge=BRIDGE, ports=ports))
    assert KeepMac("br-lab", BRIDGE.mac, index=3) in plan


def test_an_adopted_bridge_that_is_down_is_set_up_and_down_again() -> None:
    plan = plan_host(SPEC, state(bridge=dataclasses.replace(BRIDGE, up=False), ports=(PORT,)))
    assert SetUp("br-lab", True, False, index=3) in plan
    assert SetUp("br-lab", False, None, index=3) in Undo.of(plan).changes


def test_a_tap_below_the_mtu_of_an_adopted_bridge_would_lower_it_so_it_is_not() -> None:
    plan = plan_host(SPEC, state(bridge=dataclasses.replace(BRIDGE, mtu=9000), ports=(PORT,)))
    assert SetMtu("tap-lab", 9000, None) in plan


def test_ipv6_that_is_switched_off_costs_its_addresses_only_and_is_told() -> None:
    off = state(sysctls={"ipv6/conf/default/disable_ipv6": "1"})
    added = [c.address for c in plan_host(ADDRESSED, off) if isinstance(c, AddAddress)]
    assert added == ["10.1.0.1/24"]
    (trouble,) = host_troubles(ADDRESSED, off)
    assert "(net.ipv6.conf.default.disable_ipv6 = 1): br-lab goes without fd01::1/64" in trouble
    assert host_troubles(SPEC, off) == host_troubles(ADDRESSED, EMPTY) == []


def test_a_bridge_of_ours_is_brought_in_line_and_never_adopted() -> None:
    changed = dataclasses.replace(OURS, mtu=1400, up=False, mac="52:54:00:00:00:09")
    plan = plan_host(SPEC, state(bridge=changed, has_ipv6=False))
    assert [c for c in plan if c.link == "br-lab"] == [
        SetMac("br-lab", format_mac(MACS.bridge), None, index=3),
        SetMtu("br-lab", 1500, None, index=3),
        SetUp("br-lab", True, None, index=3),
    ]
    assert host_notes(SPEC, state(bridge=changed)) == []


def test_a_bridge_that_we_made_and_did_not_live_to_mark_is_known_by_its_mac() -> None:
    unmarked = dataclasses.replace(OURS, alias="")
    assert SetAlias("br-lab", "l2overlay lab", index=3) in plan_host(SPEC, state(bridge=unmarked))
    assert leftovers(SPEC, state(bridge=unmarked)).changes == (
        RemoveBridge("br-lab", format_mac(MACS.bridge), "l2overlay lab"),
    )
    assert leftovers(SPEC, state(bridge=BRIDGE)) == Undo()
    assert leftovers(SPEC, EMPTY) == Undo()


@pytest.mark.parametrize(
    ("taken", "reason"),
    [
        (
            {"bridge": dataclasses.replace(BRIDGE, kind="veth")},
            "br-lab exists and is not a bridge; set another bridge",
        ),
        ({"bridge": dataclasses.replace(BRIDGE, alias="l2overlay office")}, "belongs to the segment office"),
        ({"tap": dataclasses.replace(TAP, tap=None)}, "tap-lab exists and is not a TAP; set another tap"),
        ({"tap": TAP}, "held by a running process, probably a node of lab: l2overlay status lab"),
        ({"addresses": (("eth0", ip_interface("10.1.0.1/16")),)}, r"eth0 has 10\.1\.0\.1/16"),
        ({"addresses": (("br-lab", ip_interface("10.1.0.1/16")),)}, r"br-lab has 10\.1\.0\.1/16"),
        ({"addresses": (("lo", ip_interface("fd01::1/128")),)}, "lo has fd01::1/128"),
    ],
)
def test_what_is_taken_is_refused_in_one_line_with_the_remedy(taken: dict[str, object], reason: str) -> None:
    with pytest.raises(HostSetupError, match=reason) as refusal:
        plan_host(ADDRESSED, state(**taken))
    assert "\n" not in str(refusal.value)


def test_a_tap_that_we_hold_ourselves_is_not_taken() -> None:
    assert plan_host(SPEC, state(tap=TAP), tap_open=True)


def test_a_persistent_tap_gets_back_what_it_had() -> None:
    kept = dataclasses.replace(
        TAP, tap=TapState(persistent=True), up=False, mtu=1400, mac="52:54:00:00:00:07", master="br-other"
    )
    steps = Undo.of(plan_host(SPEC, state(tap=kept, bridge=OURS))).changes
    for step in (
        SetUp("tap-lab", False, None, index=4),
        SetMaster("tap-lab", "br-other", None, index=4),
        SetMtu("tap-lab", 1400, None, index=4),
        SetMac("tap-lab", "52:54:00:00:00:07", None, index=4),
    ):
        assert step in steps


def test_an_address_that_left_the_configuration_goes_only_if_we_had_put_it_there() -> None:
    ours, theirs = ip_interface("10.1.0.1/24"), ip_interface("10.9.0.1/24")
    before = state(bridge=BRIDGE, ports=(PORT,), addresses=(("br-lab", ours), ("br-lab", theirs)))
    made = Undo((RemoveAddress("br-lab", "10.1.0.1/24", index=3),))
    changed = dataclasses.replace(SPEC, addresses=(ip_interface("10.1.0.2/24"),))
    assert [c for c in plan_host(changed, before, made=made) if c.link == "br-lab"] == [
        RemoveAddress("br-lab", "10.1.0.1/24", index=3),
        AddAddress("br-lab", "10.1.0.2/24", index=3),
    ]


@pytest.mark.parametrize(
    ("changed", "note"),
    [
        ({}, "adopted, and left in place"),
        ({"mtu": 1400}, "ip link set br-lab mtu 1500"),
        ({"mtu": 9000}, r"set mtu = 9000 in \[segment\]"),
        ({"bridge": BridgeState(stp=True)}, "runs STP"),
        ({"bridge": BridgeState(vlan_filtering=True)}, "bridge vlan add dev tap-lab"),
    ],
)
def test_what_a_person_should_know_of_an_adopted_bridge_is_noted(
    changed: dict[str, object], note: str
) -> None:
    adopted = dataclasses.replace(BRIDGE, **changed)  # type: ignore[arg-type]
    assert any(re.search(note, line) for line in host_notes(SPEC, state(bridge=adopted)))


@pytest.mark.parametrize(
    ("accept_ra", "forwarding", "noted"),
    [("1", "0", True), ("1", "1", False), ("2", "1", True), ("0", "0", False)],
)
def test_an_adopted_bridge_that_takes_router_advertisements_is_noted(
    accept_ra: str, forwarding: str, noted: bool
) -> None:
    sysctls = {"ipv6/conf/br-lab/accept_ra": accept_ra, "ipv6/conf/br-lab/forwarding": forwarding}
    notes = host_notes(SPEC, state(bridge=BRIDGE, sysctls=sysctls))
    assert any("accept_ra=0" in note for note in notes) == noted


# Real links


class Machine:
    """A namespace in which host changes are made the way a node makes them."""

    def __init__(self, namespace: Namespace) -> None:
        self.namespace = namespace

    @contextmanager
    def node(self, spec: HostSpec = SPEC) -> Iterator[Undo]:
        """Plan, TAP, apply; at the end undo and TAP away."""
        with inside(self.namespace):
            plan = plan_host(spec, observe_host(spec))
            tap = LinuxTap.open(spec.tap, offload=True)
            try:
                steps = apply_changes(plan)
                yield steps
                undo(steps)
            finally:
                tap.close()

    def link(self, name: str) -> dict[str, object]:
        (found,) = json.loads(self.namespace.run(["ip", "-d", "-j", "link", "show", "dev", name]).stdout)
        return dict(found)

    def snapshot(self) -> Snapshot:
        """Links, addresses, routes and sysctls, once they have settled."""
        wait_for_carrier(self.namespace)
        return take_snapshot(self.namespace)

    def differences(self, before: Snapshot) -> list[str]:
        """What is not as before, after as long as the kernel needs to make it so."""
        deadline = time.monotonic() + 3
        while (found := differences(before, take_snapshot(self.namespace))) and time.monotonic() < deadline:
            pass
        return found


@pytest.fixture
def machine(namespace: Callable[[], Namespace]) -> Machine:
    return Machine(namespace())


@pytest.mark.parametrize("link", ["default", "br-lab"])
def test_a_host_without_ipv6_gets_all_but_the_ipv6_address(machine: Machine, link: str) -> None:
    machine.namespace.ip(*(A_BRIDGE_IN_USE if link == "br-lab" else ()))
    machine.namespace.run(["sh", "-c", f"echo 1 > /proc/sys/net/ipv6/conf/{link}/disable_ipv6"])
    with machine.node(ADDRESSED):
        assert plan_host(ADDRESSED, observe_host(ADDRESSED), tap_open=True) == []
        assert "net.ipv6.conf.br-lab.disable_ipv6 = 1" in host_troubles(ADDRESSED, observe_host(ADDRESSED))[0]
        machine.namespace.run(["sh", "-c", "echo 0 > /proc/sys/net/ipv6/conf/br-lab/disable_ipv6"])
        later = plan_host(ADDRESSED, observe_host(ADDRESSED), tap_open=True)
        assert [c.address for c in later if isinstance(c, AddAddress)] == ["fd01::1/64"]


@pytest.mark.parametrize("spec", [SPEC, ADDRESSED], ids=["plain", "addressed"])
@pytest.mark.parametrize("existing", [(), A_BRIDGE_IN_USE], ids=["no bridge", "a bridge in use"])
def test_leaving_restores_links_addresses_routes_and_sysctls(
    machine: Machine, existing: Sequence[str], spec: HostSpec
) -> None:
    machine.namespace.ip(*existing)
    before = machine.snapshot()
    with machine.node(spec):
        assert bridge_ports("br-lab") == (["port0", "tap-lab"] if existing else ["tap-lab"])
        assert plan_host(spec, observe_host(spec), tap_open=True) == []
        assert machine.link("tap-lab")["address"] == format_mac(MACS.tap)
        ipv6 = Path("/proc/thread-self/net/if_inet6").read_text()
        assert "tap-lab" not in ipv6
        assert (" br-lab\n" in ipv6) is (bool(existing) or bool(spec.addresses))
    assert machine.differences(before) == []


def test_an_adopted_bridge_without_ports_has_its_mac_before_during_and_after(machine: Machine) -> None:
    machine.namespace.ip("link add br-lab type bridge", "link set br-lab up")
    mac = machine.link("br-lab")["address"]
    with machine.node():
        assert machine.link("br-lab")["address"] == mac
    assert machine.link("br-lab")["address"] == mac


def test_a_bridge_of_ours_has_the_nodes_mac_and_the_segments_mtu_whatever_is_plugged_in(
    machine: Machine,
) -> None:
    with machine.node(dataclasses.replace(SPEC, mtu=9000)):
        machine.namespace.ip(
            "link add port0 address 02:00:00:00:00:01 type veth peer name guest0",
            "link set port0 mtu 1400 up",
            "link set port0 master br-lab",
        )
        bridge = machine.link("br-lab")
        assert (bridge["address"], bridge["mtu"], bridge["ifalias"]) == (
            format_mac(MACS.bridge),
            9000,
            "l2overlay lab",
        )
        machine.namespace.ip("link del port0")


def test_an_adopted_bridge_of_larger_mtu_keeps_it(machine: Machine) -> None:
    machine.namespace.ip(*A_BRIDGE_IN_USE, "link set port0 mtu 9000")
    assert machine.link("br-lab")["mtu"] == 9000
    with machine.node():
        assert machine.link("br-lab")["mtu"] == 9000


def test_a_port_taken_out_or_a_tap_made_anew_is_put_back_by_the_same_plan(machine: Machine) -> None:
    with machine.node():
        machine.namespace.ip("link set tap-lab nomaster down")
        plan = plan_host(SPEC, observe_host(SPEC), tap_open=True)
        assert [type(c) for c in plan] == [SetMaster, SetUp]
        apply_changes(plan)
        assert bridge_ports("br-lab") == ["tap-lab"]
        machine.namespace.ip("link del tap-lab")
        again = LinuxTap.open("tap-lab", offload=True)
        apply_changes(plan_host(SPEC, observe_host(SPEC), tap_open=True))
        assert bridge_ports("br-lab") == ["tap-lab"]
        assert machine.link("tap-lab")["address"] == format_mac(MACS.tap)
        again.close()


def test_links_whose_mtu_was_lowered_below_the_least_of_ipv6_are_put_in_order(machine: Machine) -> None:
    least = dataclasses.replace(ADDRESSED, mtu=1280)
    with machine.node(least):
        machine.namespace.ip("link set tap-lab mtu 1000", "link set br-lab mtu 1000")
        apply_changes(plan_host(least, observe_host(least), tap_open=True))
        assert (machine.link("tap-lab")["mtu"], machine.link("br-lab")["mtu"]) == (1280, 1280)
        assert plan_host(least, observe_host(least), tap_open=True) == []
        assert "tap-lab" not in Path("/proc/thread-self/net/if_inet6").read_text()


def test_a_bridge_that_was_deleted_is_made_again_by_the_same_plan(machine: Machine) -> None:
    with machine.node(ADDRESSED):
        machine.namespace.ip("link del br-lab")
        apply_changes(plan_host(ADDRESSED, observe_host(ADDRESSED), tap_open=True))
        assert bridge_ports("br-lab") == ["tap-lab"]
        assert plan_host(ADDRESSED, observe_host(ADDRESSED), tap_open=True) == []


def test_a_change_that_fails_takes_back_those_before_it(machine: Machine) -> None:
    before = machine.snapshot()
    too_large = dataclasses.replace(SPEC, mtu=65_530)  # a bridge takes it, a TAP does not
    with (
        pytest.raises(HostSetupError, match="could not set the MTU of tap-lab to 65530: Invalid argument"),
        machine.node(too_large),
    ):
        pass
    assert machine.differences(before) == []


def test_an_undo_passes_over_what_is_gone_and_over_what_is_not_ours_any_more(machine: Machine) -> None:
    with machine.node(ADDRESSED) as steps:
        machine.namespace.ip("link del br-lab", "link add br-lab type bridge")
        assert undo(steps).lines == ()
        assert machine.link("br-lab")["ifname"] == "br-lab"
        machine.namespace.ip("link del br-lab")
        assert undo(steps).lines == ()


def test_an_undo_leaves_a_link_alone_that_took_the_name_of_ours(machine: Machine) -> None:
    machine.namespace.ip("link add br-lab type bridge", "addr add 10.1.0.1/24 dev br-lab")
    with inside(machine.namespace):
        index = socket.if_nametoindex("br-lab")
        assert undo(Undo((RemoveAddress("br-lab", "10.1.0.1/24", index=index + 1),))).lines == ()
        assert undo(Undo((RemoveAddress("br-lab", "10.1.0.1/24", index=index),))).lines != ()


def test_a_bridge_of_ours_with_other_ports_stays_and_an_empty_one_goes(machine: Machine) -> None:
    with machine.node(ADDRESSED) as steps:
        machine.namespace.ip(
            "link del tap-lab", "link add guest0 type veth peer name guest1", "link set guest0 master br-lab"
        )
        kept = undo(steps, keep_used=True)
        assert [bridge.line for bridge in kept.kept] == ["the bridge br-lab, because guest0 is in it"]
        assert ADDRESSED.is_ours(observe_host(ADDRESSED).bridge or pytest.fail("no bridge"))
        assert "10.1.0.1" not in machine.namespace.run(["ip", "addr"]).stdout
        assert [bridge.alias for bridge in marked_bridges()] == ["l2overlay lab"]
        machine.namespace.ip("link set guest0 nomaster")
        assert undo(Undo(tuple(marked_bridges())), keep_used=True).lines == ("remove the bridge br-lab",)
        assert marked_bridges() == []


def test_an_undo_that_cannot_be_done_is_told_after_all_others_were(machine: Machine) -> None:
    with inside(machine.namespace):
        machine.namespace.ip("link add br-lab type bridge", "addr add 10.1.0.1/24 dev br-lab")
        steps = Undo((SetMtu("br-lab", 70_000, None), RemoveAddress("br-lab", "10.1.0.1/24")))
        with pytest.raises(HostSetupError, match="could not set the MTU of br-lab to 70000"):
            undo(steps)
    assert "10.1.0.1" not in machine.namespace.run(["ip", "addr"]).stdout


NODE = """
import sys, time
from pathlib import Path
from l2overlay.linux.apply import apply_changes
from l2overlay.linux.host import observe_host, plan_host
from l2overlay.linux.tap import LinuxTap
from l2overlay.linux.undo import Undo
sys.path.insert(0, sys.argv[2])
from tests.linux.test_host import ADDRESSED
plan = plan_host(ADDRESSED, observe_host(ADDRESSED))
Path(sys.argv[1]).write_text(Undo.of(plan).to_json())
tap = LinuxTap.open(ADDRESSED.tap, offload=True)
apply_changes(plan)
print("READY", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("existing", [(), A_BRIDGE_IN_USE], ids=["no bridge", "a bridge in use"])
def test_after_a_kill_the_next_start_adopts_what_is_ours_and_leaves_nothing(
    machine: Machine, existing: Sequence[str], tmp_path: Path
) -> None:
    machine.namespace.ip(*existing)
    before, file, steps = machine.snapshot(), tmp_path / "undo.json", Undo()
    for _ in range(3):
        argv = [sys.executable, "-c", NODE, str(file), str(Path(__file__).parents[2])]
        process = machine.namespace.popen(argv)
        assert process.stdout is not None
        assert process.stdout.readline() == "READY\n"
        with inside(machine.namespace), pytest.raises(HostSetupError, match="held by a running process"):
            plan_host(ADDRESSED, observe_host(ADDRESSED))
        steps = Undo.from_json(file.read_text()).after(steps)
        process.send_signal(signal.SIGKILL)
        process.wait()
    with inside(machine.namespace):
        tap = LinuxTap.open(SPEC.tap, offload=True)
        seen = observe_host(ADDRESSED)
        steps = apply_changes(plan_host(ADDRESSED, seen, tap_open=True)).after(steps)
        assert plan_host(ADDRESSED, observe_host(ADDRESSED), tap_open=True) == []
        undo(steps)
        tap.close()
    assert machine.differences(before) == []


def test_a_persistent_tap_is_used_and_left_as_it_was(machine: Machine) -> None:
    machine.namespace.ip(
        "link add br-other type bridge",
        "tuntap add tap-lab mode tap",
        "link set tap-lab mtu 1400 master br-other",
    )
    before = machine.link("tap-lab")
    with machine.node():
        assert bridge_ports("br-lab") == ["tap-lab"]
    after = machine.link("tap-lab")
    for name in ("address", "mtu", "master", "flags"):
        assert after[name] == before[name]


def test_a_bridge_that_is_not_there_has_no_ports(machine: Machine) -> None:
    with inside(machine.namespace):
        assert bridge_ports("br-lab") == []


@pytest.mark.parametrize("existing", [False, True], ids=["ours", "adopted"])
def test_neighbour_discovery_reaches_the_tap_although_a_guest_is_a_querier(
    machine: Machine, existing: bool
) -> None:
    """With a querier known and the group never reported, a snooping bridge keeps it from ordinary ports."""
    if existing:
        machine.namespace.ip("link add br-lab type bridge mcast_snooping 1", "link set br-lab up")
    with inside(machine.namespace), ExitStack() as stack:
        plan = plan_host(SPEC, observe_host(SPEC))
        tap = LinuxTap.open(SPEC.tap, offload=True)
        stack.callback(tap.close)
        assert (HearAllMulticast("tap-lab") in plan) is existing
        apply_changes(plan)
        machine.namespace.ip(
            "link add port0 type veth peer name guest0", "link set guest0 addrgenmode none up"
        )
        machine.namespace.ip("link set port0 master br-lab up")
        wait_for_carrier(machine.namespace)
        packets = stack.enter_context(socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0))
        packets.bind(("guest0", 0))
        packets.send(MLD_QUERY)
        time.sleep(0.1)  # its maximum response delay, after which the bridge believes to know all members
        packets.send(NEIGHBOUR_SOLICITATION)
        assert [f[10:] for f in tap.receive_frames(1000)][-1] == NEIGHBOUR_SOLICITATION


# Privileges


def without_net_admin(host: Namespace, *code: str) -> subprocess.CompletedProcess[str]:
    return host.run(
        ["setpriv", "--bounding-set=-net_admin", sys.executable, "-c", "\n".join(code)], check=False
    )


def test_with_every_privilege_there_is_nothing_to_say(machine: Machine) -> None:
    with inside(machine.namespace):
        check_privileges()


def test_without_net_admin_the_command_to_run_is_named(machine: Machine) -> None:
    done = without_net_admin(
        machine.namespace, "from l2overlay.linux.tap import check_privileges", "check_privileges()"
    )
    assert "HostPermissionError: a node needs CAP_NET_ADMIN; root has no CAP_NET_ADMIN here" in done.stderr
    assert HostPermissionError.exit_code == ExitCode.PERMISSION


def test_a_host_that_refuses_a_change_for_want_of_privilege_says_so(machine: Machine) -> None:
    done = without_net_admin(
        machine.namespace,
        "from l2overlay.linux.apply import apply_changes",
        "from l2overlay.linux.features.bridge import CreateBridge",
        "apply_changes([CreateBridge('br0', '02:00:00:00:00:01', 1500, 'x')])",
    )
    assert "HostPermissionError: may not make the bridge br0" in done.stderr
    done = without_net_admin(
        machine.namespace, "from l2overlay.linux.tap import LinuxTap", "LinuxTap.open('tap0', offload=True)"
    )
    assert "HostPermissionError: may not make the TAP tap0" in done.stderr
