"""LXC (lxc.container.conf(5), NETWORK)."""

from l2overlay.attach.programs import Program, Version
from l2overlay.attach.recipe import Recipe, Step, Tool
from l2overlay.attach.segment import Guest, Segment

PROGRAM = Program("LXC", (("lxc-start", "--version"),), assumed=(5, 0))
NUMBERED_SINCE = (2, 1)
"""Since then keys are `lxc.net.0.type`; before, `lxc.network.type` begins a NIC."""


def _make(segment: Segment, guest: Guest, version: Version) -> Recipe:
    config = f"/var/lib/lxc/{guest.name}/config"
    return Recipe(
        steps=(
            Step(
                "the container's only NIC: remove the lines of another one first",
                file=config,
                text="".join(f"{line}\n" for line in _lines(segment, guest, version)),
                append=True,
            ),
            *_usernet(segment, guest),
        ),
        pitfall="`lxc-create` copies /etc/lxc/default.conf, which has an `lxc.net.0` for lxcbr0 of its own: of two lines "
        "with one key the last counts. An unprivileged container needs its bridge in /etc/lxc/lxc-usernet.",
        checks=(
            f"lxc-attach -n {guest.name} -- ip address show dev eth0",
            f"bridge link show    # a port vethXXXX with `master {segment.bridge} state forwarding`",
        ),
        undo=(f"sed -i '/^lxc\\.net/d' {config}",),
    )


def _lines(segment: Segment, guest: Guest, version: Version) -> list[str]:
    values = {
        "type": "veth",
        "link": segment.bridge,
        "flags": "up",
        "name": "eth0",
        "hwaddr": guest.mac_text,
        "mtu": str(segment.mtu),
    }
    if version < NUMBERED_SINCE:
        address = {"ipv4": guest.address} if guest.address else {}
        return [f"lxc.network.{key} = {value}" for key, value in (values | address).items()]
    address = {"ipv4.address": guest.address} if guest.address else {}
    return [f"lxc.net.0.{key} = {value}" for key, value in (values | address).items()]


def _usernet(segment: Segment, guest: Guest) -> tuple[Step, ...]:
    if not guest.user:
        return ()
    text = f"{guest.user} veth {segment.bridge} 10\n"
    return (
        Step(
            f"the user {guest.user} may have 10 veths in the bridge",
            file="/etc/lxc/lxc-usernet",
            text=text,
            append=True,
        ),
    )


LXC = Tool("lxc", "a container of LXC", _make, "web", PROGRAM)
