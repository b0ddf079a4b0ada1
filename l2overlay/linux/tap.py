"""The TAP: a virtual Ethernet port of the kernel, as the `Attachment` seam.

Linux Documentation/networking/tuntap.rst; `struct virtio_net_hdr` is in the virtio specification 1.2, 5.1.6.
Every read and write carries one frame behind the 10-byte header, little-endian on every machine. With offload
the kernel hands over super-frames: TCP or UDP up to 64 KiB with checksum and segmentation still to do.

Order: open /dev/net/tun, TUNSETIFF (makes or joins the device), header length and byte order, offloads. Our
device is not persistent: it goes with the descriptor, whatever ends the process.
"""

import contextlib
import errno
import fcntl
import os
import struct
from collections.abc import Callable, Sequence
from typing import Self

from l2overlay.counters import DropReason
from l2overlay.errors import HostPermissionError, HostSetupError
from l2overlay.linux.privileges import has_capability, remedy
from l2overlay.seams import Gather, TapFrame

TUN_PATH = "/dev/net/tun"
NAME_MAX_LEN = 15
"""IFNAMSIZ less the terminating zero."""

# <linux/if_tun.h>; the numbers are those of _IOW('T', n, int) on every architecture but MIPS, PowerPC and SPARC.
TUNSETIFF = 0x400454CA
TUNSETOFFLOAD = 0x400454D0
TUNSETVNETHDRSZ = 0x400454D8
TUNSETVNETLE = 0x400454DC
IFF_TAP = 0x0002
IFF_NO_PI = 0x1000
IFF_VNET_HDR = 0x4000

VNET_HEADER_LEN = 10
OFFLOAD_BITS = {"csum": 0x01, "tso4": 0x02, "tso6": 0x04, "tso_ecn": 0x08, "uso4": 0x20, "uso6": 0x40}
OFFLOAD_CHOICES = (
    ("csum", "tso4", "tso6", "tso_ecn", "uso4", "uso6"),
    ("csum", "tso4", "tso6", "tso_ecn"),  # USO came with Linux 6.2
    ("csum", "tso4", "tso6"),
    ("csum",),
)
"""The sets that are tried, best first. The kernel takes a set as a whole or not at all."""

READ_SIZE = 65_600
"""The longest a TAP can give is 10 + 65 535 + a VLAN tag; below 128 KiB malloc serves it without mmap."""

FEW_PIECES = 5
"""A super-frame of so few pieces is gathered: its headers, and what three or four trains carried of it."""

_IFREQ = struct.Struct("16sH22x")
_DRAINED = (errno.EAGAIN, errno.EIO)  # EIO: the TAP is down, nothing waits there
_GONE = (errno.EBADFD, errno.EBADF, errno.ENODEV, errno.ENXIO)
_FULL = (errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM)


class LinuxTap:
    """A TAP that this process holds open; see `seams.Attachment` for the contract of the batches."""

    def __init__(self, fd: int, name: str, offloads: tuple[str, ...]) -> None:
        self._fd = fd
        self.name = name
        self.offloads = offloads
        """What the kernel leaves to us: keys of OFFLOAD_BITS. Empty without offload."""

    @classmethod
    def open(cls, name: str, *, offload: bool) -> Self:
        """Make the TAP, or take over a persistent one that nobody holds. Raises HostSetupError with the remedy."""
        if not 0 < len(name.encode()) <= NAME_MAX_LEN:
            raise HostSetupError(
                f"{name!r} cannot name a link: 1 to {NAME_MAX_LEN} bytes; set another tap in [segment]"
            )
        fd = open_tun_device()
        try:
            _attach(fd, name)
            return cls(fd, name, _set_offloads(fd, OFFLOAD_CHOICES if offload else ()))
        except BaseException:
            os.close(fd)
            raise

    def fileno(self) -> int:
        """For readiness; -1 once closed."""
        return self._fd

    def close(self) -> None:
        """Let the device go: the kernel takes it out of its bridge and removes it."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def receive_frames(self, limit: int) -> list[TapFrame]:
        """Return the frames that wait now, at most `limit`. None wait in a TAP that is down. Raises OSError if it is gone.

        os.read and no reused buffer, measured on a real TAP, microseconds a frame of 74 / 1524 / 64 064 bytes:
        os.read 0.90 / 0.95 / 5.1; readv into one bytearray and a slice of it 1.00 / 1.16 / 6.9; with bytes() of
        that 1.15 / 1.36 / 7.0. The copy that readv needs costs more than the malloc that it saves.
        """
        fd = self._fd
        read: Callable[[int, int], TapFrame] = os.read  # type: ignore[assignment]  # TapFrame(...) would be a call a frame
        frames: list[TapFrame] = []
        try:
            for _ in range(limit):
                frames.append(read(fd, READ_SIZE))
        except OSError as error:
            if error.errno not in _DRAINED and not frames:  # with frames in hand the next call meets it again
                raise
        return frames

    def deliver_frames(self, frames: Sequence[Gather]) -> dict[DropReason, int]:
        """Write every frame, in order. Returns what the kernel refused. Raises OSError if the device is gone.

        Many pieces are joined and few are gathered, measured on a real TAP, microseconds a super-frame in 1 + 44 / 1 + 3
        pieces: join and os.write 5.9 / 5.4, os.writev 6.7 / 4.1.
        """
        fd, write, writev = self._fd, os.write, os.writev
        refused: dict[DropReason, int] = {}
        for frame in frames:
            try:
                if len(frame) == 1:
                    write(fd, frame[0])
                elif len(frame) <= FEW_PIECES:
                    writev(fd, frame)
                else:
                    write(fd, b"".join(frame))
            except OSError as error:
                reason = _refusal(error)
                refused[reason] = refused.get(reason, 0) + 1
        return refused


def check_privileges() -> None:
    """Raise HostPermissionError with the command to run, unless this process can make TAPs and change links."""
    if not has_capability("CAP_NET_ADMIN"):
        advice = remedy("CAP_NET_ADMIN", "l2overlay join ...")
        raise HostPermissionError(f"a node needs CAP_NET_ADMIN; {advice}")
    os.close(open_tun_device())


def open_tun_device() -> int:
    """Open /dev/net/tun; the descriptor has no device yet. Raises HostSetupError or HostPermissionError with the remedy."""
    try:
        return os.open(TUN_PATH, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.EPERM, errno.EACCES):
            raise HostPermissionError(f"may not open {TUN_PATH}; {remedy('CAP_NET_ADMIN')}") from None
        if error.errno == errno.ENOENT:
            hint = f"mkdir -p /dev/net && mknod {TUN_PATH} c 10 200 && modprobe tun"
            raise HostPermissionError(f"{TUN_PATH} is missing; run as root: {hint}") from None
        if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
            raise HostSetupError(f"{TUN_PATH}: {error.strerror}") from None
        raise HostPermissionError(f"{TUN_PATH}: {error.strerror}; run as root: modprobe tun") from None


def _attach(fd: int, name: str) -> None:
    try:
        fcntl.ioctl(fd, TUNSETIFF, _IFREQ.pack(name.encode(), IFF_TAP | IFF_NO_PI | IFF_VNET_HDR))
    except OSError as error:
        raise _attach_error(name, error) from None
    fcntl.ioctl(fd, TUNSETVNETHDRSZ, struct.pack("i", VNET_HEADER_LEN))
    # A kernel for little-endian machines only may not know this one, and needs it as little.
    with contextlib.suppress(OSError):
        fcntl.ioctl(fd, TUNSETVNETLE, struct.pack("i", 1))


def _attach_error(name: str, error: OSError) -> HostSetupError:
    if error.errno in (errno.EPERM, errno.EACCES):
        return HostPermissionError(f"may not make the TAP {name}; {remedy('CAP_NET_ADMIN')}")
    if error.errno == errno.EBUSY:
        return HostSetupError(
            f"the TAP {name} is held by another process, perhaps a node of this segment; stop that one"
        )
    if error.errno == errno.EINVAL:
        return HostSetupError(f"a link {name} exists and is not a plain TAP; set another tap in [segment]")
    return HostSetupError(f"cannot make the TAP {name}: {error.strerror}")


def _set_offloads(fd: int, choices: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """Set the best set that the kernel takes. No offload is set explicitly too, because a persistent TAP remembers."""
    for offloads in (*choices, ()):
        with contextlib.suppress(OSError):
            fcntl.ioctl(fd, TUNSETOFFLOAD, sum(OFFLOAD_BITS[o] for o in offloads))
            return offloads
    return ()


def _refusal(error: OSError) -> DropReason:
    """Why the kernel did not take one frame. Raises the error again if the device is gone."""
    if error.errno in _GONE:
        raise error
    return DropReason.TAP_FULL if error.errno in _FULL else DropReason.TAP_REFUSED
