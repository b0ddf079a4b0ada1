"""The control socket, seen from a verb: one line of JSON there, one (or, for events, many) back.

    -> {"request": "status"}
    <- {"schema": "l2overlay.status/1", ...}            or {"schema": "l2overlay.error/1", "error": "..."}

The node's end is `control/server.py`. This end uses plain sockets, so that a verb starts without trio.
"""

import contextlib
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from l2overlay.control.run_dir import closed_to_this_user
from l2overlay.errors import L2OverlayError, NoDaemonError

MAX_REQUEST_LEN = 65536
MAX_ANSWER_LEN = 64 * 1024 * 1024
"""A thousand peers and 16 384 stations are 2 MB; more than this is no node of ours."""
ANSWER_TIMEOUT = 5.0
ERROR_SCHEMA = "l2overlay.error/1"


def ask(path: Path, request: str, **arguments: Any) -> dict[str, Any]:
    """One request, one answer. Raises NoDaemonError when no node answers at `path`, L2OverlayError when it refuses."""
    with _connected(path) as connection:
        _send(connection, request, arguments)
        return _checked(_read_line(connection.makefile("rb"), path))


def follow(path: Path, request: str, **arguments: Any) -> Iterator[dict[str, Any]]:
    """One request, answers until the node closes the connection."""
    with _connected(path) as connection:
        _send(connection, request, arguments)
        connection.settimeout(None)
        with connection.makefile("rb") as lines:
            for line in lines:
                yield _checked(line)


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


def _send(connection: socket.socket, request: str, arguments: dict[str, Any]) -> None:
    with contextlib.suppress(
        ConnectionError
    ):  # a node that refuses us has said why before it closed: read that
        connection.sendall(json.dumps({"request": request, **arguments}).encode() + b"\n")


def _read_line(lines: Any, path: Path) -> bytes:
    with lines:
        try:
            line: bytes = lines.readline(MAX_ANSWER_LEN)
        except TimeoutError:
            raise NoDaemonError(f"the node at {path} did not answer within {ANSWER_TIMEOUT:.0f} s") from None
        except ConnectionError:
            line = b""
    if not line.endswith(b"\n"):
        raise NoDaemonError(f"the node at {path} ended before it had answered")
    return line


def _checked(line: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(line)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise L2OverlayError("the node's answer is not JSON; is it another version of l2overlay?")
    if answer.get("schema") == ERROR_SCHEMA:
        raise L2OverlayError(str(answer.get("error")))
    return answer
