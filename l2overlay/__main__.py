"""`python -m l2overlay`."""

import sys

from l2overlay.cli import main

if __name__ == "__main__":
    sys.exit(main())
