"""The handlers without a node and without a socket: parts in, plain data out."""

import json
from typing import Any, cast

import pytest

from l2overlay import keys
from l2overlay.config.types import Config, PeerConfig, SegmentConfig
from l2overlay.control.requests import Changing, Reading
from l2overlay.errors import L2OverlayError, UsageError
from l2overlay.overlay import Overlay

CONFIG_KEY = keys.generate()
CONFIG = Config(
    SegmentConfig(name="lan", bridge="br-lan", tap="tap-lan"),
    (PeerConfig("a", keys.public_key(CONFIG_KEY)),),
)


class NoFilter:
    async def show(self) -> dict[str, Any]:
        return {"active": False}

    def explain(self, frame: str, /) -> dict[str, Any]:
        raise UsageError(f"{frame!r} is no frame")


def reading() -> Reading:
    overlay = Overlay(CONFIG, CONFIG_KEY, now=0.0, wall_clock=1e9, random=bytes)
    nothing = cast(Any, None)
    return Reading(overlay, lambda: 0.0, lambda: CONFIG, nothing, dict, NoFilter(), nothing)


def changing(purged: list[bool]) -> Changing:
    async def reload() -> dict[str, Any]:
        return {"changes": []}

    def leave(purge: bool) -> tuple[str, ...]:
        purged.append(purge)
        return ("veth0",)

    return Changing(lambda: CONFIG, reload, leave)


def test_what_ends_or_reloads_a_node_is_not_among_what_reads() -> None:
    assert set(changing([]).operations()) == {"reload", "leave"}
    assert not set(reading().operations()) & set(changing([]).operations())


@pytest.mark.parametrize("name", ["peers", "fdb", "filter"])
async def test_an_answer_is_plain_data_that_names_the_segment(name: str) -> None:
    answer = await reading().operations()[name].answer({})
    assert isinstance(answer, dict)
    assert json.loads(json.dumps(answer))["segment"] == "lan"


async def test_a_request_that_cannot_be_answered_raises_an_error_of_ours() -> None:
    with pytest.raises(L2OverlayError, match="'x' is no frame"):
        await reading().operations()["filter/explain"].answer({"frame": "x"})


@pytest.mark.parametrize(("asked", "purge"), [({}, False), ({"purge": True}, True), ({"purge": 1}, False)])
async def test_leave_purges_only_when_the_client_says_true(asked: dict[str, Any], purge: bool) -> None:
    purged: list[bool] = []
    answer = await changing(purged).operations()["leave"].answer(asked)
    assert purged == [purge]
    assert isinstance(answer, dict)
    assert (answer["bridge"], answer["kept_for"]) == ("br-lan", ["veth0"])
