"""The run directory of a node: who holds it, and the files in it.

    DIR/lock          locked (F_OFD_SETLK, fcntl(2)) by the running node, free when the process is gone; in it the pid, then
                      the directories that were made for it, one a line, so that whoever comes after SIGKILL removes them
    DIR/control.sock  the control socket, 0660
    DIR/state.json    what was changed on the host and how to undo it; written before the first change
    DIR/stamp         the highest INIT stamp that can have been used

Another user may own the directory, or have put links there: such a directory is refused, and so is each file that another
user can change (`files.open_own`).

A segment has one node per network namespace, whatever its run directory: that is an abstract Unix socket, whose names
belong to the network namespace and vanish with their process.
"""

import contextlib
import errno
import fcntl
import grp
import json
import os
import socket
import stat
import struct
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from l2overlay.errors import HostPermissionError, HostSetupError
from l2overlay.files import open_own, read_own, replace_own, require_own_directory

RUN_ROOT = Path("/run/l2overlay")
LASTING_ROOT = Path("/var/lib/l2overlay")
"""What is to be there after a reboot; /run is not."""
NOTE_INTERVAL = 60.0
"""Seconds between two complaints about a run directory that cannot be written."""
MAX_STAMP = 1 << 62
"""The year 148 000; a file that says more is damaged, and a stamp has 64 bits on the wire."""
MAX_STATE_SIZE = 1 << 20
"""Bytes read of state.json; some thousands are written."""
MAX_LINES_SIZE = 65_536
"""Bytes read of the lock and the stamp."""
_UCRED = struct.Struct("3i")
_FLOCK = struct.Struct("hhqqi4x")  # struct flock with 64-bit offsets: type, whence, start, len, pid


@dataclass(frozen=True, slots=True)
class RunDir:
    """Where the files of one node are."""

    path: Path

    @property
    def lock(self) -> Path:
        return self.path / "lock"

    @property
    def socket(self) -> Path:
        return self.path / "control.sock"

    @property
    def state(self) -> Path:
        return self.path / "state.json"

    @property
    def stamp(self) -> Path:
        return self.path / "stamp"

    def read_state(self) -> dict[str, Any] | None:
        """What an earlier node of this directory noted before it changed the host; None when there is nothing usable."""
        try:
            return self.load_state()
        except HostSetupError:
            return None

    def load_state(self) -> dict[str, Any] | None:
        """The same; None when there is no note. Raises HostSetupError for one that we would not have written."""
        try:
            state = json.loads(read_own(self.state, MAX_STATE_SIZE))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise HostSetupError(f"{self.state} is not used: {error.strerror}") from None
        except (ValueError, RecursionError) as error:
            raise HostSetupError(f"{self.state} is not used: not our JSON ({error})") from None
        if not isinstance(state, dict):
            raise HostSetupError(f"{self.state} is not used: not our JSON (no object)")
        return state

    def require_own(self) -> None:
        """Raises HostSetupError when the directory exists and another user can change what is in it."""
        with contextlib.suppress(FileNotFoundError):
            require_own_directory(self.path)

    def write_state(self, state: dict[str, Any]) -> None:
        """Replace the note in one step, so that a killed node leaves the old one or the new one. Raises OSError."""
        replace_own(self.state, json.dumps(state, indent=1).encode() + b"\n")

    def holder(self) -> int | None:
        """The pid of the node that runs here, or None. Needs to read the lock only, so every user may ask; raises
        HostPermissionError where the directory is closed."""
        try:
            fd = os.open(self.lock, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
        except PermissionError:
            raise closed_to_this_user(self.path, self.lock) from None
        except OSError:
            return None
        try:
            return _pid_in(fd) if _is_locked(fd) else None
        finally:
            os.close(fd)

    def remove_files(self) -> None:
        """After a killed node; the directories too that it made, when nothing else is in them."""
        made = self.made_directories()
        for path in (self.socket, self.state, self.stamp, self.lock):
            with contextlib.suppress(OSError):
                path.unlink()
        _remove_directories(made)

    def made_directories(self) -> list[Path]:
        """What the last node of this directory made to have it, innermost first."""
        try:
            noted = {Path(line) for line in read_own(self.lock, MAX_LINES_SIZE).decode().splitlines()[1:]}
        except (OSError, ValueError):
            return []
        return [path for path in (self.path, *self.path.parents) if path in noted]

    def wait_released(self, timeout: float) -> bool:
        """Wait for the node that runs here to end."""
        deadline = time.monotonic() + timeout
        while self.holder() is not None:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.01)
        return True


def default_run_dir(segment: str) -> RunDir:
    """Where the node of `segment` lives unless it was told otherwise."""
    return RunDir(RUN_ROOT / segment)


class Hold:
    """A run directory and a segment that are ours until `release`."""

    def __init__(self, run_dir: RunDir, segment: str) -> None:
        """Raises HostSetupError when another node holds either, HostPermissionError when the directory is closed to us."""
        self.run_dir = run_dir
        self._made = _make_directories(run_dir.path)
        self._lock = -1
        self._claim: socket.socket | None = None
        try:
            run_dir.require_own()
            self._lock = _lock_or_explain(run_dir)
            self._made = list(dict.fromkeys([*self._made, *run_dir.made_directories()]))
            self._write_lock()
            self._claim = _claim_segment(segment)
        except BaseException:
            self._let_go()
            raise

    def release(self, *, keep_stamp: bool = False, keep_state: bool = False) -> None:
        """Remove our files and the directories that we made, then let the next one in."""
        run_dir = self.run_dir
        gone = [run_dir.socket] + [run_dir.stamp] * (not keep_stamp) + [run_dir.state] * (not keep_state)
        for path in gone:
            with contextlib.suppress(OSError):
                path.unlink()
        self._let_go()

    def _write_lock(self) -> None:
        with contextlib.suppress(OSError):  # a full disk: the lock holds without what is in it
            os.ftruncate(self._lock, 0)
            os.pwrite(self._lock, "\n".join(map(str, [os.getpid(), *self._made, ""])).encode(), 0)

    def _let_go(self) -> None:
        if self._claim is not None:
            self._claim.close()
            self._claim = None
        if self._lock >= 0:
            with contextlib.suppress(OSError):
                self.run_dir.lock.unlink()
            os.close(self._lock)
            self._lock = -1
        _remove_directories(self._made)


class StampFile:
    """The highest INIT stamp that a run can have used, kept so that a clock that is set back locks nobody out.

    A line `STAMP BOOT_TIME BOOT_ID`. Stamps follow the clock, in microseconds, and never run faster: within the same boot
    the line stays good for ever, because the time that has passed since it was written is known. After another boot it
    is good for `AHEAD` seconds, so it is written about once a minute, and not with each INIT. A file that cannot be written
    (full disk, read-only) costs just this protection.
    """

    INTERVAL = 60.0
    """Seconds between two notes."""
    AHEAD = 120.0
    """Seconds that a node can have gone on after its last note."""

    def __init__(self, path: Path, boot_id: str, lasting: Path | None = None) -> None:
        """`lasting` is a second copy, on a file system that outlives the boot: each note of it is on the disk at once."""
        self._path = path
        self._lasting = lasting
        self._boot_id = boot_id
        self._complaint_time = -NOTE_INTERVAL

    def read(self, now: float) -> int:
        """The highest stamp that an earlier run can have used up to `now` (seconds since boot); 0 when unknown."""
        return max(self._read(path, now) for path in (self._path, self._lasting) if path is not None)

    def _read(self, path: Path, now: float) -> int:
        try:
            stamp, noted_time, boot_id = read_own(path, MAX_LINES_SIZE).decode().split()
            passed = now - float(noted_time) if boot_id == self._boot_id else self.AHEAD
            highest = int(stamp) + int(max(0.0, passed) * 1e6)
        except (OSError, ValueError, OverflowError):
            return 0
        return highest if 0 <= highest < MAX_STAMP else 0

    def note(self, stamp: int, now: float) -> str | None:
        """Write that `stamp` has been reached; a line for the log, once a minute at most, when that fails.

        Waits for the disk when there is a lasting copy: call it in a thread.
        """
        data = f"{stamp} {now:.6f} {self._boot_id}\n".encode()
        failed = ""
        for path in (self._path, self._lasting):
            try:
                if path is not None:
                    self._write(path, data)
            except OSError as error:
                failed = f"{path} cannot be written ({error.strerror}); going on without it"
        if not failed or now - self._complaint_time < NOTE_INTERVAL:
            return None
        self._complaint_time = now
        return failed

    def _write(self, path: Path, data: bytes) -> None:
        if path == self._lasting:
            path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        replace_own(path, data, on_disk=path == self._lasting)


def boot_id() -> str:
    """This boot's name."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def closed_to_this_user(path: Path, asked: Path, otherwise: str = "") -> HostPermissionError:
    """The error for a user who may not open `asked`. It names the group whose members may; `otherwise` stands there if
    that group is root's."""
    with contextlib.suppress(OSError):
        entry = asked.stat()
        if entry.st_gid and entry.st_mode & stat.S_IRGRP:
            otherwise = f", or as a member of the group {_group_name(entry.st_gid)}"
    return HostPermissionError(f"{path} is closed to this user: run the command with sudo{otherwise}")


def _group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def running_segments(root: Path = RUN_ROOT) -> Iterator[tuple[str, RunDir]]:
    """The nodes that run in the default place. Raises HostPermissionError where it is closed to this user."""
    try:
        found = sorted(path for path in root.iterdir() if path.is_dir())
    except PermissionError:
        raise HostPermissionError(f"{root} is closed to this user: run the command with sudo") from None
    except OSError:
        return
    for path in found:
        if RunDir(path).holder() is not None:
            yield path.name, RunDir(path)


def _make_directories(path: Path) -> list[Path]:
    """Make what is missing; returns what was made, innermost first."""
    missing = [p for p in (path, *path.parents) if not p.exists()]
    made: list[Path] = []
    try:
        for directory in reversed(missing):
            directory.mkdir(mode=0o755)
            made.insert(0, directory)
    except FileExistsError:
        pass  # another node was faster; the lock decides
    except PermissionError:
        raise HostPermissionError(
            f"cannot create {path}: run as root, or give a --run-dir of your own"
        ) from None
    except OSError as error:
        raise HostSetupError(
            f"cannot create {path} ({error.strerror}); give another place with --run-dir"
        ) from None
    return made


def _remove_directories(innermost_first: Iterable[Path]) -> None:
    for path in innermost_first:
        with contextlib.suppress(OSError):
            path.rmdir()


def _lock_or_explain(run_dir: RunDir) -> int:
    while True:
        try:
            fd = open_own(run_dir.lock, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise _lock_refused(run_dir, error) from None
        try:
            fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
        except BlockingIOError:
            pid = _pid_in(fd)
            os.close(fd)
            raise HostSetupError(
                f"{run_dir.path} is held by the node with pid {pid or '?'}; stop it (l2overlay leave), "
                "or give another --run-dir"
            ) from None
        if _still_linked(run_dir.lock, fd):
            break
        os.close(fd)  # its last holder removed it between our open and our lock
    return fd


def _lock_refused(run_dir: RunDir, error: OSError) -> HostSetupError:
    if error.errno == errno.ELOOP or error.errno == errno.EPERM:
        return HostSetupError(
            f"{run_dir.lock} is a link, or a file that another user can change: look at it and remove it, "
            "or give another --run-dir"
        )
    if isinstance(error, PermissionError):
        return HostPermissionError(
            f"cannot write in {run_dir.path}: run as root, or give a --run-dir of your own"
        )
    return HostSetupError(f"cannot write in {run_dir.path} ({error.strerror})")


def _is_locked(fd: int) -> bool:
    """Look without taking the lock even for a moment: a node that starts just now would be refused."""
    found = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
    kind: int = _FLOCK.unpack(found)[0]
    return kind != fcntl.F_UNLCK


def _still_linked(path: Path, fd: int) -> bool:
    try:
        return os.path.samestat(path.lstat(), os.fstat(fd))
    except FileNotFoundError:
        return False


def _pid_in(fd: int) -> int:
    try:
        return int(os.pread(fd, 4096, 0).split(b"\n")[0])
    except (OSError, ValueError):
        return 0


def _claim_segment(segment: str) -> socket.socket:
    """Bind the abstract name of the segment in this network namespace. Raises HostSetupError with the other's pid."""
    name = f"\0l2overlay/{segment}"
    claim = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        claim.bind(name)
        claim.listen(1)
    except OSError as error:
        claim.close()
        if error.errno != errno.EADDRINUSE:
            raise
        raise HostSetupError(
            f"segment {segment} runs already in this network namespace (pid {_pid_behind(name) or '?'}); "
            "stop that node first (l2overlay leave)"
        ) from None
    return claim


def segment_holder(segment: str) -> int:
    """The pid of the node that runs the segment in this network namespace, whatever its run directory; 0 for none."""
    return _pid_behind(f"\0l2overlay/{segment}")


def _pid_behind(name: str) -> int:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(0.2)
        try:
            probe.connect(name)
            credentials = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
        except OSError:
            return 0
    pid: int = _UCRED.unpack(credentials)[0]
    return pid
