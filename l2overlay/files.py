"""Small regular files: read with a bound, written whole or not at all."""

import errno
import os
import stat
import tempfile
from pathlib import Path

from l2overlay.errors import HostPermissionError, HostSetupError, UsageError


def read_regular(path: Path, limit: int) -> tuple[bytes, int]:
    """The first `limit` bytes of a regular file, and its mode. Raises OSError, also for what is no regular file."""
    if "\0" in str(path):
        raise OSError(errno.EINVAL, "a NUL in its name", str(path))
    # O_NONBLOCK, or a FIFO would make us wait for its writer
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, "is a directory", str(path))
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read(limit), stat.S_IMODE(mode)
    finally:
        os.close(descriptor)


def make_directory(path: Path) -> None:
    """Make `path` and what is missing above it. Raises HostPermissionError or HostSetupError."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except PermissionError:
        raise HostPermissionError(f"{path}: this user may not make it; run the command with sudo") from None
    except OSError as error:
        raise HostSetupError(f"{path}: cannot be made: {error.strerror}") from None


def write_new(path: Path, text: str, mode: int) -> None:
    """Create `path` with all of `text`, or not at all. Raises UsageError if it exists, else HostSetupError."""
    try:
        temporary = _write_beside(path, text.encode(), mode, owner=None)
        try:
            os.link(temporary, path)  # unlike rename it fails when the name is taken
        finally:
            temporary.unlink()
    except FileExistsError:
        raise UsageError(f"{path} exists already and is never overwritten; move it away first") from None
    except OSError as error:
        raise _refused(path, error) from None


def replace(path: Path, content: bytes) -> None:
    """Atomically, keeping mode, owner and a symbolic link that leads there. Raises HostSetupError."""
    target = path.resolve()
    try:
        status = target.stat()
        temporary = _write_beside(target, content, status.st_mode, owner=(status.st_uid, status.st_gid))
        temporary.replace(target)
    except OSError as error:
        raise _refused(path, error) from None


def _write_beside(path: Path, content: bytes, mode: int, owner: tuple[int, int] | None) -> Path:
    """A complete temporary file in the same directory, which is where rename and link are atomic."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            if owner is not None and owner != (os.geteuid(), os.getegid()):
                os.fchown(descriptor, *owner)
            os.fchmod(descriptor, stat.S_IMODE(mode))
            os.fsync(descriptor)
    except BaseException:
        Path(name).unlink()
        raise
    return Path(name)


def _refused(path: Path, error: OSError) -> HostSetupError:
    if isinstance(error, PermissionError):
        return HostPermissionError(f"{path}: this user may not write here; run the command with sudo")
    return HostSetupError(f"{path}: cannot be written: {error.strerror}")
