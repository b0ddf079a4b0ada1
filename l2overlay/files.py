"""Small regular files: read up to a limit, written whole or not at all.

A node runs as root, and another user may own the directory that it was given, or have put a link there. So the node opens
its own files without following links, and trusts only files of root or of its own user (`open_own`).
"""

import contextlib
import errno
import os
import stat
import tempfile
from pathlib import Path

from l2overlay.errors import HostPermissionError, HostSetupError, UsageError


def read_regular(path: Path, limit: int) -> tuple[bytes, os.stat_result]:
    """The first `limit` bytes of a regular file, and its status. Raises OSError, also if it is not a regular file."""
    if "\0" in str(path):
        raise OSError(errno.EINVAL, "a NUL in its name", str(path))
    # without O_NONBLOCK, a FIFO would block until it has a writer
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(errno.EISDIR, "is a directory", str(path))
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read(limit), status
    finally:
        os.close(descriptor)


def is_own(status: os.stat_result) -> bool:
    """Whether only root and this user can change the file with this status."""
    return status.st_uid in (0, os.geteuid()) and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def require_own_directory(path: Path) -> None:
    """Raise HostSetupError if another user can create or replace files in this directory."""
    named, status = path.lstat(), path.stat()
    if named.st_uid not in (0, os.geteuid()) or status.st_uid not in (0, os.geteuid()):
        owner = status.st_uid if stat.S_ISDIR(named.st_mode) else named.st_uid
        raise HostSetupError(
            f"{path} belongs to the user with uid {owner}, who could replace what is in it; chown root {path}, "
            "or give another --run-dir"
        )
    if not is_own(status) and not status.st_mode & stat.S_ISVTX:
        raise HostSetupError(
            f"{path}: others may write here (mode {stat.S_IMODE(status.st_mode):04o}); run: chmod go-w {path}"
        )


def open_own(path: Path, flags: int, mode: int = 0o600) -> int:
    """Open a regular file of our own. Raises OSError, also for a link, with EPERM if others can change the file.

    Also refuses a file with a second name (hard link), because that may be any file of the host.
    """
    descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, mode)
    status = os.fstat(descriptor)
    if stat.S_ISREG(status.st_mode) and is_own(status) and status.st_nlink <= 1:
        return descriptor
    os.close(descriptor)
    raise OSError(errno.EPERM, "it is not a file that only this user can change", str(path))


def read_own(path: Path, limit: int) -> bytes:
    """The first `limit` bytes of a file of our own. Raises OSError like `open_own`."""
    with os.fdopen(open_own(path, os.O_RDONLY), "rb") as file:
        return file.read(limit)


def replace_own(path: Path, data: bytes, *, on_disk: bool = False) -> None:
    """Write all of `data` to `path` atomically, with mode 0600. Replaces a link instead of following it. Raises OSError."""
    scratch = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        with contextlib.suppress(FileNotFoundError):
            scratch.unlink()  # left by a killed process with our pid, or planted by another user
        descriptor = open_own(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        try:
            if os.write(descriptor, data) != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(scratch))
            if on_disk:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
        scratch.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            scratch.unlink()
        raise


def make_directory(path: Path) -> None:
    """Make the directory `path` and its missing parents. Raises HostPermissionError or HostSetupError."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except PermissionError:
        raise HostPermissionError(f"{path}: this user may not make it; run the command with sudo") from None
    except OSError as error:
        raise HostSetupError(f"{path}: cannot be made: {error.strerror}") from None


def write_new(path: Path, text: str, mode: int) -> None:
    """Create `path` with all of `text`, or not at all. Raises UsageError if it exists, otherwise HostSetupError."""
    try:
        temporary = _write_beside(path, text.encode(), mode, owner=None)
        try:
            os.link(temporary, path)  # unlike rename, this fails if the name is taken
        finally:
            temporary.unlink()
    except FileExistsError:
        raise UsageError(f"{path} exists already and is never overwritten; move it away first") from None
    except OSError as error:
        raise _refused(path, error) from None


def replace(path: Path, content: bytes) -> None:
    """Replace the content of a file atomically. Keeps its mode, owner, and symbolic links to it. Raises HostSetupError."""
    target = path.resolve()
    try:
        status = target.stat()
        temporary = _write_beside(target, content, status.st_mode, owner=(status.st_uid, status.st_gid))
        temporary.replace(target)
    except OSError as error:
        raise _refused(path, error) from None


def _write_beside(path: Path, content: bytes, mode: int, owner: tuple[int, int] | None) -> Path:
    """Write a temporary file in the same directory, because rename and link are atomic only there."""
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
