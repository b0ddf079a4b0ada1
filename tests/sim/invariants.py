"""What must hold in every run, whatever the network does (the last paragraph of the list of faults).

- No frame is delivered twice to one node, altered, or where its sender is; on a network that keeps order, each flow does.
- Frames in = frames out + the sum of named drops, at every single call.
- No plaintext of a frame is on the wire.
- No nonce is used twice under one key: the counters that a node sends to one receiver index only grow. The cars of a train
  have one, and leave in order with nothing of their session between them.
- No session is used that is older than 180 s, or that no handshake has made.

All of it is seen from outside: from the TAPs, the wire and the counters. Seen from inside, whenever a run pauses: what a
node keeps for all peers (sessions and INITs by index, the number of silent peers) is what its peers have, and bounded. A
violation names the seed and the moment.
"""

from dataclasses import dataclass
from struct import Struct
from typing import NoReturn

from l2overlay.counters import Counters, DropReason
from l2overlay.dataplane.link import MAX_PREVIOUS
from l2overlay.overlay import Overlay

from .frames import CANARY, number_of

RESP_TYPE, DATA_TYPE, TRAIN_TYPE = 2, 4, 5
MAX_CARS = 64
_RESP_INDICES = Struct("<4xII")  # sender, receiver
_DATA_HEAD = Struct("<4xIQ")  # receiver, counter
SESSION_LIFE = 180.0

OUTGOING_DROPS = (DropReason.NO_PEER, DropReason.PEER_DOWN, DropReason.QUEUE_FULL, DropReason.QUEUE_TIMEOUT)
"""Only frames from the TAP can end so, and also later than at the call that brought them."""


@dataclass(frozen=True, slots=True)
class Sent:
    """A frame that a station sent."""

    frame: bytes
    node: str
    time: float


@dataclass(slots=True)
class Ledger:
    """Where the frames of one node's TAP have gone so far."""

    settled: int = 0
    """Sent to a peer, waiting for one, or dropped for want of one."""
    refused: int = 0
    """Dropped for another reason; only while frames come in does that mean frames from the TAP."""
    received: int = 0
    """From peers to the TAP."""

    @classmethod
    def of(cls, overlay: Overlay) -> "Ledger":
        """Of a node as it is now. Not from `total_counters` and `peers`, which cost a third of a run."""
        ledger = cls()
        ledger._add(overlay.counters)
        for peer in overlay._members:
            ledger.settled += len(peer.link.waiting)
            ledger._add(peer.counters)
        return ledger

    def _add(self, counters: Counters) -> None:
        self.settled += counters.tx_frames
        self.received += counters.rx_frames
        for reason, count in counters.drops.items():
            if reason in OUTGOING_DROPS:
                self.settled += count
            elif reason is not DropReason.FRAGMENT_TIMEOUT:
                self.refused += count


class Watch:
    """Sees every frame at a TAP and every datagram on the wire, and raises AssertionError at the first violation."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.now = 0.0
        self.sent: dict[int, Sent] = {}
        self.keeps_order = True
        self.delay_allowance = 1.0
        self._arrived: set[tuple[str, int]] = set()
        self._newest: dict[tuple[str, str, bytes], int] = {}
        self._counters: dict[tuple[str, int, int], int] = {}
        self._cars: dict[tuple[str, int, int], tuple[int, int, int]] = {}
        """Of a train that has left in part: index, count and counter of its next car."""
        self._births: dict[int, float] = {}

    def fail(self, what: str) -> NoReturn:
        """Say what is wrong, and how to see it again."""
        raise AssertionError(f"seed {self.seed}, at {self.now:.3f} s: {what}")

    def require(self, condition: object, what: str) -> None:
        """Fail unless `condition`."""
        if not condition:
            self.fail(what)

    def frame_sent(self, number: int, frame: bytes, node: str) -> None:
        """A station gives `frame` to the TAP of `node`."""
        self.sent[number] = Sent(frame, node, self.now)

    def frame_delivered(self, frame: bytes, node: str) -> int | None:
        """The TAP of `node` gives `frame` to its stations. Returns the frame's number."""
        number = number_of(frame)
        if number is None:
            return None
        sent = self.sent.get(number)
        if sent is None or sent.frame != frame:
            self.fail(f"{node} got frame {number} altered, or nobody sent it: {frame[:64].hex()}")
        self.require(sent.node != node, f"{node} got its own frame {number} back")
        self.require((node, number) not in self._arrived, f"{node} got frame {number} twice")
        self._arrived.add((node, number))
        flow = (sent.node, node, frame[:18])
        if self.keeps_order:
            newest = self._newest.get(flow, -1)
            self.require(number > newest, f"{node} got frame {number} of a flow after frame {newest}")
        self._newest[flow] = number
        return number

    def datagram_sent(self, datagram: bytes, node: str, incarnation: int) -> None:
        """`node`, in its `incarnation`th run, hands `datagram` to the underlay."""
        self.require(CANARY not in datagram, f"{node} sent plaintext: {datagram[:64].hex()}")
        if datagram[0] == RESP_TYPE:
            for index in _RESP_INDICES.unpack_from(datagram):
                self._births[index] = self.now
        elif datagram[0] in (DATA_TYPE, TRAIN_TYPE):
            self._check_sealed(datagram, node, incarnation)

    def _check_sealed(self, datagram: bytes, node: str, incarnation: int) -> None:
        index, counter = _DATA_HEAD.unpack_from(datagram)
        car = (datagram[1], datagram[2], counter) if datagram[0] == TRAIN_TYPE else None
        expected = self._cars.pop((node, incarnation, index), None)
        if expected is None:
            last = self._counters.get((node, incarnation, index), -1)
            self.require(counter > last, f"{node} used counter {counter} of session {index:08x} after {last}")
            self._counters[node, incarnation, index] = counter
            self.require(
                car is None or (car[0] == 0 and 2 <= car[1] <= MAX_CARS), f"{node} began a train with {car}"
            )
        else:
            self.require(car == expected, f"{node} sent {car or 'DATA'} where its train wanted {expected}")
        if car is not None and car[0] + 1 < car[1]:
            self._cars[node, incarnation, index] = (car[0] + 1, *car[1:])
        birth = self._births.get(index)
        if birth is None:
            self.fail(f"{node} sent a datagram to index {index:08x}, which no handshake made")
        age = self.now - birth
        self.require(age < SESSION_LIFE + self.delay_allowance, f"{node} used a session {age:.1f} s old")

    def books_balance(self, node: str, overlay: Overlay) -> None:
        """What is kept for all peers is what the peers have."""
        local, peers = overlay._local, list(overlay._members)
        sessions = [s for p in peers for s in p.link.sessions()]
        self.require(
            local.links.sessions == {session.local_index: session for session in sessions},
            f"{node} keeps {len(local.links.sessions)} sessions, and its peers {len(sessions)}",
        )
        pending = {each.sender: (p.key, each) for p in peers for each in p.dialling.pending}
        kept = {index: (each.remote, each) for index, each in local.pending.items()}
        self.require(kept == pending, f"{node} keeps {len(kept)} INITs, its peers {len(pending)}")
        silent = sum(not p.up and p.link.endpoint is not None for p in peers)
        self.require(local.unanswered == silent, f"{node} counts {local.unanswered} silent peers of {silent}")
        for peer in peers:
            most = max(
                len(peer.link.previous),
                len(peer.link.next) - 1,
                len(peer.dialling.pending) - 1,
                len(peer.liveness._pings) // 10,
            )
            self.require(most <= MAX_PREVIOUS, f"{node} keeps too much for {peer.config.name}")
            self.require(
                peer.up == (peer.link.current is not None),
                f"{node}: {peer.config.name} is up without a session",
            )

    def call_done(
        self, node: str, before: Ledger, after: Ledger, *, frames_in: int, up: int, frames_out: int
    ) -> None:
        """A call to the overlay of `node` was given `frames_in` frames while `up` peers were up."""
        settled = after.settled - before.settled
        if frames_in:
            settled += after.refused - before.refused
        self.require(
            frames_in <= settled <= frames_in * max(1, up),
            f"{node} was given {frames_in} frames and accounts for {settled}, with {up} peers up",
        )
        received = after.received - before.received
        self.require(
            received == frames_out, f"{node} counted {received} frames in, and delivered {frames_out}"
        )
