"""Where a peer is: its traffic goes to another address only after it has answered from there (RFC 9000, section 8.2).

A peer is authentic and still not trusted: it can write any source address on a datagram. So the questions and the answers
that leave for addresses which nobody has proven have a rate for each peer, and none is larger than what it answers.
"""

from collections.abc import Callable

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
MIN_QUESTION = RECORD_LEN + CHALLENGE_LEN
"""Bytes of plaintext of a datagram that a PATH_CHALLENGE may follow: as many as it has itself. A PING has them."""


class Roaming:
    """The questions to one peer, and how often it may ask."""

    def __init__(self, random: Callable[[int], bytes], now: float) -> None:
        self._random = random
        self._asked: dict[Address, tuple[bytes, float]] = {}
        self._questions = TokenBucket(CHALLENGE_RATE, CHALLENGE_BURST, now)
        self._answers = TokenBucket(CHALLENGE_RATE, CHALLENGE_BURST, now)

    def challenge(self, address: Address, now: float) -> bytes | None:
        """A token for `address`, to be sent there now; None when it was asked just now, or too many are asked."""
        _, asked_time = self._asked.get(address, (b"", -CHALLENGE_INTERVAL))
        if now - asked_time < CHALLENGE_INTERVAL or not self._questions.take(now):
            return None
        self._asked.pop(address, None)
        if len(self._asked) >= MAX_CHALLENGED:
            del self._asked[next(iter(self._asked))]
        token = self._random(CHALLENGE_LEN)
        self._asked[address] = (token, now)
        return token

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
