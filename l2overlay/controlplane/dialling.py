"""When INITs leave for one peer, and when its silence has lasted too long.

    state      is entered                              INITs leave                       is left for
    CALLING    at the start, and when it goes down     for ever, if its address is known IDLE: a session is confirmed
    IDLE       a session is confirmed                  none                              RENEWING, ASKING, CALLING
    RENEWING   the session is old                      until one is answered             IDLE: a session is confirmed
                                                                                         CALLING: no answer in time
    ASKING     PINGs are unanswered for SILENCE_TIME   until it answers                  IDLE: that, or a PONG
                                                                                         CALLING: no answer in time

An INIT follows the last one after `FIRST_RETRY`, later `LATER_RETRY`; the last `MAX_PENDING` may still be answered. A peer
whose stamps are behind is called back at the address from which it calls; that changes no state.

An answer comes in time within `DOWN_TIME` of the oldest unanswered PING, and at least `ASK_TIME` after the first INIT. When
that has passed, `is_too_silent` says so, and the owner takes the peer down.
"""

from collections import deque
from collections.abc import Callable
from enum import Enum, auto
from math import ceil, inf

from l2overlay.addresses import Address, PeerKey
from l2overlay.controlplane.cookie import CookieHolder
from l2overlay.controlplane.events import PeerUnanswered
from l2overlay.controlplane.handshake import PendingHandshake, features_with, initiate
from l2overlay.controlplane.local import LocalNode
from l2overlay.controlplane.paths import Paths
from l2overlay.dataplane.session import Session

# Specification constants: the protocol depends on them (design.md, section 4).
REKEY_TIME = 120.0
RESPONDER_REKEY_TIME = 135.0
REKEY_SPREAD = 10.0
"""Up to so much earlier, by session: two ends that once started at the same moment do not go on in step, nor do the
thousand sessions of a node that came up together."""
SILENCE_TIME = 3.0
"""After a dozen unanswered PINGs the peer is asked by INITs: perhaps it was restarted and has lost our session."""
DOWN_TIME = 6.0
"""With `liveness.QUIET_TIME` before it: a peer that is gone, or a link that is cut in one direction, is down at both ends
within 8 s of the first datagram that was lost."""
ASK_TIME = 1.5
"""Two INITs. So long after the first of them the peer is not down yet. Turns of a busy machine come late; `DOWN_TIME` counts
from the silence: only the turn of the first INIT, which may be 1.5 s late, and that of the verdict can delay it."""

# Implementation constants.
SLEPT_TIME = 1.75
"""A timer that is so late: the node slept, and so did its PINGs. What it asked before then proves nothing, since the answer
came while it slept. So before it judges it asks for `SILENCE_TIME` again, once. A busy machine is 1.5 s late."""
FIRST_RETRY = 0.75
FIRST_RETRIES = 16
"""12 s: at half of all datagrams lost one INIT in four gets through and back, and 16 of them fail once in 100 times."""
LATER_RETRY = 1.25
"""For ever. A path that heals is found within 1.5 s, also when only one end can call. Both are +- 20 %, so that two ends
do not call in step; many silent peers stretch them (`LocalNode.retry_floor`)."""
GATHERED_FROM = 2.0
"""When so many are silent that each is tried less often than this (80 of them, `local.INIT_RATE`) ..."""
GATHERED_EVERY = 0.25
"""... their INITs leave together. A node with 999 peers of which 996 are silent used 1.9 % of a core, 0.50 ms for each INIT,
of which the cryptography is 0.17; woken four times a second instead of forty it uses 0.75 %."""
DOWN_SPREAD = 0.5
"""A peer that went down is tried again within so many seconds: an expired session is replaced within 1 s."""
MAX_PENDING = 4
"""INITs that may still be answered: on a path with a round trip of up to 2.4 s the answer comes after the next has left."""
CALL_BACK_INTERVAL = 1.0
"""A peer whose stamps are behind is called at most so often."""
UNANSWERED_FROM = 3
UNANSWERED_EVERY = 8
"""A silent peer is reported at its third INIT and at every eighth from then on: about every 10 s."""


class Dial(Enum):
    """Why INITs leave, or that none do."""

    CALLING = auto()
    IDLE = auto()
    RENEWING = auto()
    ASKING = auto()


class Dialling:
    """The INITs to one peer."""

    def __init__(
        self, key: PeerKey, paths: Paths, local: LocalNode, wake_at: Callable[[float], None]
    ) -> None:
        self.state = Dial.CALLING
        self.next_init = inf
        self.attempts = 0
        """INITs that left since the state was entered."""
        self.pending: deque[PendingHandshake] = deque()
        """INITs that may still be answered."""
        self._key = key
        self._paths = paths
        self._local = local
        self._wake_at = wake_at
        self._cookie = CookieHolder(key)
        self._asked_time = -inf
        """When the first INIT left that asks whether the peer lives."""
        self._woke_time = -inf
        self._called_back: tuple[int, Address] | None = None
        self._next_call_back = -inf

    # -- the states --------------------------------------------------------------------------------------------

    def confirmed(self) -> None:
        """Both ends are known to have the keys of a session."""
        self._called_back = None
        self.stop()

    def received_pong(self) -> None:
        """The peer answered a PING. A session that is too old is renewed all the same."""
        if self.state is Dial.ASKING:
            self.stop()

    def stop(self) -> None:
        """No INIT is wanted any more, and the answers to those under way neither."""
        while self.pending:
            del self._local.pending[self.pending.popleft().sender]
        self.state = Dial.IDLE
        self.next_init = inf
        self.attempts = 0

    def went_down(self, now: float) -> None:
        """Call the peer again, soon. INITs under way may still be answered."""
        self.state = Dial.CALLING
        self.attempts = 0
        self.try_at(now + max(DOWN_SPREAD, self._local.retry_floor()) * self._local.jitter())

    def try_anew(self, now: float) -> None:
        """The underlay changed: call a peer that is down at once, and then as often as at first."""
        self.attempts = 0
        self.try_at(now)

    def try_at(self, time: float) -> None:
        """Send an INIT at `time`, unless one is due earlier."""
        if self._paths.used.address is not None and time < self.next_init:
            self.next_init = time
            self._wake_at(time)

    # -- time --------------------------------------------------------------------------------------------------

    def deadline(self, session: Session | None) -> float:
        """When something is due here. `session` is the current one."""
        if self.attempts:
            return min(self.next_init, self._down_time())
        renewal = inf if session is None else rekey_time(session)
        return min(self.next_init, self._paths.unanswered_since + SILENCE_TIME, renewal)

    def timer_came(self, deadline: float, now: float) -> None:
        """The peer's timer, due at `deadline`, comes now: note whether the node slept."""
        if deadline + SLEPT_TIME <= now:
            self._woke_time = now

    def is_too_silent(self, now: float, *, all_read: bool) -> bool:
        """Whether the peer is down for want of an answer. Begins to ask it before that.

        Unless `all_read`, answers may wait to be read: then it is not down yet.
        """
        down_time = self._down_time()
        if down_time <= now:
            return all_read and not self._asks_again(now)
        if self._paths.unanswered_since + SILENCE_TIME <= now and not self.attempts:
            self.state = Dial.ASKING
            self.next_init = now
        return False

    def _asks_again(self, now: float) -> bool:
        """Whether the peer gets another chance: once, when the node slept after it began to ask."""
        if self._woke_time < self._asked_time or self._was_asked_late():
            return False
        self._asked_time = self.next_init = now
        return True

    def _was_asked_late(self) -> bool:
        return self._asked_time >= self._paths.unanswered_since + DOWN_TIME

    def _down_time(self) -> float:
        """When the peer is down unless it answers."""
        if not self.attempts:
            return inf
        chance = SILENCE_TIME if self._was_asked_late() else ASK_TIME
        return max(self._paths.unanswered_since + DOWN_TIME, self._asked_time + chance)

    def is_to_renew(self, session: Session | None, now: float) -> bool:
        """Whether the current session is so old that the next one is to be made, and no INIT is under way for it."""
        if session is None or self.attempts or rekey_time(session) > now:
            return False
        self.state = Dial.RENEWING
        return True

    # -- INITs -------------------------------------------------------------------------------------------------

    def send_init(self, now: float) -> bool:
        """Send an INIT; earlier ones may still be answered. Returns False if no address is known."""
        address = self._paths.used.address
        if address is None:
            self.next_init = inf
            return False
        pending = self._initiate(now)
        self._local.send(self._target(address), pending.datagram)
        if not self.attempts:
            self._asked_time = now
        self.attempts += 1
        self.next_init = self._in_company(now + self._retry_delay())
        if self.state is Dial.CALLING and self.attempts % UNANSWERED_EVERY == UNANSWERED_FROM:
            self._local.events.append(PeerUnanswered(self._key, self.attempts))
        return True

    def call_back(self, address: Address, now: float) -> None:
        """Send an INIT to an address from which the peer proved to call, with stamps too old for a session."""
        if now < self._next_call_back:
            return
        self._next_call_back = now + CALL_BACK_INTERVAL
        pending = self._initiate(now)
        self._called_back = (pending.sender, address)
        self._local.send(address, pending.datagram)

    def called_back_at(self, pending: PendingHandshake) -> Address | None:
        """Where the peer was called back by this INIT; None if it was not."""
        called = self._called_back
        return called[1] if called is not None and called[0] == pending.sender else None

    def receive_cookie_untrusted(self, datagram: bytes, mac1: bytes, now: float) -> None:
        """The peer is under load; the next INIT proves our address. Raises DatagramError.

        `mac1` is that of the INIT which it claims to answer.
        """
        had_cookie = self._cookie.cookie(now) is not None
        self._cookie.receive_untrusted(datagram, mac1, now)
        if not had_cookie:
            self.next_init = now
            self._wake_at(now)

    def _target(self, address: Address) -> Address:
        """Of a peer that once called another of our addresses than the kernel's choice: in turn from both."""
        first = self.state is not Dial.CALLING or self.attempts % 2 == 0
        return address if first else address._replace(local="")

    def _initiate(self, now: float) -> PendingHandshake:
        local = self._local
        if len(self.pending) >= MAX_PENDING:
            del local.pending[self.pending.popleft().sender]
        pending = initiate(
            local.context,
            self._key,
            sender=local.new_index(),
            stamp=local.new_stamp(now),
            features=features_with(local.mtu),
            ephemeral=local.random(32),
            cookie=self._cookie.cookie(now),
        )
        self.pending.append(pending)
        local.pending[pending.sender] = pending
        return pending

    def _retry_delay(self) -> float:
        delay = FIRST_RETRY if self.attempts < FIRST_RETRIES else LATER_RETRY
        floor = self._local.retry_floor() if self.state is Dial.CALLING else 0.0
        return max(delay, floor) * (0.8 + 0.4 * self._local.jitter())

    def _in_company(self, deadline: float) -> float:
        """The silent peers of a large segment are tried several at a time."""
        if self.state is not Dial.CALLING or self._local.retry_floor() < GATHERED_FROM:
            return deadline
        return ceil(deadline / GATHERED_EVERY) * GATHERED_EVERY


def rekey_time(session: Session) -> float:
    """When the next session is to be made."""
    age = REKEY_TIME if session.initiator else RESPONDER_REKEY_TIME
    return session.created_time + age - REKEY_SPREAD * session.local_index / 2**32
