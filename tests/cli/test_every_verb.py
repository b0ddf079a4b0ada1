"""What holds for each verb and each of its actions, new ones included: help with examples, `--json`, suggestions."""

import shlex
from pathlib import Path

import pytest

from l2overlay import keys
from l2overlay.addresses import format_key
from l2overlay.cli import cleanup, doctor, peers_edit, target
from l2overlay.cli.main import VERBS, VerbParser, load_verb, verb_parser, with_action
from l2overlay.control import run_dir
from tests.cli.calling import Call

WITHOUT_JSON = {"join": "it runs until it is stopped; the node logs, and prints nothing on stdout"}
"""Verbs without `--json`, each with the reason."""
NEW_SEGMENT = {"init": "its SEGMENT is the name of a new one"}


def commands() -> list[str]:
    """`status`, `peers list`, ...: each verb, or each of its actions."""
    return [" ".join((verb, action)).strip() for verb in VERBS for action in VERBS[verb].actions or ("",)]


def parser_of(command: str) -> VerbParser:
    verb, _, action = command.partition(" ")
    parser = verb_parser(verb, load_verb(verb))
    return parser.children()[action] if action else parser


def examples(command: str) -> list[str]:
    lines = load_verb(command.partition(" ")[0]).EXAMPLES
    return [line for line in lines if f"{line} ".startswith(f"l2overlay {command} ")]


def words(example: str) -> list[str]:
    """The arguments of an example, without what the shell takes."""
    return shlex.split(example.partition(" > ")[0] if "'" not in example else example)[1:]


every_command = pytest.mark.parametrize("command", commands())


@pytest.mark.parametrize("verb", VERBS)
def test_the_actions_of_a_verb_are_those_of_its_parser(verb: str) -> None:
    assert tuple(verb_parser(verb, load_verb(verb)).children()) == VERBS[verb].actions


@every_command
def test_help_shows_an_example(call: Call, command: str) -> None:
    code, out, _ = call(*command.split(), "--help")
    assert code == 0
    assert out.startswith(f"usage: l2overlay {command} ")
    assert examples(command)
    assert all(f"\n  {line}\n" in out for line in examples(command))


@pytest.mark.parametrize("line", [line for verb in VERBS for line in load_verb(verb).EXAMPLES])
def test_an_example_is_a_command_that_its_verb_accepts(line: str) -> None:
    verb, *rest = words(line)
    parser = verb_parser(verb, load_verb(verb))
    parser.parse_args(with_action(rest, VERBS[verb].actions))


@every_command
def test_each_command_prints_json_or_says_why_not(command: str) -> None:
    has_json = "--json" in set(parser_of(command).option_strings())
    assert has_json != (command in WITHOUT_JSON)


@every_command
def test_a_mistyped_option_names_the_right_one(call: Call, command: str) -> None:
    code, out, err = call(*words(examples(command)[0]), "--verbsoe")
    assert (code, out) == (2, "")
    assert f"l2overlay {command.partition(' ')[0]}" in err
    assert "unknown option '--verbsoe' (did you mean '--verbose'?)" in err


@pytest.mark.parametrize("verb", VERBS)
def test_a_mistyped_verb_names_the_right_one(call: Call, verb: str) -> None:
    code, out, err = call(f"{verb}x")
    assert (code, out) == (2, "")
    assert f"no verb '{verb}x' (did you mean '{verb}'?)" in err


CALLS = {
    **{
        verb: [verb]
        for verb in (
            "status",
            "fdb",
            "events",
            "reload",
            "leave",
            "cleanup",
            "doctor",
            "join",
            "check",
            "install-service",
        )
    },
    "peers list": ["peers", "list"],
    "peers add": ["peers", "add", "beta", "KEY", "--file"],
    "peers remove": ["peers", "remove", "beta", "--file"],
    "attach": ["attach", "qemu", "--segment"],
    "detach": ["detach", "tap", "vm1", "--segment"],
    "filter show": ["filter", "show"],
    "filter explain": ["filter", "explain", "tcp 10.9.0.1:1 > 10.9.0.2:2 in", "--segment"],
    "filter reload": ["filter", "reload"],
}
"""How each command takes a segment; the name comes last."""


def takes_segment(command: str) -> bool:
    return any(a.dest == "segment" or "SEGMENT" in str(a.metavar) for a in parser_of(command)._actions)


def test_each_command_that_takes_a_segment_is_tried_with_a_mistyped_one() -> None:
    assert {command for command in commands() if takes_segment(command)} - set(NEW_SEGMENT) == set(CALLS)


@pytest.mark.host
@pytest.mark.parametrize("command", CALLS)
def test_a_mistyped_segment_names_the_right_one(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    """The segment `lan` is configured; `lam` is not."""
    (tmp_path / "lan.toml").touch()
    for module in (keys, peers_edit):
        monkeypatch.setattr(module, "CONFIGURATION_DIR", tmp_path)
    for module in (target, run_dir, doctor, cleanup):
        monkeypatch.setattr(module, "RUN_ROOT", tmp_path / "run")
    key = format_key(keys.public_key(keys.generate()))
    code, out, err = call(*(key if word == "KEY" else word for word in CALLS[command]), "lam")
    assert "(did you mean 'lan" in (out if command == "cleanup" else err)
    assert code == {"cleanup": 0}.get(command, 78 if "lam.toml" in err else 3)
