"""The CNI plugin `bridge`, alone and in Kubernetes by Multus (https://www.cni.dev/plugins/current/main/bridge/)."""

import json
from typing import Any

from l2overlay.attach.programs import Program, Version
from l2overlay.attach.recipe import Recipe, Step, Tool
from l2overlay.attach.segment import Guest, Segment

PLUGINS = ("/usr/lib/cni/bridge", "/opt/cni/bin/bridge", "/usr/libexec/cni/bridge")
"""Where Debian, the plugins' own releases and Fedora have it."""
FOLDER = "${CNI_PATH-/usr/lib/cni}"
"""Debian's, unless CNI_PATH names another one."""
PROGRAM = Program(
    "the CNI plugin bridge (version of the specification)",
    tuple((path,) for path in PLUGINS),
    assumed=(1, 0, 0),
    after=r'"supportedVersions":.*"(?=\d[^"]*"\])',
    environment={"CNI_COMMAND": "VERSION"},
)
KNOWN = ("0.3.1", "0.4.0", "1.0.0")
"""Versions of the specification in which the keys below mean the same."""


def spec_version(version: Version) -> str:
    """The newest one that the plugin and we know."""
    fitting = [known for known in KNOWN if tuple(map(int, known.split("."))) <= version.numbers]
    return fitting[-1] if fitting else KNOWN[0]


def bridge_plugin(segment: Segment, guest: Guest) -> dict[str, Any]:
    """The part that every configuration has. The plugin gives no address to the bridge, and masquerades nothing."""
    return {
        "type": "bridge",
        "bridge": segment.bridge,
        "mtu": segment.mtu,
        "isGateway": False,
        "ipMasq": False,
        "ipam": host_local(guest),
    }


def host_local(guest: Guest) -> dict[str, Any]:
    """Addresses from this host's slice; none without a slice."""
    if guest.slice is None:
        return {}
    limits = {
        "subnet": str(guest.slice.subnet),
        "rangeStart": str(guest.slice.first),
        "rangeEnd": str(guest.slice.last),
    }
    gateway = {"gateway": str(guest.gateway)} if guest.gateway is not None else {}
    routes = {"routes": [{"dst": "0.0.0.0/0"}]} if guest.gateway is not None else {}
    return {"type": "host-local", "ranges": [[limits | gateway]], **routes}


def _cni(segment: Segment, guest: Guest, version: Version) -> Recipe:
    file = f"/etc/cni/net.d/10-{segment.name}.conf"
    network = {
        "cniVersion": spec_version(version),
        "name": segment.name,
        "capabilities": {"mac": True},
        **bridge_plugin(segment, guest),
    }
    call = f"CNI_CONTAINERID={guest.name} CNI_NETNS=/run/netns/{guest.name} CNI_IFNAME=eth0 CNI_PATH={FOLDER}"
    mac = f"CNI_ARGS='IgnoreUnknown=1;MAC={guest.mac_text}'"
    return Recipe(
        steps=(
            Step("the network", file=file, text=json.dumps(network, indent=2) + "\n"),
            Step(
                f"what a runtime does with it, by hand: a namespace {guest.name} joins",
                f"ip netns add {guest.name}\nenv CNI_COMMAND=ADD {call} \\\n    {mac} {FOLDER}/bridge <{file}",
            ),
        ),
        pitfall="start the node first: the plugin makes a missing bridge itself, with other settings. It sets "
        "`accept_ra` to 0 inside; `vlan` turns vlan_filtering on, and then the node's TAP needs a PVID. host-local knows "
        "this host's leases only, so each host must have another range, as here.",
        checks=(
            f"ip netns exec {guest.name} ip address show dev eth0",
            f"bridge link show    # a port vethXXXX with `master {segment.bridge} state forwarding`",
        ),
        undo=(
            f"env CNI_COMMAND=DEL {call} {FOLDER}/bridge <{file}",
            f"ip netns delete {guest.name}",
            f"rm {file}",
        ),
    )


def _multus(segment: Segment, guest: Guest, version: Version) -> Recipe:
    file = f"{segment.name}-nad.yaml"
    network = {
        "cniVersion": spec_version(version),
        "name": segment.name,
        "capabilities": {"mac": True, "ips": True},
        **bridge_plugin(segment, guest),
        "ipam": {"type": "static"},
    }
    config = json.dumps(network, indent=2).replace("\n", "\n    ")
    definition = (
        f"apiVersion: k8s.cni.cncf.io/v1\nkind: NetworkAttachmentDefinition\nmetadata:\n  name: {segment.name}\n"
        f"spec:\n  config: |\n    {config}\n"
    )
    wish: dict[str, Any] = {"name": segment.name, "mac": guest.mac_text}
    wish |= {"ips": [guest.address]} if guest.address else {}
    annotation = json.dumps({"k8s.v1.cni.cncf.io/networks": json.dumps([wish])})
    return Recipe(
        steps=(
            Step("the same network for every node of the cluster", file=file, text=definition),
            Step("tell Multus", f"kubectl apply -f {file}"),
            Step(
                "in the pod template; each pod gets an address of its own",
                f"kubectl patch deployment {guest.name} --type merge \\\n"
                f"    -p '{json.dumps({'spec': {'template': {'metadata': {'annotations': json.loads(annotation)}}}})}'",
            ),
        ),
        pitfall="the definition is one for all nodes, so a range of one host cannot stand in it: addresses are static and "
        "come with the pod, or from a DHCP server in the segment, or from whereabouts. Run l2overlay on every node "
        "that may get such a pod, with the same bridge name.",
        checks=(
            f"kubectl get net-attach-def {segment.name}",
            f"kubectl exec deployment/{guest.name} -- ip address show dev net1",
        ),
        undo=(f"kubectl delete -f {file}",),
    )


CNI = Tool("cni", "any runtime with CNI (containerd, CRI-O, nerdctl)", _cni, "web", PROGRAM)
MULTUS = Tool("multus", "pods of Kubernetes, by Multus", _multus, "web", PROGRAM)
