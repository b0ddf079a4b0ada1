"""One peer: its handshakes, its timers, its address and its path. What carries its frames is its `Link`.

A record that changes state (BYE, LAN, RECEPTION, and that a PING puts off ours) counts only under a session that the peer
may still use, which is the current session or the other one of its pair: somebody on the path can hold a datagram back and
let it go after the peer was restarted. Answers need no such rule, because each has the token of its question.

A peer is up from the moment a session is confirmed until one of: it says BYE; no PING was answered for `DOWN_TIME`, and no
INIT for `ASK_TIME`; it keeps sending INITs, never uses what we answer, and answers no PING (it does not hear us);
its last session expired.

Timers, in the order in which `handle_timer` looks at them: session expiry, silence, INIT retry, rekey, PING, path probe,
queue, fragments.
"""

from collections import deque
from collections.abc import Iterator
from math import ceil, inf

from l2overlay.addresses import Address, PeerKey
from l2overlay.config.types import PeerConfig
from l2overlay.controlplane.cookie import CookieHolder
from l2overlay.controlplane.events import (
    Cause,
    MtuDiffers,
    PathSizeChanged,
    PathTooSmall,
    PeerDown,
    PeerMoved,
    PeerOnTwoHosts,
    PeerUnanswered,
    PeerUp,
)
from l2overlay.controlplane.handshake import (
    FEATURE_TRAIN,
    PendingHandshake,
    SessionKeys,
    features_with,
    initiate,
    mtu_in,
)
from l2overlay.controlplane.liveness import Liveness
from l2overlay.controlplane.local import LocalNode
from l2overlay.controlplane.path_mtu import PathMtu
from l2overlay.controlplane.reception import Reception, TrainLength
from l2overlay.controlplane.roaming import MIN_QUESTION, Roaming
from l2overlay.counters import Counters
from l2overlay.dataplane.link import Link
from l2overlay.dataplane.session import Session
from l2overlay.dataplane.wire import (
    PING_TOKEN,
    PROBE_TOKEN,
    RECEPTION,
    Record,
    control_record,
    path_probe,
)

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
UNCONFIRMED_INITS = 4
UNCONFIRMED_APART = 0.5
"""INITs closer together count as one: a late node reads many at once, and none of them can have seen our answer to one."""
UNHEARD_TIME = 2.0
"""Ten PINGs. So many INITs that we answered in vain, and so long without a PONG: it does not hear us. Old INITs that
somebody sends us again do not count, because the genuine peer answers the PINGs."""
CALL_BACK_INTERVAL = 1.0
"""A peer whose stamps are behind is called at most so often."""
FOLLOW_TIME = 1.0
"""Seconds that a peer calls another of our addresses than the one it is answered from, before we answer from there. Perhaps
it is about to follow us: were both ends to follow at once, they would pass each other again and again."""
UNANSWERED_FROM = 3
UNANSWERED_EVERY = 8
"""A silent peer is reported at its third INIT and at every eighth from then on: about every 10 s."""

DEFAULT_PATH_LIMIT = {4: 1472, 6: 1452}
"""UDP payload in one Ethernet frame, until the shell knows the interface."""


class Peer:
    """Everything about one peer but its stations."""

    def __init__(self, config: PeerConfig, local: LocalNode, max_frame_len: int, now: float) -> None:
        self.config = config
        self.key: PeerKey = config.public_key
        self.counters = Counters()
        self.liveness = Liveness(config.persistent_keepalive)
        self.link = Link(self.key, local.links, self, self.liveness, self.counters, max_frame_len)
        self.configured: Address | None = None
        self.up = False
        self.reason = "not tried yet"
        self.last_stamp = 0
        self.features = 0
        """Of its latest handshake."""
        self.next_init = inf
        self.wakeup = inf
        self.path = PathMtu(DEFAULT_PATH_LIMIT[4], now)
        self._told_too_small = False
        self.reception = Reception()
        self.trains = TrainLength()
        self._local = local
        self._pending: deque[PendingHandshake] = deque()
        self._attempts = 0
        self._asking = False
        self._asked_time = self._woke_time = self._unconfirmed_time = -inf
        self._unconfirmed_inits = 0
        self._cookie = CookieHolder(self.key)
        self._roaming = Roaming(local.random, now)
        self.left_time: float | None = None
        """When it said that it leaves; None since it came back."""
        self._called_back: tuple[int, Address] | None = None
        self._next_call_back = -inf
        self._called_elsewhere: tuple[Address | None, float] = (None, inf)

    def configure(self, config: PeerConfig, now: float) -> None:
        """Its stanza is another one."""
        self.config = config
        self.liveness.set_interval(config.persistent_keepalive, now)
        self.wake_at(self.liveness.deadline())

    # -- what the link asks for, and what leaves by it -----------------------------------------------------------

    def wake_at(self, deadline: float) -> None:
        """Ask for `handle_timer` at `deadline` or earlier."""
        if deadline < self.wakeup:
            self.wakeup = deadline
            self._local.arm(deadline)

    def add_ping(self, now: float) -> None:
        """Put a PING into the outbox."""
        token = int.from_bytes(self._local.random(8), "little")
        self.liveness.sent_ping(token, now)
        self.link.outbox.add_record(control_record(Record.PING, PING_TOKEN.pack(token)))
        self.wake_at(self.liveness.deadline())

    def sent_large(self) -> None:
        """Datagrams left that are larger than the base size: whether they arrive is verified."""
        self.path.used_large()
        self.wake_at(self.path.deadline())

    def _send_ping(self, now: float) -> None:
        self.add_ping(now)
        self.link.flush(now)

    def say_bye(self) -> None:
        """We leave, or the peer is to: it flushes our stations at once instead of after its timeout."""
        self.link.send_under_every_session(control_record(Record.BYE))

    # -- handshake ---------------------------------------------------------------------------------------------

    def set_endpoint(self, address: Address | None, now: float, delay: float = 0.0) -> None:
        """Where to send INITs. A peer that is up keeps the address that it proved until it has answered at a new one."""
        is_new, self.configured = address != self.configured, address
        if self.up and is_new:
            known = address is not None and _same_host(address, self.link.endpoint)
            self._roaming.want(None if known else address, now)
            self._ask_endpoint(now)
        if self.up or address is None or address == self.link.endpoint:
            return
        self._count_unanswered(-1)
        self.link.endpoint = address
        self._count_unanswered(+1)
        self.path.set_limit(DEFAULT_PATH_LIMIT[6 if ":" in address.host else 4], now)
        self.try_at(now + delay)

    def set_path_limit(self, datagram_size: int, now: float) -> None:
        """The local interface towards the peer takes datagrams of at most this size."""
        self.path.set_limit(datagram_size, now)
        self._apply_path()

    def probe(self, now: float) -> None:
        """The underlay changed: find out at once whether, and how, the peer can be reached."""
        if self.up:
            self._restart_path(now)
            self._send_ping(now)
        else:
            self._attempts = 0
            self.try_at(now)

    def try_at(self, time: float) -> None:
        """Send an INIT at `time`, unless one is due earlier."""
        if self.link.endpoint is not None and time < self.next_init:
            self.next_init = time
            self.wake_at(time)

    def start_handshake(self, now: float) -> None:
        """Send an INIT. Earlier ones may still be answered."""
        if self.link.endpoint is None:
            self.next_init = inf
            return
        pending = self._initiate(now)
        self._local.send(self._init_target(self.link.endpoint), pending.datagram)
        if not self._attempts:
            self._asked_time = now
        self._attempts += 1
        self.next_init = self._in_company(now + self._retry_delay())
        if not self.up and self.left_time is None:
            self.reason = (
                "no answer yet" if self._attempts == 1 else f"no answer to {self._attempts} handshakes"
            )
        if not self.up and self._attempts % UNANSWERED_EVERY == UNANSWERED_FROM:
            self._local.events.append(PeerUnanswered(self.key, self._attempts))

    def _init_target(self, endpoint: Address) -> Address:
        """Of a peer that once called another of our addresses than the kernel's choice: in turn from both."""
        return endpoint if self.up or self._attempts % 2 == 0 else endpoint._replace(local="")

    def _initiate(self, now: float) -> PendingHandshake:
        local = self._local
        if len(self._pending) >= MAX_PENDING:
            del local.pending[self._pending.popleft().sender]
        pending = initiate(
            local.context,
            self.key,
            sender=local.new_index(),
            stamp=local.new_stamp(now),
            features=features_with(local.mtu),
            ephemeral=local.random(32),
            cookie=self._cookie.cookie(now),
        )
        self._pending.append(pending)
        local.pending[pending.sender] = pending
        return pending

    def _retry_delay(self) -> float:
        delay = FIRST_RETRY if self._attempts < FIRST_RETRIES else LATER_RETRY
        floor = 0.0 if self.up else self._local.retry_floor()
        return max(delay, floor) * (0.8 + 0.4 * self._local.jitter())

    def _in_company(self, deadline: float) -> float:
        """The silent peers of a large segment are tried several at a time."""
        if self.up or self._local.retry_floor() < GATHERED_FROM:
            return deadline
        return ceil(deadline / GATHERED_EVERY) * GATHERED_EVERY

    def received_resp(
        self,
        pending: PendingHandshake,
        keys: SessionKeys,
        remote_index: int,
        address: Address,
        now: float,
    ) -> None:
        """A genuine RESP: the session is current at once, and a PING under it confirms the keys to the responder."""
        if not self.up and self._called_back is not None and self._called_back[0] == pending.sender:
            self._take_endpoint(self._called_back[1])
        self.link.use(self._make_session(keys, pending.sender, remote_index, address, now, initiator=True))
        self._allow_trains()
        self.liveness.last_heard = now
        if not self.up and _same_host(address, self.link.endpoint):
            # Not every INIT leaves from the same address of ours: this one's path works.
            self.link.endpoint = address
        self._confirm(now)
        self._send_ping(now)

    def received_init(
        self, keys: SessionKeys, index: int, remote_index: int, address: Address, now: float
    ) -> None:
        """A genuine INIT, and our RESP is on its way: the session waits for the initiator's first datagram."""
        self.link.expect(self._make_session(keys, index, remote_index, address, now, initiator=False))
        if self._unconfirmed_time + UNCONFIRMED_APART <= now:
            self._unconfirmed_time = now
            self._unconfirmed_inits += 1
        if self.up:
            self._check_half_open(now)
        elif self._unconfirmed_inits >= UNCONFIRMED_INITS:
            self._local.refuse(Cause.UNUSED_ANSWER, address, self.key, now)

    def call_back(self, address: Address, now: float) -> None:
        """Send an INIT to an address from which the peer proved to call, with stamps too old for a session."""
        if now < self._next_call_back:
            return
        self._next_call_back = now + CALL_BACK_INTERVAL
        pending = self._initiate(now)
        self._called_back = (pending.sender, address)
        self._local.send(address, pending.datagram)

    def answer_unreadable(self, address: Address, now: float) -> None:
        """An answer to our INIT did not verify. Somebody on the way may have made it, so nothing else changes."""
        if not self.up:
            self._local.refuse(Cause.OTHER_PSK, address, self.key, now)

    def _take_endpoint(self, address: Address) -> None:
        """Of a peer that is down: where it is."""
        self._count_unanswered(-1)
        self.link.endpoint = address
        self._count_unanswered(+1)

    def _check_half_open(self, now: float) -> None:
        """INIT after INIT, and never a datagram under what we answer: perhaps the peer does not hear us. PINGs tell."""
        unanswered_since = self.liveness.unanswered_since
        if unanswered_since == inf:
            self._send_ping(now)
        if self._unconfirmed_inits >= UNCONFIRMED_INITS and unanswered_since + UNHEARD_TIME <= now:
            self.go_down("it does not hear us", now)

    def receive_cookie_untrusted(self, datagram: bytes, mac1: bytes, now: float) -> None:
        """The peer is under load; the next INIT proves our address. Raises DatagramError.

        `mac1` is that of the INIT which it claims to answer.
        """
        had_cookie = self._cookie.cookie(now) is not None
        self._cookie.receive_untrusted(datagram, mac1, now)
        if not had_cookie:
            self.next_init = now
            self.wake_at(now)

    def _make_session(
        self,
        keys: SessionKeys,
        index: int,
        remote_index: int,
        address: Address,
        now: float,
        *,
        initiator: bool,
    ) -> Session:
        session = Session(
            self.key,
            self._local.context.suite,
            send_key=keys.send,
            receive_key=keys.receive,
            local_index=index,
            remote_index=remote_index,
            initiator=initiator,
            created_time=now,
            address=address,
        )
        self.wake_at(self._rekey_time(session))
        return session

    def _allow_trains(self) -> None:
        """Unless it came back as an older version."""
        if not self.features & FEATURE_TRAIN:
            self._forget_reception()

    def _stop_handshake(self) -> None:
        """No INIT is wanted any more, and the answers to those under way neither."""
        while self._pending:
            del self._local.pending[self._pending.popleft().sender]
        self.next_init = inf
        self._attempts = 0
        self._asking = False

    def _confirm(self, now: float) -> None:
        """Both ends are known to have the keys."""
        self._stop_handshake()
        self._unconfirmed_inits = 0
        self.left_time = self._called_back = None
        self.liveness.answered(now)
        if self.up:
            return
        assert self.link.endpoint is not None
        self._count_unanswered(-1)
        self.up = True
        self.reason = ""
        self._restart_path(now)
        self._local.events.append(PeerUp(self.key, self.link.endpoint))
        self._came(now)
        theirs, ours = self.mtu, self._local.mtu
        if theirs and ours and theirs != ours:
            self._local.events.append(MtuDiffers(self.key, theirs, ours))

    def _came(self, now: float) -> None:
        """The peer has proven where it is."""
        assert self.link.endpoint is not None
        if self.link.current is not None:
            two = self._roaming.came(
                self.link.endpoint._replace(local=""), self.link.current.local_index, now
            )
            if two is not None:
                self._local.events.append(PeerOnTwoHosts(self.key, *two))

    def two_hosts(self, now: float) -> tuple[Address, Address] | None:
        """The addresses of two hosts that seem to have the peer's key."""
        return self._roaming.places.two_hosts(now)

    @property
    def mtu(self) -> int:
        """Of its segment, as its latest handshake says; 0 when it does not say."""
        return mtu_in(self.features)

    def go_down(self, reason: str, now: float) -> None:
        """No session any more. The owner flushes its stations when it sees the event."""
        self.link.go_down()
        self.liveness.stop()
        self._roaming.stop()
        self.reason = reason
        if not self.up:
            return
        self.up = False
        self._attempts = 0
        self._asking = False
        self._unconfirmed_inits = 0
        self.link.endpoint = self.configured or self.link.endpoint
        self._count_unanswered(+1)
        self._local.events.append(PeerDown(self.key, reason))
        self.try_at(now + max(DOWN_SPREAD, self._local.retry_floor()) * self._local.jitter())

    def retire(self, now: float) -> None:
        """The peer is no longer configured: give back what it holds of the node."""
        self.go_down("it was removed", now)
        self._count_unanswered(-1)
        self._stop_handshake()
        self.link.close()
        self.configured = None
        self.wakeup = inf

    def _count_unanswered(self, change: int) -> None:
        if not self.up and self.link.endpoint is not None:
            self._local.unanswered += change

    # -- datagrams that verified -------------------------------------------------------------------------------

    def received_datagram(self, session: Session, now: float) -> bool:
        """Datagrams of `session` verified. Returns True if the link has something to flush."""
        if self.link.next and self.link.confirm(session):
            self._allow_trains()
            if not self.up:
                self._take_endpoint(session.address)
            self._confirm(now)
        self.liveness.last_heard = now
        if self.features & FEATURE_TRAIN:
            report = self.reception.report(session, now)
            if report is not None:
                self.link.outbox.add_record(control_record(Record.RECEPTION, RECEPTION.pack(*report)))
                return True
        return False

    def receive_former_control(self, kind: Record, body: bytes, address: Address, now: float) -> None:
        """One control record of a session that the peer does not use any more: questions are answered, and answers taken."""
        if kind is Record.PING:
            self.link.outbox.add_record(control_record(Record.PONG, body))
        elif kind is Record.BYE:
            if self.up:
                self._send_ping(now)
        elif kind not in (Record.LAN, Record.RECEPTION):
            self.receive_control(kind, body, address, now)

    def received_frames(self, now: float) -> None:
        """Frames came."""
        if not self.liveness.expects_frames:
            self.liveness.expects_frames = True
            self.wake_at(self.liveness.deadline())

    def receive_control(self, kind: Record, body: bytes, address: Address, now: float) -> None:
        """One control record of an authentic datagram. The answers leave with the next `flush`."""
        if kind is Record.PING:
            self.liveness.received_ping(now)
            self.link.outbox.add_record(control_record(Record.PONG, body))
        elif kind is Record.PATH_PROBE:
            self.link.outbox.add_record(control_record(Record.PATH_ACK, body))
        elif kind is Record.PATH_CHALLENGE:
            if self.link.current is not None and self._roaming.may_answer(now):
                self.link.send_alone(control_record(Record.PATH_RESPONSE, body), address)
        elif kind is Record.PONG:
            self._receive_pong(body, now)
        elif kind is Record.PATH_ACK:
            if self.path.acknowledged(PROBE_TOKEN.unpack(body)[0], now):
                self._apply_path()
            self.wake_at(self.path.deadline())
        elif kind is Record.PATH_RESPONSE:
            self._receive_path_response(body, address, now)
        elif kind is Record.RECEPTION and self.features & FEATURE_TRAIN:
            used, opened = RECEPTION.unpack(body)
            if self.trains.reported_untrusted(used, opened, self.path.size, now):
                self.link.outbox.resize(self.path.size, self.trains.cars)
        elif kind is Record.BYE:
            self.left_time = now
            self.go_down("it left", now)

    def _receive_pong(self, body: bytes, now: float) -> None:
        if not self.liveness.received_pong(PING_TOKEN.unpack(body)[0], now):
            return
        self._unconfirmed_inits = 0
        if self._asking:
            self._stop_handshake()

    def addresses(self) -> Iterator[Address]:
        """Where it is, may be, or has just been asked."""
        sessions = (session.address for session in self.link.sessions())
        found = (self.link.endpoint, self.configured, *sessions, *self._roaming.asked())
        return (address for address in found if address is not None)

    def heard_at(self, address: Address, length: int, now: float) -> None:
        """Datagrams with `length` bytes of plaintext came from `address`, and nothing was sent there yet."""
        if address == self.link.endpoint or length < MIN_QUESTION or self._roaming.has_left(address, now):
            return
        if self._is_to_follow(address, now):
            self._challenge_address(address, now)

    def _is_to_follow(self, address: Address, now: float) -> bool:
        """At once to another address of the peer; when it calls another of ours, after `FOLLOW_TIME`."""
        if not _same_host(address, self.link.endpoint):
            return True
        called, since = self._called_elsewhere
        if called != address:
            self._called_elsewhere = address, now
            return False
        return since + FOLLOW_TIME <= now

    def _challenge_address(self, address: Address, now: float) -> None:
        """Traffic moves to a new address only after the peer has answered from there."""
        if self.link.current is None:
            return
        token = self._roaming.challenge(address, now)
        if token is not None:
            self.link.send_alone(control_record(Record.PATH_CHALLENGE, token), address)

    def _ask_endpoint(self, now: float) -> None:
        """A new endpoint is asked until it answers, a few times."""
        endpoint = self._roaming.due_endpoint(now)
        if endpoint is not None:
            self._challenge_address(endpoint, now)
        self.wake_at(self._roaming.next_try)

    def _receive_path_response(self, body: bytes, address: Address, now: float) -> None:
        if not self._roaming.answered(address, body) or address == self.link.endpoint:
            return
        self._called_elsewhere = (None, inf)
        old, self.link.endpoint = self.link.endpoint, address
        self._roaming.moved(old, address, now)
        if not _same_host(address, old):
            self._local.events.append(PeerMoved(self.key, old, address))
        self._came(now)
        self.path.set_limit(DEFAULT_PATH_LIMIT[6 if ":" in address.host else 4], now)
        self._restart_path(now)

    def _restart_path(self, now: float) -> None:
        """It may be another one: neither what it takes nor what it loses is known."""
        self.path.restart(now)
        self._apply_path()
        self._forget_reception()

    def _forget_reception(self) -> None:
        self.trains = TrainLength()
        self.link.outbox.resize(self.path.size)

    def _apply_path(self) -> None:
        """The outbox fills datagrams of the size that the path is known to take."""
        if self.link.outbox.datagram_size != self.path.size:
            self._forget_reception()
            self._local.events.append(PathSizeChanged(self.key, self.path.size))
        if self.path.is_too_small != self._told_too_small:
            self._told_too_small = self.path.is_too_small
            if self._told_too_small:
                self._local.events.append(PathTooSmall(self.key))
        self.wake_at(self.path.deadline())

    # -- timers ------------------------------------------------------------------------------------------------

    def handle_timer(self, now: float, *, all_read: bool = True) -> None:
        """Do all that is due, and set `wakeup`. Unless `all_read`, answers may wait: the peer is not judged yet."""
        if self.wakeup + SLEPT_TIME <= now:
            self._woke_time = now
        if self.link.expire_sessions(now):
            self.go_down("its session expired", now)
        self._check_silence(now, all_read)
        if self.next_init <= now:
            self.start_handshake(now)
        if self.up:
            self._check_rekey(now)
            if self.liveness.is_due(now):
                self._send_ping(now)
            self._probe_path(now)
            self._ask_endpoint(now)
        fragments = self.link.expire_frames(now)
        self.link.flush(now)
        self.wakeup = inf
        self.wake_at(min(self._deadline(), fragments))

    def _deadline(self) -> float:
        deadline = min(self.next_init, self.liveness.deadline(), self.link.deadline())
        if not self._attempts:
            deadline = min(deadline, self.liveness.unanswered_since + SILENCE_TIME)
        deadline = min(deadline, self._down_time())
        if self.link.current is not None and not self._attempts:
            deadline = min(deadline, self._rekey_time(self.link.current))
        if self.up:
            deadline = min(deadline, self.path.deadline(), self._roaming.next_try)
        return deadline

    def _check_silence(self, now: float, all_read: bool) -> None:
        since, down_time = self.liveness.unanswered_since, self._down_time()
        if down_time <= now:
            if all_read and not self._asks_again(now):
                self.go_down("no answer", now)
        elif since + SILENCE_TIME <= now and not self._attempts:
            self._asking = True
            self.next_init = now

    def _asks_again(self, now: float) -> bool:
        """Whether the peer gets another chance: once, when the node slept after it began to ask."""
        if self._woke_time < self._asked_time or self._was_asked_late():
            return False
        self._asked_time = self.next_init = now
        return True

    def _was_asked_late(self) -> bool:
        return self._asked_time >= self.liveness.unanswered_since + DOWN_TIME

    def _down_time(self) -> float:
        """When the peer is down unless it answers."""
        if not self._attempts:
            return inf
        chance = SILENCE_TIME if self._was_asked_late() else ASK_TIME
        return max(self.liveness.unanswered_since + DOWN_TIME, self._asked_time + chance)

    def _check_rekey(self, now: float) -> None:
        if (
            self.link.current is not None
            and not self._attempts
            and self._rekey_time(self.link.current) <= now
        ):
            self.start_handshake(now)

    @staticmethod
    def _rekey_time(session: Session) -> float:
        age = REKEY_TIME if session.initiator else RESPONDER_REKEY_TIME
        return session.created_time + age - REKEY_SPREAD * session.local_index / 2**32

    def _probe_path(self, now: float) -> None:
        probe = self.path.due_probe(now)
        self._apply_path()
        if probe is not None and self.link.endpoint is not None:
            token, size = probe
            self.link.send_alone(path_probe(token, size), self.link.endpoint)


def _same_host(address: Address, other: Address | None) -> bool:
    """Whether two addresses are one, whichever of ours they belong to."""
    return other is not None and address[:2] == other[:2]
