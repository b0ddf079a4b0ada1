"""What systemd is told."""

import socket
from pathlib import Path

import pytest

from l2overlay.node.notify import notify


def test_supervisor_gets_the_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
        supervisor.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        notify("READY=1", "STATUS=2 peers up")
        assert supervisor.recv(100) == b"READY=1\nSTATUS=2 peers up"


def test_abstract_name_begins_with_an_at_sign(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
        supervisor.bind("")  # the kernel chooses an abstract name
        monkeypatch.setenv("NOTIFY_SOCKET", "@" + supervisor.getsockname()[1:].decode())
        notify("STOPPING=1")
        assert supervisor.recv(100) == b"STOPPING=1"


@pytest.mark.parametrize("place", ["", "/nowhere/notify"])
def test_supervisor_that_is_not_there_is_no_error(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", place)
    notify("READY=1")
