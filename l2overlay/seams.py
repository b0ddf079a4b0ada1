"""The two seams: all that the node needs of the operating system to move frames.

Both move batches, because speed comes from batches. Neither blocks: an empty list says "drained", and the caller
then awaits readiness on `fileno()`. The real ones are `linux.tap.LinuxTap` and `linux.udp.LinuxUdp`; the simulator and the
tests put fakes here and nowhere else.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NewType, Protocol

from l2overlay.addresses import Address
from l2overlay.counters import DropReason

TapFrame = NewType("TapFrame", bytes)
"""A frame as the TAP gives it: a 10-byte little-endian `struct virtio_net_hdr` (all zero when nothing was offloaded),
then the whole Ethernet frame without FCS."""

Pieces = tuple[bytes, *tuple[bytes | memoryview, ...]]
"""A `TapFrame` in pieces that follow one another; the first holds at least all headers."""

Gather = Sequence[bytes | memoryview]
"""A `TapFrame` to be written, in pieces that follow one another; one write for all of them."""


@dataclass(slots=True)
class Burst:
    """Datagrams to or from one address.

    `buffers`, joined, hold datagrams of `datagram_size` bytes each; only the last may be shorter.
    """

    address: Address
    datagram_size: int
    buffers: Sequence[bytes | bytearray]

    def datagrams(self) -> list[bytes]:
        """The datagrams one by one: for fakes, and for a kernel without UDP GSO."""
        data = b"".join(self.buffers)
        size = self.datagram_size
        return [data[i : i + size] for i in range(0, len(data), size)]


MAX_BURST_DATAGRAMS = 64
"""UDP_MAX_SEGMENTS of every kernel that has UDP_SEGMENT; newer ones take 128."""
MAX_BURST_LEN = 65_507
"""65 535 less the IPv4 and UDP headers: of one datagram, and of a burst, which is one to the kernel."""


def burst_limit(datagram_size: int) -> int:
    """How many datagrams of this size the kernel takes as one burst. Longer ones are cut by whoever sends them."""
    return min(MAX_BURST_DATAGRAMS, MAX_BURST_LEN // datagram_size)


class Attachment(Protocol):
    """What this node's own stations are behind: one virtual Ethernet port today.

    The overlay knows one local port. So whatever joins several sockets to it, such as a small learning hub, is an
    Attachment too: it keeps frames between them to itself, and its descriptor may be an epoll of theirs.
    """

    def receive_frames(self, limit: int) -> list[TapFrame]:
        """At most `limit` frames that wait now; fewer when drained. Raises OSError(EBADFD) when the device is gone."""

    def deliver_frames(self, frames: Sequence[Gather]) -> dict[DropReason, int]:
        """Write every frame, in order. What the kernel refuses is counted and returned; only OSError(EBADFD) is raised."""

    def fileno(self) -> int:
        """For readiness."""


Doorman = Callable[[bytes, int, bytes, Callable[[], Address]], bool]
"""Gets the bytes of a burst, the length of a datagram, the source host in 16 bytes, and a function that names the source.
False: the burst is dropped, and the doorman has counted it."""


class Underlay(Protocol):
    """What carries datagrams to the peers. The real one is a UDP socket; whatever takes bursts may stand here."""

    gso: bool
    gro: bool
    """Whether the kernel takes, and gives, a whole burst in one call."""

    overflow_count: int
    """Datagrams, or bursts of them, that the socket had no room for, before those received last."""

    doorman: Doorman | None
    """Asked about each burst from an address that the socket does not know."""

    def receive_bursts(self, limit: int) -> list[Burst]:
        """At most `limit` bursts that wait now, one `buffers` entry each; fewer when drained.

        ICMP errors of earlier sends are swallowed.
        """

    def receive_strangers(self, limit: int) -> tuple[list[Burst], int]:
        """The same of what is kept apart during a flood, and how many more were lost since the last call."""

    def send_bursts(self, bursts: Sequence[Burst]) -> tuple[int, dict[DropReason, int]]:
        """Send in order. Returns how many bursts are done (sent or refused) and the datagrams refused by reason.

        Fewer than given means that the socket is full: wait until it is writable and go on with the rest.
        """

    def path_limit(self, address: Address) -> int:
        """The largest datagram (UDP payload, bytes) that the local interface towards `address` takes."""

    def forget_paths(self) -> None:
        """Ask the kernel again for the path limits."""

    def forget_addresses(self) -> None:
        """Ask the kernel again for the addresses of this host."""

    def shield(self, known: Iterable[Address] | None) -> bool:
        """Let the kernel keep apart what comes from other addresses than these; None ends that. Returns whether it does."""

    def shut_hosts(self, hosts: frozenset[str]) -> None:
        """Send nothing to these hosts."""

    @property
    def port(self) -> int:
        """Where the peers reach it."""

    def fileno(self) -> int:
        """For readiness."""

    def close(self) -> None:
        """Give the descriptor back."""
