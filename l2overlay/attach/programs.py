"""The version of a tool on this host. A recipe depends on it; without the tool it depends on a version that is assumed."""

import os
import re
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

ASK_TIMEOUT = 5.0
"""Seconds. `docker version` waits for a daemon that may hang."""
_NUMBER = re.compile(r"\d+(?:\.\d+)*")

Run = Callable[[Sequence[str], Mapping[str, str]], str]
"""Runs a program, with more in its environment, and returns what it printed; empty if it is not there."""


@dataclass(frozen=True, slots=True)
class Version:
    """A version: of the installed program, or the one that is assumed."""

    numbers: tuple[int, ...]
    installed: bool = True
    detail: str = ""
    """What else the program said of itself, e.g. the backend of a container engine."""

    def __str__(self) -> str:
        return ".".join(map(str, self.numbers))

    def __ge__(self, other: tuple[int, ...]) -> bool:
        return self.numbers >= other

    def __lt__(self, other: tuple[int, ...]) -> bool:
        return self.numbers < other


@dataclass(frozen=True, slots=True)
class Program:
    """How to ask a program for its version."""

    title: str
    asked: tuple[tuple[str, ...], ...]
    """Command lines; the first that answers with a number counts."""
    assumed: tuple[int, ...]
    """The version if the program is not installed: the newest that the recipe was written for."""
    detail: tuple[str, ...] = ()
    """A command line that prints `Version.detail`."""
    after: str = ""
    """A regular expression: the number that follows it is the version. Empty: the first number."""
    environment: Mapping[str, str] = field(default_factory=dict)


def version_of(program: Program, run: Run | None = None) -> Version:
    """Ask the program."""
    ask = run or _run
    for argv in program.asked:
        numbers = _numbers(ask(argv, program.environment), program.after)
        if numbers:
            detail = ask(program.detail, program.environment).strip() if program.detail else ""
            return Version(numbers, detail=detail)
    return Version(program.assumed, installed=False)


def _numbers(text: str, after: str) -> tuple[int, ...]:
    start = re.search(after, text) if after else None
    if after and start is None:
        return ()
    found = _NUMBER.search(text, start.end() if start is not None else 0)
    return tuple(int(part) for part in found[0].split(".")) if found else ()


def _run(argv: Sequence[str], environment: Mapping[str, str]) -> str:
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=ASK_TIMEOUT,
            check=False,
            env={**os.environ, **environment},
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""
