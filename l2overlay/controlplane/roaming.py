"""Where a peer is: its traffic goes to another address only after it has answered from there (RFC 9000, section 8.2).

A peer is authentic and still not trusted: it can write any source address on a datagram. So the questions and the answers
that leave for addresses which nobody has proven have a rate for each peer, and none is larger than what it answers.
"""

from collections import deque
from collections.abc import Callable, Collection
from math import inf

from l2overlay.addresses import Address
from l2overlay.controlplane.token_bucket import TokenBucket
from l2overlay.dataplane.wire import CHALLENGE_LEN, RECORD_LEN

CHALLENGE_INTERVAL = 0.25
MAX_CHALLENGED = 4
"""Addresses that have been asked and may still answer; the oldest gives way. Who repeats a datagram from elsewhere cannot
so spoil the question to the address where the peer really is."""
CHALLENGE_RATE = 8.0
"""A second and peer, of PATH_CHALLENGEs and of PATH_RESPONSEs each: two addresses in turn, asked every 0.25 s."""
CHALLENGE_BURST = 8.0
ENDPOINT_TRIES = 4
"""PATH_CHALLENGEs to the new endpoint of a peer that is up."""
LEFT_TIME = 1.0
"""Seconds in which datagrams from the endpoint before do not bring traffic back: they were under way, or the peer has not
heard yet from where it is called now."""
MIN_QUESTION = RECORD_LEN + CHALLENGE_LEN
"""Bytes of plaintext of a datagram that a PATH_CHALLENGE may follow: as many as it has itself. A PING has them."""


TWO_HOSTS_RETURNS = 3
"""So often within `TWO_HOSTS_TIME` a peer came back to an address that it had left, with another session each time: a host
that roams keeps its session, and two hosts with one key cannot share one."""
TWO_HOSTS_TIME = 150.0
"""Seconds. Two idle hosts take the peer from each other at every keepalive of 20 s: five visits are 90 s."""


class Places:
    """Where one peer was lately, each with the session by which it proved that it is there."""

    def __init__(self) -> None:
        self._visits: deque[tuple[float, Address, int]] = deque(maxlen=16)

    def came(self, address: Address, session: int, now: float) -> None:
        """The peer is at `address`, and answers by this session."""
        if not self._visits or self._visits[-1][1] != address:
            self._visits.append((now, address, session))

    def two_hosts(self, now: float) -> tuple[Address, Address] | None:
        """Two addresses between which it goes to and fro as only two hosts with one key do, in a fixed order."""
        visits = [visit for visit in self._visits if now < visit[0] + TWO_HOSTS_TIME]
        returns = [
            late
            for early, between, late in zip(visits, visits[1:], visits[2:], strict=False)
            if early[1] == late[1] and len({early[2], between[2], late[2]}) == 3
        ]
        if len(returns) < TWO_HOSTS_RETURNS:
            return None
        first, second = sorted({visit[1] for visit in visits[-2:]})
        return first, second


class Roaming:
    """The questions to one peer, and how often it may ask."""

    def __init__(self, random: Callable[[int], bytes], now: float) -> None:
        self._random = random
        self._asked: dict[Address, tuple[bytes, float]] = {}
        self._questions = TokenBucket(CHALLENGE_RATE, CHALLENGE_BURST, now)
        self._answers = TokenBucket(CHALLENGE_RATE, CHALLENGE_BURST, now)
        self.places = Places()
        self._told_two_hosts = -inf
        self._wanted: Address | None = None
        self._tries = 0
        self._left: tuple[Address | None, float] = (None, now)
        self.next_try = inf
        """When `due_endpoint` has something to do."""

    def asked(self) -> Collection[Address]:
        """Addresses that may still answer."""
        return self._asked.keys()

    def want(self, endpoint: Address | None, now: float) -> None:
        """The peer is to be asked there; None: nowhere."""
        self._wanted, self._tries = endpoint, 0
        self.next_try = now if endpoint is not None else inf

    def due_endpoint(self, now: float) -> Address | None:
        """The new endpoint, when it is to be asked now."""
        if self.next_try > now:
            return None
        self._tries += 1
        self.next_try = now + CHALLENGE_INTERVAL if self._tries < ENDPOINT_TRIES else inf
        return self._wanted

    def moved(self, old: Address | None, new: Address, now: float) -> None:
        """The peer's traffic goes to `new` now."""
        self._left = (old, now + LEFT_TIME) if new == self._wanted else (None, now)
        self.want(None, now)

    def has_left(self, address: Address, now: float) -> bool:
        """Whether the peer's traffic went to `address` until just now, and left it for a new endpoint."""
        left, until = self._left
        return address == left and now < until

    def challenge(self, address: Address, now: float) -> bytes | None:
        """A token for `address`, to be sent there now; None when it was asked just now, or too many are asked."""
        token, asked_time = self._asked.get(address, (b"", -CHALLENGE_INTERVAL))
        if now - asked_time < CHALLENGE_INTERVAL or not self._questions.take(now):
            return None
        self._asked.pop(address, None)
        if len(self._asked) >= MAX_CHALLENGED:
            del self._asked[next(iter(self._asked))]
        # The same again while it is not answered: the answer may take longer than the interval.
        token = token or self._random(CHALLENGE_LEN)
        self._asked[address] = (token, now)
        return token

    def came(self, address: Address, session: int, now: float) -> tuple[Address, Address] | None:
        """The peer proved by this session that it is at `address`.

        Returns two addresses when there seem to be two hosts; once in `TWO_HOSTS_TIME`.
        """
        self.places.came(address, session, now)
        found = self.places.two_hosts(now)
        if found is None or now < self._told_two_hosts + TWO_HOSTS_TIME:
            return None
        self._told_two_hosts = now
        return found

    def may_answer(self, now: float) -> bool:
        """Whether a PATH_CHALLENGE is answered now."""
        return self._answers.take(now)

    def answered(self, address: Address, token: bytes) -> bool:
        """Whether this is the answer of an address that was asked."""
        if self._asked.get(address, (b"", 0.0))[0] != token:
            return False
        self._asked.clear()
        return True

    def stop(self) -> None:
        """The peer is down: what was asked does not matter any more."""
        self._asked.clear()
        self._wanted, self.next_try = None, inf
