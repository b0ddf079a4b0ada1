"""Fakes for the two seams, and an overlay that only copies.

    guest end == socketpair == FakeTap.fileno()        underlay end == socketpair == FakeUdp.fileno()

Both are Unix datagram sockets: readiness is the kernel's, so is a full queue (EAGAIN after net.unix.max_dgram_qlen).
"""

import errno
import json
import socket
from collections import deque
from collections.abc import Iterable, Sequence
from math import inf

from l2overlay.addresses import Address
from l2overlay.controlplane.events import Event
from l2overlay.counters import Counters, DropReason
from l2overlay.dataplane.marks import Marks
from l2overlay.seams import Burst, Doorman, Gather, TapFrame

PEER = Address("192.0.2.2", 7470)


def _read(sock: socket.socket, limit: int) -> list[bytes]:
    found: list[bytes] = []
    while len(found) < limit:
        try:
            found.append(sock.recv(70_000))
        except BlockingIOError:
            break
    return found


class FakeTap:
    """A TAP whose other side is `guest`."""

    def __init__(self) -> None:
        self._port, self.guest = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._port.setblocking(False)
        self.guest.setblocking(False)
        self.read_sizes: list[int] = []
        self.gone = False

    def receive_frames(self, limit: int) -> list[TapFrame]:
        if self.gone:
            raise OSError(errno.EBADFD, "File descriptor in bad state")
        frames = [TapFrame(f) for f in _read(self._port, limit)]
        self.read_sizes.append(len(frames))
        return frames

    def deliver_frames(self, frames: Sequence[Gather]) -> dict[DropReason, int]:
        if self.gone:
            raise OSError(errno.EBADFD, "File descriptor in bad state")
        refused = 0
        for frame in frames:
            try:
                self._port.send(b"".join(frame))
            except BlockingIOError:
                refused += 1
        return {DropReason.TAP_FULL: refused} if refused else {}

    def fileno(self) -> int:
        return self._port.fileno()

    def close(self) -> None:
        self._port.close()
        self.guest.close()


class FakeUdp:
    """A UDP socket whose other side is `underlay`: every datagram is one JSON line of address, port and payload in hex."""

    gso = True
    gro = False
    port = 7470
    overflow_count = 0
    doorman: Doorman | None = None

    def __init__(self) -> None:
        self._socket, self.underlay = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self.underlay.setblocking(False)
        self.refuse: dict[DropReason, int] = {}
        self.closed = False
        self.copies_tos = False

    def receive_bursts(self, limit: int) -> list[Burst]:
        found = []
        for line in _read(self._socket, limit):
            host, port, payload = json.loads(line)
            data = bytes.fromhex(payload)
            found.append(Burst(Address(host, port), len(data), [data]))
        return found

    def receive_strangers(self, limit: int) -> tuple[list[Burst], int]:
        return [], 0

    def send_bursts(self, bursts: Sequence[Burst]) -> tuple[int, dict[DropReason, int]]:
        refused, self.refuse = self.refuse, {}
        for done, burst in enumerate(bursts):
            data = b"".join(burst.buffers)
            try:
                self._socket.send(json.dumps([burst.address.host, burst.address.port, data.hex()]).encode())
            except BlockingIOError:
                return done, refused
        return len(bursts), refused

    def path_limit(self, address: Address) -> int:
        return 1472

    def copy_tos(self, *, on: bool) -> None:
        self.copies_tos = on

    def forget_paths(self) -> None:
        pass

    def forget_addresses(self) -> None:
        pass

    def shield(self, known: Iterable[Address] | None) -> bool:
        return True

    def shut_hosts(self, hosts: frozenset[str]) -> None:
        pass

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        """Only our end: what was sent is still on its way."""
        self.closed = True
        self._socket.close()

    # the underlay's end

    def arrive(self, data: bytes, address: Address = PEER) -> None:
        """A datagram from the network."""
        self.underlay.send(json.dumps([address.host, address.port, data.hex()]).encode())

    def sent(self) -> list[bytes]:
        """What left since the last look, as JSON lines."""
        try:
            return [line for line in _read(self.underlay, 100_000) if line]
        except ConnectionResetError:  # our end is closed, and everything was read
            return []

    def left(self) -> list[bytes]:
        """Payloads that left since the last look."""
        return [bytes.fromhex(json.loads(line)[2]) for line in self.sent()]


class CopyingOverlay:
    """Every frame becomes a datagram to PEER, every datagram a frame."""

    def __init__(self) -> None:
        self.counters = Counters()
        self.bursts: list[Burst] = []
        self.frames: list[Gather] = []
        self.events: deque[Event] = deque()
        self.timer = inf
        self.timer_calls: list[float] = []
        self.overflows: list[int] = []
        self.marks: Marks | None = None
        self.marked_calls = 0

    def receive_overflowed(self, count: int) -> None:
        self.overflows.append(count)

    def receive_frames(self, frames: Sequence[TapFrame], now: float) -> bool:
        self.bursts += [Burst(PEER, len(f), [bytes(f)]) for f in frames]
        return True

    def receive_datagrams(self, bursts: Sequence[Burst], now: float) -> bool:
        self.frames += [[d] for burst in bursts for d in burst.datagrams()]
        return True

    def receive_marked_frames(self, frames: Sequence[TapFrame], now: float) -> bool:
        self.marked_calls += 1
        return self.receive_frames(frames, now)

    receive_marked_datagrams = receive_datagrams

    def bursts_to_send(self) -> list[Burst]:
        bursts, self.bursts = self.bursts, []
        return bursts

    def frames_to_deliver(self) -> list[Gather]:
        frames, self.frames = self.frames, []
        return frames

    def next_event(self) -> Event | None:
        return self.events.popleft() if self.events else None

    def next_timer(self) -> float:
        return self.timer

    def handle_timer(self, now: float) -> None:
        self.timer_calls.append(now)
        self.timer = inf
