"""A network namespace: a pair of veths, one end in the bridge, the other inside."""

from l2overlay.attach.programs import Version
from l2overlay.attach.recipe import Recipe, Step, Tool
from l2overlay.attach.segment import Guest, Segment

INSIDE = "eth0"
"""What the link is called inside."""


def host_end(namespace: str) -> str:
    """The name of the end in the bridge."""
    return f"veth-{namespace}"


def _make(segment: Segment, guest: Guest, _: Version) -> Recipe:
    name, link = guest.name, host_end(guest.name)
    inside = [f"link set dev {INSIDE} up"]
    if guest.address:
        inside.insert(0, f"address add {guest.address} dev {INSIDE}")
    return Recipe(
        steps=(
            Step("as root: the namespace, if it is not there yet", f"ip netns add {name}"),
            Step(
                f"its veth in {segment.bridge} (`l2overlay attach netns {name}` does this and the next step)",
                f"ip link add {link} mtu {segment.mtu} type veth peer name {INSIDE} mtu {segment.mtu} "
                f"address {guest.mac_text} netns {name}\n"
                f"ip link set dev {link} addrgenmode none\n"
                f"ip link set dev {link} master {segment.bridge} up",
            ),
            Step("inside", "\n".join(f"ip -n {name} {line}" for line in inside)),
        ),
        pitfall="an address on the host's end of the veth receives nothing: it belongs inside, or on the bridge. "
        "If ARP works and the rest does not, the bridge's frames meet iptables: `l2overlay doctor` says so.",
        checks=(
            f"bridge link show dev {link}    # `state forwarding`",
            f"ip netns exec {name} ping -c 3 ADDRESS-OF-A-STATION",
        ),
        undo=(f"ip link delete dev {link}",),
    )


NETNS = Tool("netns", "a network namespace", _make, guest="web")
