"""peers.toml, mutated and reloaded: a configuration or a ConfigError with its place; a node takes it or stays as it was."""

import random
import re
from collections.abc import Callable
from pathlib import Path

from l2overlay.config.diff import diff_configs
from l2overlay.config.read import parse_config
from l2overlay.config.types import Config
from l2overlay.errors import ConfigError
from l2overlay.linux.iptables import render
from l2overlay.node.attachment import host_spec
from l2overlay.node.reload import read_again
from tests.dataplane.insider import NODE_KEY, Meeting
from tests.fuzz.corpus import FILES, PLAIN, working
from tests.fuzz.mutation import mutate_bytes
from tests.fuzz.scratch import scratch_folder

MAX_ROUNDS = 2000
"""Iterations with one node; then the next begins."""
SCALAR = re.compile(r'"[^"\n]*"|\b[0-9.]+\b')
COMPOUND = re.compile(r"\[[^\[\]\n]*\]|\{[^{}\n]*\}")
VALUES = (
    '""', '"\\u0000"', '"@"', '"@admins"', '"@nobody"', '"10.0.0.1/99"', '"10.0.0.1/8"', '"0.0.0.0/0"',
    '"::/0"', '"fd00::%eth0"', '"224.0.0.1"', '"52:54:00:00:aa:01"', '"ff:ff:ff:ff:ff:ff"',
    '"00:00:00:00:00:00"', '"node"', '"insider"', '"any"', '"in"', '"on"', '"off"', '"locked"', '"drop"',
    '"accept"', '"log"', '"0/s"', '"99999999/h"', '"8010-8000"', '"65536"', '"\\ud7ff"',
    '"' + "x" * 300 + '"', "'''\n'''", "0", "-1", "1", "65536", "18446744073709551616", "1e400", "1e308",
    "nan", "inf", "-0.0", "0x10", "true", "1979-05-27", "1979-05-27T07:32:00Z", "07:32:00", "[]", "[[]]",
    "[[[[]]]]", '[""]', '["@admins", ""]', "[0]", "[true]", "{}", "{ a = 1 }", "{ a.b.c.d = {} }",
    '{ "" = [""] }', "[{}]", "[nan]", '["node", "node"]', "9" * 5000,
)  # fmt: skip
LINES = (
    "[[peers]]", "[peers]", "[filter]", "[[filter]]", "[filter.groups]", "[[filter.groups]]",
    "[[filter.rules]]", "[protect]", "[protect.bindings]", "[protect.storm]", "[segment]",
    "[segment.addresses]", "[[filter.security_groups]]", "[a.b.c]", 'name = "node"', "filter = 1",
    "peers = []", "protect = []", "segment = {}", '"" = ""', "a.b = 1", "[filter.groups.admins]",
)  # fmt: skip
WHOLE_FILE = re.compile(
    r"larger than|encoded in UTF-16|nested too deeply|this host's public key|no \[segment\]|\[segment\].*missing|table"
)
"""What no line can be named for."""


def make(chance: random.Random) -> Callable[[], None]:
    """Reload one mutated file in a running node, and the plain one again."""
    path = scratch_folder() / "peers.toml"
    node = _Node()

    def iterate() -> None:
        nonlocal node
        if node.rounds == MAX_ROUNDS:
            node = _Node()
        path.write_bytes(_mutated(chance))
        node.reload(path)

    return iterate


class _Node:
    def __init__(self) -> None:
        self.rounds = 0
        self.plain = parse_config(PLAIN, "peers.toml", base_dir=None)
        self.meeting = Meeting()

    def reload(self, path: Path) -> None:
        self.rounds += 1
        try:
            found = read_again(path, self.plain, NODE_KEY)
        except ConfigError as error:
            _check(error)
        else:
            assert all(isinstance(line, str) for line in found.changes)
            self.follow(found.config)
        assert working(self.meeting)

    def follow(self, config: Config) -> None:
        """As `Node` does; rules of iptables are only written."""
        spec = host_spec(config, NODE_KEY)
        if spec.filter is not None:
            for version in (4, 6):
                render(spec.filter, {}, version)
        meeting = self.meeting
        meeting.node.reconfigure(config, meeting.now)
        meeting.read_from_tap(bytes(10) + b"\xff" * 6 + b"\x52\x54\0\0\xaa\x01" + bytes(50))
        diff_configs(config, self.plain).lines()
        meeting.node.reconfigure(self.plain, meeting.now)
        meeting.settle()
        if not any(peer.up for peer in meeting.node.peers(meeting.now)):
            self.meeting = Meeting()  # the mutated file did not know the insider


def _check(error: ConfigError) -> None:
    assert error.problems
    for problem in error.problems:
        assert problem.message
        placed = problem.line >= 1 and problem.column >= 1
        assert placed or WHOLE_FILE.search(problem.message), problem


def _mutated(chance: random.Random) -> bytes:
    text = chance.choice(FILES)
    if chance.random() < 0.3:
        return mutate_bytes(chance, text.encode(), [file.encode() for file in FILES])
    for _ in range(chance.choice((1, 1, 2, 3))):
        text = _restructured(chance, text)
    return text.encode("utf-8", "surrogatepass")


def _restructured(chance: random.Random, text: str) -> str:
    lines = text.split("\n")
    at = chance.randrange(len(lines))
    match chance.randrange(8):
        case 0:
            del lines[at]
        case 1:
            lines.insert(chance.randrange(len(lines)), lines[at])
        case 2:
            lines.insert(at, chance.choice(LINES))
        case 3:
            other = chance.choice(FILES).split("\n")
            start = chance.randrange(len(other))
            lines[at:at] = other[start : start + chance.randint(1, 8)]
        case 4:
            lines[at] = re.sub(
                r"^[a-z_]+", chance.choice(("x", '""', "name", "ports", "macs", "source")), lines[at]
            )
        case _:
            return _other_value(chance, text)
    return "\n".join(lines)


def _other_value(chance: random.Random, text: str) -> str:
    places = list(chance.choice((SCALAR, SCALAR, COMPOUND)).finditer(text))
    if not places:
        return text
    place = chance.choice(places)
    value = chance.choice((*VALUES, chance.choice(places)[0]))
    return text[: place.start()] + value + text[place.end() :]
