"""A handshake that comes to nothing for a reason that we know is told here, and not to the sender."""

from dataclasses import replace

import pytest

from l2overlay.addresses import Address
from l2overlay.config.types import Suite
from l2overlay.controlplane.dialling import CALL_BACK_INTERVAL
from l2overlay.controlplane.events import Cause, HandshakeRefused, MtuDiffers, PeerUp
from l2overlay.controlplane.handshake import OUR_FEATURES, features_with, mtu_in, receive_init_untrusted
from l2overlay.controlplane.peer import UNCONFIRMED_APART, UNCONFIRMED_INITS
from l2overlay.controlplane.refusals import MAX_REMEMBERED, SHOWN_TIME, TELL_INTERVAL, TOLD_BURST, Refusals
from l2overlay.dataplane.wire import Record
from l2overlay.keys import public_key

from .far_end import COOKIE, FAR_ADDRESS, INIT, FarEnd, NearEnd, config_of, segment

NEAR, FAR, STRANGER = b"\x11" * 32, b"\x22" * 32, b"\x33" * 32
FAR_KEY = public_key(FAR)


@pytest.fixture
def near() -> NearEnd:
    return NearEnd(NEAR, config_of(NEAR, FAR))


@pytest.fixture
def far(near: NearEnd) -> FarEnd:
    return FarEnd(FAR, near.key)


def refused(near: NearEnd) -> list[HandshakeRefused]:
    return [event for event in near.events() if isinstance(event, HandshakeRefused)]


@pytest.mark.parametrize(
    ("far_end", "cause", "key"),
    [
        (lambda near: FarEnd(STRANGER, near.key), Cause.UNKNOWN_KEY, public_key(STRANGER)),
        (lambda near: FarEnd(FAR, near.key, segment("other")), Cause.OTHER_SEGMENT, None),
        (lambda near: FarEnd(FAR, public_key(STRANGER)), Cause.WRONG_KEY, None),
    ],
    ids=["a key that is in no stanza", "another segment", "another public key of ours"],
)
def test_the_called_node_tells_who_calls_and_why_nothing_comes_of_it(
    near: NearEnd, far_end: object, cause: Cause, key: bytes | None
) -> None:
    assert near.receive(far_end(near).init()) == []  # type: ignore[operator]
    assert refused(near) == [HandshakeRefused(cause, FAR_ADDRESS, key)]  # type: ignore[arg-type]
    assert [r.cause for r in near.overlay.refusals(near.now)] == [cause]
    assert near.overlay.refusals(near.now + SHOWN_TIME) == []


def test_another_suite_is_told(near: NearEnd, far: FarEnd) -> None:
    far.context = type(far.context).create(FAR, Suite.CHACHAPOLY, "lan")
    assert near.receive(far.init()) == []
    assert refused(near) == [HandshakeRefused(Cause.OTHER_SUITE, FAR_ADDRESS, None)]


def test_both_ends_tell_of_another_psk(near: NearEnd) -> None:
    other = FarEnd(FAR, near.key, segment(psk=b"\x55" * 32))
    for _ in range(UNCONFIRMED_INITS):
        near.now += UNCONFIRMED_APART
        near.receive(other.init())
    assert refused(near) == [HandshakeRefused(Cause.UNUSED_ANSWER, FAR_ADDRESS, FAR_KEY)]
    near.overlay.set_endpoint(FAR_KEY, FAR_ADDRESS, near.now)
    ((_, init),) = near.wait(0.0)
    near.receive(other.answer(init))
    assert refused(near) == [HandshakeRefused(Cause.OTHER_PSK, FAR_ADDRESS, FAR_KEY)]


def test_inits_that_are_read_at_once_are_no_proof_that_the_caller_hears_no_answer(near: NearEnd) -> None:
    other = FarEnd(FAR, near.key, segment(psk=b"\x55" * 32))
    for _ in range(2 * UNCONFIRMED_INITS):
        near.receive(other.init())
    assert refused(near) == []


def test_a_host_is_told_of_once_a_minute_and_a_flood_of_hosts_is_bounded_and_hides_no_other_cause() -> None:
    refusals, home = Refusals(), Address("192.0.2.2", 1)
    assert refusals.note(Cause.OTHER_SUITE, home, None, 0.0) is not None
    assert refusals.note(Cause.OTHER_SUITE, home, None, TELL_INTERVAL - 1) is None
    assert refusals.note(Cause.OTHER_SUITE, home, None, TELL_INTERVAL) is not None
    flood = [Address(f"198.51.{i // 250}.{i % 250}", i + 1) for i in range(5000)]
    told = [refusals.note(Cause.WRONG_KEY, address, None, TELL_INTERVAL) for address in flood]
    assert sum(event is not None for event in told) == TOLD_BURST
    assert len(refusals.recent(TELL_INTERVAL)) <= MAX_REMEMBERED
    assert refusals.note(Cause.UNKNOWN_KEY, home, FAR_KEY, TELL_INTERVAL) is not None
    assert Cause.OTHER_SUITE in [r.cause for r in refusals.recent(TELL_INTERVAL)]


# -- the MTU -----------------------------------------------------------------------------------------------------


def test_a_segment_with_another_mtu_is_told_when_the_peer_comes_up(near: NearEnd, far: FarEnd) -> None:
    far.features = features_with(9000)
    far.dial(near)
    assert [e for e in near.events() if isinstance(e, PeerUp | MtuDiffers)][1:] == [
        MtuDiffers(FAR_KEY, 9000, 1500)
    ]
    assert near.status().mtu == 9000


@pytest.mark.parametrize("features", [OUR_FEATURES, features_with(1500)], ids=["an older version", "equal"])
def test_the_same_mtu_or_one_that_is_not_told_is_no_news(near: NearEnd, far: FarEnd, features: int) -> None:
    far.features = features
    far.dial(near)
    assert not [e for e in near.events() if isinstance(e, MtuDiffers)]


def test_the_node_tells_its_own_mtu_and_an_older_peer_sees_the_features_that_it_knows(far: FarEnd) -> None:
    near = NearEnd(NEAR, config_of(NEAR, FAR, segment_config=replace(segment(), mtu=9000)))
    near.overlay.set_endpoint(FAR_KEY, FAR_ADDRESS, near.now)
    ((_, init),) = near.wait(0.0)
    features = receive_init_untrusted(far.context, init).features
    assert (features & 0xFFFF, mtu_in(features)) == (OUR_FEATURES, 9000)


# -- a clock that is behind --------------------------------------------------------------------------------------


def test_a_peer_whose_stamps_are_behind_is_called_back_once_its_address_is_proven(
    near: NearEnd, far: FarEnd
) -> None:
    near.receive(far.init(stamp=100))
    stale = far.init(stamp=1)
    ((address, cookie),) = near.receive(stale)
    assert (address, cookie[0]) == (FAR_ADDRESS, COOKIE)
    assert len(cookie) < len(stale)
    assert far.pending is not None
    far.cookie.receive_untrusted(cookie, far.pending.mac1, near.now)
    stale = far.init(near.now, stamp=2)
    ((address, init),) = near.receive(stale)
    assert (address, init[0]) == (FAR_ADDRESS, INIT)
    assert len(init) <= len(stale)
    assert refused(near) == [HandshakeRefused(Cause.STALE_STAMP, FAR_ADDRESS, FAR_KEY)]
    near.receive(far.answer(init))
    assert near.status().up
    assert near.status().endpoint == FAR_ADDRESS, "it has no endpoint in the file"


def test_calling_back_is_limited(near: NearEnd, far: FarEnd) -> None:
    near.receive(far.init(stamp=100))
    ((_, cookie),) = near.receive(far.init(stamp=1))
    assert far.pending is not None
    far.cookie.receive_untrusted(cookie, far.pending.mac1, near.now)
    answers = [len(near.receive(far.init(near.now, stamp=2))) for _ in range(50)]
    assert sum(answers) == 1
    near.now += CALL_BACK_INTERVAL
    assert len(near.receive(far.init(near.now, stamp=2))) == 1


def test_a_cookie_of_another_address_calls_nobody_back(near: NearEnd, far: FarEnd) -> None:
    near.receive(far.init(stamp=100))
    ((_, cookie),) = near.receive(far.init(stamp=1))
    assert far.pending is not None
    far.cookie.receive_untrusted(cookie, far.pending.mac1, near.now)
    victim = Address("203.0.113.7", 53)
    sent = near.receive(far.init(near.now, stamp=2), source=victim)
    assert [datagram[0] for _, datagram in sent] == [COOKIE]


# -- who left ----------------------------------------------------------------------------------------------------


def test_a_peer_that_left_has_left_and_is_not_called_silent(near: NearEnd, far: FarEnd) -> None:
    near.overlay.set_endpoint(FAR_KEY, FAR_ADDRESS, near.now)
    far.dial(near)
    near.receive(far.control(Record.BYE))
    near.wait(30.0)
    assert near.status().reason == "it left"
    assert near.status().left == pytest.approx(30.0)
    far.dial(near)
    assert near.status().left is None
