"""systemd-nspawn (systemd-nspawn(1), systemd.nspawn(5))."""

from l2overlay.attach.programs import Program, Version
from l2overlay.attach.recipe import Recipe, Step, Tool
from l2overlay.attach.segment import Guest, Segment

PROGRAM = Program("systemd-nspawn", (("systemd-nspawn", "--version"),), assumed=(255,), after=r"systemd ")


def _make(segment: Segment, guest: Guest, _: Version) -> Recipe:
    name, port = guest.name, f"vb-{guest.name}"[:15]
    inside = [f"ip link set dev host0 address {guest.mac_text} mtu {segment.mtu}", "ip link set dev host0 up"]
    if guest.address:
        inside.append(f"ip address add {guest.address} dev host0")
    return Recipe(
        steps=(
            Step(
                "for `machinectl start`; by hand: systemd-nspawn --machine=... --network-bridge=...",
                file=f"/etc/systemd/nspawn/{name}.nspawn",
                text=f"[Network]\nBridge={segment.bridge}\n",
            ),
            Step("start it", f"machinectl start {name}"),
            Step(
                "inside, unless systemd-networkd runs there and the segment has DHCP",
                "\n".join(f"systemd-run --machine={name} --wait --quiet {line}" for line in inside),
            ),
        ),
        pitfall="inside, the NIC is called host0, is down until somebody sets it up, and has MTU 1500 whatever the bridge "
        "has. Its MAC comes from the machine id of the host and the container's name: hosts that were cloned give the "
        "same one, so set it.",
        checks=(f"bridge link show dev {port}    # `master {segment.bridge} state forwarding`",),
        undo=(f"machinectl stop {name}", f"rm /etc/systemd/nspawn/{name}.nspawn"),
    )


NSPAWN = Tool("nspawn", "a container of systemd-nspawn", _make, "web", PROGRAM)
