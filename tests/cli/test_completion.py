"""`l2overlay completion`: what may follow, and that the shells' scripts ask for it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from l2overlay import keys
from l2overlay.cli import completion
from l2overlay.cli.main import VERBS, main
from tests.cli.calling import Call


@pytest.fixture
def segments(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Two segments are configured, of which `lan` has the peers alpha and beta."""
    for name, peers in (("lan", ("alpha", "beta")), ("office", ("gamma",))):
        stanzas = [keys.own_stanza(peer, keys.public_key(keys.generate())) for peer in peers]
        (tmp_path / f"{name}.toml").write_text(f'[segment]\nname = "{name}"\n\n' + "\n".join(stanzas))
    monkeypatch.setattr(keys, "CONFIGURATION_DIR", tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("typed", "found"),
    [
        ("sta", {"status"}),
        ("le", {"leave"}),
        ("--vers", {"--version"}),
        ("-v sta", {"status"}),
        ("nonsense x", set()),
        ("peers ", {"list", "add", "remove", "lan", "office"}),
        ("peers re", {"remove"}),
        ("peers remove ", {"alpha", "beta", "gamma"}),
        ("peers remove --file lan ", {"alpha", "beta"}),
        ("peers add --f", {"--file"}),
        ("peers list --file o", {"office"}),
        ("status l", {"lan"}),
        ("status --js", {"--json"}),
        ("join --offload ", {"auto", "off"}),
        ("join --peers ", set()),
        ("keygen ", set()),
        ("completion f", {"fish"}),
    ],
)
def test_what_may_follow(segments: Path, typed: str, found: set[str]) -> None:
    assert completion.candidates(typed.split(" ")) == found


def test_every_verb_can_be_completed_and_takes_help(segments: Path) -> None:
    assert completion.candidates([""]) == set(VERBS)
    for verb in VERBS:
        assert "--help" in completion.candidates([verb, "-"]), verb


def test_files_with_mistakes_and_nodes_that_are_gone_complete_nothing(segments: Path) -> None:
    (segments / "lan.toml").write_text("[segment\n")
    assert completion.candidates(["peers", "remove", "--file", "lan", ""]) == set()


def test_words_are_one_a_line_or_json(segments: Path, call: Call) -> None:
    assert call("completion", "words", "--", "peers", "list", "--file", "") == (0, "lan\noffice\n", "")
    assert '"words": [' in call("completion", "--json", "words", "--", "status", "l")[1]


def program(folder: Path) -> dict[str, str]:
    """An environment whose `l2overlay` is this one."""
    script = folder / "l2overlay"
    script.write_text(f'#!/bin/sh\nexec {sys.executable} -m l2overlay "$@"\n')
    script.chmod(0o755)
    root = Path(__file__).parents[2]
    return {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "PYTHONPATH": str(root)}


ASK = {
    "bash": 'source "$1"; COMP_WORDS=(l2overlay peers re); COMP_CWORD=2; _l2overlay; echo "${COMPREPLY[@]}"',
    "fish": 'source $argv[1]; complete -C "l2overlay peers re"',
    # compadd works in the line editor only, so the test says what it was given.
    "zsh": 'compdef() {}; compadd() { echo "$found" }; source "$1"; words=(l2overlay peers re); CURRENT=3; _l2overlay',
}


@pytest.mark.parametrize("shell", list(completion.SCRIPTS))
def test_the_script_asks_the_program(shell: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    assert main(["completion", shell]) == 0
    script = tmp_path / "script"
    script.write_text(capsys.readouterr().out)
    argv = [shell, "-c", ASK[shell], *(["sh"] if shell != "fish" else []), str(script)]
    done = subprocess.run(
        argv,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env=program(tmp_path),
        cwd="/proc/self/task",
    )
    assert (done.stdout.split(), done.stderr) == (["remove"], "")
