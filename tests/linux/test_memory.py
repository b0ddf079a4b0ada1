"""Freed memory stays: in processes of their own, because the C library cannot be told otherwise again."""

import ctypes
import subprocess
import sys

import pytest

BATCHES = """
import resource, sys
from l2overlay.linux.memory import keep_freed_memory
if sys.argv[1] == "kept" and not keep_freed_memory():
    sys.exit("not told")
def batch():
    for _ in range(20):
        buffers = [bytes(60_000) for _ in range(64)]
        del buffers
batch()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
batch()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(how: str) -> int:
    done = subprocess.run([sys.executable, "-c", BATCHES, how], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="a C library without mallopt")
def test_batches_after_the_first_take_no_new_pages() -> None:
    """64 x 60 000 bytes, 20 times: 18 000 pages, of which the kernel gets most back and gives them again."""
    kept, plain = page_faults("kept"), page_faults("plain")
    print(f"page faults: {plain}, kept {kept}")
    assert kept < 500
    assert kept < plain / 10
