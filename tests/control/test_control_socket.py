"""The control socket: HTTP that any client speaks, and that no client can hurt the node."""

import json
import shutil
import socket
import stat
import subprocess
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

from l2overlay.control import client, http, server
from l2overlay.control.http import MAX_BODY_LEN, MAX_HEAD_LEN, HttpConnection, HttpError
from l2overlay.control.requests import EVENT_STREAM, Answer, Operation, Parameter
from l2overlay.control.server import MAX_CLIENTS, MAX_FOLLOWERS, ControlSocket, open_control_socket
from l2overlay.errors import HostPermissionError, HostSetupError, L2OverlayError, NoDaemonError, UsageError


async def echo(arguments: Answer) -> Answer:
    return {"schema": "l2overlay.echo/1", **arguments}


async def refuse(arguments: Answer) -> Answer:
    raise UsageError("not today")


async def large(arguments: Answer) -> Answer:
    return {"schema": "l2overlay.large/1", "data": "x" * 4_000_000}


async def count(arguments: Answer) -> AsyncIterator[Answer]:
    async def numbers() -> AsyncIterator[Answer]:
        for number in range(3):
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


HELLO = Parameter("hello", str, "A text.")
LOUD = Parameter("loud", bool, "Whether it is loud.")
OPERATIONS = {
    "echo": Operation(echo, "Echo", (HELLO, LOUD), schema="l2overlay.echo/1"),
    "must": Operation(
        echo, "Echo", (Parameter("hello", str, "A text.", required=True),), schema="l2overlay.echo/1"
    ),
    "change": Operation(echo, "Change", (HELLO, LOUD), changes=True, schema="l2overlay.echo/1"),
    "refuse": Operation(refuse, "Refuse"),
    "large": Operation(large, "Large"),
    "count": Operation(count, "Count", media=EVENT_STREAM),
    "follow": Operation(follow, "Follow", media=EVENT_STREAM),
    "wait": Operation(wait, "Wait"),
    "break": Operation(break_down, "Break"),
    "break_later": Operation(break_later, "Break later", media=EVENT_STREAM),
    "unspeakable": Operation(unspeakable, "Unspeakable"),
    "host_refuses": Operation(host_refuses, "The host refuses"),
}
GET_ECHO = b"GET /v1/echo HTTP/1.1\r\nHost: x\r\n\r\n"


def get(name: str) -> bytes:
    return f"GET /v1/{name} HTTP/1.1\r\nHost: x\r\n\r\n".encode()


@pytest.fixture
async def path(tmp_path: Path, nursery: trio.Nursery) -> Path:
    """A socket that is being served."""
    place = tmp_path / "control.sock"
    nursery.start_soon(ControlSocket(open_control_socket(place), OPERATIONS).run)
    return place


async def in_thread(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return await trio.to_thread.run_sync(lambda: function(*args, **kwargs))


async def talk(path: Path, data: bytes) -> list[tuple[int, Any]]:
    """Send bytes as they are; the status and the JSON of each answer until the node closes."""
    stream = await trio.open_unix_socket(str(path))
    async with stream:
        with suppress(trio.BrokenResourceError):
            await stream.send_all(data)
            await stream.send_eof()
        got = b"".join([chunk async for chunk in stream])
    return answers(got)


def answers(data: bytes) -> list[tuple[int, Any]]:
    found = []
    while data:
        head, _, rest = data.partition(b"\r\n\r\n")
        length = next(
            int(line.split(b":")[1])
            for line in head.lower().split(b"\r\n")
            if line.startswith(b"content-length")
        )
        found.append((int(head.split()[1]), json.loads(rest[:length])))
        data = rest[length:]
    return found


# Asking


async def test_a_request_is_answered_with_its_schema(path: Path) -> None:
    answer = {"schema": "l2overlay.echo/1", "hello": "wörld & more", "loud": True}
    assert await in_thread(client.ask, path, "echo", hello="wörld & more", loud=True) == answer
    assert await in_thread(client.change, path, "change", hello="wörld & more", loud=True) == answer


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
async def test_curl_can_ask(path: Path) -> None:
    argv = ["curl", "-sS", "--unix-socket", str(path), "http://localhost/v1/echo?hello=curl"]
    done = await in_thread(subprocess.run, argv, capture_output=True, timeout=10)
    assert json.loads(done.stdout) == {"schema": "l2overlay.echo/1", "hello": "curl"}


async def test_the_socket_is_closed_to_others(path: Path) -> None:
    mode = (await trio.Path(path).stat()).st_mode
    assert stat.S_IMODE(mode) == 0o660


async def test_several_requests_share_a_connection(path: Path) -> None:
    two = b"GET /v1/echo?hello=1 HTTP/1.1\r\nHost: x\r\n\r\nGET /v1/echo?hello=2 HTTP/1.1\r\nHost: x\r\n\r\n"
    assert [answer["hello"] for _, answer in await talk(path, two)] == ["1", "2"]


async def test_a_stream_of_events_ends_with_the_last(path: Path) -> None:
    found = await in_thread(lambda: list(client.follow(path, "count")))
    assert [event["number"] for event in found] == [0, 1, 2]


async def test_a_refusal_reaches_the_person(path: Path) -> None:
    with pytest.raises(L2OverlayError, match="not today"):
        await in_thread(client.ask, path, "refuse")


async def test_a_refusal_of_the_host_is_told_as_it_is(path: Path) -> None:
    with pytest.raises(L2OverlayError, match=r"^iptables-save failed$"):
        await in_thread(client.ask, path, "host_refuses")


async def test_the_description_names_every_operation(path: Path) -> None:
    document = await in_thread(client.ask, path, "openapi.json")
    assert set(document["paths"]) == {f"/v1/{name}" for name in OPERATIONS}
    assert set(document["paths"]["/v1/change"]) == {"post"}


@pytest.mark.parametrize(
    ("request_", "status", "words"),
    [
        (b"GET /v1/ech HTTP/1.1\r\nHost: x\r\n\r\n", 404, "did you mean '/v1/echo'"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", 404, "nothing is at /"),
        (b"POST /v1/echo HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", 405, "takes GET, not POST"),
        (b"GET /v1/change HTTP/1.1\r\nHost: x\r\n\r\n", 405, "takes POST, not GET"),
        (
            b"GET /v1/echo?helo=1 HTTP/1.1\r\nHost: x\r\n\r\n",
            400,
            "has no argument 'helo'",
        ),
        (b"GET /v1/echo?loud=1 HTTP/1.1\r\nHost: x\r\n\r\n", 400, "loud is not true or false"),
        (b"GET /v1/must HTTP/1.1\r\nHost: x\r\n\r\n", 400, "needs the argument hello"),
        (b"GET /v1/echo?hello=%ff HTTP/1.1\r\nHost: x\r\n\r\n", 400, "cannot be read"),
        (b"GET //[x HTTP/1.1\r\nHost: x\r\n\r\n", 400, "cannot be read"),
        (b"POST /v1/change HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nxx", 400, "not JSON"),
        (b"POST /v1/change HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n[]", 400, "not a JSON object"),
        (
            b'POST /v1/change HTTP/1.1\r\nHost: x\r\nContent-Length: 11\r\n\r\n{"hello":1}',
            400,
            "hello is not a text",
        ),
        (b"hello\r\n\r\n", 400, "not HTTP/1.1"),
        (b'{"request": "status"}\n\n', 400, "not HTTP/1.1"),
        (b"GET /v1/echo HTTP/1.1\r\n\r\n", 400, "not HTTP/1.1"),
        (b"GET /v1/echo HTTP/1.1\r\nHost: " + b"x" * 2 * MAX_HEAD_LEN, 431, "not HTTP/1.1"),
        (
            b"POST /v1/change HTTP/1.1\r\nHost: x\r\nContent-Length: 999999\r\n\r\n"
            + b"x" * 2 * MAX_BODY_LEN,
            413,
            "at most",
        ),
        (
            b"POST /v1/change HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n\r\n" + b"[" * 60000,
            400,
            "not JSON",
        ),
    ],
)
async def test_what_does_not_fit_is_one_answer_that_says_why(
    path: Path, request_: bytes, status: int, words: str
) -> None:
    ((found, answer),) = await talk(path, request_)
    assert (found, answer["schema"]) == (status, "l2overlay.error/1")
    assert words in answer["error"]


async def test_only_root_and_the_node_s_user_may_change_something(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "_user", lambda stream: 65_534)
    assert (await in_thread(client.ask, path, "echo"))["schema"] == "l2overlay.echo/1"
    with pytest.raises(HostPermissionError, match="only root and the node's own user"):
        await in_thread(client.change, path, "change")


class Pieces(trio.abc.Stream):
    """A client that sends these pieces and then closes; what is sent to it is kept."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces, self.taken = list(pieces), b""

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        return self.pieces.pop(0) if self.pieces else b""

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        self.taken += data

    async def wait_send_all_might_not_block(self) -> None: ...

    async def aclose(self) -> None: ...


async def request_of(*pieces: bytes) -> http.HttpRequest | None:
    return await HttpConnection(Pieces(*pieces)).next_request()


@given(st.binary(max_size=300))
async def test_any_bytes_are_a_request_the_end_or_an_http_error(data: bytes) -> None:
    connection = HttpConnection(Pieces(data))
    try:
        assert isinstance(await connection.next_request(), http.HttpRequest | None)
    except HttpError as error:
        await connection.refuse(error)


@given(st.integers(1, len(GET_ECHO)))
async def test_a_request_may_come_in_pieces(size: int) -> None:
    found = await request_of(*(GET_ECHO[i : i + size] for i in range(0, len(GET_ECHO), size)))
    assert found is not None
    assert (found.method, found.path) == ("GET", "/v1/echo")


# Many clients


async def connected(path: Path, request: bytes = b"") -> trio.SocketStream:
    stream = await trio.open_unix_socket(str(path))
    if request:
        await stream.send_all(request)
        await stream.receive_some()  # so that it has its place
    return stream


async def test_who_was_silent_longest_gives_its_place_to_a_new_client(path: Path) -> None:
    silent = [await connected(path, GET_ECHO) for _ in range(MAX_CLIENTS)]
    assert (await in_thread(client.ask, path, "echo"))["schema"] == "l2overlay.echo/1"
    assert b"asked nothing" in await silent[0].receive_some()
    await silent[1].send_all(GET_ECHO)
    assert b"echo" in await silent[1].receive_some()
    for stream in silent:
        await stream.aclose()


async def test_clients_that_take_no_answer_keep_nobody_out(path: Path) -> None:
    slow = [await connected(path, get("large")) for _ in range(MAX_CLIENTS)]
    assert (await in_thread(client.ask, path, "echo"))["schema"] == "l2overlay.echo/1"
    for stream in slow:
        await stream.aclose()


async def test_clients_that_the_node_still_works_for_keep_their_places(path: Path) -> None:
    busy = [await trio.open_unix_socket(str(path)) for _ in range(MAX_CLIENTS)]
    for stream in busy:
        await stream.send_all(get("wait"))
    await trio.testing.wait_all_tasks_blocked(0.05)
    with pytest.raises(L2OverlayError, match="more than 16 clients"):
        await in_thread(client.ask, path, "echo")
    for stream in busy:
        await stream.aclose()


async def test_followers_leave_places_for_others_and_are_told_when_they_are_too_many(path: Path) -> None:
    followers = [await connected(path, get("follow")) for _ in range(MAX_FOLLOWERS)]
    with pytest.raises(L2OverlayError, match=f"more than {MAX_FOLLOWERS} clients follow"):
        await in_thread(lambda: list(client.follow(path, "follow")))
    assert (await in_thread(client.ask, path, "echo"))["schema"] == "l2overlay.echo/1"
    for stream in followers:
        await stream.aclose()


async def test_place_of_a_follower_is_free_when_it_is_gone_though_nothing_happens(
    path: Path, autojump_clock: MockClock
) -> None:
    for _ in range(3):
        followers = [await connected(path, get("follow")) for _ in range(MAX_FOLLOWERS)]
        for stream in followers:
            await stream.aclose()
        await trio.testing.wait_all_tasks_blocked(0.01)


async def test_follower_that_only_closed_its_sending_half_is_still_told(path: Path) -> None:
    stream = await connected(path, get("follow"))
    await stream.send_eof()
    with trio.move_on_after(0.3):
        assert await stream.receive_some() != b""
    await stream.aclose()


@pytest.mark.parametrize("name", ["break", "break_later", "unspeakable"])
async def test_request_that_fails_is_an_error_answer_and_the_node_goes_on(
    tmp_path: Path, nursery: trio.Nursery, name: str
) -> None:
    place, told = tmp_path / "failing.sock", list[str]()
    nursery.start_soon(ControlSocket(open_control_socket(place), OPERATIONS, told.append).run)
    with pytest.raises(L2OverlayError, match=f"the request /v1/{name} failed: .*this is a bug"):
        await in_thread(lambda: list(client.follow(place, name)))
    assert len(told) == 1
    assert (await in_thread(client.ask, place, "echo"))["schema"] == "l2overlay.echo/1"


async def test_client_that_asks_nothing_is_sent_away(path: Path, autojump_clock: MockClock) -> None:
    stream = await trio.open_unix_socket(str(path))
    async with stream:
        got = b"".join([chunk async for chunk in stream])
    ((status, answer),) = answers(got)
    assert (status, "nothing was asked" in answer["error"]) == (408, True)


async def test_client_that_takes_no_answer_is_dropped_and_others_are_served(
    path: Path, autojump_clock: MockClock
) -> None:
    slow = socket.socket(socket.AF_UNIX)
    with slow:
        slow.connect(str(path))
        slow.sendall(get("large"))
        assert (await talk(path, GET_ECHO))[0][0] == 200
        await trio.sleep(http.TAKE_TIMEOUT + 1)
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
