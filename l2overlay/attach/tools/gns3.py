"""GNS3: a Cloud node with a TAP of ours as its port."""

import json

from l2overlay.attach.programs import Program, Version
from l2overlay.attach.recipe import Recipe, Step, Tool
from l2overlay.attach.segment import Guest, Segment
from l2overlay.attach.tools.tap import check_tap, remove_tap, tap_steps

PROGRAM = Program("GNS3", (("gns3server", "--version"),), assumed=(2, 2))
V3_SINCE = (3, 0)
"""The version whose API is called v3."""


def _make(segment: Segment, guest: Guest, version: Version) -> Recipe:
    api = "v3" if version >= V3_SINCE else "v2"
    port = {"name": guest.name, "port_number": 0, "type": "tap", "interface": guest.name}
    node = {
        "name": segment.name,
        "node_type": "cloud",
        "compute_id": "local",
        "properties": {"ports_mapping": [port]},
    }
    return Recipe(
        steps=(
            *tap_steps(segment, guest),
            Step(
                f"in the GUI: a Cloud node, Configure, TAP interfaces, add {guest.name}. By the API:",
                f"curl -X POST http://localhost:3080/{api}/projects/${{PROJECT}}/nodes \\\n    -d '{json.dumps(node)}'",
            ),
        ),
        pitfall=f"do not choose {segment.bridge} among the Cloud's Ethernet interfaces: ubridge then listens on the bridge "
        "itself, sees frames with checksums that are not filled in yet, and sends into the host, not into the segment.",
        checks=(check_tap(guest),),
        undo=(remove_tap(guest),),
    )


GNS3 = Tool("gns3", "nodes of GNS3, by a Cloud node", _make, "gns3", PROGRAM, makes_tap=True)
