"""A real node in a host of a lab: a process that is started, asked, measured and ended."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import l2overlay
from l2overlay.testing.machines import Host
from l2overlay.testing.namespace import LabError, signal_group

READY_TIMEOUT = 20.0
"""Seconds. A cold start compiles the package's bytecode first; a warm start should take at most 1.5 s."""
POLL_INTERVAL = 0.01


class NodeProcess:
    """A real `l2overlay join` in a host. Its output goes to a file, and errors show it."""

    def __init__(
        self, host: Host, peers_file: Path, key_file: Path, run_dir: Path, log: Path, *extra: str
    ) -> None:
        self.host = host
        self.run_dir = run_dir
        self.log = log
        self.started_time = time.monotonic()
        argv = [sys.executable, "-m", "l2overlay", "join", "--peers", str(peers_file), "--key", str(key_file)]
        with log.open("wb") as output:
            self.process = host.popen(
                [*argv, "--run-dir", str(run_dir), *extra], stdout=output, env=child_environment()
            )

    @property
    def pid(self) -> int:
        """The pid of the node itself, because `ip netns exec` becomes the program that it starts."""
        return self.process.pid

    def output(self) -> str:
        """What the node has printed so far."""
        return self.log.read_text(errors="replace")

    def ready_line(self) -> str | None:
        """The line that begins with READY, or None if it has not come yet."""
        return next((line for line in self.output().splitlines() if line.startswith("READY")), None)

    def wait_ready(self, timeout: float = READY_TIMEOUT) -> float:
        """Wait for READY, and return the seconds since the start. A LabError shows the node's output."""
        deadline = time.monotonic() + timeout
        while self.ready_line() is None:
            if self.process.poll() is not None:
                raise LabError(
                    f"the node of {self.host.label} ended with {self.process.returncode}:\n{self.output()}"
                )
            if time.monotonic() > deadline:
                raise LabError(
                    f"the node of {self.host.label} was not READY in {timeout:g} s:\n{self.output()}"
                )
            time.sleep(POLL_INTERVAL)
        return time.monotonic() - self.started_time

    def ask(self, verb: str, *extra: str, timeout: float = 10.0) -> Any:
        """Run `l2overlay VERB --json` for this node, and parse its output."""
        argv = [sys.executable, "-m", "l2overlay", verb, "--json", "--run-dir", str(self.run_dir), *extra]
        env = [f"{name}={value}" for name, value in child_environment().items() if name.startswith("PYTHON")]
        return json.loads(self.host.run(["env", *env, *argv], timeout=timeout).stdout)

    def terminate(self, timeout: float = 5.0) -> int:
        """Send SIGTERM, and return the exit code. If the node does not end, kill it and raise LabError."""
        signal_group(self.process, signal.SIGTERM)
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise LabError(
                f"the node of {self.host.label} did not end within {timeout:g} s:\n{self.output()}"
            ) from None

    def kill(self) -> None:
        """Send SIGKILL, and wait. The node leaves behind what a crash would leave."""
        signal_group(self.process, signal.SIGKILL)
        self.process.wait()

    def resident_memory(self) -> int:
        """Bytes of memory that the node holds now (VmRSS, proc(5))."""
        found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{self.pid}/status").read_text())
        return int(found[1]) * 1024 if found else 0

    def cpu_seconds(self) -> float:
        """Processor time that the node has used, user and system."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def child_environment() -> dict[str, str]:
    """Our environment, for a child that imports the same l2overlay and does not buffer its output."""
    package_parent = str(Path(l2overlay.__file__).parent.parent)
    path = os.pathsep.join(filter(None, [package_parent, os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}
