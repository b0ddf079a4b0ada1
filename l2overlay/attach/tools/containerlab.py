"""containerlab: the segment's bridge as a node of kind `bridge` (https://containerlab.dev/manual/kinds/bridge/)."""

from l2overlay.attach.programs import Program, Version
from l2overlay.attach.recipe import Recipe, Step, Tool
from l2overlay.attach.segment import Guest, Segment

PROGRAM = Program("containerlab", (("containerlab", "version"),), assumed=(0, 60), after=r"version:\s*")


def _make(segment: Segment, guest: Guest, _: Version) -> Recipe:
    file = f"{segment.name}.clab.yml"
    run = [f"      exec: [ip address add {guest.address} dev eth1]\n"] if guest.address else []
    text = (
        f"name: {segment.name}\ntopology:\n  nodes:\n    {segment.bridge}:\n      kind: bridge\n"
        f"    {guest.name}:\n      kind: linux\n      image: alpine:3\n{''.join(run)}"
        f'  links:\n    - endpoints: ["{guest.name}:eth1", "{segment.bridge}:{guest.name[:10]}-eth1"]\n'
        f"      mtu: {segment.mtu}\n"
    )
    return Recipe(
        steps=(
            Step(
                "the bridge is a node of the topology, by its own name: add your nodes and links",
                file=file,
                text=text,
            ),
            Step("as root, while the node runs", f"containerlab deploy --topo {file}"),
        ),
        pitfall=f"links have MTU 9500 unless `mtu` says otherwise, and frames above {segment.mtu} do not cross; "
        "containerlab makes no bridge, so start the node first. It adds accept rules for the bridge to FORWARD by itself.",
        checks=(
            f"bridge link show    # a port {guest.name[:10]}-eth1 with `master {segment.bridge} state forwarding`",
            f"docker exec clab-{segment.name}-{guest.name} ping -c 3 ADDRESS-OF-A-STATION",
        ),
        undo=(f"containerlab destroy --topo {file}",),
    )


CONTAINERLAB = Tool("containerlab", "nodes of containerlab", _make, "web", PROGRAM)
