"""The exceptions of the program, and its exit codes.

There are two kinds. Subclasses of `L2OverlayError` mean that the user made a mistake or that the host refused. They end
the command with one line that says what is wrong and what to do. `FrameError` and `DatagramError` mean that bytes from the
network are bad. Functions that parse such bytes raise them, and their callers count one `DropReason`; the user never sees
them.
"""

from dataclasses import dataclass
from enum import IntEnum


class ExitCode(IntEnum):
    """The exit codes of every verb. 78 is EX_CONFIG of sysexits(3)."""

    OK = 0
    RUNTIME = 1
    USAGE = 2
    NO_DAEMON = 3
    DEGRADED = 4
    PERMISSION = 5
    CONFIGURATION = 78


class L2OverlayError(Exception):
    """An error for the user: one line says what is wrong, where, and what to do. The command ends with `exit_code`."""

    exit_code = ExitCode.RUNTIME


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake in a configuration file. Line and column count from 1; both are 0 for a mistake of the whole file."""

    line: int
    column: int
    message: str


class ConfigError(L2OverlayError):
    """A configuration that cannot be used. Holds every mistake that was found, in the order of the file."""

    exit_code = ExitCode.CONFIGURATION

    def __init__(self, source: str, problems: tuple[Problem, ...]) -> None:
        self.source = source
        self.problems = problems
        super().__init__("\n".join(self.lines()))

    def lines(self) -> list[str]:
        """One `FILE:LINE:COL: message` for each mistake (`FILE: message` if it concerns the whole file)."""
        return [
            f"{self.source}:{p.line}:{p.column}: {p.message}" if p.line else f"{self.source}: {p.message}"
            for p in self.problems
        ]


class UsageError(L2OverlayError):
    """The arguments of the command line do not fit together."""

    exit_code = ExitCode.USAGE


class NoDaemonError(L2OverlayError):
    """No node answers on the control socket."""

    exit_code = ExitCode.NO_DAEMON


class HostSetupError(L2OverlayError):
    """The host refused a change that the node needs."""


class HostPermissionError(HostSetupError):
    """The host refused because a privilege is missing. The message names the command to run."""

    exit_code = ExitCode.PERMISSION


class FrameError(Exception):
    """Bytes from the TAP are not a valid frame."""


class DatagramError(Exception):
    """A datagram from the underlay, or a record in it, is malformed."""
