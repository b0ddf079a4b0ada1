"""The control socket: the protocol, and that no client can hurt the node."""

import json
import socket
import stat
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from l2overlay.control import client, server
from l2overlay.control.client import MAX_REQUEST_LEN
from l2overlay.control.requests import Answer
from l2overlay.control.server import (
    MAX_CLIENTS,
    MAX_FOLLOWERS,
    BadRequest,
    ControlSocket,
    open_control_socket,
    parse_request_untrusted,
)
from l2overlay.errors import HostSetupError, L2OverlayError, NoDaemonError


async def echo(arguments: Answer) -> Answer:
    return {"schema": "l2overlay.echo/1", **arguments}


async def refuse(arguments: Answer) -> Answer:
    raise BadRequest("not today")


async def large(arguments: Answer) -> Answer:
    return {"schema": "l2overlay.large/1", "data": "x" * 4_000_000}


async def count(arguments: Answer) -> AsyncIterator[Answer]:
    async def numbers() -> AsyncIterator[Answer]:
        for number in range(arguments["to"]):
            yield {"schema": "l2overlay.number/1", "number": number}

    return numbers()


async def follow(arguments: Answer) -> AsyncIterator[Answer]:
    async def nothing_more() -> AsyncIterator[Answer]:
        yield {"schema": "l2overlay.number/1", "number": 1}
        await trio.sleep_forever()

    return nothing_more()


async def wait(arguments: Answer) -> Answer:
    await trio.sleep_forever()
    raise AssertionError


async def break_down(arguments: Answer) -> Answer:
    raise KeyError("a bug")


async def break_later(arguments: Answer) -> AsyncIterator[Answer]:
    async def numbers() -> AsyncIterator[Answer]:
        yield {"schema": "l2overlay.number/1", "number": 1}
        raise KeyError("a bug")

    return numbers()


async def unspeakable(arguments: Answer) -> Answer:
    return {"schema": "l2overlay.number/1", "number": float("inf")}


async def host_refuses(arguments: Answer) -> Answer:
    raise HostSetupError("iptables-save failed")


REQUESTS: dict[str, Any] = {
    "echo": echo,
    "refuse": refuse,
    "large": large,
    "count": count,
    "follow": follow,
    "wait": wait,
    "break": break_down,
    "break_later": break_later,
    "unspeakable": unspeakable,
    "host_refuses": host_refuses,
}
Talk = Callable[[bytes], Any]


@pytest.fixture
async def path(tmp_path: Path, nursery: trio.Nursery) -> Path:
    """A socket that is being served."""
    place = tmp_path / "control.sock"
    nursery.start_soon(ControlSocket(open_control_socket(place), REQUESTS).run)
    return place


async def in_thread(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return await trio.to_thread.run_sync(lambda: function(*args, **kwargs))


async def talk(path: Path, data: bytes) -> list[Any]:
    """Send bytes as they are; all answers until the node closes."""
    stream = await trio.open_unix_socket(str(path))
    async with stream:
        await stream.send_all(data)
        await stream.send_eof()
        got = b"".join([chunk async for chunk in stream])
    return [json.loads(line) for line in got.splitlines()]


async def test_request_is_answered_with_its_schema(path: Path) -> None:
    assert await in_thread(client.ask, path, "echo", hello=1) == {
        "schema": "l2overlay.echo/1",
        "request": "echo",
        "hello": 1,
    }


async def test_socket_is_closed_to_others(path: Path) -> None:
    mode = (await trio.Path(path).stat()).st_mode
    assert stat.S_IMODE(mode) == 0o660


async def test_several_requests_share_a_connection(path: Path) -> None:
    answers = await talk(path, b'{"request":"echo","n":1}\n{"request":"echo","n":2}\n')
    assert [a["n"] for a in answers] == [1, 2]


async def test_stream_of_answers_ends_with_the_connection(path: Path) -> None:
    answers = await in_thread(lambda: list(client.follow(path, "count", to=3)))
    assert [a["number"] for a in answers] == [0, 1, 2]


async def test_refusal_reaches_the_person(path: Path) -> None:
    with pytest.raises(L2OverlayError, match="not today"):
        await in_thread(client.ask, path, "refuse")


async def test_unknown_request_names_those_that_exist(path: Path) -> None:
    with pytest.raises(L2OverlayError, match=r"no request 'dance'; there are echo, refuse"):
        await in_thread(client.ask, path, "dance")


@pytest.mark.parametrize(
    "bad", [b"\n", b"hello\n", b"[]\n", b"{}\n", b'{"request": 5}\n', b"\xff\xfe\n", b"[" * 50_000 + b"\n"]
)
async def test_what_is_no_request_gets_one_error_and_the_end(path: Path, bad: bytes) -> None:
    answers = await talk(path, bad)
    assert [a["schema"] for a in answers] == ["l2overlay.error/1"]


@given(st.binary(max_size=300))
def test_any_bytes_are_a_request_or_a_bad_one(data: bytes) -> None:
    with suppress(BadRequest):
        assert isinstance(parse_request_untrusted(data)["request"], str)


async def test_request_without_end_is_cut_off(path: Path) -> None:
    stream = await trio.open_unix_socket(str(path))
    async with stream:
        with pytest.raises(trio.BrokenResourceError):
            await stream.send_all(b"x" * (1000 * MAX_REQUEST_LEN))


async def connected(path: Path, request: bytes = b"") -> trio.SocketStream:
    stream = await trio.open_unix_socket(str(path))
    if request:
        await stream.send_all(request)
        await stream.receive_some()  # so that it has its place
    return stream


async def test_who_was_silent_longest_gives_its_place_to_a_new_client(path: Path) -> None:
    silent = [await connected(path, b'{"request": "echo"}\n') for _ in range(MAX_CLIENTS)]
    assert (await in_thread(client.ask, path, "echo"))["request"] == "echo"
    assert b"asked nothing" in await silent[0].receive_some()
    await silent[1].send_all(b'{"request": "echo"}\n')
    assert b"echo" in await silent[1].receive_some()
    for stream in silent:
        await stream.aclose()


async def test_clients_that_take_no_answer_keep_nobody_out(path: Path) -> None:
    slow = [await connected(path, b'{"request": "large"}\n') for _ in range(MAX_CLIENTS)]
    assert (await in_thread(client.ask, path, "echo"))["request"] == "echo"
    for stream in slow:
        await stream.aclose()


async def test_clients_that_the_node_still_works_for_keep_their_places(path: Path) -> None:
    busy = [await trio.open_unix_socket(str(path)) for _ in range(MAX_CLIENTS)]
    for stream in busy:
        await stream.send_all(b'{"request": "wait"}\n')
    await trio.testing.wait_all_tasks_blocked(0.05)
    with pytest.raises(L2OverlayError, match="more than 16 clients"):
        await in_thread(client.ask, path, "echo")
    for stream in busy:
        await stream.aclose()


async def test_followers_leave_places_for_others_and_are_told_when_they_are_too_many(path: Path) -> None:
    followers = [await connected(path, b'{"request": "follow"}\n') for _ in range(MAX_FOLLOWERS)]
    with pytest.raises(L2OverlayError, match=f"more than {MAX_FOLLOWERS} clients follow"):
        await in_thread(lambda: list(client.follow(path, "follow")))
    assert (await in_thread(client.ask, path, "echo"))["request"] == "echo"
    for stream in followers:
        await stream.aclose()


async def test_place_of_a_follower_is_free_when_it_is_gone_though_nothing_happens(
    path: Path, autojump_clock: MockClock
) -> None:
    for _ in range(3):
        followers = [await connected(path, b'{"request": "follow"}\n') for _ in range(MAX_FOLLOWERS)]
        for stream in followers:
            await stream.aclose()
        await trio.testing.wait_all_tasks_blocked(0.01)


async def test_follower_that_only_closed_its_sending_half_is_still_told(path: Path) -> None:
    stream = await connected(path, b'{"request": "follow"}\n')
    await stream.send_eof()
    with trio.move_on_after(0.3):
        assert await stream.receive_some() != b""
    await stream.aclose()


@pytest.mark.parametrize("name", ["break", "break_later", "unspeakable"])
async def test_request_that_fails_is_an_error_answer_and_the_node_goes_on(
    tmp_path: Path, nursery: trio.Nursery, name: str
) -> None:
    place, told = tmp_path / "failing.sock", list[str]()
    nursery.start_soon(ControlSocket(open_control_socket(place), REQUESTS, told.append).run)
    with pytest.raises(L2OverlayError, match=f"the request {name} failed: .*this is a bug"):
        await in_thread(lambda: list(client.follow(place, name)))
    assert len(told) == 1
    assert (await in_thread(client.ask, place, "echo"))["request"] == "echo"


async def test_refusal_of_the_host_is_told_as_it_is(path: Path) -> None:
    with pytest.raises(L2OverlayError, match=r"^iptables-save failed$"):
        await in_thread(client.ask, path, "host_refuses")


async def test_client_that_asks_nothing_is_sent_away(path: Path, autojump_clock: MockClock) -> None:
    stream = await trio.open_unix_socket(str(path))
    async with stream:
        got = b"".join([chunk async for chunk in stream])
    assert "nothing was asked" in json.loads(got)["error"]


async def test_client_that_takes_no_answer_is_dropped_and_others_are_served(
    path: Path, autojump_clock: MockClock
) -> None:
    slow = socket.socket(socket.AF_UNIX)
    with slow:
        slow.connect(str(path))
        slow.sendall(b'{"request": "large"}\n')
        assert (await talk(path, b'{"request": "echo"}\n'))[0]["request"] == "echo"
        await trio.sleep(server.TAKE_TIMEOUT + 1)
        slow.settimeout(5)
        size = 0
        while data := slow.recv(1 << 20):
            size += len(data)
        assert size < 4_000_000


async def test_socket_of_a_killed_node_is_taken_over(tmp_path: Path) -> None:
    place = tmp_path / "control.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(place))
    listener = open_control_socket(place)
    await listener.aclose()


async def test_path_too_long_for_a_socket_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(HostSetupError, match="shorter or another --run-dir"):
        open_control_socket(tmp_path / ("x" * 200))


def test_no_node_is_said_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(NoDaemonError, match=r"no node answers at .*; 'l2overlay join'"):
        client.ask(tmp_path / "control.sock", "status")


def test_socket_nobody_listens_on_is_no_node(tmp_path: Path) -> None:
    place = tmp_path / "control.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(place))
    with pytest.raises(NoDaemonError):
        client.ask(place, "status")
