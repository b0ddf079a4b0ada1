"""Whether a peer still hears us, and we it.

What we hear proves nothing about what we send: a link that is cut in one direction is found by round trips only. So
PINGs ask, and only a PONG (or a handshake) is an answer. A PING goes out

    with frames    at most every `PING_INTERVAL` while frames go to the peer
    after frames   when the peer sent frames and has then been silent for `QUIET_TIME`: its PINGs may not arrive
    idle           `persistent_keepalive` seconds after the last one, for the NATs on the way, or a little earlier: the
                   end that asked goes on asking, the other does only when that does not come

and from then on every `PING_RETRY` until one of them is answered. How long that has been so is `unanswered_since`: the
owner draws the consequences. Two idle ends exchange one PING and PONG per interval, two busy ones one per second and
direction.
"""

from math import inf

from l2overlay.dataplane.link import Traffic

PING_INTERVAL = 1.0
"""A peer that is killed under traffic, or no longer hears us, is found so much later than one that is idle."""
QUIET_TIME = 1.5
"""More than `PING_INTERVAL`: whoever sends frames is heard at least so often, if it is heard at all."""
IDLE_SPARE = 3.0
"""Of two idle ends one asks so much before the interval ends, so that the other, which waits `QUIET_TIME` longer, still
asks within the interval when the first one's PING was lost: a NAT that forgot is passed from the inside only."""
MAX_PINGS = 32
"""PINGs that may still be answered: 6 s of them. An answer to an older one comes too late to tell anything."""
PING_RETRY = 0.2
"""At half of all datagrams lost one try in four succeeds, and 30 of them fail once in 5000 times."""


class Liveness(Traffic):
    """Of one peer that is up. The owner sends the PINGs and tells what comes."""

    __slots__ = ("_next_ping", "_pings", "interval", "rtt", "unanswered_since")

    def __init__(self, interval: float) -> None:
        super().__init__()
        self.interval = interval
        """Seconds at most between PINGs of an idle pair; 0 is none."""
        self.rtt: float | None = None
        self.unanswered_since = inf
        """When the oldest PING left that wants an answer."""
        self._pings: dict[int, float] = {}
        self._next_ping = inf

    def set_interval(self, interval: float, now: float) -> None:
        """Another `persistent_keepalive`; it counts from now."""
        if interval == self.interval:
            return
        self.interval = interval
        if self.next_with_frames < inf and self.unanswered_since == inf:
            self.answered(now)

    def answered(self, now: float) -> None:
        """A round trip is proven: a handshake is confirmed, or a PING answered."""
        self._pings.clear()
        self.unanswered_since = inf
        self._next_ping = now + self.interval - min(IDLE_SPARE, self.interval / 2) if self.interval else inf
        if self.next_with_frames == inf:
            self.next_with_frames = now

    def stop(self) -> None:
        """The peer is down: nothing to ask."""
        self._pings.clear()
        self.unanswered_since = self._next_ping = self.next_with_frames = inf
        self.expects_frames = False

    def is_due(self, now: float) -> bool:
        """Whether a PING is to be sent now."""
        return self.deadline() <= now

    def sent_ping(self, token: int, now: float) -> None:
        """A PING leaves."""
        self.unanswered_since = min(self.unanswered_since, now)
        if len(self._pings) >= MAX_PINGS:
            del self._pings[next(iter(self._pings))]
        self._pings[token] = now
        self._next_ping = now + PING_RETRY
        self.next_with_frames = now + PING_INTERVAL
        self.expects_frames = False

    def received_ping(self, now: float) -> None:
        """The peer asks by itself: an idle link needs no PINGs of ours on top."""
        if self.unanswered_since == inf and self.interval:
            self._next_ping = now + self.interval - min(IDLE_SPARE - QUIET_TIME, self.interval / 4)

    def received_pong(self, token: int, now: float) -> bool:
        """Whether it answers one of the PINGs since `unanswered_since`.

        It shows that the peer lived when that PING came. Perhaps it was read late, by a busy host, so it does not answer the
        PINGs that left after that one: theirs are on the way, or the silence began with them.
        """
        sent_time = self._pings.get(token)
        if sent_time is None:
            return False
        self.rtt = now - sent_time
        later = {token: time for token, time in self._pings.items() if time > sent_time}
        self.answered(now)
        self.next_with_frames = min(self.next_with_frames, sent_time + PING_INTERVAL)
        if later and self.rtt > PING_INTERVAL:
            self._pings = later
            self.unanswered_since = min(later.values())
            self._next_ping = now + self.rtt
        return True

    def deadline(self) -> float:
        """When the next PING is due."""
        if self.expects_frames and self.last_heard is not None:
            return min(self._next_ping, self.last_heard + QUIET_TIME)
        return self._next_ping
