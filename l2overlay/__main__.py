"""`l2overlay` and `python -m l2overlay`: the way into the command line, safe to interrupt from its first moment.

Python's own answer to SIGINT is an exception wherever the program just is, and while the command line is still being
loaded there is nobody to catch it. Until then the kernel's answer holds: the process ends, in silence.
"""

import signal
import sys


def run() -> int:
    """Load the command line and run it; the exit code."""
    interruptible = (
        signal.getsignal(signal.SIGINT) is signal.default_int_handler
    )  # a shell's `&` makes it ignored
    if interruptible:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from l2overlay.cli.main import main

    return main(interruptible=interruptible)


if __name__ == "__main__":
    sys.exit(run())
