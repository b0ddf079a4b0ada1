"""The tools that `attach` knows, one module a kind. To add one: a module with its `Tool`, and its place in the list."""

from l2overlay.attach.recipe import Tool
from l2overlay.attach.tools.cni import CNI, MULTUS
from l2overlay.attach.tools.containerlab import CONTAINERLAB
from l2overlay.attach.tools.docker import DOCKER
from l2overlay.attach.tools.gns3 import GNS3
from l2overlay.attach.tools.incus import INCUS
from l2overlay.attach.tools.libvirt import LIBVIRT
from l2overlay.attach.tools.lxc import LXC
from l2overlay.attach.tools.micro_vm import CLOUD_HYPERVISOR, FIRECRACKER
from l2overlay.attach.tools.netns import NETNS
from l2overlay.attach.tools.nspawn import NSPAWN
from l2overlay.attach.tools.podman import PODMAN
from l2overlay.attach.tools.proxmox import PROXMOX
from l2overlay.attach.tools.qemu import QEMU, QEMU_BRIDGE
from l2overlay.attach.tools.tap import TAP

TOOLS: dict[str, Tool] = {
    tool.name: tool
    for tool in (
        NETNS,
        TAP,
        QEMU,
        QEMU_BRIDGE,
        LIBVIRT,
        FIRECRACKER,
        CLOUD_HYPERVISOR,
        PROXMOX,
        LXC,
        INCUS,
        NSPAWN,
        DOCKER,
        PODMAN,
        CNI,
        MULTUS,
        CONTAINERLAB,
        GNS3,
    )
}
"""By name, in the order of the list that `attach` prints."""
