"""`install-service`: what it checks, writes and leaves alone. systemd itself is a stand-in here."""

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from l2overlay import keys
from l2overlay.cli import install_service
from l2overlay.cli.main import main
from l2overlay.errors import ExitCode, HostSetupError, UsageError
from l2overlay.service import install

UNIT = "etc/systemd/system/l2overlay@.service"


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[list[str]]:
    """A host whose /etc is `tmp_path`/etc, with a good segment `lan`; what would have been run."""
    called = list[list[str]]()
    etc = tmp_path / "etc/l2overlay"
    etc.mkdir(parents=True)
    private = keys.generate()
    keys.save(etc / "lan.key", private)
    (etc / "lan.toml").write_text(
        f'[segment]\nname = "lan"\n\n{keys.own_stanza("alpha", keys.public_key(private))}'
    )
    monkeypatch.setattr(keys, "CONFIGURATION_DIR", etc)
    files = install.files
    monkeypatch.setattr(install, "files", lambda program: files(program, tmp_path))
    monkeypatch.setattr(install, "run", lambda argv: called.append(list(argv)))
    monkeypatch.setattr(install_service, "own_program", lambda: "/usr/bin/l2overlay")
    monkeypatch.setattr(install, "is_running_systemd", lambda: True)
    monkeypatch.setattr(install, "has_user", lambda: True)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return called


def test_a_unit_is_written_enabled_and_started(host: list[list[str]], tmp_path: Path) -> None:
    assert main(["install-service", "lan"]) == 0
    unit = (tmp_path / UNIT).read_text()
    assert unit.startswith(install.OURS)
    assert "@PROGRAM@" not in unit
    assert host == [
        ["systemctl", "daemon-reload"],
        ["systemctl", "enable", "l2overlay@lan.service"],
        ["systemctl", "restart", "l2overlay@lan.service"],
    ]


def test_network_managers_that_are_there_are_told(host: list[list[str]], tmp_path: Path) -> None:
    (tmp_path / "etc/NetworkManager").mkdir()
    (tmp_path / "etc/systemd/network").mkdir(parents=True)
    assert main(["install-service", "lan", "--no-start"]) == 0
    assert "tap-*" in (tmp_path / "etc/NetworkManager/conf.d/l2overlay.conf").read_text()
    assert "Unmanaged=yes" in (tmp_path / "etc/systemd/network/10-l2overlay.network").read_text()
    assert host[-1][1] == "enable"


def test_the_unit_of_a_package_is_used(host: list[list[str]], tmp_path: Path) -> None:
    packaged = tmp_path / "usr/lib/systemd/system"
    packaged.mkdir(parents=True)
    (packaged / install.UNIT).write_text("[Unit]\n")
    assert main(["install-service", "lan"]) == 0
    assert not (tmp_path / UNIT).exists()


def test_a_second_run_writes_nothing(
    host: list[list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["install-service", "lan", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["written"] == [str(tmp_path / UNIT)]
    assert main(["install-service", "lan", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["written"] == []


def test_a_unit_that_a_person_wrote_is_kept(
    host: list[list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / UNIT).parent.mkdir(parents=True)
    (tmp_path / UNIT).write_text("[Unit]\nDescription=mine\n")
    assert main(["install-service", "lan"]) == ExitCode.RUNTIME
    assert "was not written by l2overlay" in capsys.readouterr().err
    assert (tmp_path / UNIT).read_text() == "[Unit]\nDescription=mine\n"
    assert host == []


def spoil_toml(etc: Path) -> None:
    (etc / "lan.toml").write_text("[segment]\nname = 7\n")


def spoil_name(etc: Path) -> None:
    text = (etc / "lan.toml").read_text()
    (etc / "lan.toml").write_text(text.replace('name = "lan"', 'name = "office"'))


def spoil_key(etc: Path) -> None:
    (etc / "lan.key").chmod(0o644)


def lose_files(etc: Path) -> None:
    (etc / "lan.toml").unlink()


@pytest.mark.parametrize(
    ("spoil", "code", "words"),
    [
        (spoil_toml, ExitCode.CONFIGURATION, "name"),
        (spoil_name, ExitCode.USAGE, "office"),
        (spoil_key, ExitCode.PERMISSION, "chmod 600"),
        (lose_files, ExitCode.CONFIGURATION, "lan.toml"),
    ],
)
def test_what_join_would_refuse_is_refused_before_a_file_is_written(
    host: list[list[str]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    spoil: Callable[[Path], None],
    code: ExitCode,
    words: str,
) -> None:
    spoil(tmp_path / "etc/l2overlay")
    assert main(["install-service", "lan"]) == code
    assert words in capsys.readouterr().err
    assert not (tmp_path / UNIT).exists()
    assert host == []


def test_an_ordinary_user_is_told_the_command(
    host: list[list[str]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert main(["install-service", "lan"]) == ExitCode.PERMISSION
    assert "sudo l2overlay install-service lan" in capsys.readouterr().err


def test_print_shows_the_files_and_changes_nothing(
    host: list[list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["install-service", "lan", "--print"]) == 0
    assert "AmbientCapabilities=CAP_NET_ADMIN" in capsys.readouterr().out
    assert not (tmp_path / UNIT).exists()


def test_a_program_in_a_home_directory_cannot_be_started_by_a_service(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    for found, words in (
        (None, "not installed as a program"),
        ("/root/.local/bin/l2overlay", "home directory"),
    ):
        monkeypatch.setattr(shutil, "which", lambda name, found=found: found)
        with pytest.raises(UsageError, match=words):
            install_service.own_program()
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/local/bin/l2overlay")
    assert install_service.own_program() == "/usr/local/bin/l2overlay"


def test_a_command_that_fails_is_named_with_its_last_line() -> None:
    with pytest.raises(HostSetupError, match="'ls /no/such/place' failed: ls: cannot access"):
        install.run(["ls", "/no/such/place"])
    with pytest.raises(HostSetupError, match="no-such-program is not installed"):
        install.run(["no-such-program"])
