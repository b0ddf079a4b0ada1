"""One network namespace, and the processes that were started in it.

This module uses `ip` (iproute2) for everything: `ip netns exec` runs a program inside, and `ip -n NAME -batch -` sets up
links in one call. Python 3.11 has no os.setns, and `ip netns exec` also gives the program its own /sys.
"""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from l2overlay.errors import L2OverlayError

DEFAULT_TIMEOUT = 30.0
STOP_TIMEOUT = 3.0
"""Seconds between SIGTERM and SIGKILL. A node ends within 2 s."""


class LabError(L2OverlayError):
    """A command of the lab failed, or a program in it was not ready in time."""


def run_command(
    argv: Sequence[str], *, check: bool = True, timeout: float = DEFAULT_TIMEOUT, stdin: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end. With `check`, raise LabError with its output if it fails."""
    try:
        done = subprocess.run(
            argv, input=stdin, capture_output=True, text=True, errors="replace", timeout=timeout, check=False
        )
    except FileNotFoundError:
        raise LabError(f"{argv[0]} is not installed") from None
    except subprocess.TimeoutExpired:
        raise LabError(f"`{' '.join(argv)}` did not end within {timeout:g} s") from None
    if check and done.returncode:
        raise LabError(
            f"`{' '.join(argv)}` ended with {done.returncode}: {(done.stderr or done.stdout).strip()}"
        )
    return done


def root_is_mount_point() -> bool:
    """Whether `ip netns exec` can make the mounts below `/` private (mount --make-rslave /). In a bare chroot it cannot."""
    try:
        mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return True  # without /proc, something else fails first, with a clear message
    return any(mount.split()[4] == "/" for mount in mounts)


def existing_namespaces() -> list[str]:
    """The names of all namespaces that `ip netns` knows on this machine."""
    return [line.split()[0] for line in run_command(["ip", "netns", "list"]).stdout.splitlines() if line]


def start_time_of(pid: int) -> int | None:
    """When the process started, in ticks since boot (proc(5)). A pid with its start time identifies one process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])


def signal_group(process: subprocess.Popen[str], number: signal.Signals) -> None:
    """Signal a process that leads its own group, and its children in that group."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)


def stop_processes(processes: Sequence[subprocess.Popen[str]], timeout: float = STOP_TIMEOUT) -> None:
    """Send SIGTERM to all, then SIGKILL to those that still run after `timeout`. Waits for all of them."""
    for process in processes:
        signal_group(process, signal.SIGTERM)
    deadline = time.monotonic() + timeout
    for process in processes:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(max(0.0, deadline - time.monotonic()))
    for process in processes:
        signal_group(process, signal.SIGKILL)
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                stream.close()


def end_known_processes(known: Sequence[tuple[int, int | None]], timeout: float = STOP_TIMEOUT) -> None:
    """End processes that are not our children by SIGTERM, later SIGKILL. Spares a pid whose start time has changed."""
    alive = list(known)
    for number in (signal.SIGTERM, signal.SIGKILL):
        alive = [
            (pid, started) for pid, started in alive if started is not None and start_time_of(pid) == started
        ]
        for pid, _ in alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        deadline = time.monotonic() + timeout
        while any(start_time_of(pid) == started for pid, started in alive) and time.monotonic() < deadline:
            time.sleep(0.01)


class Namespace:
    """A network namespace. It exists from `create` to `delete`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._processes: list[subprocess.Popen[str]] = []

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"

    def create(self) -> None:
        """Make the namespace, and prepare it."""
        run_command(["ip", "netns", "add", self.name])
        self.prepare()

    def prepare(self) -> None:
        """Set loopback up, and turn off duplicate address detection, which makes an IPv6 address wait for a second."""
        self.ip("link set lo up")
        self.run(
            ["sh", "-c", "for d in all default; do echo 0 > /proc/sys/net/ipv6/conf/$d/accept_dad; done"]
        )

    def argv(self, argv: Sequence[str]) -> list[str]:
        """The command line that runs `argv` in the namespace."""
        return ["ip", "netns", "exec", self.name, *argv]

    def run(
        self,
        argv: Sequence[str],
        check: bool = True,
        timeout: float = DEFAULT_TIMEOUT,
        stdin: str | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a program in the namespace to its end. Its output is text."""
        return run_command(self.argv(argv), check=check, timeout=timeout, stdin=stdin)

    def popen(
        self,
        argv: Sequence[str],
        *,
        stdin: int | IO[bytes] | None = subprocess.DEVNULL,
        stdout: int | IO[bytes] | None = subprocess.PIPE,
        stderr: int | IO[bytes] | None = subprocess.STDOUT,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.Popen[str]:
        """Start a program in the namespace, as leader of its own process group. `delete` ends it if it still runs."""
        process = subprocess.Popen(
            self.argv(argv),
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            env=env,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        self._processes.append(process)
        return process

    def ip(self, *lines: str) -> None:
        """Run `ip` commands in the namespace, all in one call: `ns.ip("link set lo up", "link del a")`."""
        run_command(["ip", "-n", self.name, "-batch", "-"], stdin="\n".join(lines) + "\n")

    def processes(self) -> list[subprocess.Popen[str]]:
        """The processes that `popen` started and that still run."""
        return [p for p in self._processes if p.poll() is None]

    def pids(self) -> list[int]:
        """All processes in the namespace, whoever started them."""
        return [int(pid) for pid in run_command(["ip", "netns", "pids", self.name]).stdout.split()]

    def stop_processes(self, timeout: float = STOP_TIMEOUT) -> None:
        """End the processes that `popen` started, by pid, and no others."""
        processes, self._processes = self._processes, []
        stop_processes(processes, timeout)

    def exists(self) -> bool:
        """Whether `ip netns` knows the name."""
        return Path("/run/netns", self.name).exists()

    def delete(self) -> None:
        """Stop our processes, and remove the namespace with its links. Does nothing if the namespace no longer exists."""
        self.stop_processes()
        if self.exists():
            run_command(["ip", "netns", "del", self.name])
