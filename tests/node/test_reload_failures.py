"""A reload that fails in any part leaves the old configuration in force in all of them, or ends the node cleanly."""

from typing import Any

import pytest
from trio.testing import MockClock

from l2overlay.addresses import Address
from l2overlay.errors import HostSetupError

from .test_node import BROADCAST, Stage, failing, received, stage

__all__ = ["stage"]

PARTS = (
    ("overlay", "reconfigure"),
    ("overlay", "probe_peers"),
    ("filter", "configure"),
    ("pump", "replace_udp"),
    ("pump", "flush"),
    ("resolver", "configure"),
)
OTHER = 'addresses = { a = ["10.9.0.1/24"] }'


def fail_in(
    monkeypatch: pytest.MonkeyPatch, node: Any, part: str, name: str, times: float
) -> list[tuple[object, ...]]:
    """The first calls do what they should, and then raise."""
    room, calls = getattr(node, part), list[tuple[object, ...]]()
    work = getattr(room, name)

    def fail(*arguments: object) -> object:
        found = work(*arguments)
        calls.append(arguments)
        if len(calls) <= times:
            raise KeyError("a bug")
        return found

    monkeypatch.setattr(room, name, fail)
    return calls


@pytest.mark.parametrize(("part", "name"), PARTS, ids=[".".join(part) for part in PARTS])
async def test_reload_that_fails_in_one_part_goes_back_in_all(
    autojump_clock: MockClock, stage: Stage, monkeypatch: pytest.MonkeyPatch, part: str, name: str
) -> None:
    async with stage.running("a", "b") as (node, _):
        before, spec, udp = node.config, stage.sides["a"].spec, node.udp
        assert fail_in(monkeypatch, node, part, name, 1) == []
        stage.write(OTHER, ports=(7480, 7470))
        (line,) = (await stage.ask("a", "reload"))["errors"]
        assert "KeyError: 'a bug' (in fail, test_reload_failures.py:" in line
        assert (node.config, stage.sides["a"].spec, node.udp) == (before, spec, udp)
        assert stage.network.sockets[Address("192.0.2.1", 7480)].closed
        for speaker, hearer in ("ab", "ba"):
            stage.sides[speaker].tap.guest.send(BROADCAST)
            assert await received(stage.sides[hearer]) == BROADCAST
        stage.write(OTHER, ports=(7480, 7470))
        assert (await stage.ask("a", "reload"))["errors"] == []
        assert node.udp.port == 7480
    assert "the old configuration stays in force" in stage.log("a")


@pytest.mark.parametrize(("part", "name"), [("overlay", "reconfigure"), ("resolver", "configure")])
async def test_node_that_cannot_go_back_stops_cleanly_and_says_why(
    autojump_clock: MockClock, stage: Stage, monkeypatch: pytest.MonkeyPatch, part: str, name: str
) -> None:
    with failing(HostSetupError, "reload failed: the old configuration could not be put back"):
        async with stage.running("a") as (node,):
            fail_in(monkeypatch, node, part, name, float("inf"))
            stage.write(OTHER)
            assert (await stage.ask("a", "reload"))["errors"]
            await stage.until("a", "left segment lab")
    assert stage.sides["a"].calls[-1] == "take_down"
    assert "the node stops" in stage.log("a")
    assert "stays in force" not in stage.log("a")
