"""How much of what is sealed arrives, and how long trains may therefore be (`dataplane.train`).

The receiver counts per session how many counters the other end has used and how many of them it opened, and reports both.
The sender begins with one datagram a train, which is none. What is lost of trains grows with their length, so

    up to `GROW_BELOW` lost            twice as long, to the most that pays
    more than `SHRINK_ABOVE` lost      so much shorter that half of `SHRINK_ABOVE` would have been lost

Trains can be lost while datagrams arrive, because somebody spoils them. So when more of them were lost than opened, the
report says that nothing was opened, and the sender goes back to datagrams. Each time that trains shrink they wait longer
before they grow again: otherwise a sender would try them anew after each report, and lose half of what it sends.

Datagrams that this host's own socket had no room for say nothing of the path: whoever is too slow must not be sent more
datagrams for the same bytes. A report whose time holds such an overflow is not made.
"""

from l2overlay.dataplane.session import Session
from l2overlay.dataplane.train import max_cars

REPORT_COUNTERS = 1024
"""A report covers so many, or it has lost at least ..."""
REPORT_LOST = 4
"""... so many of fewer."""
REPORT_INTERVAL = 0.05
"""Seconds between two reports at least."""
MAX_USED = 2**32 - 1
"""A report has 32 bits for them."""
GROW_BELOW = 0.001
SHRINK_ABOVE = 0.005
REPORT_LOST_TRAINS = 2
"""So many trains lost, and more than were opened, are reported at once."""
MIN_HOLD = 0.5
MAX_HOLD = 64.0
"""Seconds after trains have shrunk until they may grow: twice as long each time, unless all went well for as long again."""


class Reception:
    """What one peer is told of its datagrams: of the session that it seals with."""

    __slots__ = ("_next_time", "_opened", "_session", "_trains", "_used")

    def __init__(self) -> None:
        self._session: Session | None = None
        self._used = 0
        self._opened = 0
        self._trains = (0, 0)
        self._next_time = 0.0

    def report(self, session: Session, now: float) -> tuple[int, int] | None:
        """Something of `session` was opened. Returns counters used and opened since the last report, when one is due."""
        if session is not self._session:
            self._begin(session)
        used = session.newest_opened + 1 - self._used
        lost = used - (session.opened_count - self._opened)
        spoiled = self._are_trains_spoiled(session)
        if (used < REPORT_COUNTERS and lost < REPORT_LOST and not spoiled) or now < self._next_time:
            return None
        self._begin(session)
        self._next_time = now + REPORT_INTERVAL
        if used > MAX_USED:  # it leaves counters out, by accident or on purpose
            return None
        if spoiled:
            return max(1, used), 0
        # One that came late was counted as lost before: then more were opened than used.
        return used, used - max(0, lost)

    def _are_trains_spoiled(self, session: Session) -> bool:
        trains = session.trains
        trains.settle(session.newest_opened)
        lost = trains.lost - self._trains[0]
        return lost >= REPORT_LOST_TRAINS and lost > trains.opened - self._trains[1]

    def overflowed(self) -> None:
        """Our own socket lost something: what was counted so far is not the path's fault alone."""
        self._session = None

    def _begin(self, session: Session) -> None:
        self._session = session
        self._used = session.newest_opened + 1
        self._opened = session.opened_count
        self._trains = (session.trains.lost, session.trains.opened)


class TrainLength:
    """How many cars the trains to one peer have."""

    __slots__ = ("_hold", "_hold_until", "cars")

    def __init__(self) -> None:
        self.cars = 1
        self._hold = 0.0
        self._hold_until = 0.0

    def reported_untrusted(self, used: int, opened: int, datagram_size: int, now: float) -> bool:
        """The peer told what became of `used` counters. Returns whether the length is another one now.

        It may lie: then trains to it have a length that does not suit the path to it.
        """
        if not 0 < used >= opened:
            return False
        lost, before = (used - opened) / used, self.cars
        if lost <= GROW_BELOW and now >= self._hold_until:
            self.cars *= 2
        elif lost > SHRINK_ABOVE and self.cars > 1:
            self.cars = max(1, int(self.cars * SHRINK_ABOVE / 2 / lost))
            self._wait(now)
        self.cars = min(self.cars, max_cars(datagram_size))
        return self.cars != before

    def _wait(self, now: float) -> None:
        went_well = now >= self._hold_until + self._hold
        self._hold = MIN_HOLD if went_well else min(2 * self._hold, MAX_HOLD)
        self._hold_until = now + self._hold
