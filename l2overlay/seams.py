"""The two seams: all that a node needs of the operating system to move frames.

Both move batches, because batches make it fast. Neither blocks: an empty list means that nothing waits, and the caller then
waits for `fileno()` to be ready. The real ones are `linux.tap.LinuxTap` and `linux.udp.LinuxUdp`. Tests replace these two by
fakes, and nothing else.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NewType, Protocol

from l2overlay.addresses import Address
from l2overlay.counters import DropReason

TapFrame = NewType("TapFrame", bytes)
"""A frame as the TAP gives it: a 10-byte little-endian `struct virtio_net_hdr` (all zeros if nothing was offloaded), then
the whole Ethernet frame without FCS."""

Pieces = tuple[bytes, *tuple[bytes | memoryview, ...]]
"""A `TapFrame` as consecutive pieces. The first piece holds at least all headers."""

Gather = Sequence[bytes | memoryview]
"""A `TapFrame` to be written, as consecutive pieces. One system call writes all of them."""


@dataclass(slots=True)
class Burst:
    """Datagrams to or from one address.

    The joined `buffers` hold datagrams of `datagram_size` bytes each; only the last may be shorter.
    """

    address: Address
    datagram_size: int
    buffers: Sequence[bytes | bytearray]

    def datagrams(self) -> list[bytes]:
        """The single datagrams, for fakes and for a kernel without UDP GSO."""
        data = b"".join(self.buffers)
        size = self.datagram_size
        return [data[i : i + size] for i in range(0, len(data), size)]


@dataclass(slots=True)
class MarkedBurst(Burst):
    """A burst whose outer IP headers have a TOS (IPv6: traffic class) byte of their own; that of all others is 0."""

    tos: int


MAX_BURST_DATAGRAMS = 64
"""UDP_MAX_SEGMENTS of every kernel that has UDP_SEGMENT. Newer kernels allow 128."""
MAX_BURST_LEN = 65_507
"""65 535 less the IPv4 and UDP headers. It limits a datagram, and also a burst, which the kernel treats as one datagram."""


def burst_limit(datagram_size: int) -> int:
    """How many datagrams of this size the kernel takes as one burst. The sender cuts longer bursts."""
    return min(MAX_BURST_DATAGRAMS, MAX_BURST_LEN // datagram_size)


class Attachment(Protocol):
    """The local port of the overlay, with the node's own stations behind it. Today this is one TAP.

    The overlay knows one local port. So whatever joins several sockets to it, such as a small learning hub, is an
    Attachment too: it forwards frames between its sockets itself, and its descriptor may be an epoll of them.
    """

    def receive_frames(self, limit: int) -> list[TapFrame]:
        """Return at most `limit` frames, fewer if no more wait. Raises OSError(EBADFD) if the device is gone."""

    def deliver_frames(self, frames: Sequence[Gather]) -> dict[DropReason, int]:
        """Write all frames in order. Returns how many the kernel refused, by reason. Raises only OSError(EBADFD)."""

    def fileno(self) -> int:
        """The descriptor to wait on."""


Doorman = Callable[[bytes, int, bytes, Callable[[], Address]], bool]
"""Takes the bytes of a burst, the length of a datagram, the source host as 16 bytes, and a function that returns the source
address. Returns False if the burst must be dropped; then the doorman has counted it."""


class Underlay(Protocol):
    """Carries datagrams to the peers. The real one is a UDP socket, but anything that takes bursts can be an Underlay."""

    gso: bool
    gro: bool
    """Whether the kernel takes (gso) and gives (gro) a whole burst in one call."""

    overflow_count: int
    """Datagrams, or bursts of them, that the socket had no room for before the last one that it received."""

    doorman: Doorman | None
    """Called for each burst from an address that the socket does not know."""

    def receive_bursts(self, limit: int) -> list[Burst]:
        """Return at most `limit` bursts, fewer if no more wait. Each has one entry in `buffers`.

        Ignores ICMP errors of earlier sends.
        """

    def receive_strangers(self, limit: int) -> tuple[list[Burst], int]:
        """The same for strangers' datagrams, which are kept apart during a flood.

        Also returns how many of them were lost since the last call.
        """

    def send_bursts(self, bursts: Sequence[Burst]) -> tuple[int, dict[DropReason, int]]:
        """Send bursts in order. Returns how many are done (sent or refused), and the refused datagrams by reason.

        If not all are done, the socket is full: wait until it is writable, and send the rest.
        """

    def copy_tos(self, *, on: bool) -> None:
        """Send each `MarkedBurst` with its mark, and receive marked bursts as `MarkedBurst`. Until then no mark is read."""

    def path_limit(self, address: Address) -> int:
        """The largest datagram (UDP payload, bytes) that the local interface towards `address` takes."""

    def forget_paths(self) -> None:
        """Forget the path limits, and ask the kernel again."""

    def forget_addresses(self) -> None:
        """Forget the addresses of this host, and ask the kernel again."""

    def shield(self, known: Iterable[Address] | None) -> bool:
        """Let the kernel keep apart datagrams from all addresses but these; None ends this.

        Returns whether the kernel does it.
        """

    def shut_hosts(self, hosts: frozenset[str]) -> None:
        """Send nothing to these hosts."""

    @property
    def port(self) -> int:
        """The port at which peers reach this socket."""

    def fileno(self) -> int:
        """The descriptor to wait on."""

    def close(self) -> None:
        """Close the descriptor."""
