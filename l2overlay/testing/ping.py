"""Echo requests from a namespace, by ping(8), and what it counted."""

import re
import subprocess
from dataclasses import dataclass

from l2overlay.testing.namespace import LabError, Namespace


@dataclass(frozen=True, slots=True)
class PingResult:
    """The counts of one `ping`. Times are seconds, None if no answer came."""

    sent: int
    received: int
    duplicates: int
    rtt: float | None
    """The average."""
    rtt_max: float | None

    @property
    def lost(self) -> int:
        """Echo requests without an answer."""
        return self.sent - self.received


def ping(source: Namespace, address: str, count: int, interval: float, size: int, wait: float) -> PingResult:
    """Echo requests from `source`; `size` is the ICMP payload, `wait` the patience for the last answer."""
    argv = f"ping -n -q -c {count} -i {interval:g} -W {wait:g} -s {size}".split()
    timeout = count * (interval + wait) + 10.0
    return _ping_result(source.run([*argv, address], check=False, timeout=timeout))


def _ping_result(done: subprocess.CompletedProcess[str]) -> PingResult:
    counts = re.search(r"(\d+) packets transmitted, (\d+) received", done.stdout)
    if not counts:
        raise LabError(f"ping said: {(done.stderr or done.stdout).strip()}")
    duplicates = re.search(r"\+(\d+) duplicates", done.stdout)
    times = re.search(r"= [\d.]+/([\d.]+)/([\d.]+)/", done.stdout)
    return PingResult(
        sent=int(counts[1]),
        received=int(counts[2]),
        duplicates=int(duplicates[1]) if duplicates else 0,
        rtt=float(times[1]) / 1000 if times else None,
        rtt_max=float(times[2]) / 1000 if times else None,
    )
