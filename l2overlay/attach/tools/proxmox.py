"""Proxmox VE: VMs (`qm`) and containers (`pct`) in a bridge that its own configuration knows."""

from l2overlay.attach.programs import Program, Version
from l2overlay.attach.recipe import Recipe, Step, Tool
from l2overlay.attach.segment import Guest, Segment

PROGRAM = Program("Proxmox VE", (("pveversion",),), assumed=(8, 2), after="pve-manager/")


def _make(segment: Segment, guest: Guest, _: Version) -> Recipe:
    bridge, stanza = segment.bridge, f"/etc/network/interfaces.d/{segment.name}"
    text = f"auto {bridge}\niface {bridge} inet manual\n    bridge-ports none\n    bridge-stp off\n    bridge-fd 0\n"
    if segment.wants_mtu:
        text += f"    mtu {segment.mtu}\n"
    return Recipe(
        steps=(
            Step("the bridge in Proxmox's own configuration; the node adopts it", file=stanza, text=text),
            Step("make it", "ifreload -a"),
            Step(
                "a VM (mtu=1: that of the bridge), or a container",
                f"qm set ${{VMID-100}} --net0 virtio={guest.mac_text},bridge={bridge},firewall=0,mtu=1\n"
                f"# pct set CTID --net0 name=eth0,bridge={bridge},hwaddr={guest.mac_text},type=veth,mtu={segment.mtu}",
            ),
        ),
        pitfall="`ifreload -a` takes ports that it does not know out of the bridge; the node notices and puts its TAP back. "
        + _name_advice(bridge),
        checks=(f"bridge link show    # ports tapVMIDi0 and the node's TAP, `master {bridge}`",),
        undo=("qm set ${VMID-100} --delete net0", f"rm {stanza}", "ifreload -a"),
    )


def _name_advice(bridge: str) -> str:
    if bridge.startswith("vmbr"):
        return 'A vnet of SDN is a plain bridge too: `bridge = "vnet10"` in [segment] adopts it.'
    return (
        f"The web interface offers bridges called vmbrN (and SDN's vnets) only, and {bridge} is neither: set "
        '`bridge = "vmbr7"` in [segment] to see it there.'
    )


PROXMOX = Tool("proxmox", "a VM or container of Proxmox VE", _make, "vm1", PROGRAM)
