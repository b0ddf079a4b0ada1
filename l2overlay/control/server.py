"""The control socket: the node's end of what `control/client.py` describes.

Bounded on every side, because any member of its group may connect: clients, request length, time to ask and time to
take an answer. A client that reads slowly waits alone; frames move in another task.

A person is always answered. Clients that follow a stream have places of their own and lose them when they are gone. When
all places are taken, a new client gets that of the one that has been silent longest, or takes its answer most slowly. A
request that fails is an error answer, whatever its exception.
"""

import json
import os
import select
import socket
import stat
import traceback
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

import trio

from l2overlay.control.client import ERROR_SCHEMA, MAX_REQUEST_LEN
from l2overlay.control.requests import Answer, Request
from l2overlay.errors import HostSetupError, L2OverlayError

MAX_CLIENTS = 16
MAX_FOLLOWERS = 8
"""Of them, clients that are told events as they come; they may stay as long as they like."""
ASK_TIMEOUT = 30.0
"""Seconds that a connection may be silent before it is closed."""
TAKE_TIMEOUT = 10.0
"""Seconds that a client has to take an answer."""
GONE_INTERVAL = 1.0
"""Seconds between two looks at a client that has closed its sending half, whether it has closed the other, too."""
SOCKET_MODE = 0o660


class BadRequest(Exception):  # noqa: N818 - it is told to the client, not raised to a person
    """Something that a request may not be; the text goes to the client."""


def open_control_socket(path: Path) -> trio.SocketListener:
    """A listening Unix socket, 0660 from its first moment. Raises HostSetupError."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.setblocking(False)
    old_mask = os.umask(0o777 & ~SOCKET_MODE)
    try:
        with suppress(FileNotFoundError):
            if stat.S_ISSOCK(path.lstat().st_mode):
                path.unlink()  # of a killed node: we hold the directory's lock
        sock.bind(str(path))
        sock.listen(MAX_CLIENTS)
    except OSError as error:
        sock.close()
        raise HostSetupError(
            f"cannot listen on {path} ({error.strerror or error}); give a shorter or another --run-dir"
        ) from None
    finally:
        os.umask(old_mask)
    return trio.SocketListener(trio.socket.from_stdlib_socket(sock))


class _Doing(Enum):
    ASKING = "asking"
    WAITING = "waiting"  # for the node
    TAKING = "taking"
    FOLLOWING = "following"


@dataclass(slots=True, eq=False)
class _Client:
    doing: _Doing = _Doing.ASKING
    life: trio.CancelScope = field(default_factory=trio.CancelScope)


class ControlSocket:
    """Serves `requests`, by name, until cancelled. `tell` is told of requests that failed."""

    def __init__(
        self,
        listener: trio.SocketListener,
        requests: Mapping[str, Request],
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._listener = listener
        self._requests = requests
        self._tell = tell
        self._clients: dict[_Client, None] = {}
        """The oldest first."""

    async def run(self) -> None:
        """Accept and serve clients."""
        async with self._listener:
            await trio.serve_listeners(self._serve, [self._listener])

    async def _serve(self, stream: trio.SocketStream) -> None:
        client = _Client()
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError):
            async with stream:
                if len(self._clients) >= MAX_CLIENTS and not self._make_room():
                    await _send(stream, _error(f"more than {MAX_CLIENTS} clients; try again"))
                    return
                self._clients[client] = None
                try:
                    with client.life:
                        await self._converse(stream, client)
                finally:
                    self._clients.pop(client, None)
                if client.life.cancelled_caught and client.doing is _Doing.ASKING:
                    await _send(
                        stream, _error(f"more than {MAX_CLIENTS} clients, and this one asked nothing")
                    )

    def _make_room(self) -> bool:
        """Send away who has been silent longest, or else who has been taking an answer longest."""
        for doing in (_Doing.ASKING, _Doing.TAKING):
            for client in self._clients:
                if client.doing is doing:
                    del self._clients[client]
                    client.life.cancel()
                    return True
        return False

    async def _converse(self, stream: trio.SocketStream, client: _Client) -> None:
        rest = b""
        while True:
            self._set_doing(client, _Doing.ASKING)
            try:
                line, rest = await _read_line(stream, rest)
                if line is None:
                    return
                client.doing = _Doing.WAITING
                arguments = parse_request_untrusted(line)
                answer = await self._answer(arguments)
                encoded = self._encode(arguments, answer) if isinstance(answer, dict) else b""
            except BadRequest as error:
                client.doing = _Doing.TAKING
                await _send(stream, _error(str(error)))
                return
            if not isinstance(answer, dict):
                await self._stream(stream, client, arguments, answer)
                return
            client.doing = _Doing.TAKING
            await _send_line(stream, encoded)

    def _set_doing(self, client: _Client, doing: _Doing) -> None:
        """Who begins anew is the youngest: it is not yet long that it has been silent."""
        client.doing = doing
        if client in self._clients:
            del self._clients[client]
            self._clients[client] = None

    async def _answer(self, arguments: Answer) -> Answer | AsyncIterator[Answer]:
        request = self._requests.get(arguments["request"])
        if request is None:
            raise BadRequest(
                f"no request {arguments['request']!r:.60}; there are {', '.join(self._requests)}"
            )
        try:
            return await request(arguments)
        except (BadRequest, L2OverlayError) as error:
            raise BadRequest(str(error)) from None
        except Exception as error:  # noqa: BLE001 - one request fails, the node goes on
            raise self._failed(arguments, error) from None

    def _encode(self, arguments: Answer, answer: Answer) -> bytes:
        try:
            return _encoded(answer)
        except (ValueError, TypeError, RecursionError) as error:
            raise self._failed(arguments, error) from None

    def _failed(self, arguments: Answer, error: Exception) -> BadRequest:
        where = traceback.extract_tb(error.__traceback__)[-1]
        text = (
            f"the request {arguments['request']} failed: {type(error).__name__}: {error} "
            f"(in {where.name}, {Path(where.filename).name}:{where.lineno}); this is a bug"
        )
        self._tell(text)
        return BadRequest(text)

    async def _stream(
        self, stream: trio.SocketStream, client: _Client, arguments: Answer, answers: AsyncIterator[Answer]
    ) -> None:
        """Send answers until they end or the client is gone."""
        if sum(other.doing is _Doing.FOLLOWING for other in self._clients) >= MAX_FOLLOWERS:
            client.doing = _Doing.TAKING
            await _send(stream, _error(f"more than {MAX_FOLLOWERS} clients follow events; stop one of them"))
            return
        client.doing = _Doing.FOLLOWING
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_cancel_when_gone, stream, nursery.cancel_scope)
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError):
                await self._send_each(stream, arguments, answers)
            nursery.cancel_scope.cancel()

    async def _send_each(
        self, stream: trio.SocketStream, arguments: Answer, answers: AsyncIterator[Answer]
    ) -> None:
        try:
            async with aclosing(answers) as each:  # type: ignore[type-var]
                async for one in each:
                    await _send_line(stream, self._encode(arguments, one))
        except BadRequest as error:
            await _send(stream, _error(str(error)))
        except (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError):
            raise
        except Exception as error:  # noqa: BLE001 - one request fails, the node goes on
            await _send(stream, _error(str(self._failed(arguments, error))))


async def _cancel_when_gone(stream: trio.SocketStream, scope: trio.CancelScope) -> None:
    """A client that has asked says no more. It may close its sending half and still read, so that is looked at, too."""
    with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        while await stream.receive_some(4096):
            pass
        while not _has_hung_up(stream):  # noqa: ASYNC110 - nothing tells of it
            await trio.sleep(GONE_INTERVAL)
    scope.cancel()


def _has_hung_up(stream: trio.SocketStream) -> bool:
    poll = select.poll()
    poll.register(stream.socket.fileno(), 0)
    return any(events & (select.POLLHUP | select.POLLERR) for _, events in poll.poll(0))


def parse_request_untrusted(line: bytes) -> Answer:
    """A JSON object with a string `request`; anything else is a BadRequest."""
    try:
        arguments = json.loads(line)
    except (ValueError, RecursionError):
        raise BadRequest("a request is one line of JSON") from None
    if not isinstance(arguments, dict) or not isinstance(arguments.get("request"), str):
        raise BadRequest('a request is an object: {"request": "status"}')
    return arguments


async def _read_line(stream: trio.SocketStream, rest: bytes) -> tuple[bytes | None, bytes]:
    """The next line and what followed it; None at the end of the stream. What is too long or too late is a BadRequest."""
    data = bytearray(rest)
    with trio.move_on_after(ASK_TIMEOUT):
        while b"\n" not in data:
            if len(data) > MAX_REQUEST_LEN:
                raise BadRequest(f"a request has at most {MAX_REQUEST_LEN} bytes")
            more = await stream.receive_some(4096)
            if not more:
                return None, b""
            data += more
        line, _, rest = bytes(data).partition(b"\n")
        return line, rest
    raise BadRequest(f"nothing was asked for {ASK_TIMEOUT:.0f} s")


async def _send(stream: trio.SocketStream, answer: Answer) -> None:
    await _send_line(stream, _encoded(answer))


async def _send_line(stream: trio.SocketStream, line: bytes) -> None:
    with trio.fail_after(TAKE_TIMEOUT):
        await stream.send_all(line)


def _encoded(answer: Answer) -> bytes:
    return json.dumps(answer, allow_nan=False).encode() + b"\n"


def _error(text: str) -> Answer:
    return {"schema": ERROR_SCHEMA, "error": text}
