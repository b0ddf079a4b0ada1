"""The wire to one peer: what is packed, sealed and sent, and what is opened and unpacked.

    out   Outbox packs -> the current session seals -> `Links.bursts`          `flush`
    in    the datagram's index names session and link -> `open_untrusted` -> Inbox unpacks

Sessions have three places (WireGuard paper, section 6.3). As initiator we use a session at once, it becomes `current`. As
responder we let it wait in `next` until the first datagram under it proves that the initiator has the keys. Those before
are `previous`, and still open what was under way. There may be several: when both ends start a handshake at the same moment,
two sessions come of it, each end sends under another one, and so does the next pair that replaces them.

The control plane programs a link: it says which session is used, where the datagrams go (`endpoint`), how large they are
(`outbox.resize`), and whose `Traffic` is noted. What a link needs of the control plane in return is its `Owner`.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from math import inf
from typing import Protocol

from l2overlay.addresses import Address, PeerKey
from l2overlay.counters import Counters, DropReason
from l2overlay.dataplane.fdb import Port
from l2overlay.dataplane.inbox import Inbox
from l2overlay.dataplane.mirror import Direction, Mirror, Sight
from l2overlay.dataplane.outbox import Outbox
from l2overlay.dataplane.session import REJECT_TIME, Session
from l2overlay.dataplane.waiting import WaitingFrames
from l2overlay.dataplane.wire import BASE_SIZE, DATA_OVERHEAD
from l2overlay.seams import Burst, TapFrame

MAX_NEXT = 4
"""Sessions that wait for their first datagram: as many as a peer has INITs that it may still use."""
MAX_PREVIOUS = 3
"""The other one of the pair in use, and the pair before it."""
PAIR_TIME = 3.0
"""Two sessions of which each end made one, within so many seconds, are a pair: either may be the one that the peer uses."""


class Traffic:
    """What passes on one way to a peer, as far as the control plane judges by it: `controlplane.liveness` extends it."""

    __slots__ = ("expects_frames", "last_heard", "next_with_frames")

    def __init__(self) -> None:
        self.last_heard: float | None = None
        """When the last genuine datagram came."""
        self.expects_frames = False
        """Frames came since the last PING of ours: more of them, or PINGs, are to be expected."""
        self.next_with_frames = inf
        """From then on frames that leave take a PING along."""


class Owner(Protocol):
    """What a link needs of the control plane: `controlplane.peer.Peer` is its owner."""

    def add_ping(self, now: float) -> None:
        """Frames leave, and it is time for a PING to go with them: put it into the outbox."""

    def sent_large(self) -> None:
        """Datagrams left that are larger than the base size."""

    def wake_at(self, deadline: float) -> None:
        """Handle the owner's timer at `deadline` or earlier."""

    def received_datagram(self, session: Session, now: float) -> bool:
        """Datagrams of `session` verified. Returns True if the link has something to flush."""

    def received_frames(self, now: float) -> None:
        """Frames came."""


class Links:
    """The links of one node, and what they have to send."""

    __slots__ = ("bursts", "by_key", "mirror", "sessions")

    def __init__(self) -> None:
        self.by_key: dict[PeerKey, Link] = {}
        self.sessions: dict[int, Session] = {}
        """Every session that opens datagrams, by the index that we gave it."""
        self.bursts: list[Burst] = []
        """What is to leave, in order. Whoever sends it puts an empty list in its place."""
        self.mirror: Mirror | None = None
        """The forwarder's: it sees frames that wait for a session in vain."""


class Link:
    """The link to one peer."""

    __slots__ = (
        "_links",
        "counters",
        "current",
        "endpoint",
        "inbox",
        "key",
        "next",
        "outbox",
        "owner",
        "previous",
        "traffic",
        "waiting",
    )

    def __init__(
        self,
        key: PeerKey,
        links: Links,
        owner: Owner,
        traffic: Traffic,
        counters: Counters,
        max_frame_len: int,
    ) -> None:
        self.key = key
        self.counters = counters
        self.outbox = Outbox(BASE_SIZE)
        self.inbox = Inbox(counters, max_frame_len)
        self.waiting = WaitingFrames()
        self.endpoint: Address | None = None
        """Where datagrams go."""
        self.traffic = traffic
        self.current: Session | None = None
        self.previous: deque[Session] = deque()
        self.next: deque[Session] = deque()
        self._links = links
        self.owner = owner
        links.by_key[key] = self

    # -- out ---------------------------------------------------------------------------------------------------

    def enqueue(self, frame: TapFrame, now: float) -> DropReason | None:
        """Keep a frame for the session to come. Returns the reason if it is not kept."""
        if self.endpoint is None:
            return DropReason.PEER_DOWN
        refused = self.waiting.add(frame, now)
        if refused is None:
            self.owner.wake_at(self.waiting.deadline())
        return refused

    def drop_frames(self, frames: Sequence[TapFrame], reason: DropReason) -> None:
        """Drop frames for this peer."""
        self.counters.drop(reason, len(frames))
        if self._links.mirror is not None:
            for frame in frames:
                self._links.mirror(Sight(Direction.OUT, Port(self.key), (frame,), reason))

    def flush(self, now: float, *, frames: bool = False) -> None:
        """Seal and hand over what the outbox holds. `frames` says that frames are in it: a PING may go with them."""
        if frames and now >= self.traffic.next_with_frames:
            self.owner.add_ping(now)
        plaintexts = self.outbox.take()
        session, endpoint = self.current, self.endpoint
        if not plaintexts or session is None or endpoint is None:
            return
        if len(plaintexts) == 1 and len(plaintexts[0]) <= self.outbox.datagram_size - DATA_OVERHEAD:
            self._links.bursts.append(session.seal_alone(plaintexts[0], endpoint))
            self.counters.tx_datagrams += 1
        else:
            bursts, count = session.seal_bursts(plaintexts, endpoint, self.outbox.datagram_size)
            self._links.bursts += bursts
            self.counters.tx_datagrams += count
        if len(plaintexts[0]) + DATA_OVERHEAD > BASE_SIZE:
            self.owner.sent_large()

    def send_alone(self, plaintext: bytes, address: Address) -> None:
        """One datagram under the current session to `address`, which need not be the endpoint."""
        if self.current is not None:
            self._send(self.current, plaintext, address)

    def send_under_every_session(self, plaintext: bytes) -> None:
        """One datagram under each session, if there is a current one: each end may use another session of a pair."""
        if self.current is not None and self.endpoint is not None:
            for session in self.sessions():
                self._send(session, plaintext, self.endpoint)

    def _send(self, session: Session, plaintext: bytes, address: Address) -> None:
        self._links.bursts.append(session.seal_alone(plaintext, address))
        self.counters.tx_datagrams += 1

    # -- in ----------------------------------------------------------------------------------------------------

    def open_untrusted(
        self, session: Session, data: bytes, at: int, datagram_size: int, address: Address, now: float
    ) -> tuple[list[bytes], int]:
        """Open the datagrams of `session`, a session of this link, from byte `at` of a burst on.

        Returns the plaintexts, and where the first datagram of another kind or session begins. Everything is counted.
        """
        counters = self.counters
        if session.created_time + REJECT_TIME <= now:
            counters.rx_datagrams += 1
            counters.drop(DropReason.EXPIRED_SESSION)
            return [], at + datagram_size
        strange = address != self.endpoint and address != session.address
        plaintexts, end = session.open_untrusted(data, at, datagram_size, counters, now=now, strange=strange)
        if end == at:
            # Its index is right, and still it is not of this session: its reserved bytes are not zero.
            counters.rx_datagrams += 1
            counters.drop(DropReason.BAD_RESERVED)
            return [], at + datagram_size
        counters.rx_datagrams += -(-(end - at) // datagram_size)
        return plaintexts, end

    # -- sessions ----------------------------------------------------------------------------------------------

    def sessions(self) -> Iterator[Session]:
        """All of them, the current one first."""
        if self.current is not None:
            yield self.current
        yield from self.previous
        yield from self.next

    def use(self, session: Session) -> None:
        """Seal under `session` from now on. Those before it still open what is under way."""
        self._links.sessions[session.local_index] = session
        if self.current is not None:
            self.previous.append(self.current)
        self.current = session
        while len(self.previous) > MAX_PREVIOUS:
            self._drop(self.previous.popleft())

    def expect(self, session: Session) -> None:
        """Open datagrams of `session`, and use it when `confirm` says so."""
        if len(self.next) >= MAX_NEXT:
            self._drop(self.next.popleft())
        self._links.sessions[session.local_index] = session
        self.next.append(session)

    def confirm(self, session: Session) -> bool:
        """Use `session`, of which a datagram verified. Returns False if it did not wait for that, or came too late."""
        if session not in self.next or self._is_former(session):
            return False
        self.next.remove(session)
        self._drop_next()
        self.use(session)
        return True

    def _is_former(self, session: Session) -> bool:
        """Whether the current session was made so much later that the peer has no use for this one."""
        return self.current is not None and session.created_time + PAIR_TIME < self.current.created_time

    def uses(self, session: Session) -> bool:
        """Whether the peer may send by `session`, as far as we know. If not, it is of before."""
        current = self.current
        if session is current or current is None:
            return current is not None
        return (
            session.initiator != current.initiator
            and abs(session.created_time - current.created_time) <= PAIR_TIME
        )

    def expire_sessions(self, now: float) -> bool:
        """Drop what is too old. Returns True if the current session is: its owner then takes the link down."""
        # `start + period <= now`, as in `deadline`: a difference rounds differently and would spin.
        for sessions in (self.previous, self.next):
            for session in [s for s in sessions if s.created_time + REJECT_TIME <= now]:
                sessions.remove(session)
                self._drop(session)
        return self.current is not None and self.current.created_time + REJECT_TIME <= now

    def expire_frames(self, now: float) -> float:
        """Drop frames that waited too long, here and in the inbox. Returns when the inbox has the next one to drop."""
        if late := self.waiting.expire(now):
            self.drop_frames(late, DropReason.QUEUE_TIMEOUT)
        deadline = self.inbox.expire(now)
        return inf if deadline is None else deadline

    def deadline(self) -> float:
        """When the next session or waiting frame is too old."""
        oldest = inf if self.current is None else self.current.created_time
        for session in (*self.previous, *self.next):
            oldest = min(oldest, session.created_time)
        return min(oldest + REJECT_TIME, self.waiting.deadline())

    def go_down(self) -> None:
        """No session to seal under. Those in `next` stay: they may bring the link up again."""
        if self.current is not None:
            self._drop(self.current)
        while self.previous:
            self._drop(self.previous.popleft())
        self.current = None
        self.outbox.take()

    def close(self) -> None:
        """The peer is no longer configured."""
        self.go_down()
        self._drop_next()
        if waiting := self.waiting.take():
            self.drop_frames(waiting, DropReason.PEER_DOWN)
        self.endpoint = None
        del self._links.by_key[self.key]

    def _drop(self, session: Session) -> None:
        session.close(self.counters)
        del self._links.sessions[session.local_index]

    def _drop_next(self) -> None:
        while self.next:
            self._drop(self.next.popleft())
