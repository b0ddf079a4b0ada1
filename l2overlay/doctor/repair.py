"""`--fix`: runs the commands of safe findings, one by one, and says how each ended."""

import subprocess
from collections.abc import Iterable
from dataclasses import dataclass

from l2overlay.doctor.finding import Command, Finding, command_line

TIMEOUT = 20.0


@dataclass(frozen=True, slots=True)
class Repair:
    """A command that was run."""

    command: Command
    undo: tuple[Command, ...]
    """What undoes the fix of the finding."""
    failure: str = ""
    """What it said; empty if it succeeded."""


def repair(findings: Iterable[Finding]) -> list[Repair]:
    """Run what is safe. A command runs only once, and a finding stops at its first command that fails."""
    done: dict[Command, Repair] = {}
    for finding in findings:
        for command in finding.fix if finding.is_safe else ():
            if command not in done:
                done[command] = Repair(command, finding.undo, _run(command))
            if done[command].failure:
                break
    return list(done.values())


def _run(command: Command) -> str:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=TIMEOUT, check=False
        )
    except FileNotFoundError:
        return f"{command[0]} is not installed"
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{command_line(command)}: {error}"
    said = " ".join((done.stderr or done.stdout).split())
    return (said or f"exit code {done.returncode}") if done.returncode else ""
