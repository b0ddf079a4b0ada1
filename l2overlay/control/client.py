"""The control socket, seen from a verb: HTTP over a Unix socket (`control/server.py` is the other end).

    ask(socket, "status")                   GET /v1/status
    change(socket, "leave", purge=True)     POST /v1/leave {"purge": true}
    follow(socket, "events", follow=True)   GET /v1/events?follow=true, a stream of server-sent events

This end uses http.client and plain sockets, so that a verb starts without trio.
"""

import json
import socket
from collections.abc import Iterator
from contextlib import suppress
from http.client import HTTPConnection, HTTPException, HTTPResponse
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from l2overlay.control.run_dir import closed_to_this_user
from l2overlay.errors import HostPermissionError, L2OverlayError, NoDaemonError

MAX_ANSWER_LEN = 64 * 1024 * 1024
"""A thousand peers and 16 384 stations are 2 MB; more than this is no node of ours."""
ANSWER_TIMEOUT = 5.0
"""Seconds that a node may take for an answer."""
ERROR_SCHEMA = "l2overlay.error/1"
_FORBIDDEN = 403


class UnixConnection(HTTPConnection):
    """HTTP over the Unix socket at `path`."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=ANSWER_TIMEOUT)
        self._path = path

    def connect(self) -> None:
        """Raises NoDaemonError when no node answers, HostPermissionError when the socket is closed to this user."""
        self.sock = _connected(self._path)


def ask(path: Path, operation: str, **arguments: Any) -> dict[str, Any]:
    """What the node answers. Raises NoDaemonError when no node answers at `path`, L2OverlayError when it refuses."""
    return _answer(path, "GET", _target(operation, arguments), None)


def change(path: Path, operation: str, **arguments: Any) -> dict[str, Any]:
    """The same for what changes the node. Raises HostPermissionError if this user may only read."""
    return _answer(path, "POST", f"/v1/{operation}", json.dumps(arguments).encode())


def follow(path: Path, operation: str, **arguments: Any) -> Iterator[dict[str, Any]]:
    """The events of a stream, until the node ends it. Raises as `ask`."""
    connection = UnixConnection(path)
    try:
        response = _response(connection, path, "GET", _target(operation, arguments), None)
        if response.status != 200:
            yield _checked(response.status, _read(response, path))
            return
        if connection.sock is not None:
            connection.sock.settimeout(None)
        yield from (_checked(200, data) for data in _events(response))
    finally:
        connection.close()


def _target(operation: str, arguments: dict[str, Any]) -> str:
    words = {
        name: str(value).lower() if isinstance(value, bool) else value for name, value in arguments.items()
    }
    return f"/v1/{operation}" + (f"?{urlencode(words)}" if words else "")


def _answer(path: Path, method: str, target: str, body: bytes | None) -> dict[str, Any]:
    connection = UnixConnection(path)
    try:
        response = _response(connection, path, method, target, body)
        return _checked(response.status, _read(response, path))
    finally:
        connection.close()


def _response(
    connection: HTTPConnection, path: Path, method: str, target: str, body: bytes | None
) -> HTTPResponse:
    with suppress(ConnectionError):  # a node that refuses us has said why before it closed: read that
        connection.request(method, target, body)
    try:
        return connection.getresponse()
    except TimeoutError:
        raise NoDaemonError(f"the node at {path} did not answer within {ANSWER_TIMEOUT:.0f} s") from None
    except ConnectionError:
        raise _ended(path) from None
    except HTTPException:
        raise L2OverlayError("the node's answer is not HTTP; is it another version of l2overlay?") from None


def _read(response: HTTPResponse, path: Path) -> bytes:
    try:
        content = response.read(MAX_ANSWER_LEN)
    except TimeoutError:
        raise NoDaemonError(f"the node at {path} did not answer within {ANSWER_TIMEOUT:.0f} s") from None
    except (ConnectionError, HTTPException):
        raise _ended(path) from None
    if response.length:
        raise _ended(path)
    return content


def _events(response: HTTPResponse) -> Iterator[bytes]:
    """The data of server-sent events (HTML, section 9.2), as far as a node writes them."""
    try:
        for line in response:
            if line.startswith(b"data: "):
                yield line[6:]
    except (ConnectionError, HTTPException):
        return  # the node ended


def _ended(path: Path) -> NoDaemonError:
    return NoDaemonError(f"the node at {path} ended before it had answered")


def _connected(path: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(ANSWER_TIMEOUT)
    try:
        connection.connect(str(path))
    except (FileNotFoundError, ConnectionRefusedError):
        connection.close()
        raise NoDaemonError(
            f"no node answers at {path}; 'l2overlay join' with the same --run-dir starts one"
        ) from None
    except PermissionError:
        connection.close()
        advice = f", or let root give it to a group of yours (chgrp GROUP {path})"
        raise closed_to_this_user(path, path, advice) from None
    except OSError as error:
        connection.close()
        raise NoDaemonError(f"no node answers at {path} ({error.strerror or error})") from None
    return connection


def _checked(status: int, content: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(content)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise L2OverlayError("the node's answer is not JSON; is it another version of l2overlay?")
    if answer.get("schema") == ERROR_SCHEMA:
        kind = HostPermissionError if status == _FORBIDDEN else L2OverlayError
        raise kind(str(answer.get("error")))
    return answer
