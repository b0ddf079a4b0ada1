"""Incus, and LXD, whose client is called `lxc` and takes the same words."""

from l2overlay.attach.programs import Program, Version
from l2overlay.attach.recipe import Recipe, Step, Tool
from l2overlay.attach.segment import Guest, Segment

PROGRAM = Program("Incus", (("incus", "--version"),), assumed=(6, 0))


def _make(segment: Segment, guest: Guest, _: Version) -> Recipe:
    nic = f"nictype=bridged parent={segment.bridge} name=eth0 hwaddr={guest.mac_text} mtu={segment.mtu}"
    return Recipe(
        steps=(
            Step(
                "a NIC of a container or VM; with LXD the command is `lxc`",
                f"incus config device add {guest.name} eth0 nic {nic}",
            ),
        ),
        pitfall="an `eth0` of the instance replaces the one of its profile, so it loses Incus's own network; give the "
        "device and `name=` another name to keep both. Where Docker runs too, its FORWARD policy drops bridged frames once "
        "bridge-nf-call-iptables is 1.",
        checks=(
            f"incus config device show {guest.name}",
            f"bridge link show    # a port vethXXXX or tapXXXX with `master {segment.bridge} state forwarding`",
        ),
        undo=(f"incus config device remove {guest.name} eth0",),
    )


INCUS = Tool("incus", "a container or VM of Incus (or LXD)", _make, "web", PROGRAM)
