"""podman. Which network it takes depends on its version and backend:

backend CNI (until podman 4)             a conflist in /etc/cni/net.d
netavark before 1.14 (podman 4.0 to 5.3) would remove the bridge with the network: a namespace that `attach netns` joined
netavark from 1.14 on (podman 5.4)       `podman network create -o mode=unmanaged`
"""

import json

from l2overlay.attach.programs import Program, Version
from l2overlay.attach.recipe import Recipe, Step, Tool
from l2overlay.attach.segment import Guest, Segment
from l2overlay.attach.tools.cni import bridge_plugin
from l2overlay.attach.tools.netns import host_end

PROGRAM = Program(
    "podman",
    (("podman", "--version"),),
    assumed=(5, 4),
    detail=("podman", "info", "--format", "{{.Host.NetworkBackend}}"),
    after="version ",
)
NETAVARK_SINCE = (4, 0)
UNMANAGED_SINCE = (5, 4)
"""The podman that came with netavark 1.14."""
ISOLATES_SINCE = (6, 0)
"""Networks are kept apart by default."""


def _make(segment: Segment, guest: Guest, version: Version) -> Recipe:
    if version.detail == "cni" or version < NETAVARK_SINCE:
        return _by_cni(segment, guest)
    return (
        _by_netavark(segment, guest, version) if version >= UNMANAGED_SINCE else _by_namespace(segment, guest)
    )


def _by_cni(segment: Segment, guest: Guest) -> Recipe:
    file = f"/etc/cni/net.d/10-{segment.name}.conflist"
    plugin = {**bridge_plugin(segment, guest), "capabilities": {"mac": True, "ips": True}}
    network = {"cniVersion": "0.4.0", "name": segment.name, "plugins": [plugin]}
    return Recipe(
        steps=(
            Step("the network, for the backend CNI", file=file, text=json.dumps(network, indent=2) + "\n"),
            _run(segment, guest),
        ),
        pitfall="start the node first: the plugin makes a missing bridge itself, with other settings. `podman network "
        "create` cannot say all of this, so write the file. Where CAP_SYS_RESOURCE is missing podman needs "
        "`--ulimit nofile=1024:1024 --ulimit nproc=4096:4096`.",
        checks=_checks(segment, guest),
        undo=(f"podman network rm {segment.name}",),
    )


def _by_netavark(segment: Segment, guest: Guest, version: Version) -> Recipe:
    words = [f"podman network create -d bridge --interface-name {segment.bridge} -o mode=unmanaged"]
    words.append(f"--disable-dns -o mtu={segment.mtu}")
    if version >= ISOLATES_SINCE:
        words.append("-o isolate=false")
    if guest.slice is not None:
        gateway = guest.gateway or guest.slice.gateway
        words.append(f"--subnet {guest.slice.subnet} --ip-range {guest.slice.pool} --gateway {gateway}")
    else:
        words.append("--ipam-driver none")
    return Recipe(
        steps=(
            Step("the network, for netavark", " \\\n    ".join([*words, segment.name])),
            _run(segment, guest),
        ),
        pitfall="without `mode=unmanaged` netavark gives the bridge an address and deletes the bridge with the network; "
        "without `--disable-dns` aardvark-dns fails on a bridge without an address.",
        checks=_checks(segment, guest),
        undo=(f"podman network rm {segment.name}",),
    )


def _by_namespace(segment: Segment, guest: Guest) -> Recipe:
    address = f" --address {guest.address}" if guest.address else ""
    return Recipe(
        steps=(
            Step(
                "a namespace in the segment: this podman's netavark would delete the bridge with its network",
                f"l2overlay attach netns {guest.name} --segment {segment.name} --create{address}",
            ),
            Step(
                "a container in it",
                f"podman run --rm -it --network ns:/run/netns/{guest.name} --name {guest.name} ${{IMAGE-alpine}}",
            ),
        ),
        pitfall="`podman network create` is not the way before podman 5.4 (netavark 1.14 brought mode=unmanaged): its "
        "network puts an address on the bridge, and takes the bridge away when it goes.",
        checks=(
            f"bridge link show dev {host_end(guest.name)}    # `master {segment.bridge} state forwarding`",
            f"podman exec {guest.name} ip address show dev eth0",
        ),
        undo=(f"l2overlay detach netns {guest.name}",),
    )


def _run(segment: Segment, guest: Guest) -> Step:
    return Step(
        "as root: a container",
        f"podman run --rm -it --network {segment.name} --mac-address {guest.mac_text} "
        f"--name {guest.name} ${{IMAGE-alpine}}",
    )


def _checks(segment: Segment, guest: Guest) -> tuple[str, ...]:
    return (
        f"podman exec {guest.name} ip address show dev eth0",
        f"bridge link show    # a port vethXXXX with `master {segment.bridge} state forwarding`",
    )


PODMAN = Tool("podman", "containers of podman (CNI or netavark)", _make, "web", PROGRAM)
