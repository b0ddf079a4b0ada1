"""`l2overlay` and `python -m l2overlay`: starts the command line. SIGINT is safe from the first moment.

Python answers SIGINT with an exception at the line that it executes. While the command line is being loaded, nothing
catches that exception. So until then SIGINT has its default effect: the process ends without output.
"""

import signal
import sys


def run() -> int:
    """Load and run the command line. Returns the exit code."""
    interruptible = (
        signal.getsignal(signal.SIGINT) is signal.default_int_handler
    )  # a shell ignores SIGINT for `command &`
    if interruptible:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from l2overlay.cli.main import main

    return main(interruptible=interruptible)


if __name__ == "__main__":
    sys.exit(run())
