"""A folder for a target's files."""

import atexit
import shutil
import tempfile
from pathlib import Path


def scratch_folder() -> Path:
    """A new one, removed when the process ends."""
    folder = Path(tempfile.mkdtemp(prefix="l2overlay-fuzz-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
