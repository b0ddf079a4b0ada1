"""Our own side of every handshake: identity, stamps, session indices, and what leaves the control plane.

One `LocalNode` is shared by all peers of a node. It holds what must be unique (stamps, indices) and collects what the
peers produce (bursts in `links`, events), so that a `Peer` needs to know nothing else of the node.
"""

from collections.abc import Callable
from math import inf

from l2overlay.addresses import Address, PeerKey
from l2overlay.controlplane.events import Cause, Event
from l2overlay.controlplane.handshake import HandshakeContext, PendingHandshake
from l2overlay.controlplane.refusals import Refusals
from l2overlay.counters import Counters
from l2overlay.dataplane.link import Links
from l2overlay.seams import Burst

INIT_RATE = 40.0
"""INITs a second to all peers that do not answer.

A thousand peers of which 3 answer cost 0.7 to 0.9 % of a core (tests/host/test_limits.py).
"""


class LocalNode:
    """What all peers of one node share."""

    def __init__(
        self,
        context: HandshakeContext,
        *,
        now: float,
        wall_clock: float,
        last_stamp: int,
        random: Callable[[int], bytes],
    ) -> None:
        self.context = context
        self.random = random
        self.counters = Counters()
        """Of what belongs to no peer; each peer counts its own."""
        self.links = Links()
        self.events: list[Event] = []
        """What happened since the overlay last looked."""
        self.pending: dict[int, PendingHandshake] = {}
        """INITs that wait for their RESP, by our index."""
        self.stamp = last_stamp
        self.unanswered = 0
        """Peers with an endpoint and no session."""
        self.mtu = 0
        """Of the segment; told in handshakes. 0 is not told."""
        self.refusals = Refusals()
        self.wakeup = inf
        self._wall_clock_offset = wall_clock - now

    def new_stamp(self, now: float) -> int:
        """Microseconds of Unix time, and always more than the last one: no clock step locks us out."""
        self.stamp = max(self.stamp + 1, int((now + self._wall_clock_offset) * 1e6))
        return self.stamp

    def new_index(self) -> int:
        """A session index that is not in use; random, so that strangers cannot guess it."""
        while True:
            index = int.from_bytes(self.random(4), "little")
            if index not in self.links.sessions and index not in self.pending:
                return index

    def jitter(self) -> float:
        """Between 0 and 1."""
        return self.random(1)[0] / 255

    def retry_floor(self) -> float:
        """Seconds between INITs to one silent peer, so that all of them together stay below `INIT_RATE`."""
        return self.unanswered / INIT_RATE

    def send(self, address: Address, datagram: bytes) -> None:
        """A handshake datagram."""
        self.links.bursts.append(Burst(address, len(datagram), [datagram]))
        self.counters.tx_datagrams += 1

    def refuse(self, cause: Cause, address: Address, peer: PeerKey | None, now: float) -> None:
        """A handshake came to nothing: remember it, and tell unless that was told lately."""
        event = self.refusals.note(cause, address, peer, now)
        if event is not None:
            self.events.append(event)

    def arm(self, deadline: float) -> None:
        """Some peer wants its timer handled at `deadline`."""
        self.wakeup = min(self.wakeup, deadline)
