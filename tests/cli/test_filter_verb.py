"""`l2overlay filter`: what it prints, and its exit codes."""

import json
from pathlib import Path
from typing import Any

import pytest

from l2overlay.cli.main import main
from l2overlay.control import client
from l2overlay.errors import ExitCode
from tests.filter.writing import HEAD

TABLE = """
[filter]
default_in = "drop"
[[filter.rules]]
direction = "in"
action = "accept"
protocol = "tcp"
source = "beta"
ports = [22, "80-90"]
comment = "ssh"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "peers.toml"
    path.write_text(HEAD + TABLE)
    return path


def test_check_says_what_the_filter_becomes(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["filter", "check", str(file)]) == 0
    assert "good: 1 rule, 0 security groups; " in capsys.readouterr().out
    assert main(["filter", "check", "--json", str(file)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["schema"], found["rules"]) == ("l2overlay.filter_check/1", 1)
    assert found["kernel_rules"]["alpha"] > found["kernel_rules"]["beta"]  # on beta nothing comes from beta


def test_check_names_mistakes_and_ends_with_78(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text(HEAD + TABLE.replace("beta", "beat"))
    assert main(["filter", "check", str(file)]) == ExitCode.CONFIGURATION
    assert "no peer is named 'beat' (did you mean 'beta'?)" in capsys.readouterr().err
    assert main(["filter", "check", "--json", str(file)]) == ExitCode.CONFIGURATION
    assert json.loads(capsys.readouterr().out)["problems"][0]["column"] == 10


def test_a_file_without_a_filter_is_said_to_filter_nothing(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_text(HEAD)
    assert main(["filter", "check", str(file)]) == 0
    assert "nothing is filtered" in capsys.readouterr().out


def test_explain_by_file_needs_no_node(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = "tcp 10.9.0.2:5 > 10.9.0.1:85 from beta"
    assert main(["filter", "explain", "--peers", str(file), "--node", "alpha", words]) == 0
    said = capsys.readouterr().out
    assert "accept, by rule 1: accept tcp from beta to ports 22, 80-90" in said
    assert main(["filter", "explain", "--json", "--peers", str(file), "--node", "alpha", *words.split()]) == 0
    (verdict,) = json.loads(capsys.readouterr().out)["verdicts"]
    assert (verdict["action"], verdict["label"]) == ("accept", "rule 1")


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["tcp"], "describe a frame as"),
        (["--node", "delta", "tcp 10.0.0.1 > 10.0.0.2"], "name the host with --node"),
        (["--node", "alpha", "tcp 10.0.0.1 > 10.0.0.2 from delta"], "no peer is named 'delta'"),
    ],
)
def test_what_explain_cannot_understand_is_a_usage_error(
    file: Path, capsys: pytest.CaptureFixture[str], words: list[str], complaint: str
) -> None:
    node = [] if "--node" in words else ["--node", "alpha"]
    assert main(["filter", "explain", "--peers", str(file), *node, *words]) == ExitCode.USAGE
    assert complaint in capsys.readouterr().err


def answer(**changes: Any) -> dict[str, Any]:
    rule = {"direction": "in", "label": "rule 1", "rule": "accept tcp from beta", "comment": "ssh"}
    counts = {"ipv4": {"frames": 3, "bytes": 180}, "ipv6": {"frames": 4, "bytes": 320}}
    return {
        "schema": "l2overlay.filter/1", "segment": "lab", "node": "alpha", "active": True, "variant": "nf_tables",
        "rules": [{**rule, **counts}], "stations": {"beta": 2}, "problems": [], **changes,
    }  # fmt: skip


def test_show_prints_the_rules_in_words_with_what_they_have_seen(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(client, "ask", lambda path, request, **arguments: answer())
    assert main(["filter", "--run-dir", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "filtered by iptables (nf_tables)" in said
    assert "followed: 2 of beta (stations)" in said
    assert "accept tcp from beta  # ssh     3     4  500 B" in said


def test_show_ends_with_4_while_something_is_wrong(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(client, "ask", lambda path, request, **arguments: answer(problems=["iptables: lost"]))
    assert main(["filter", "show", "--run-dir", str(tmp_path)]) == ExitCode.DEGRADED
    assert "iptables: lost" in capsys.readouterr().err


def test_explain_asks_the_node_when_no_file_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: dict[str, Any] = {}

    def ask(path: Path, request: str, **arguments: Any) -> dict[str, Any]:
        asked.update(arguments, request=request)
        verdict = {
            "frame": "",
            "direction": "",
            "action": "accept",
            "label": "not IP",
            "rule": "ARP",
            "steps": [],
        }
        return {"schema": "l2overlay.filter_explain/1", "node": "alpha", "verdicts": [verdict]}

    monkeypatch.setattr(client, "ask", ask)
    assert main(["filter", "explain", "--run-dir", str(tmp_path), "ff" * 14, "in"]) == 0
    assert asked == {"request": "filter/explain", "frame": f"{'ff' * 14} in"}
    assert "accept, by not IP: ARP" in capsys.readouterr().out
