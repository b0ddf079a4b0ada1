"""Who is answered, in which order things are checked, and what strangers can cost."""

import pytest

from l2overlay.addresses import Address, host_bytes
from l2overlay.controlplane.cookie import COOKIE_LEN
from l2overlay.controlplane.handshake import INIT_LEN
from l2overlay.controlplane.membership import (
    COOKIE_RATE,
    HANDSHAKE_BURST,
    MAX_ASKED,
    RECENT_SIZE,
    RECENT_TIME,
    UNDER_LOAD_TIME,
    RecentHosts,
)
from l2overlay.controlplane.token_bucket import TokenBucket
from l2overlay.counters import DropReason
from l2overlay.errors import DatagramError

from .far_end import COOKIE, FAR_ADDRESS, RESP, START, FarEnd, NearEnd, config_of, segment

NEAR, FAR, STRANGER = b"\x11" * 32, b"\x22" * 32, b"\x33" * 32


@pytest.fixture
def near() -> NearEnd:
    return NearEnd(NEAR, config_of(NEAR, FAR))


@pytest.fixture
def far(near: NearEnd) -> FarEnd:
    return FarEnd(FAR, near.key)


def put_under_load(near: NearEnd, rounds: int = int(HANDSHAKE_BURST)) -> None:
    """Genuine handshakes of somebody who is no peer: each costs the node as much as a peer's."""
    stranger = FarEnd(STRANGER, near.key)
    for i in range(rounds):
        near.receive(stranger.init(), source=Address(f"203.0.113.{i}", 1))


# -- the bounds --------------------------------------------------------------------------------------------------


def test_a_bucket_lets_its_burst_through_at_once_and_then_its_rate() -> None:
    bucket = TokenBucket(rate=10.0, burst=5.0, now=0.0)
    assert [bucket.take(0.0) for _ in range(6)] == [True] * 5 + [False]
    assert sum(bucket.take(i / 100) for i in range(1, 1001)) == pytest.approx(100, abs=1)
    assert [bucket.take(1000.0) for _ in range(6)] == [True] * 5 + [False], (
        "it does not save up more than a burst"
    )


def test_hosts_are_counted_for_a_while_and_then_forgotten() -> None:
    recent = RecentHosts(b"secret", now=0.0)
    assert [recent.count(host_bytes("192.0.2.1"), 0.1 * i) for i in range(3)] == [0, 1, 2]
    assert recent.count(host_bytes("192.0.2.2"), 0.3) == 0
    assert recent.count(host_bytes("192.0.2.1"), RECENT_TIME + 0.1) == 3
    assert recent.count(host_bytes("192.0.2.1"), RECENT_TIME + 0.2) == 4
    assert recent.count(host_bytes("192.0.2.1"), 10 * RECENT_TIME) == 0


def test_the_memory_for_hosts_does_not_grow_with_them_nor_overflow() -> None:
    recent = RecentHosts(b"secret", now=0.0)
    for i in range(2000):
        recent.count(b"%d" % i, 0.0)
        recent.count(b"one", 0.0)
    assert len(recent._newer) == len(recent._older) == RECENT_SIZE
    assert recent.count(b"one", 0.0) == 255


# -- who is answered ---------------------------------------------------------------------------------------------


def test_a_genuine_init_gets_one_resp_at_the_address_that_it_came_from(near: NearEnd, far: FarEnd) -> None:
    elsewhere = Address("198.51.100.7", 9)
    ((address, resp),) = near.receive(far.init(), source=elsewhere)
    assert address == elsewhere
    assert resp[0] == RESP
    assert len(resp) < INIT_LEN
    assert not near.status().up, "only the first datagram under the new session says that it is there"
    assert near.status().endpoint is None


@pytest.mark.parametrize(
    ("far_end", "reason"),
    [
        (lambda near: FarEnd(STRANGER, near.key), DropReason.UNKNOWN_PEER),
        (lambda near: FarEnd(FAR, near.key, segment("other")), DropReason.BAD_HANDSHAKE),
        (lambda near: FarEnd(FAR, FarEnd(STRANGER, near.key).context.public_key), DropReason.BAD_MAC1),
    ],
    ids=["a key that is not in the file", "another segment", "another node's public key"],
)
def test_others_are_met_with_silence_and_counted(near: NearEnd, far_end: object, reason: DropReason) -> None:
    assert near.receive(far_end(near).init()) == []  # type: ignore[operator]
    assert near.drops(reason) == 1


def test_with_another_psk_the_answer_cannot_be_read_and_nobody_is_up(near: NearEnd) -> None:
    """The psk enters with the second message (IKpsk2), so an INIT without it still verifies."""
    other = FarEnd(FAR, near.key, segment(psk=b"\x55" * 32))
    ((_, resp),) = near.receive(other.init())
    with pytest.raises(DatagramError):
        other.receive_resp(resp)
    near.overlay.set_endpoint(other.context.public_key, FAR_ADDRESS, near.now)
    ((_, init),) = near.wait(0.0)
    assert near.receive(other.answer(init)) == []
    assert near.drops(DropReason.BAD_HANDSHAKE) == 1
    assert not near.status().up


def test_an_init_that_was_there_before_or_is_older_gets_no_resp(near: NearEnd, far: FarEnd) -> None:
    first = far.init(stamp=100)
    assert near.receive(first) != []
    for stale in (first, far.init(stamp=100), far.init(stamp=99)):
        assert [datagram[0] for _, datagram in near.receive(stale)] == [COOKIE]
    assert near.drops(DropReason.STALE_HANDSHAKE) == 3
    assert near.receive(far.init(stamp=101)) != []


def test_the_stamp_of_a_handshake_that_failed_is_not_remembered(near: NearEnd, far: FarEnd) -> None:
    other = FarEnd(FAR, near.key, segment("other"))
    near.receive(other.init(stamp=10**9))
    assert near.receive(far.init(stamp=5)) != []


@pytest.mark.parametrize(
    ("datagram", "reason"),
    [
        (b"", DropReason.BAD_LENGTH),
        (b"\0" * 152, DropReason.BAD_TYPE),
        (b"\6" * 152, DropReason.BAD_TYPE),
        (b"\1" * 151, DropReason.BAD_LENGTH),
        (b"\1" * 153, DropReason.BAD_LENGTH),
        (b"\2" * 99, DropReason.BAD_LENGTH),
        (b"\3" * 65, DropReason.BAD_LENGTH),
        (b"\1" * 152, DropReason.BAD_MAC1),
        (b"\2" * 100, DropReason.BAD_MAC1),
        (b"\3" * 64, DropReason.UNKNOWN_SESSION),
        (b"\4" * 3, DropReason.UNKNOWN_SESSION),
        (b"\4" * 100, DropReason.UNKNOWN_SESSION),
        (b"\5" * 100, DropReason.UNKNOWN_SESSION),
    ],
    ids=lambda value: f"{value[:1].hex()}x{len(value)}" if isinstance(value, bytes) else str(value),
)
def test_whatever_is_no_handshake_is_counted_for_what_it_is(
    near: NearEnd, datagram: bytes, reason: DropReason
) -> None:
    if datagram:
        assert near.receive(datagram) == []
        assert near.overlay.total_counters().drops == {reason: 1}
        assert near.overlay.total_counters().rx_datagrams == 1


# -- under load --------------------------------------------------------------------------------------------------


def test_a_node_that_read_half_a_burst_of_handshakes_asks_for_a_cookie(near: NearEnd, far: FarEnd) -> None:
    put_under_load(near, rounds=int(HANDSHAKE_BURST / 2))
    assert near.receive(far.init())[0][1][0] == RESP
    put_under_load(near, rounds=1)
    ((address, answer),) = near.receive(far.init())
    assert (address, answer[0], len(answer)) == (FAR_ADDRESS, COOKIE, COOKIE_LEN)
    assert near.drops(DropReason.NO_COOKIE) >= 1


def test_with_the_cookie_the_init_is_answered_and_from_another_address_it_is_not(
    near: NearEnd, far: FarEnd
) -> None:
    put_under_load(near)
    near.now += 0.5
    first = far.init()
    ((_, cookie),) = near.receive(first)
    assert far.pending is not None
    far.cookie.receive_untrusted(cookie, far.pending.mac1, START)
    assert near.receive(far.init(), source=Address("203.0.113.9", 1))[0][1][0] == COOKIE
    assert near.receive(far.init(), source=FAR_ADDRESS._replace(port=1))[0][1][0] == COOKIE
    ((_, resp),) = near.receive(far.init())
    assert resp[0] == RESP


def test_load_is_over_a_second_after_the_last_handshake_that_was_too_many(near: NearEnd, far: FarEnd) -> None:
    put_under_load(near)
    near.now += UNDER_LOAD_TIME
    assert near.receive(far.init())[0][1][0] == RESP


def test_with_cookies_too_there_is_a_limit_to_the_handshakes_of_a_second(near: NearEnd) -> None:
    put_under_load(near)
    stranger = FarEnd(STRANGER, near.key)
    ((_, cookie),) = near.receive(stranger.init())
    assert stranger.pending is not None
    stranger.cookie.receive_untrusted(cookie, stranger.pending.mac1, START)
    for _ in range(int(HANDSHAKE_BURST)):
        near.receive(stranger.init())
    assert near.drops(DropReason.HANDSHAKE_LIMIT) > 0
    assert near.drops(DropReason.UNKNOWN_PEER) <= HANDSHAKE_BURST


def test_one_host_gets_a_few_cookies_and_all_together_no_more_than_the_rate(near: NearEnd) -> None:
    put_under_load(near)
    stranger = FarEnd(STRANGER, near.key)
    init = stranger.init()
    assert len(near.receive(*[init] * 30)) == MAX_ASKED + 1
    hosts = [Address(f"10.0.{i // 250}.{i % 250}", 1) for i in range(3000)]
    answers = [near.receive(init, source=host) for host in (*hosts, *hosts)]
    assert sum(map(len, answers)) <= COOKIE_RATE


def test_a_cookie_that_answers_no_init_of_ours_is_counted(near: NearEnd, far: FarEnd) -> None:
    near.overlay.set_endpoint(far.context.public_key, FAR_ADDRESS, near.now)
    ((_, init),) = near.wait(0.0)
    forged = bytes((COOKIE, 0, 0, 0)) + init[4:8] + bytes(COOKIE_LEN - 8)
    assert near.receive(forged) == []
    assert near.drops(DropReason.BAD_COOKIE_REPLY) == 1
