"""The states in which INITs leave for a peer, as the table at the head of `controlplane/dialling.py` has them."""

import pytest

from l2overlay.controlplane.dialling import DOWN_TIME, REKEY_SPREAD, REKEY_TIME, RESPONDER_REKEY_TIME, Dial
from l2overlay.dataplane.wire import Record

from .far_end import DATA, FAR_ADDRESS, INIT, FarEnd, NearEnd, config_of

NEAR, FAR = b"\x11" * 32, b"\x22" * 32
STEP = 0.1


@pytest.fixture
def near() -> NearEnd:
    return NearEnd(NEAR, config_of(NEAR, FAR))


@pytest.fixture
def far(near: NearEnd) -> FarEnd:
    return FarEnd(FAR, near.key)


def state(near: NearEnd) -> Dial:
    (peer,) = near.overlay._members
    return peer.dialling.state


def wait_for(near: NearEnd, wanted: Dial, seconds: float) -> list[bytes]:
    """Let time pass until the state is entered; returns what was sent."""
    sent, end = [], near.now + seconds
    while state(near) is not wanted:
        assert near.now < end, state(near)
        sent += [datagram for _, datagram in near.wait(STEP)]
    return sent


def answer_pings(far: FarEnd, near: NearEnd, datagrams: list[bytes]) -> None:
    for datagram in datagrams:
        if datagram[0] == DATA:
            for kind, body in far.open(datagram):
                if kind is Record.PING:
                    near.receive(far.control(Record.PONG, body))


def test_a_peer_is_called_until_a_session_is_confirmed(near: NearEnd, far: FarEnd) -> None:
    assert (state(near), near.wait(60.0)) == (Dial.CALLING, []), "no address is known"
    near.overlay.set_endpoint(far.context.public_key, FAR_ADDRESS, near.now)
    inits = [datagram for _, datagram in near.wait(10.0) if datagram[0] == INIT]
    assert len(inits) > 5
    assert state(near) is Dial.CALLING
    near.receive(far.answer(inits[-1]))
    assert state(near) is Dial.IDLE


def test_a_silent_peer_is_asked_until_it_answers_a_ping(near: NearEnd, far: FarEnd) -> None:
    far.dial(near)
    sent = wait_for(near, Dial.ASKING, 30.0)
    answer_pings(far, near, sent[-1:] + [datagram for _, datagram in near.wait(1.0)])
    assert (state(near), near.status().up) == (Dial.IDLE, True)


def test_a_peer_that_stays_silent_is_called_from_then_on(near: NearEnd, far: FarEnd) -> None:
    near.overlay.set_endpoint(far.context.public_key, FAR_ADDRESS, near.now)
    far.dial(near)
    wait_for(near, Dial.ASKING, 30.0)
    wait_for(near, Dial.CALLING, DOWN_TIME)
    assert not near.status().up
    assert INIT in {datagram[0] for _, datagram in near.wait(3.0)}


def test_an_old_session_is_renewed_whether_or_not_a_ping_is_answered(near: NearEnd, far: FarEnd) -> None:
    far.dial(near)
    began = near.now
    while state(near) is not Dial.RENEWING:
        answer_pings(far, near, [datagram for _, datagram in near.wait(STEP)])
        assert near.now < began + RESPONDER_REKEY_TIME + STEP
    assert near.now > began + REKEY_TIME - REKEY_SPREAD
    inits = []
    for _ in range(20):
        sent = [datagram for _, datagram in near.wait(STEP)]
        answer_pings(far, near, sent)
        inits += [datagram for datagram in sent if datagram[0] == INIT]
    assert (state(near), near.status().up) == (Dial.RENEWING, True)
    near.receive(far.answer(inits[-1]))
    assert state(near) is Dial.IDLE
