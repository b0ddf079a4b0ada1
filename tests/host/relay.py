"""A bad underlay in one process: datagrams between two nodes pass through it and are lost, doubled, delayed, altered.

    h1 10.77.0.1:7470 --> near 10.77.0.R:7471 | relay | far 10.77.0.R:(changes) --> h2 10.77.0.2:7470

h1 believes that h2 is at `near`; h2 sees h1 at `far`, as through a NAT. The sockets live in the namespace of the relay, the
thread in the test, so that the test changes the weather by assignment. The kernel hands bursts over one datagram at a time
(no UDP_GRO here), and each has its own fate. All chance comes from one seed.
"""

import random
import select
import socket
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from l2overlay.testing.lab import Namespace
from tests.linux.conftest import inside

RECEIVE_BUFFER = 16 << 20
QUEUE_TIME = 0.25
"""Seconds of traffic that wait for a slow uplink; what comes on top is lost."""
SO_RCVBUFFORCE = 33
Sockaddr = tuple[Any, ...]


@dataclass(slots=True)
class Weather:
    """What happens to each datagram, as probabilities. All zero: a good wire."""

    loss: float = 0.0
    duplication: float = 0.0
    reordering: float = 0.0
    """Held back until 1 to 8 later ones have passed."""
    corruption: float = 0.0
    """One bit, anywhere."""
    truncation: float = 0.0
    """Cut at any length."""
    rate: float = 0.0
    """Bits a second in each direction; 0 is no limit."""


@dataclass(slots=True)
class Fates:
    """What has happened so far."""

    passed: int = 0
    lost: int = 0
    duplicated: int = 0
    reordered: int = 0
    corrupted: int = 0
    truncated: int = 0
    recorded: list[tuple[bool, bytes]] = field(default_factory=list)
    """Every datagram that passed as it was, and whether it went to the far end."""


class Relay:
    """Between the node at `near_node` and the one at `far_node`; use as a context manager."""

    def __init__(
        self, namespace: Namespace, host: str, near_node: Sockaddr, far_node: Sockaddr, seed: int
    ) -> None:
        self.weather = Weather()
        self.fates = Fates()
        self.record = False
        self.host = host
        self._namespace = namespace
        self._random = random.Random(seed)
        self._nodes = {True: far_node, False: near_node}
        self._near, self._far = self._open(7471), self._open(0)
        self._held: deque[tuple[int, bool, bytes]] = deque()
        self._uplink: deque[tuple[float, bool, bytes]] = deque()
        self._busy_until = {True: 0.0, False: 0.0}
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Relay":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join()
        self._near.close()
        self._far.close()

    @property
    def far_port(self) -> int:
        """Where the far node sees the near one."""
        return int(self._far.getsockname()[1])

    def rebind(self) -> int:
        """The NAT forgets its mapping: another port towards the far node, nothing comes in on the old one."""
        with self._lock:
            self._far.close()
            self._far = self._open(0)
        return self.far_port

    def inject(self, to_far: bool, *datagrams: bytes) -> None:
        """Send datagrams as if they came from the other node, at once and unharmed."""
        with self._lock:
            for datagram in datagrams:
                self._send(to_far, datagram)

    def _open(self, port: int) -> socket.socket:
        with inside(self._namespace):
            made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER)
        made.bind((self.host, port))
        return made

    def _run(self) -> None:
        while not self._ending.is_set():
            ready, _, _ = select.select([self._near, self._far], [], [], 0.001 if self._uplink else 0.02)
            with self._lock:
                self._release_uplink()
                for one in ready:
                    if one.fileno() >= 0:
                        self._drain(one)
                if not ready:
                    self._release_held(everything=True)

    def _drain(self, source: socket.socket) -> None:
        to_far = source is self._near
        for _ in range(64):
            try:
                datagram = source.recv(65536, socket.MSG_DONTWAIT)
            except (BlockingIOError, ConnectionRefusedError):
                return
            self._meet_fate(to_far, datagram)

    def _meet_fate(self, to_far: bool, datagram: bytes) -> None:
        chance, weather, fates = self._random.random, self.weather, self.fates
        if chance() < weather.loss:
            fates.lost += 1
            return
        if chance() < weather.corruption:
            datagram = _with_a_bit_turned(datagram, self._random)
            fates.corrupted += 1
        if chance() < weather.truncation:
            datagram = datagram[: self._random.randrange(len(datagram))]
            fates.truncated += 1
        if chance() < weather.duplication:
            self._send(to_far, datagram)
            fates.duplicated += 1
        if chance() < weather.reordering:
            self._held.append((self._random.randint(1, 8), to_far, datagram))
            fates.reordered += 1
            return
        self._pass(to_far, datagram)

    def _pass(self, to_far: bool, datagram: bytes) -> None:
        self.fates.passed += 1
        if self.record:
            self.fates.recorded.append((to_far, datagram))
        if self.weather.rate:
            self._enqueue(to_far, datagram)
        else:
            self._send(to_far, datagram)
        self._release_held()

    def _enqueue(self, to_far: bool, datagram: bytes) -> None:
        now = time.monotonic()
        start = max(now, self._busy_until[to_far])
        if start - now > QUEUE_TIME:
            self.fates.lost += 1
            return
        self._busy_until[to_far] = start + len(datagram) * 8 / self.weather.rate
        self._uplink.append((self._busy_until[to_far], to_far, datagram))

    def _release_uplink(self) -> None:
        now = time.monotonic()
        for _ in range(len(self._uplink)):
            due, to_far, datagram = self._uplink.popleft()
            if due <= now or not self.weather.rate:
                self._send(to_far, datagram)
            else:
                self._uplink.append((due, to_far, datagram))

    def _release_held(self, *, everything: bool = False) -> None:
        for _ in range(len(self._held)):
            count, to_far, datagram = self._held.popleft()
            if count > 1 and not everything:
                self._held.append((count - 1, to_far, datagram))
            else:
                self._send(to_far, datagram)

    def _send(self, to_far: bool, datagram: bytes) -> None:
        try:
            (self._far if to_far else self._near).sendto(datagram, self._nodes[to_far])
        except (BlockingIOError, ConnectionRefusedError):
            self.fates.lost += 1


def _with_a_bit_turned(datagram: bytes, chance: random.Random) -> bytes:
    if not datagram:
        return datagram
    altered = bytearray(datagram)
    altered[chance.randrange(len(altered))] ^= 1 << chance.randrange(8)
    return bytes(altered)
