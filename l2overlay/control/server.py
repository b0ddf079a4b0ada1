"""The control socket: the operations of `control/requests.py` by HTTP at `/v1/OPERATION`.

`GET` reads and `POST` changes something. Whoever may connect may read: the mode of the socket decides (0660). Only root and
the node's own user may change something (SO_PEERCRED, unix(7)).

Bounded on every side: clients, the length of a request, the time to ask and the time to take an answer. A client that reads
slowly waits alone; frames move in another task. A person is always answered: clients that follow events have places of their
own and lose them when they are gone, and when all places are taken, a new client gets that of the one that has been silent
longest or takes its answer most slowly. A request that fails is an error answer, whatever its exception.
"""

import json
import os
import select
import socket
import stat
import struct
import traceback
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from enum import Enum
from http import HTTPStatus
from pathlib import Path
from typing import Any

import trio

from l2overlay.control.client import ERROR_SCHEMA
from l2overlay.control.http import HttpConnection, HttpError, HttpRequest
from l2overlay.control.openapi import PREFIX, document
from l2overlay.control.requests import Answer, Operation
from l2overlay.errors import HostSetupError, L2OverlayError
from l2overlay.suggestion import suggestion

MAX_CLIENTS = 16
MAX_FOLLOWERS = 8
"""Of them, clients that are told events as they come; they may stay as long as they like."""
GONE_INTERVAL = 1.0
"""Seconds between two looks at a client that has closed its sending half, whether it has closed the other, too."""
SOCKET_MODE = 0o660
_UCRED = struct.Struct("3i")  # struct ucred: pid, uid, gid
_GONE = (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError)


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
    """Serves `operations` until cancelled. `tell` is told of requests that failed."""

    def __init__(
        self,
        listener: trio.SocketListener,
        operations: Mapping[str, Operation],
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._listener = listener
        self._operations = {f"{PREFIX}{name}": operation for name, operation in operations.items()}
        self._document = json.dumps(document(operations)).encode() + b"\n"
        self._tell = tell
        self._clients: dict[_Client, None] = {}
        """The oldest first."""

    async def run(self) -> None:
        """Accept and serve clients."""
        async with self._listener:
            await trio.serve_listeners(self._serve, [self._listener])

    async def _serve(self, stream: trio.SocketStream) -> None:
        client, connection = _Client(), HttpConnection(stream)
        with suppress(*_GONE):
            async with stream:
                if len(self._clients) >= MAX_CLIENTS and not self._make_room():
                    await connection.refuse(_too_many(f"more than {MAX_CLIENTS} clients; try again"))
                    return
                self._clients[client] = None
                try:
                    with client.life:
                        await self._converse(stream, connection, client)
                finally:
                    self._clients.pop(client, None)
                if client.life.cancelled_caught and client.doing is _Doing.ASKING:
                    await connection.refuse(
                        _too_many(f"more than {MAX_CLIENTS} clients, and this one asked nothing")
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

    async def _converse(self, stream: trio.SocketStream, connection: HttpConnection, client: _Client) -> None:
        try:
            while True:
                self._set_doing(client, _Doing.ASKING)
                request = await connection.next_request()
                if request is None:
                    return
                client.doing = _Doing.WAITING
                await self._answer(stream, connection, client, request)
                if not connection.goes_on:
                    return
        except HttpError as error:
            client.doing = _Doing.TAKING
            await connection.refuse(error)

    def _set_doing(self, client: _Client, doing: _Doing) -> None:
        """Who begins anew is the youngest: it is not yet long that it has been silent."""
        client.doing = doing
        if client in self._clients:
            del self._clients[client]
            self._clients[client] = None

    async def _answer(
        self, stream: trio.SocketStream, connection: HttpConnection, client: _Client, request: HttpRequest
    ) -> None:
        if request.path in (PREFIX, f"{PREFIX}openapi.json"):
            _require_method(request, "GET")
            client.doing = _Doing.TAKING
            await connection.answer(HTTPStatus.OK, self._document, "application/json")
            return
        operation = self._operation(stream, request)
        answer = await self._called(request, operation)
        if isinstance(answer, AsyncIterator):
            await self._stream(stream, connection, client, request, answer)
            return
        content = self._encoded(request, answer)
        client.doing = _Doing.TAKING
        await connection.answer(HTTPStatus.OK, content, operation.media)

    def _operation(self, stream: trio.SocketStream, request: HttpRequest) -> Operation:
        """The operation that is asked for, if this client may have it."""
        operation = self._operations.get(request.path)
        if operation is None:
            hint = suggestion(request.path, self._operations)
            raise HttpError(
                HTTPStatus.NOT_FOUND,
                f"nothing is at {request.path:.60}{hint}; there are {', '.join(self._operations)}",
            )
        _require_method(request, "POST" if operation.changes else "GET")
        if operation.changes and _user(stream) not in (0, os.geteuid()):
            raise HttpError(
                HTTPStatus.FORBIDDEN,
                "only root and the node's own user may change something: run it with sudo",
            )
        return operation

    async def _called(self, request: HttpRequest, operation: Operation) -> Any:
        arguments = arguments_untrusted(request, operation)
        try:
            return await operation.answer(arguments)
        except L2OverlayError as error:
            raise HttpError(HTTPStatus.CONFLICT, str(error)) from None
        except Exception as error:  # noqa: BLE001 - one request fails, the node goes on
            raise self._failed(request, error) from None

    def _encoded(self, request: HttpRequest, answer: Answer) -> bytes:
        try:
            return json.dumps(answer, allow_nan=False).encode() + b"\n"
        except (ValueError, TypeError, RecursionError) as error:
            raise self._failed(request, error) from None

    def _failed(self, request: HttpRequest, error: Exception) -> HttpError:
        where = traceback.extract_tb(error.__traceback__)[-1]
        text = (
            f"the request {request.path} failed: {type(error).__name__}: {error} "
            f"(in {where.name}, {Path(where.filename).name}:{where.lineno}); this is a bug"
        )
        self._tell(text)
        return HttpError(HTTPStatus.INTERNAL_SERVER_ERROR, text)

    async def _stream(
        self,
        stream: trio.SocketStream,
        connection: HttpConnection,
        client: _Client,
        request: HttpRequest,
        answers: AsyncIterator[Answer],
    ) -> None:
        """Send answers until they end or the client is gone."""
        if sum(other.doing is _Doing.FOLLOWING for other in self._clients) >= MAX_FOLLOWERS:
            raise _too_many(f"more than {MAX_FOLLOWERS} clients follow events; stop one of them")
        client.doing = _Doing.FOLLOWING
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_cancel_when_gone, stream, nursery.cancel_scope)
            with suppress(*_GONE):
                await self._send_each(connection, request, answers)
            nursery.cancel_scope.cancel()

    async def _send_each(
        self, connection: HttpConnection, request: HttpRequest, answers: AsyncIterator[Answer]
    ) -> None:
        await connection.begin_events()
        try:
            async with aclosing(answers) as each:  # type: ignore[type-var]
                async for one in each:
                    await connection.send_event(one)
        except _GONE:
            raise
        except L2OverlayError as error:
            await connection.send_event({"schema": ERROR_SCHEMA, "error": str(error)}, name="error")
        except Exception as error:  # noqa: BLE001 - one request fails, the node goes on
            await connection.send_event(self._failed(request, error).answer(), name="error")
        await connection.end_events()


def _too_many(text: str) -> HttpError:
    return HttpError(HTTPStatus.SERVICE_UNAVAILABLE, text, {"retry-after": "1"})


def _require_method(request: HttpRequest, method: str) -> None:
    if request.method != method:
        text = f"{request.path} takes {method}, not {request.method:.20}"
        raise HttpError(HTTPStatus.METHOD_NOT_ALLOWED, text, {"allow": method})


def _user(stream: trio.SocketStream) -> int:
    """The uid of the process that connected."""
    credentials = stream.socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    uid: int = _UCRED.unpack(credentials)[1]
    return uid


def arguments_untrusted(request: HttpRequest, operation: Operation) -> Answer:
    """The arguments, from the query of a GET or the JSON object of a POST. Raises HttpError for what does not fit."""
    given: Mapping[str, Any] = _json_object(request.body) if operation.changes else request.query
    known = {parameter.name: parameter for parameter in operation.parameters}
    for name in given:
        if name not in known:
            hint = suggestion(name, known)
            raise HttpError(HTTPStatus.BAD_REQUEST, f"{request.path} has no argument {name!r:.60}{hint}")
    for parameter in operation.parameters:
        if parameter.required and parameter.name not in given:
            raise HttpError(HTTPStatus.BAD_REQUEST, f"{request.path} needs the argument {parameter.name}")
    return {name: _value(name, value, known[name].kind) for name, value in given.items()}


def _json_object(body: bytes) -> dict[str, Any]:
    try:
        given = json.loads(body) if body else {}
    except (ValueError, RecursionError):
        raise HttpError(HTTPStatus.BAD_REQUEST, "the body is not JSON") from None
    if not isinstance(given, dict):
        raise HttpError(HTTPStatus.BAD_REQUEST, "the body is not a JSON object")
    return given


def _value(name: str, value: object, kind: type) -> object:
    words = {"true": True, "false": False}
    if kind is bool and isinstance(value, str) and value in words:
        return words[value]
    if isinstance(value, kind):
        return value
    wanted = "true or false" if kind is bool else "a text"
    raise HttpError(HTTPStatus.BAD_REQUEST, f"the argument {name} is not {wanted}")


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
