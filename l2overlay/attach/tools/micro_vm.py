"""Firecracker and cloud-hypervisor: both open a TAP that is there already, by name."""

import json

from l2overlay.attach.programs import Program, Version
from l2overlay.attach.recipe import Recipe, Step, Tool
from l2overlay.attach.segment import Guest, Segment
from l2overlay.attach.tools.tap import check_tap, remove_tap, tap_steps

MTU_SINCE = (1, 16)
"""The version of Firecracker that tells its guest an MTU (github.com/cocoonstack/cocoon/pull/216)."""


def _firecracker(segment: Segment, guest: Guest, version: Version) -> Recipe:
    nic = {"iface_id": "eth0", "guest_mac": guest.mac_text, "host_dev_name": guest.name}
    knows_mtu = version >= MTU_SINCE
    body = json.dumps(nic | ({"mtu": segment.mtu} if segment.wants_mtu and knows_mtu else {}))
    advice = f" Set the guest's MTU to {segment.mtu} inside." if segment.wants_mtu and not knows_mtu else ""
    return Recipe(
        steps=(
            *tap_steps(segment, guest),
            Step(
                "before InstanceStart; the same object stands in `network-interfaces` of --config-file",
                "curl --unix-socket ${SOCKET-/run/firecracker.socket} -X PUT "
                f"http://localhost/network-interfaces/eth0 \\\n    -d '{body}'",
            ),
        ),
        pitfall="a TAP made with `multi_queue` is refused; under the jailer the TAP must be in the jailer's network "
        f"namespace, where no bridge of this host is.{advice}",
        checks=(check_tap(guest),),
        undo=(remove_tap(guest),),
    )


def _cloud_hypervisor(segment: Segment, guest: Guest, version: Version) -> Recipe:
    run = f"cloud-hypervisor ${{CH_OPTIONS---memory size=1G}} --net tap={guest.name},mac={guest.mac_text}"
    return Recipe(
        steps=(*tap_steps(segment, guest), Step("the VM; kernel, disk and the rest are CH_OPTIONS", run)),
        pitfall="do not give it `mtu=`: it reads the MTU from the TAP, and to set it needs CAP_NET_ADMIN. `num_queues=` "
        "above 2 needs a TAP that was made with `multi_queue`.",
        checks=(check_tap(guest),),
        undo=(remove_tap(guest),),
    )


FIRECRACKER = Tool(
    "firecracker",
    "a microVM of Firecracker",
    _firecracker,
    "vm1",
    Program("Firecracker", (("firecracker", "--version"),), assumed=(1, 7)),
    makes_tap=True,
)
CLOUD_HYPERVISOR = Tool(
    "cloud-hypervisor",
    "a microVM of cloud-hypervisor",
    _cloud_hypervisor,
    "vm1",
    Program("cloud-hypervisor", (("cloud-hypervisor", "--version"),), assumed=(40, 0)),
    makes_tap=True,
)
