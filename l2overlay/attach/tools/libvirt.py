"""libvirt: an interface of type `bridge` (https://libvirt.org/formatdomain.html#bridge-to-lan)."""

from l2overlay.attach.programs import Program, Version
from l2overlay.attach.recipe import Recipe, Step, Tool
from l2overlay.attach.segment import Guest, Segment

PROGRAM = Program("libvirt", (("virsh", "--version"), ("libvirtd", "--version")), assumed=(10, 0))
MTU_SINCE = (3, 1)
"""The version with the element `mtu`."""


def _make(segment: Segment, guest: Guest, version: Version) -> Recipe:
    file = f"{guest.name}-{segment.name}.xml"
    mtu = f"  <mtu size='{segment.mtu}'/>\n" if segment.wants_mtu and version >= MTU_SINCE else ""
    text = (
        f"<interface type='bridge'>\n  <mac address='{guest.mac_text}'/>\n  <source bridge='{segment.bridge}'/>\n"
        f"  <model type='virtio'/>\n{mtu}</interface>\n"
    )
    return Recipe(
        steps=(
            Step("the NIC; it can stand in the domain's XML as it is", file=file, text=text),
            Step(
                "plug it in, from the next start on (with --live: now)",
                f"virsh attach-device {guest.name} {file} --config",
            ),
        ),
        pitfall="`<source network='default'/>` is libvirt's own NAT, not this segment; and the bridge must be there before "
        "the domain starts, so let the node start with the host (`l2overlay install-service`).",
        checks=(
            f"virsh domiflist {guest.name}    # bridge, {segment.bridge}, {guest.mac_text}",
            f"bridge link show    # a port vnetN with `master {segment.bridge} state forwarding`",
        ),
        undo=(f"virsh detach-device {guest.name} {file} --config",),
    )


LIBVIRT = Tool("libvirt", "a VM of libvirt (virsh, virt-manager)", _make, "vm1", PROGRAM)
