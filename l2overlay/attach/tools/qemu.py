"""QEMU with a TAP of its own, and QEMU with the setuid helper that makes a TAP for each VM."""

from l2overlay.attach.programs import Program, Version
from l2overlay.attach.recipe import Recipe, Step, Tool
from l2overlay.attach.segment import Guest, Segment, TapOf
from l2overlay.attach.tools.tap import check_tap, remove_tap, tap_steps

PROGRAM = Program(
    "QEMU", (("qemu-system-x86_64", "--version"), ("kvm", "--version")), assumed=(9, 2), after=r"version "
)
HELPER = "/usr/lib/qemu/qemu-bridge-helper"
HOST_MTU_SINCE = (2, 10)
"""The version with the option `host_mtu`."""


def device(segment: Segment, guest: Guest, version: Version) -> str:
    """The guest's NIC. `host_mtu` tells the guest the MTU of the segment."""
    mtu = f",host_mtu={segment.mtu}" if segment.wants_mtu and version >= HOST_MTU_SINCE else ""
    return f"-device virtio-net-pci,netdev=n0,mac={guest.mac_text}{mtu}"


def _command(guest: Guest, netdev: str, nic: str) -> Step:
    """Whatever else the VM needs comes as QEMU_OPTIONS."""
    who = "the owner of the TAP" if guest.tap is not TapOf.NOBODY else guest.user or "root"
    why = f"as {who}: the VM; its disk and the rest are QEMU_OPTIONS"
    return Step(
        why,
        f"qemu-system-x86_64 -name {guest.name} ${{QEMU_OPTIONS--m 1024 -nographic}} \\\n    {netdev} \\\n    {nic}",
    )


def _with_tap(segment: Segment, guest: Guest, version: Version) -> Recipe:
    netdev = f"-netdev tap,id=n0,ifname={guest.name},script=no,downscript=no"
    return Recipe(
        steps=(
            *tap_steps(segment, guest),
            _command(guest, netdev, device(segment, guest, version)),
        ),
        pitfall="without `script=no` QEMU runs /etc/qemu-ifup; without `mac=` every VM everywhere is 52:54:00:12:34:56; "
        "`queues=` needs a TAP that was made with `multi_queue`.",
        checks=(
            check_tap(guest),
            "l2overlay fdb    # on another host: the VM's MAC, once it has sent a frame",
        ),
        undo=(remove_tap(guest),),
    )


def _with_helper(segment: Segment, guest: Guest, version: Version) -> Recipe:
    netdev = f"-netdev bridge,id=n0,br={segment.bridge},helper={HELPER}"
    allow = f"allow {segment.bridge}"
    return Recipe(
        steps=(
            Step(
                f"as root, once: VMs may join {segment.bridge}",
                "mkdir -p /etc/qemu\n"
                f"grep -qsx '{allow}' /etc/qemu/bridge.conf || echo '{allow}' >>/etc/qemu/bridge.conf",
            ),
            *_setuid(guest),
            _command(guest, netdev, device(segment, guest, version)),
        ),
        pitfall="Debian ships the helper without the setuid bit, so it works for root only; a user who may run it can "
        f"join any bridge that /etc/qemu/bridge.conf allows. Fedora has it in /usr/libexec, not in {HELPER}.",
        checks=(
            f"bridge link show    # a port tapN with `master {segment.bridge} state forwarding`",
            "l2overlay fdb    # on another host: the VM's MAC, once it has sent a frame",
        ),
        undo=(f"sed -i '/^{allow}$/d' /etc/qemu/bridge.conf",),
    )


def _setuid(guest: Guest) -> tuple[Step, ...]:
    """Members of the group kvm may run the helper then; an ordinary user needs that."""
    if not guest.user:
        return ()
    run = f"dpkg-statoverride --update --force-all --add root kvm 4750 {HELPER}\nadduser {guest.user} kvm"
    return (Step(f"as root, once, for the user {guest.user}: the helper runs as root", run),)


QEMU = Tool("qemu", "QEMU or KVM, with a TAP of its own", _with_tap, "vm1", PROGRAM, makes_tap=True)
QEMU_BRIDGE = Tool("qemu-bridge", "QEMU or KVM, with its bridge helper", _with_helper, "vm1", PROGRAM)
