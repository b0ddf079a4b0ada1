"""The node's claim to a processor (sched(7), "The nice value" and "The autogroup feature").

All that a host's guests send passes one thread. When it has the same share of a processor as each of the programs that send
and receive, it waits behind them, and the more of them there are, the longer: with 50 TCP flows 0.7 s of each second
(/proc/PID/schedstat). TCP then finds the path slow and sends small super-frames, which cost the node more for each byte: the
50 flows carried 0.1 Gbit/s, and with this share 1.5 (docs/performance.md, "Many flows"). A kernel's tunnel works in
interrupts, ahead of all processes.
"""

import contextlib
import os
from pathlib import Path

NICE = -20
"""Ahead of everything that is not real-time, but nothing starves: a nice value is a share, not an order."""
AUTOGROUP = Path("/proc/self/autogroup")


def claim_processor() -> bool:
    """Take the highest share that is not real-time, for this thread and those it starts. Returns False where we may not, and
    where somebody has chosen another one (`nice`, a service's `Nice=`).

    Where the kernel groups processes by session, the share is the session's, and a nice value counts inside it only. A
    session that we lead (a service) gets the share too; one that is somebody's shell stays as it is.
    """
    if os.getpriority(os.PRIO_PROCESS, 0):
        return False
    try:
        os.setpriority(os.PRIO_PROCESS, 0, NICE)
    except OSError:
        return False
    if os.getsid(0) == os.getpid():
        with contextlib.suppress(OSError):  # a kernel without autogroups, or a read-only /proc
            AUTOGROUP.write_text(str(NICE))
    return True
