"""Handshakes that came to nothing although we know why: told to whoever runs this node, never to the sender.

A stranger can cause most of them. So each cause is told of one host at most every `TELL_INTERVAL`, each cause has an
allowance of its own, and what is remembered is bounded.
"""

from dataclasses import dataclass

from l2overlay.addresses import Address, PeerKey
from l2overlay.controlplane.events import Cause, HandshakeRefused
from l2overlay.controlplane.token_bucket import TokenBucket

TELL_INTERVAL = 60.0
"""Seconds until the same host is told of for the same cause again."""
TOLD_BURST = 8
"""Hosts that are told of at once for one cause ..."""
TOLD_REFILL = 10.0
"""... and the seconds until one more may be."""
MAX_REMEMBERED = 64
SHOWN_TIME = 300.0
"""Seconds for which `status` shows a refusal after it occurred last."""


@dataclass(slots=True)
class Refusal:
    """One cause and host. `time` is when it occurred last."""

    cause: Cause
    address: Address
    peer: PeerKey | None
    time: float
    told_time: float


class Refusals:
    """Of one node."""

    def __init__(self) -> None:
        self._known: dict[tuple[Cause, str, PeerKey | None], Refusal] = {}
        self._allowances: dict[Cause, TokenBucket] = {}

    def note(
        self, cause: Cause, address: Address, peer: PeerKey | None, now: float
    ) -> HandshakeRefused | None:
        """It occurred again. Returns the event when it is to be told."""
        key = (cause, address.host, peer)
        known = self._known.get(key)
        if known is not None:
            known.time, known.address = now, address
            if now < known.told_time + TELL_INTERVAL:
                return None
        allowance = self._allowances.setdefault(cause, TokenBucket(1 / TOLD_REFILL, TOLD_BURST, now))
        if not allowance.take(now):
            return None
        self._known.pop(key, None)
        self._forget_oldest(cause)
        self._known[key] = Refusal(cause, address, peer, now, now)
        return HandshakeRefused(cause, address, peer)

    def _forget_oldest(self, cause: Cause) -> None:
        """A flood of one cause displaces its own refusals only."""
        of_cause = [key for key in self._known if key[0] is cause]
        if len(of_cause) >= MAX_REMEMBERED // len(Cause):
            del self._known[of_cause[0]]

    def recent(self, now: float) -> list[Refusal]:
        """What occurred within `SHOWN_TIME`, in the order in which it was told."""
        return [refusal for refusal in self._known.values() if now < refusal.time + SHOWN_TIME]
