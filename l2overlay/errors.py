"""The kinds of error, and nothing else.

Two kinds, never mixed. *You* misused us or the host refused: `ConfigError`, `HostSetupError`: raise, stop, say in
one line what is wrong and what to do. *The network* was bad: `FrameError`, `DatagramError`: raised by the functions
that parse network bytes, counted with one `DropReason` by their caller, never seen by a person as an exception.
"""

from dataclasses import dataclass
from enum import IntEnum


class ExitCode(IntEnum):
    """What the process tells its caller; 78 is EX_CONFIG of sysexits(3)."""

    OK = 0
    RUNTIME = 1
    USAGE = 2
    NO_DAEMON = 3
    DEGRADED = 4
    PERMISSION = 5
    CONFIGURATION = 78


class L2OverlayError(Exception):
    """One line for a person: what, where, what to do. `exit_code` is what the command line ends with."""

    exit_code = ExitCode.RUNTIME


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake in a configuration file; line and column count from 1, 0 when the file as a whole is meant."""

    line: int
    column: int
    message: str


class ConfigError(L2OverlayError):
    """A configuration that cannot be used: every mistake that was found, in file order."""

    exit_code = ExitCode.CONFIGURATION

    def __init__(self, source: str, problems: tuple[Problem, ...]) -> None:
        self.source = source
        self.problems = problems
        super().__init__("\n".join(self.lines()))

    def lines(self) -> list[str]:
        """`FILE:LINE:COL: message`, one per mistake (`FILE: message` when the file as a whole is meant)."""
        return [
            f"{self.source}:{p.line}:{p.column}: {p.message}" if p.line else f"{self.source}: {p.message}"
            for p in self.problems
        ]


class UsageError(L2OverlayError):
    """The command line asks for something that does not fit together."""

    exit_code = ExitCode.USAGE


class NoDaemonError(L2OverlayError):
    """No node answers on the control socket."""

    exit_code = ExitCode.NO_DAEMON


class HostSetupError(L2OverlayError):
    """The host refused a change that the node needs."""


class HostPermissionError(HostSetupError):
    """The host refused for want of privilege; the message names the command to run."""

    exit_code = ExitCode.PERMISSION


class FrameError(Exception):
    """A frame from the TAP that is not one."""


class DatagramError(Exception):
    """Bytes from the underlay, or a record inside them, that are not what they claim to be."""
