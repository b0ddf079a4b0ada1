"""A TAP in the bridge, which a VM of any kind opens by its name."""

from l2overlay.attach.programs import Version
from l2overlay.attach.recipe import Recipe, Step, Tool
from l2overlay.attach.segment import Guest, Segment, TapOf


def tap_steps(segment: Segment, guest: Guest) -> tuple[Step, ...]:
    """What `attach tap` does, as commands; nothing if the TAP is there. It always has an owner: the kernel lets every user
    open a TAP that has none."""
    if guest.tap is not TapOf.NOBODY:
        return ()
    tap = guest.name
    run = (
        f"ip tuntap add dev {tap} mode tap user {guest.user or 'root'}\n"
        f"ip link set dev {tap} mtu {segment.mtu} addrgenmode none\n"
        f"ip link set dev {tap} master {segment.bridge} up"
    )
    return (Step(f"as root: a TAP of {guest.user or 'root'} (or: `l2overlay attach tap {tap}`)", run),)


def remove_tap(guest: Guest) -> str:
    """What undoes the step."""
    if guest.tap is TapOf.ATTACH:
        return f"l2overlay detach tap {guest.name}"
    return f"ip link delete dev {guest.name}"


def check_tap(guest: Guest) -> str:
    """Shows `state forwarding` while a VM holds the TAP, and `disabled` while none does."""
    return f"bridge link show dev {guest.name}    # `state forwarding` while a VM runs"


def _make(segment: Segment, guest: Guest, _: Version) -> Recipe:
    return Recipe(
        steps=tap_steps(segment, guest),
        pitfall="an address on the TAP itself receives nothing: addresses of this host belong on the bridge. "
        "A user needs to be allowed to open /dev/net/tun (mode 0666).",
        checks=(check_tap(guest), f"ip -details link show dev {guest.name}    # `user` and `master`"),
        undo=(remove_tap(guest),),
    )


TAP = Tool("tap", "a TAP for a VM of any kind", _make, guest="vm1", makes_tap=True)
