"""The largest datagram that reaches a peer, found without ICMP (RFC 8899, datagram packetisation-layer path MTU discovery).

The base is used until something larger was acknowledged. Then one machine runs for ever:

    SEARCH   try sizes from the largest down, each at most `TRIES` times; the first that is acknowledged is the size
    STEADY   while large datagrams are sent, try the size itself every `VERIFY_TIME`; `TRIES` unanswered in a row are a
             black hole: back to the base, and SEARCH. Every `RAISE_TIME` SEARCH above the size

The base itself is tried when nothing larger arrives: a path that does not carry it is no path for us, and `is_too_small`
says so.

All sizes are UDP payloads in bytes. Sizes that the local interface cannot take are never tried.
"""

from dataclasses import dataclass
from math import inf

from l2overlay.dataplane.wire import BASE_SIZE

COMMON_SIZES = (8972, 8952, 4352, 1472, 1452, 1420, 1392, 1352, 1280)
"""Jumbo and plain Ethernet over IPv4 and IPv6, PPPoE, WireGuard, common tunnels, the IPv6 minimum."""

TRIES = 3
PROBE_TIMEOUT = 0.5
VERIFY_TIME = 1.5
RAISE_TIME = 60.0


@dataclass(slots=True)
class _Probe:
    token: int
    size: int
    tries: int
    deadline: float


class PathMtu:
    """Of one path to one peer. The owner sends what `due_probe` asks for and reports what comes back."""

    __slots__ = (
        "_candidates",
        "_limit",
        "_next_search",
        "_next_token",
        "_probe",
        "_used_large",
        "_verified",
        "is_too_small",
        "size",
    )

    def __init__(self, limit: int, now: float) -> None:
        self.size = BASE_SIZE
        self.is_too_small = limit < BASE_SIZE
        """Not even the base arrives."""
        self._limit = limit
        self._next_token = 0
        self._probe: _Probe | None = None
        self._used_large = False
        self._verified = now
        self._next_search = inf
        self._candidates: list[int] = []
        self._search()

    def set_limit(self, limit: int, now: float) -> None:
        """The local interface takes datagrams of at most this size. Starts a search when that is news."""
        if limit == self._limit:
            return
        self._limit = limit
        self.is_too_small = limit < BASE_SIZE
        self.size = max(min(self.size, limit), BASE_SIZE)
        self._probe = None
        self._verified = now
        self._search()

    def restart(self, now: float) -> None:
        """The path is another one (roaming, a changed route): nothing is known about it."""
        self.size = BASE_SIZE
        self.is_too_small = self._limit < BASE_SIZE
        self._probe = None
        self._verified = now
        self._search()

    def used_large(self) -> None:
        """A datagram larger than the base was sent: the size is worth verifying."""
        self._used_large = self.size > BASE_SIZE

    def deadline(self) -> float:
        """When `due_probe` has something to do."""
        if self._probe is not None:
            return self._probe.deadline
        if self._candidates:
            return -inf
        verify = self._verified + VERIFY_TIME if self._used_large else inf
        return min(verify, self._next_search)

    def due_probe(self, now: float) -> tuple[int, int] | None:
        """A probe to send now, as (token, size), or None."""
        probe = self._probe
        if probe is not None:
            if probe.deadline > now:
                return None
            if probe.tries >= TRIES:
                self._lost(probe)
            else:
                return self._send(probe.size, probe.tries + 1, now)
        if self._used_large and self._verified + VERIFY_TIME <= now:
            self._used_large = False
            return self._send(self.size, 1, now)
        if not self._candidates and self._next_search <= now:
            self._search()
        if self._candidates:
            return self._send(self._candidates[0], 1, now)
        return None

    def acknowledged(self, token: int, now: float) -> bool:
        """The peer got a probe. Returns whether `size` changed."""
        probe = self._probe
        if probe is None or not probe.token - probe.tries < token <= probe.token:
            return False
        self._probe = None
        self._verified = now
        self.is_too_small = False
        old, self.size = self.size, probe.size
        if old == self.size and self._candidates != [BASE_SIZE]:  # verified; a search goes on where it was
            return False
        self._candidates = []
        self._next_search = now + RAISE_TIME if self.size < self._limit else inf
        return old != self.size

    def _send(self, size: int, tries: int, now: float) -> tuple[int, int]:
        self._next_token = (self._next_token + 1) & 0xFFFFFFFF
        self._probe = _Probe(self._next_token, size, tries, now + PROBE_TIMEOUT)
        return self._next_token, size

    def _lost(self, probe: _Probe) -> None:
        self._probe = None
        if probe.size == BASE_SIZE:
            self.is_too_small = True
            if self._candidates in ([], [BASE_SIZE]):
                self._candidates = []
                self._next_search = probe.deadline + RAISE_TIME
        elif probe.size == self.size:
            self.size = BASE_SIZE
            self._search()
        elif self._candidates:
            self._candidates.pop(0)
            if not self._candidates:
                self._next_search = probe.deadline + RAISE_TIME

    def _search(self) -> None:
        sizes = {size for size in COMMON_SIZES if size < self._limit} | {self._limit}
        self._candidates = sorted((size for size in sizes if size > self.size), reverse=True)
        if self.size == BASE_SIZE <= self._limit:
            self._candidates.append(BASE_SIZE)
        self._next_search = inf
