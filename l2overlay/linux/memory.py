"""What the C library does with memory that is given back (mallopt(3)).

Each batch of the path takes some megabytes and gives them back. glibc returns what is free at the top of the heap to the
kernel as soon as that is 128 KiB, so the next batch gets fresh pages: a page fault and 4 KiB of zeros each. At 3 Gbit/s of
TCP (`perf stat -e page-faults` on both nodes, 3 s) the sending node had 35 000 to 96 000 faults and the receiving one 35 000
to 63 000; when 16 MiB may stay, 5 000 and 4.
"""

import ctypes

KEPT = 16 << 20
"""Bytes that stay with the process when they are free. Only what was used once is resident."""
_M_TRIM_THRESHOLD = -1  # <malloc.h>


def keep_freed_memory() -> bool:
    """Let up to `KEPT` free bytes stay. Says whether the C library can be told (glibc can, musl has its own way)."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(_M_TRIM_THRESHOLD, KEPT))
