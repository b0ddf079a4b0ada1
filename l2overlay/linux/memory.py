"""How much freed memory the C library keeps (mallopt(3)).

Each batch of the path takes some megabytes and gives them back. glibc returns what is free at the top of the heap to the
kernel as soon as that is 128 KiB, so the next batch gets fresh pages: a page fault and 4 KiB of zeros each. At 3 Gbit/s of
TCP (`perf stat -e page-faults` on both nodes, 3 s) the sending node had 35 000 to 96 000 faults and the receiving one 35 000
to 63 000; when 16 MiB may stay, 5 000 and 4.
"""

import ctypes

KEPT = 16 << 20
"""Free bytes that the process keeps. Only what was used once is resident."""
_M_TRIM_THRESHOLD = -1  # <malloc.h>


def keep_freed_memory() -> bool:
    """Let the process keep up to `KEPT` free bytes. Returns False if the C library cannot (glibc can, musl cannot)."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(_M_TRIM_THRESHOLD, KEPT))
