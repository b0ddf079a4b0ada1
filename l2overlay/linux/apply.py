"""Makes host changes, and takes them back. Each `Change` applies itself; here is what a failure comes to."""

import contextlib
import errno
import os
from collections.abc import Sequence
from dataclasses import dataclass

from l2overlay.errors import HostPermissionError, HostSetupError
from l2overlay.linux.changes import Change, UsedBridge
from l2overlay.linux.observe import errno_of, netlink
from l2overlay.linux.privileges import remedy
from l2overlay.linux.undo import Undo

ALREADY_GONE = (errno.ENODEV, errno.ENOENT, errno.ESRCH, errno.EADDRNOTAVAIL)


@dataclass(frozen=True, slots=True)
class Undone:
    """What an undo came to."""

    lines: tuple[str, ...]
    """What was done, in words."""
    kept: tuple[UsedBridge, ...] = ()


def apply_changes(changes: Sequence[Change]) -> Undo:
    """Make the changes, in order, and return what takes them back. On a failure nothing stays: raises HostSetupError."""
    from pyroute2.netlink.exceptions import NetlinkError

    with netlink() as ipr:
        for position, change in enumerate(changes):
            try:
                change.apply(ipr)
            except (NetlinkError, OSError, HostSetupError) as error:
                failure = error if isinstance(error, HostSetupError) else _failure(change, error)
                with contextlib.suppress(HostSetupError):  # the first failure is the one to tell
                    undo(Undo.of(changes[: position + 1]))
                raise failure from None
    return Undo.of(changes)


def undo(steps: Undo, *, keep_used: bool = False) -> Undone:
    """Take our changes back; what is gone already is passed over. With `keep_used` a bridge that has ports stays.

    Every step is tried, whatever became of those before. Raises HostSetupError at the end when one could not be done.
    """
    from pyroute2.netlink.exceptions import NetlinkError

    lines, kept, failures = [], [], []
    with netlink() as ipr:
        for change in steps.changes:
            try:
                if keep_used and (used := change.kept_for(ipr)) is not None:
                    kept.append(used)
                    continue
                change.apply(ipr)
            except HostSetupError as error:
                failures.append(str(error))
            except (NetlinkError, OSError) as error:
                if errno_of(error) not in ALREADY_GONE:
                    failures.append(str(_failure(change, error)))
            else:
                lines.append(change.line)
    if failures:
        raise HostSetupError("; ".join(failures))
    return Undone(tuple(lines), tuple(kept))


def _failure(change: Change, error: Exception) -> HostSetupError:
    code = errno_of(error)
    if code in (errno.EPERM, errno.EACCES):
        said = os.strerror(code)
        return HostPermissionError(f"may not {change.line} ({said}); {remedy('CAP_NET_ADMIN')}")
    return HostSetupError(f"could not {change.line}: {os.strerror(code) if code else error}")
