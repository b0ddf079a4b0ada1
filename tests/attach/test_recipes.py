"""The text for each tool: it has the segment's real names, it is a shell script, and it follows the tool's version."""

import json
import re
import subprocess
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from l2overlay.attach.programs import Version
from l2overlay.attach.recipe import Recipe, Tool
from l2overlay.attach.segment import Guest, Segment, TapOf
from l2overlay.attach.tools import TOOLS
from tests.attach.views import guest, segment

every_tool = pytest.mark.parametrize("tool", TOOLS.values(), ids=lambda tool: tool.name)
DOCUMENT = (Path(__file__).parents[2] / "docs" / "attach.md").read_text()


def recipe(tool: str, version: tuple[int, ...] = (99,), detail: str = "", **changes: object) -> Recipe:
    own, who = changes.pop("segment", segment()), changes.pop("guest", guest())
    assert isinstance(own, Segment)
    assert isinstance(who, Guest)
    return TOOLS[tool].make(own, who, Version(version, detail=detail))


def assumed(tool: Tool) -> Version:
    return Version(tool.program.assumed if tool.program is not None else (), installed=False)


@every_tool
def test_a_recipe_names_the_bridge_and_the_guest_and_is_a_shell_script(tool: Tool) -> None:
    made = tool.make(segment(bridge="br-own"), guest(), assumed(tool))
    script = made.script(["head"])
    assert "br-own" in script
    assert "br-lan" not in script
    assert guest().name in script or tool.name == "proxmox"  # it has numbers
    assert subprocess.run(["bash", "-n"], input=script, text=True, check=False).returncode == 0
    assert made.pitfall.endswith((".", ")"))
    assert made.checks
    assert made.undo
    for command in made.undo:
        assert subprocess.run(["bash", "-n"], input=command, text=True, check=False).returncode == 0


@every_tool
def test_a_recipe_has_the_guest_s_mac_unless_the_guest_asks_for_none(tool: Tool) -> None:
    without = {"tap": "the VM has it", "containerlab": "its links take none", "gns3": "its nodes have theirs"}
    script = tool.make(segment(), guest(), assumed(tool)).script()
    assert (guest().mac_text in script) != (tool.name in without)


@every_tool
@pytest.mark.parametrize("mtu", [1400, 9000])
def test_a_guest_of_a_segment_with_another_mtu_is_told(tool: Tool, mtu: int) -> None:
    script = tool.make(segment(mtu=mtu), guest(), assumed(tool)).script()
    assert str(mtu) in script


@every_tool
def test_a_recipe_without_a_subnet_hands_out_no_address(tool: Tool) -> None:
    assert (
        tool.needs_slice
        or "10.9." not in tool.make(segment(), guest(slice=None, address=""), assumed(tool)).script()
    )


@every_tool
def test_each_tool_has_its_section_in_the_document(tool: Tool) -> None:
    sections = re.split(r"^## ", DOCUMENT, flags=re.MULTILINE)
    own = [part for part in sections if f"l2overlay attach {tool.name}" in part]
    assert own, f"docs/attach.md does not show `l2overlay attach {tool.name}`"
    assert any("**Pitfall" in part and "**Check" in part for part in own)


@every_tool
def test_the_tool_that_makes_a_tap_leaves_out_the_step_when_the_tap_is_there(tool: Tool) -> None:
    script = tool.make(segment(), guest(tap=TapOf.ATTACH), assumed(tool)).script()
    if tool.makes_tap:
        assert "tuntap" not in script
        assert "l2overlay detach tap vm1" in script
        others = tool.make(segment(), guest(tap=TapOf.OTHERS), assumed(tool)).script()
        assert "tuntap" not in others
        assert "ip link delete dev vm1" in others


def test_qemu_gets_its_line_with_script_no_and_a_mac() -> None:
    made = recipe("qemu", guest=guest(user="alice"))
    assert made.steps[0].script.splitlines() == [
        "ip tuntap add dev vm1 mode tap user alice",
        "ip link set dev vm1 mtu 1500 addrgenmode none",
        "ip link set dev vm1 master br-lan up",
    ]
    assert made.steps[1].why.startswith("as alice")
    assert "-netdev tap,id=n0,ifname=vm1,script=no,downscript=no" in made.steps[1].script
    assert made.steps[1].script.endswith("-device virtio-net-pci,netdev=n0,mac=52:00:00:00:00:07")


def test_a_tap_always_has_an_owner_because_the_kernel_lets_everybody_open_one_without() -> None:
    assert "user root" in recipe("qemu").script()


def test_qemu_tells_its_guest_the_mtu_by_host_mtu_if_it_can() -> None:
    assert "host_mtu=9000" in recipe("qemu", (2, 10), segment=segment(mtu=9000)).script()
    assert "host_mtu" not in recipe("qemu", (2, 8), segment=segment(mtu=9000)).script()
    assert "host_mtu" not in recipe("qemu").script()


def test_the_bridge_helper_becomes_setuid_for_a_user_only() -> None:
    assert "dpkg-statoverride" not in recipe("qemu-bridge").script()
    script = recipe("qemu-bridge", guest=guest(user="alice")).script()
    assert "4750 /usr/lib/qemu/qemu-bridge-helper" in script
    assert "adduser alice kvm" in script


def test_lxc_before_2_1_calls_its_keys_network() -> None:
    assert "lxc.net.0.link = br-lan" in recipe("lxc", (5, 0)).script()
    assert "lxc.net.0.ipv4.address = 10.9.0.50/24" in recipe("lxc", (5, 0)).script()
    old = recipe("lxc", (2, 0)).steps[0].text
    assert "lxc.network.link = br-lan" in old
    assert "lxc.network.ipv4 = 10.9.0.50/24" in old
    assert "lxc.net.0" not in old


def test_firecracker_knows_an_mtu_from_1_16_on() -> None:
    assert '"mtu": 9000' in recipe("firecracker", (1, 16), segment=segment(mtu=9000)).script()
    before = recipe("firecracker", (1, 15), segment=segment(mtu=9000))
    assert '"mtu"' not in before.script()
    assert "Set the guest's MTU to 9000 inside" in before.pitfall


def test_docker_gets_this_host_s_slice_and_keeps_the_gateway_off_the_bridge() -> None:
    script = recipe("docker", (20, 10)).script()
    assert "--subnet 10.9.0.0/24 --ip-range 10.9.0.32/28 --gateway 10.9.0.32" in script
    assert "com.docker.network.bridge.inhibit_ipv4=true" in script
    assert "com.docker.network.driver.mtu=1500" in script
    routed = guest(gateway=IPv4Address("10.9.0.254"))
    assert "--gateway 10.9.0.254" in recipe("docker", guest=routed).script()


def test_docker_with_nftables_has_no_docker_user_chain() -> None:
    assert "-I DOCKER-USER -i br-lan -o br-lan -j ACCEPT" in recipe("docker", (29, 0), "iptables").script()
    assert "-I DOCKER-USER -i br-lan -o br-lan -j ACCEPT" in recipe("docker", (28, 5), "nftables").script()
    nftables = recipe("docker", (29, 0), "nftables+firewalld")
    assert "iptables -w" not in nftables.script()
    assert "--bridge-accept-fwmark" in nftables.pitfall


def test_podman_takes_the_way_that_its_version_and_backend_have() -> None:
    by_cni, between = recipe("podman", (4, 3), "cni"), recipe("podman", (5, 3), "netavark")
    unmanaged, isolating = recipe("podman", (5, 4), "netavark"), recipe("podman", (6, 0), "netavark")
    assert by_cni.steps[0].file == "/etc/cni/net.d/10-lan.conflist"
    assert "l2overlay attach netns vm1 --segment lan --create --address 10.9.0.50/24" in between.script()
    assert "--network ns:/run/netns/vm1" in between.script()
    assert "podman network create" not in "".join(step.script for step in between.steps)
    assert "-o mode=unmanaged" in unmanaged.script()
    assert "--disable-dns" in unmanaged.script()
    assert "isolate=false" not in unmanaged.script()
    assert "-o isolate=false" in isolating.script()
    assert (
        "--ipam-driver none"
        in recipe("podman", (6, 0), "netavark", guest=guest(slice=None, address="")).script()
    )


@pytest.mark.parametrize(
    ("supported", "spec"), [((0, 3, 1), "0.3.1"), ((0, 4, 0), "0.4.0"), ((1, 1, 0), "1.0.0")]
)
def test_the_cni_configuration_is_of_a_version_that_the_plugin_supports(
    supported: tuple[int, ...], spec: str
) -> None:
    network = json.loads(recipe("cni", supported).steps[0].text)
    assert network["cniVersion"] == spec
    assert (network["type"], network["bridge"], network["mtu"]) == ("bridge", "br-lan", 1500)
    assert (network["isGateway"], network["ipMasq"]) == (False, False)
    assert network["ipam"]["ranges"] == [
        [{"subnet": "10.9.0.0/24", "rangeStart": "10.9.0.33", "rangeEnd": "10.9.0.47"}]
    ]


def test_a_cni_configuration_without_a_subnet_has_no_ipam_and_with_a_gateway_a_default_route() -> None:
    assert json.loads(recipe("cni", guest=guest(slice=None, address="")).steps[0].text)["ipam"] == {}
    ipam = json.loads(recipe("cni", guest=guest(gateway=IPv4Address("10.9.0.254"))).steps[0].text)["ipam"]
    assert ipam["ranges"][0][0]["gateway"] == "10.9.0.254"
    assert ipam["routes"] == [{"dst": "0.0.0.0/0"}]


def test_multus_gets_one_definition_for_all_nodes_and_static_addresses() -> None:
    made = recipe("multus", (1, 0, 0))
    (config,) = re.findall(r"config: \|\n(.*)", made.steps[0].text, re.DOTALL)
    assert json.loads(config)["ipam"] == {"type": "static"}
    assert "10.9.0.50/24" in made.steps[2].script
    assert "rangeStart" not in made.script()


def test_gns3_has_the_api_of_its_version() -> None:
    assert "/v2/projects" in recipe("gns3", (2, 2)).script()
    assert "/v3/projects" in recipe("gns3", (3, 0)).script()


def test_proxmox_says_that_its_web_interface_wants_a_vmbr() -> None:
    assert 'bridge = "vmbr7"' in recipe("proxmox").pitfall
    assert "vnet10" in recipe("proxmox", segment=segment(bridge="vmbr7")).pitfall
