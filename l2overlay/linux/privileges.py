"""Which capabilities (capabilities(7)) this process has, and what a person can do about a missing one.

EPERM and EACCES have three causes with three different remedies: an ordinary user, a root with fewer capabilities than
usual (a container, a service), and a kernel that refuses for another reason.
"""

import os
from pathlib import Path

CAPABILITIES = {"CAP_NET_BIND_SERVICE": 10, "CAP_NET_ADMIN": 12, "CAP_SYS_ADMIN": 21}
STATUS = Path("/proc/self/status")


def has_capability(name: str) -> bool:
    """Whether this process has it now."""
    lines = STATUS.read_text().splitlines()
    effective = next(line.split()[1] for line in lines if line.startswith("CapEff:"))
    return bool(int(effective, 16) >> CAPABILITIES[name] & 1)


def remedy(name: str, command: str = "l2overlay ...") -> str:
    """What to do about a refusal that may come from a missing capability, as the end of a sentence."""
    if has_capability(name):
        return (
            f"this process has {name}, so something else forbids it: a device that the container may not use, "
            "a read-only /proc/sys, a security module (its line is in the kernel's log)"
        )
    if os.geteuid() != 0:
        return f"run it as root: sudo {command}"
    return (
        f"root has no {name} here; a container gets it with --cap-add={name.removeprefix('CAP_')} "
        f"(and --device=/dev/net/tun), a systemd unit with CapabilityBoundingSet={name}"
    )
