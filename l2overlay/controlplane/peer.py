"""One peer: whether it is there, and what its records say.

Its parts decide for themselves, and program the link that carries its frames:

    Dialling   when INITs leave, and when silence has lasted too long
    Paths      where the peer is, and what the way to it takes
    Liveness   when PINGs leave, and which of them are unanswered (of a way)
    Reception  what the peer is told of its datagrams

A record that changes state (BYE, LAN, RECEPTION, and that a PING puts off ours) counts only under a session that the peer
may still use, which is the current session or the other one of its pair: somebody on the path can hold a datagram back and
let it go after the peer was restarted. Answers need no such rule, because each has the token of its question.

A peer is up from the moment a session is confirmed until one of: it says BYE; no PING was answered for `DOWN_TIME`, and no
INIT for `ASK_TIME`; it keeps sending INITs, never uses what we answer, and answers no PING (it does not hear us);
its last session expired.

Timers, in the order in which `handle_timer` looks at them: session expiry, silence, INIT retry, rekey, PING, path probe,
queue, fragments.
"""

from math import inf

from l2overlay.addresses import Address, PeerKey
from l2overlay.config.types import PeerConfig
from l2overlay.controlplane.dialling import Dialling, rekey_time
from l2overlay.controlplane.events import Cause, MtuDiffers, PeerDown, PeerUp
from l2overlay.controlplane.handshake import FEATURE_TRAIN, PendingHandshake, SessionKeys, mtu_in
from l2overlay.controlplane.liveness import Liveness
from l2overlay.controlplane.local import LocalNode
from l2overlay.controlplane.paths import Paths, Way, same_host
from l2overlay.controlplane.reception import Reception
from l2overlay.counters import Counters
from l2overlay.dataplane.link import Link
from l2overlay.dataplane.session import Session
from l2overlay.dataplane.wire import PING_TOKEN, PROBE_TOKEN, RECEPTION, Record, control_record

UNCONFIRMED_INITS = 4
UNCONFIRMED_APART = 0.5
"""INITs closer together count as one: a late node reads many at once, and none of them can have seen our answer to one."""
UNHEARD_TIME = 2.0
"""Ten PINGs. So many INITs that we answered in vain, and so long without a PONG: it does not hear us. Old INITs that
somebody sends us again do not count, because the genuine peer answers the PINGs."""


class Peer:
    """Everything about one peer but its stations."""

    def __init__(self, config: PeerConfig, local: LocalNode, max_frame_len: int, now: float) -> None:
        self.config = config
        self.key: PeerKey = config.public_key
        self.counters = Counters()
        way = Way(config.persistent_keepalive, now)
        self.link = Link(self.key, local.links, self, way.liveness, self.counters, max_frame_len)
        self.paths = Paths(way, self.link, local, self.wake_at, now)
        self.dialling = Dialling(self.key, self.paths, local, self.wake_at)
        self.up = False
        self.reason = "not tried yet"
        """Why it is down; empty if it is up."""
        self.last_stamp = 0
        self.features = 0
        """Of its latest handshake."""
        self.left_time: float | None = None
        """When it said that it leaves; None since it came back."""
        self.wakeup = inf
        self.reception = Reception()
        self._local = local
        self._is_silent = False
        self._unconfirmed_inits = 0
        self._unconfirmed_time = -inf

    def configure(self, config: PeerConfig, now: float) -> None:
        """Take a changed stanza."""
        self.config = config
        self.liveness.set_interval(config.persistent_keepalive, now)
        self.wake_at(self.liveness.deadline())

    @property
    def liveness(self) -> Liveness:
        """Of the way in use."""
        return self.paths.used.liveness

    @property
    def mtu(self) -> int:
        """Of its segment, as its latest handshake says; 0 when it does not say."""
        return mtu_in(self.features)

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
        mtu = self.paths.used.mtu
        mtu.used_large()
        self.wake_at(mtu.deadline())

    def _send_ping(self, now: float) -> None:
        self.add_ping(now)
        self.link.flush(now)

    def say_bye(self) -> None:
        """We leave, or the peer is to: it flushes our stations at once instead of after its timeout."""
        self.link.send_under_every_session(control_record(Record.BYE))

    # -- handshake ---------------------------------------------------------------------------------------------

    def set_endpoint(self, address: Address | None, now: float, delay: float = 0.0) -> None:
        """Where to send INITs. A peer that is up keeps the address that it proved until it has answered at a new one."""
        is_to_try = self.paths.configure(address, now, up=self.up)
        self._count_silent()
        if is_to_try:
            self.dialling.try_at(now + delay)

    def probe(self, now: float) -> None:
        """The underlay changed: find out at once whether, and how, the peer can be reached."""
        if self.up:
            self.paths.restart(now)
            self._send_ping(now)
        else:
            self.dialling.try_anew(now)

    def start_handshake(self, now: float) -> None:
        """Send an INIT."""
        if self.dialling.send_init(now) and not self.up and self.left_time is None:
            tries = self.dialling.attempts
            self.reason = "no answer yet" if tries == 1 else f"no answer to {tries} handshakes"

    def received_resp(
        self,
        pending: PendingHandshake,
        keys: SessionKeys,
        remote_index: int,
        address: Address,
        now: float,
    ) -> None:
        """A genuine RESP: the session is current at once, and a PING under it confirms the keys to the responder."""
        called_back_at = self.dialling.called_back_at(pending)
        if not self.up and called_back_at is not None:
            self.paths.take(called_back_at)
        self.link.use(self._make_session(keys, pending.sender, remote_index, address, now, initiator=True))
        self._allow_trains()
        self.liveness.last_heard = now
        if not self.up and same_host(address, self.link.endpoint):
            # Not every INIT leaves from the same address of ours: this one's path works.
            self.paths.take(address)
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

    def answer_unreadable(self, address: Address, now: float) -> None:
        """An answer to our INIT did not verify. Somebody on the way may have made it, so nothing else changes."""
        if not self.up:
            self._local.refuse(Cause.OTHER_PSK, address, self.key, now)

    def _check_half_open(self, now: float) -> None:
        """INIT after INIT, and never a datagram under what we answer: perhaps the peer does not hear us. PINGs tell."""
        unanswered_since = self.liveness.unanswered_since
        if unanswered_since == inf:
            self._send_ping(now)
        if self._unconfirmed_inits >= UNCONFIRMED_INITS and unanswered_since + UNHEARD_TIME <= now:
            self.go_down("it does not hear us", now)

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
        self.wake_at(rekey_time(session))
        return session

    def _allow_trains(self) -> None:
        """Unless it came back as an older version."""
        if not self.features & FEATURE_TRAIN:
            self.paths.forget_trains()

    def _confirm(self, now: float) -> None:
        """Both ends are known to have the keys."""
        self.dialling.confirmed()
        self._unconfirmed_inits = 0
        self.left_time = None
        self.liveness.answered(now)
        if self.up:
            return
        assert self.link.endpoint is not None
        self.up = True
        self._count_silent()
        self.reason = ""
        self.paths.restart(now)
        self._local.events.append(PeerUp(self.key, self.link.endpoint))
        self.paths.proven(now)
        theirs, ours = self.mtu, self._local.mtu
        if theirs and ours and theirs != ours:
            self._local.events.append(MtuDiffers(self.key, theirs, ours))

    def go_down(self, reason: str, now: float) -> None:
        """No session any more. The owner flushes its stations when it sees the event."""
        self.link.go_down()
        self.paths.stop()
        self.reason = reason
        if not self.up:
            return
        self.up = False
        self._unconfirmed_inits = 0
        self.paths.fall_back()
        self._count_silent()
        self._local.events.append(PeerDown(self.key, reason))
        self.dialling.went_down(now)

    def retire(self, now: float) -> None:
        """The peer is no longer configured: give back what it holds of the node."""
        self.go_down("it was removed", now)
        self.dialling.stop()
        self.link.close()
        self.paths.forget()
        self._count_silent()
        self.wakeup = inf

    def _count_silent(self) -> None:
        """Count the peer among those that do not answer while that is so."""
        is_silent = not self.up and self.link.endpoint is not None
        self._local.unanswered += is_silent - self._is_silent
        self._is_silent = is_silent

    # -- datagrams that verified -------------------------------------------------------------------------------

    def received_datagram(self, session: Session, now: float) -> bool:
        """Datagrams of `session` verified. Returns True if the link has something to flush."""
        if self.link.next and self.link.confirm(session):
            self._allow_trains()
            if not self.up:
                self.paths.take(session.address)
            self._confirm(now)
        self.link.traffic.last_heard = now
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
        if not self.link.traffic.expects_frames:
            self.link.traffic.expects_frames = True
            self.wake_at(self.liveness.deadline())

    def receive_control(self, kind: Record, body: bytes, address: Address, now: float) -> None:
        """One control record of an authentic datagram. The answers leave with the next `flush`."""
        if kind is Record.PING:
            self.liveness.received_ping(now)
            self.link.outbox.add_record(control_record(Record.PONG, body))
        elif kind is Record.PATH_PROBE:
            self.link.outbox.add_record(control_record(Record.PATH_ACK, body))
        elif kind is Record.PATH_CHALLENGE:
            self.paths.answer(body, address, now)
        elif kind is Record.PONG:
            self._receive_pong(body, now)
        elif kind is Record.PATH_ACK:
            self.paths.acknowledged(PROBE_TOKEN.unpack(body)[0], now)
        elif kind is Record.PATH_RESPONSE:
            self.paths.received_response(body, address, now)
        elif kind is Record.RECEPTION and self.features & FEATURE_TRAIN:
            used, opened = RECEPTION.unpack(body)
            self.paths.reported_untrusted(used, opened, now)
        elif kind is Record.BYE:
            self.left_time = now
            self.go_down("it left", now)

    def _receive_pong(self, body: bytes, now: float) -> None:
        if self.liveness.received_pong(PING_TOKEN.unpack(body)[0], now):
            self._unconfirmed_inits = 0
            self.dialling.received_pong()

    # -- timers ------------------------------------------------------------------------------------------------

    def handle_timer(self, now: float, *, all_read: bool = True) -> None:
        """Do all that is due, and set `wakeup`. Unless `all_read`, answers may wait: the peer is not judged yet."""
        self.dialling.timer_came(self.wakeup, now)
        if self.link.expire_sessions(now):
            self.go_down("its session expired", now)
        if self.dialling.is_too_silent(now, all_read=all_read):
            self.go_down("no answer", now)
        if self.dialling.next_init <= now:
            self.start_handshake(now)
        if self.up:
            if self.dialling.is_to_renew(self.link.current, now):
                self.start_handshake(now)
            if self.liveness.is_due(now):
                self._send_ping(now)
            self.paths.probe(now)
            self.paths.ask(now)
        fragments = self.link.expire_frames(now)
        self.link.flush(now)
        self.wakeup = inf
        self.wake_at(min(self._deadline(), fragments))

    def _deadline(self) -> float:
        deadline = min(
            self.liveness.deadline(), self.link.deadline(), self.dialling.deadline(self.link.current)
        )
        return min(deadline, self.paths.deadline()) if self.up else deadline
