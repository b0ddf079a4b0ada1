"""What the doctor says: one cause, its proof, and the command that removes it."""

import shlex
from dataclasses import dataclass
from enum import StrEnum

Command = tuple[str, ...]
"""An argument vector, which is run without a shell."""


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
    """What to run, in order; empty if no command on this host removes the cause."""
    undo: tuple[Command, ...] = ()
    """What reverts `fix`."""
    is_safe: bool = False
    """`--fix` may run it: it opens nothing that somebody closed on purpose, it cuts nobody off, and `undo` reverts it."""
    advice: str = ""
    """What a command cannot say."""


def command_line(command: Command) -> str:
    """The command as a person would type it."""
    return shlex.join(command)
