"""Servers, refusals and foreign rulesets for the tests of the filter."""

import contextlib
import shutil
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from l2overlay.testing.lab import Namespace, NodeProcess
from tests.linux.conftest import inside

TIMEOUT = 0.6


@contextlib.contextmanager
def serve(guest: Namespace, port: int) -> Iterator[None]:
    """A TCP server of both families that says back what it hears."""
    with inside(guest):
        listener = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)
    thread = threading.Thread(target=_accept, args=(listener,))
    thread.start()
    try:
        yield
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def _accept(listener: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=_echo, args=(connection,), daemon=True).start()


def _echo(connection: socket.socket) -> None:
    with connection, contextlib.suppress(OSError):
        while data := connection.recv(4096):
            connection.sendall(data)


def refuses(client: Namespace, address: str, port: int) -> str:
    """Empty when a connection comes about; else "refused" or "timeout"."""
    with inside(client):
        try:
            socket.create_connection((address, port), timeout=TIMEOUT).close()
        except ConnectionRefusedError:
            return "refused"
        except TimeoutError:
            return "timeout"
    return ""


def status_filter(node: NodeProcess) -> dict[str, Any]:
    """What `status` says of the filter."""
    found: dict[str, Any] = node.ask("status")["filter"]
    return found


def tool_folder(folder: Path, *programs: str) -> Path:
    """A folder for PATH with links to these programs."""
    folder.mkdir()
    for program in programs:
        (folder / program).symlink_to(shutil.which(program) or "")
    return folder


def docker_rules() -> str:
    """What Docker makes of an empty filter table, as far as it matters: its chains first, and FORWARD drops."""
    return """\
*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:DOCKER - [0:0]
:DOCKER-FORWARD - [0:0]
:DOCKER-USER - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -j DOCKER-FORWARD
-A DOCKER-FORWARD -i docker0 -j ACCEPT
-A DOCKER-USER -j RETURN
COMMIT
"""
