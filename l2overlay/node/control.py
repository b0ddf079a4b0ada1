"""The control socket: the node's end of what `l2overlay/control.py` describes.

Bounded on every side, because any member of its group may connect: clients, request length, time to ask and time to
take an answer. A client that reads slowly waits alone; frames move in another task.
"""

import json
import os
import socket
import stat
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Any

import trio

from l2overlay.control import ERROR_SCHEMA, MAX_REQUEST_LEN
from l2overlay.errors import HostSetupError

MAX_CLIENTS = 16
ASK_TIMEOUT = 30.0
"""Seconds that a connection may be silent before it is closed."""
TAKE_TIMEOUT = 10.0
"""Seconds that a client has to take an answer."""
SOCKET_MODE = 0o660

Answer = dict[str, Any]
Request = Callable[[Answer], Awaitable[Answer | AsyncIterator[Answer]]]
"""Takes the request's arguments; gives one answer, or many and then the end of the connection."""


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


class ControlSocket:
    """Serves `requests`, by name, until cancelled."""

    def __init__(self, listener: trio.SocketListener, requests: Mapping[str, Request]) -> None:
        self._listener = listener
        self._requests = requests
        self._client_count = 0

    async def run(self) -> None:
        """Accept and serve clients."""
        async with self._listener:
            await trio.serve_listeners(self._serve, [self._listener])

    async def _serve(self, stream: trio.SocketStream) -> None:
        self._client_count += 1
        try:
            async with stream:
                if self._client_count > MAX_CLIENTS:
                    await _send(stream, _error(f"more than {MAX_CLIENTS} clients; try again"))
                else:
                    await self._converse(stream)
        except (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError):
            pass  # the client went away, or does not take its answer
        finally:
            self._client_count -= 1

    async def _converse(self, stream: trio.SocketStream) -> None:
        rest = b""
        while True:
            try:
                line, rest = await _read_line(stream, rest)
                if line is None:
                    return
                answer = await self._answer(line)
            except BadRequest as error:
                await _send(stream, _error(str(error)))
                return
            if isinstance(answer, dict):
                await _send(stream, answer)
                continue
            async with aclosing(answer) as answers:  # type: ignore[type-var]
                async for one in answers:
                    await _send(stream, one)
            return

    async def _answer(self, line: bytes) -> Answer | AsyncIterator[Answer]:
        arguments = parse_request_untrusted(line)
        request = self._requests.get(arguments["request"])
        if request is None:
            raise BadRequest(
                f"no request {arguments['request']!r:.60}; there are {', '.join(self._requests)}"
            )
        return await request(arguments)


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
    with trio.fail_after(TAKE_TIMEOUT):
        await stream.send_all(json.dumps(answer, allow_nan=False).encode() + b"\n")


def _error(text: str) -> Answer:
    return {"schema": ERROR_SCHEMA, "error": text}
