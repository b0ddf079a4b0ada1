"""What the doctor says: one cause, what proves it, and the command that ends it."""

import shlex
from dataclasses import dataclass
from enum import StrEnum

Command = tuple[str, ...]
"""An argument vector; no shell is in between."""


class Severity(StrEnum):
    """How sure it is that frames are lost."""

    ERROR = "error"  # frames are lost now
    WARNING = "warning"  # some are, or will be under conditions that the text names


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong."""

    cause: str
    """Which of the causes of docs/doctor.md, for programs."""
    severity: Severity
    text: str
    """The cause in one line."""
    proof: tuple[str, ...]
    """What was read, as it was read."""
    fix: tuple[Command, ...] = ()
    """What to run, in order; empty where no command of this host ends it."""
    undo: tuple[Command, ...] = ()
    """What takes `fix` back."""
    is_safe: bool = False
    """`--fix` may run it: it opens nothing that somebody closed on purpose, cuts nobody off, and `undo` takes it back."""
    advice: str = ""
    """What a command cannot say."""


def command_line(command: Command) -> str:
    """As one would type it."""
    return shlex.join(command)
