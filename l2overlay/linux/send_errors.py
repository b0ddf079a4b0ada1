"""What an errno of the UDP socket means: a drop reason, another try, or news about an earlier datagram."""

import errno

from l2overlay.counters import DropReason

SEND_ERRORS = {
    errno.EPERM: DropReason.SEND_REFUSED,
    errno.EACCES: DropReason.SEND_REFUSED,
    errno.ENETUNREACH: DropReason.SEND_UNREACHABLE,
    errno.EHOSTUNREACH: DropReason.SEND_UNREACHABLE,
    errno.EADDRNOTAVAIL: DropReason.SEND_UNREACHABLE,
    errno.ENETDOWN: DropReason.SEND_UNREACHABLE,
    errno.EAFNOSUPPORT: DropReason.SEND_UNREACHABLE,
    errno.ENODEV: DropReason.SEND_UNREACHABLE,
    errno.ENXIO: DropReason.SEND_UNREACHABLE,
    errno.ELOOP: DropReason.SEND_LOOP,
    errno.EMSGSIZE: DropReason.SEND_TOO_LONG,
    errno.ENOBUFS: DropReason.SEND_NO_BUFFER,
    errno.ENOMEM: DropReason.SEND_NO_BUFFER,
}
"""Why a datagram did not leave. Any other errno is SEND_FAILED."""
GSO_ERRORS = (errno.EIO, errno.EINVAL, errno.ENOPROTOOPT, errno.EOPNOTSUPP)
"""What a send says when the kernel or the link cannot cut bursts. EINVAL has other causes too: `LinuxUdp._send_parts`."""
SOURCE_ERRORS = (errno.EINVAL, errno.EADDRNOTAVAIL, errno.ENETUNREACH, errno.EHOSTUNREACH)
"""What a send says when it was to leave from a local address that is not ours any more. All have other causes too."""
BURST_ERRORS = (*GSO_ERRORS, errno.EMSGSIZE)
"""What a send says of a burst whose datagrams may still go another way."""
ICMP_ERRORS = frozenset(
    (
        errno.ECONNREFUSED,
        errno.EHOSTUNREACH,
        errno.ENETUNREACH,
        errno.EHOSTDOWN,
        errno.ENETDOWN,
        errno.ENONET,
        errno.ENOPROTOOPT,
        errno.EOPNOTSUPP,
        errno.EPROTO,
        errno.EMSGSIZE,
        errno.EACCES,
        errno.ECONNRESET,
    )
)
"""ICMP errors about an earlier send, which the next receive tells (ip(7)). They say nothing of what waits there."""


def count_refused(refused: dict[DropReason, int], code: int | None, count: int) -> None:
    """Count datagrams that did not leave under the reason that this errno means."""
    reason = SEND_ERRORS.get(code or 0, DropReason.SEND_FAILED)
    refused[reason] = refused.get(reason, 0) + count
