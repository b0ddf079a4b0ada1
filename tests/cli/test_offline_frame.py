"""What holds for every verb: finding it, its options, and how its end is told."""

import argparse
import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from l2overlay.cli import main as cli
from l2overlay.cli import output, schema
from l2overlay.errors import ConfigError, HostPermissionError, NoDaemonError, Problem, UsageError

Run = Callable[..., int]


@pytest.fixture
def run_scripted(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a verb that raises what it is told to, or returns 4."""

    def run(error: BaseException | None, *argv: str) -> int:
        def scripted(args: argparse.Namespace) -> int:
            if error:
                raise error
            return 4

        monkeypatch.setattr(schema, "run", scripted)
        return cli.main([*argv, "schema"])

    return run


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (None, 4, ""),
        (UsageError("no"), 2, "l2overlay: no\n"),
        (NoDaemonError("nobody"), 3, "l2overlay: nobody\n"),
        (HostPermissionError("sudo"), 5, "l2overlay: sudo\n"),
        (ConfigError("f", (Problem(1, 2, "a"), Problem(0, 0, "b"))), 78, "f:1:2: a\nf: b\n"),
        (PermissionError(13, "Permission denied", "/x"), 1, "l2overlay: /x: Permission denied\n"),
        (KeyError("k"), 1, "l2overlay: KeyError: 'k' (this is a bug; -v shows where)\n"),
        (KeyboardInterrupt(), 1, ""),
        (BrokenPipeError(), 1, ""),
        (ExceptionGroup("nursery", [NoDaemonError("gone")]), 3, "l2overlay: gone\n"),
        (BaseExceptionGroup("nursery", [KeyboardInterrupt()]), 1, ""),
    ],
)
def test_every_end_has_its_line_and_exit_code(
    run_scripted: Run, capfd: pytest.CaptureFixture[str], error: BaseException | None, code: int, said: str
) -> None:
    before = os.dup(1)
    try:
        assert run_scripted(error) == code
    finally:
        os.dup2(before, 1)
        os.close(before)
    assert capfd.readouterr().err == said


def test_v_shows_the_traceback(run_scripted: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_scripted(NoDaemonError("gone"), "-v") == 3
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["chekc"], "no verb 'chekc' (did you mean 'check'?)"),
        (["--versoin"], "unknown option '--versoin' (did you mean '--version'?)"),
        (["check", "f", "--jsno"], "l2overlay check: unknown option '--jsno' (did you mean '--json'?)"),
        (["check", "f", "--js"], "unknown option '--js'"),
        (["check"], "the following arguments are required: FILE"),
        (["check", "a", "b"], "unknown argument 'b'"),
        (["peers", "add", "x"], "l2overlay peers add: the following arguments are required: KEY"),
        (["help", "nonsense"], "no verb 'nonsense'"),
    ],
)
def test_misuse_is_one_line_with_a_suggestion(
    argv: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(argv) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line


def test_no_verb_prints_the_help_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 2
    assert "verbs:" in capsys.readouterr().err


@pytest.mark.parametrize("argv", [["--help"], ["-h"], ["help"]])
def test_help_lists_the_verbs_that_are_there(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(argv) == 0
    shown = capsys.readouterr().out
    assert all(f"\n  {verb} " in shown for verb in ("init", "keygen", "pubkey", "check", "schema", "peers"))


@pytest.mark.parametrize(
    ("rest", "full"),
    [
        ([], ["list"]),
        (["--json"], ["list", "--json"]),
        (["lan"], ["list", "lan"]),
        (["add", "x"], ["add", "x"]),
        (["--help"], ["--help"]),
    ],
)
def test_first_action_is_meant_when_none_is_named(rest: list[str], full: list[str]) -> None:
    assert cli.with_action(rest, ("list", "add", "remove")) == full


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("l2overlay 0.")


def test_help_is_quick_and_imports_nothing_heavy() -> None:
    code = "import sys; from l2overlay.cli.main import main; main(['--help']); print(*sys.modules, file=sys.stderr)"
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert time.perf_counter() - start < 1.0  # 0.3 s is the promise; a busy machine must not fail the test
    heavy = {"trio", "pyroute2", "pydantic", "cryptography", "scapy", "toml", "asyncio"}
    assert heavy.isdisjoint(done.stderr.split())


def test_closed_pipe_ends_in_silence() -> None:
    program = [sys.executable, "-m", "l2overlay", "schema"]
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as pipe:
        done = subprocess.run(program, stdout=pipe, stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr) == (1, b"")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_colour_is_for_terminals_that_want_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert output.paint("x", "red", Terminal()) == "\x1b[31mx\x1b[0m"
    assert output.paint("x", "red", io.StringIO()) == "x"
    monkeypatch.setenv("NO_COLOR", "1")
    assert output.paint("x", "red", Terminal()) == "x"
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert output.paint("x", "red", Terminal()) == "x"


def test_table_is_aligned_whatever_its_colours() -> None:
    rows = [("\x1b[32mup\x1b[0m", 5, None), ("down", 1234, "x")]
    assert output.table(("STATE", "RX", "NOTE"), rows) == [
        "STATE    RX  NOTE",
        "\x1b[32mup\x1b[0m        5  -",
        "down   1234  x",
    ]
    assert output.table(("A", "B"), []) == ["A  B"]


def test_json_carries_its_schema_first(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_json("thing/1", {"bytes": 5})
    shown = json.loads(capsys.readouterr().out)
    assert list(shown.items()) == [("schema", "l2overlay.thing/1"), ("bytes", 5)]
