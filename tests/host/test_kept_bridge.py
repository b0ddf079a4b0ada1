"""A bridge that the node made stays while guests are in it: through a restart, a cleanup, a lost run directory."""

import json
import shutil
from collections.abc import Callable, Sequence

import pytest

from l2overlay.testing.lab import Guest, Host, Lab, differences
from tests.host.test_node_lifecycle import both_up, call, link, two_hosts

MakeLab = Callable[..., Lab]


def plugged_in(net: Lab) -> tuple[Host, Guest, Guest]:
    """Two nodes with bridges of their own, and a guest that was put into each later."""
    h1, _, g1, g2 = two_hosts(net, with_bridge=False)
    both_up(net)
    for guest in (g1, g2):
        guest.attach("br-lab")
    return h1, g1, g2


def joined_again(net: Lab, host: Host) -> str:
    """What the next node of the host says until it is READY."""
    node = net.start_node(host)
    node.wait_ready()
    return node.output()


def test_guests_are_joined_again_after_leave_and_join(lab: MakeLab) -> None:
    net = lab()
    h1, g1, g2 = plugged_in(net)
    assert net.ping(g1, g2.ipv4).received == 3
    said = call(net, h1, "leave").stdout.splitlines()
    assert said == [
        "left segment lab",
        f"the bridge br-lab stays, because others have ports in it ({g1.label}); the next join takes it over",
        "'l2overlay cleanup lab --purge' removes it",
    ]
    assert f"kept: the bridge br-lab, because {g1.label} is in it" in net.nodes[0].output()
    assert (link(h1, g1.label)["master"], link(h1, "tap-lab")) == ("br-lab", {})
    assert not net.run_dir(h1).exists()
    assert f"br-lab taken over, {g1.label}" in joined_again(net, h1)
    assert net.ping(g1, g2.ipv4).received == 3
    g1.detach()
    assert net.nodes[-1].terminate() == 0
    assert link(h1, "br-lab") == {}


@pytest.mark.parametrize(
    "lost", [False, True], ids=["with its files", "after systemd removed the run directory"]
)
def test_cleanup_after_a_kill_keeps_the_guests_and_purge_does_not(lab: MakeLab, lost: bool) -> None:
    net = lab()
    h1, g1, g2 = plugged_in(net)
    net.nodes[0].kill()
    if lost:
        shutil.rmtree(net.run_dir(h1))
    kept = call(net, h1, "cleanup", "lab")
    assert f"kept: the bridge br-lab, because {g1.label} is in it; --purge removes it" in kept.stdout
    assert link(h1, g1.label)["master"] == "br-lab"
    joined_again(net, h1)
    assert net.ping(g1, g2.ipv4).received == 3
    net.nodes[-1].terminate()
    purged = json.loads(call(net, h1, "cleanup", "lab", "--purge", "--json").stdout)
    assert list(purged["undone"].values()) == [["remove the bridge br-lab"]]
    assert link(h1, "br-lab") == {}
    assert call(net, h1, "cleanup", "lab").stdout == "nothing to undo\n"


@pytest.mark.parametrize("verb", [("leave", "--purge"), ("leave",)])
def test_only_purge_leaves_the_host_as_it_was_when_guests_are_in_the_bridge(
    lab: MakeLab, verb: Sequence[str]
) -> None:
    net = lab()
    h1, _, g1, _ = two_hosts(net, with_bridge=False)
    before = net.snapshot(h1)
    net.start_node(h1).wait_ready()
    g1.attach("br-lab")
    call(net, h1, *verb)
    changed = differences(before, net.snapshot(h1))
    assert (changed == []) == ("--purge" in verb)
    assert all("tap-lab" not in line for line in changed)


def test_a_state_file_that_we_did_not_write_is_named_at_join_and_not_carried_out(lab: MakeLab) -> None:
    net = lab()
    h1, *_ = two_hosts(net)
    run_dir = net.run_dir(h1)
    run_dir.mkdir()
    forged = '{"l2overlay.undo/1": [{"change": "SetUp", "link": "under0", "index": 0, "up": false, "was": false, "x": 1}]}'
    for undo in (forged, "[" * 100_000):
        (run_dir / "state.json").write_text(json.dumps({"undo": undo}))
        said = joined_again(net, h1)
        assert f"note: {run_dir}/state.json is not used: not a list of host changes to undo" in said
        assert net.nodes[-1].terminate() == 0
        assert "UP" in link(h1, "under0")["flags"]
