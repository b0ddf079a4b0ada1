"""When a peer is asked whether it is there, and what counts as an answer."""

from math import inf

import pytest

from l2overlay.controlplane.liveness import IDLE_SPARE, PING_INTERVAL, PING_RETRY, QUIET_TIME, Liveness


def up(interval: float = 20.0, now: float = 100.0) -> Liveness:
    """Of a peer whose handshake is confirmed at `now`."""
    liveness = Liveness(interval)
    liveness.last_heard = now
    liveness.answered(now)
    return liveness


def test_a_peer_that_is_down_is_not_asked() -> None:
    liveness = up()
    liveness.expects_frames = True
    liveness.stop()
    assert liveness.deadline() == inf
    assert liveness.next_with_frames > 1e9
    assert Liveness(20.0).deadline() == inf


def test_an_idle_peer_is_asked_before_the_interval_ends_and_never_if_that_is_0() -> None:
    assert up(20.0).deadline() == 120.0 - IDLE_SPARE
    assert up(1.0).deadline() == 100.5
    assert up(0.0).deadline() == inf


def test_a_ping_is_repeated_until_one_of_them_is_answered() -> None:
    liveness = up()
    times = [120.0, 120.0 + PING_RETRY, 120.0 + 2 * PING_RETRY]
    for token, time in enumerate(times):
        assert liveness.is_due(time)
        liveness.sent_ping(token, time)
        assert not liveness.is_due(time + PING_RETRY * 0.99)
    assert liveness.unanswered_since == 120.0
    assert liveness.received_pong(1, 120.6), "on a slow link the answer to an earlier one comes first"
    assert liveness.rtt == pytest.approx(120.6 - times[1])
    assert liveness.unanswered_since == inf
    assert liveness.deadline() == 140.6 - IDLE_SPARE


def test_a_pong_answers_once_and_only_what_was_asked() -> None:
    liveness = up()
    liveness.sent_ping(7, 120.0)
    assert not liveness.received_pong(8, 120.1)
    assert liveness.unanswered_since == 120.0
    assert liveness.received_pong(7, 120.1)
    assert not liveness.received_pong(7, 120.2)
    assert liveness.rtt == pytest.approx(0.1)


def test_hearing_the_peer_is_no_answer() -> None:
    liveness = up()
    liveness.sent_ping(7, 120.0)
    liveness.last_heard = 125.0
    liveness.expects_frames = True
    assert liveness.unanswered_since == 120.0


def test_frames_take_a_ping_along_once_per_interval() -> None:
    liveness = up()
    assert liveness.next_with_frames <= 100.0
    liveness.sent_ping(1, 100.0)
    liveness.received_pong(1, 100.02)
    assert liveness.next_with_frames > 100.0 + PING_INTERVAL * 0.99
    assert liveness.next_with_frames <= 100.0 + PING_INTERVAL


def test_a_peer_that_sent_frames_and_fell_silent_is_asked_once() -> None:
    liveness = up()
    liveness.last_heard = 105.0
    liveness.expects_frames = True
    assert liveness.deadline() == 105.0 + QUIET_TIME
    liveness.last_heard = 106.0
    assert liveness.deadline() == 106.0 + QUIET_TIME
    liveness.sent_ping(1, 106.0 + QUIET_TIME)
    liveness.received_pong(1, 108.0)
    assert liveness.deadline() == 128.0 - IDLE_SPARE


def test_of_two_idle_ends_one_asks_and_the_other_takes_over_when_it_does_not() -> None:
    liveness = up()
    liveness.received_ping(110.0)
    assert liveness.deadline() == 130.0 - (IDLE_SPARE - QUIET_TIME)
    silent = up(0.0)
    silent.received_ping(110.0)
    assert silent.deadline() == inf


def test_the_end_that_is_asked_still_asks_within_the_interval_when_the_other_s_next_ping_is_lost() -> None:
    """A NAT that forgot lets only the inside begin, so the inside must not wait longer than the interval."""
    asking, asked = up(20.0, 100.0), up(20.0, 100.0)
    asked.received_ping(110.0)
    asking.answered(110.0)
    assert asking.deadline() < asked.deadline() <= 130.0 - 1.0


def test_a_question_of_the_peer_does_not_silence_our_own() -> None:
    liveness = up()
    liveness.sent_ping(1, 120.0)
    liveness.received_ping(120.1)
    assert liveness.deadline() == 120.0 + PING_RETRY


def test_another_interval_counts_from_the_moment_it_is_set() -> None:
    liveness = up(0.0)
    liveness.set_interval(10.0, 500.0)
    assert liveness.deadline() == 510.0 - IDLE_SPARE
    liveness.set_interval(10.0, 505.0)
    assert liveness.deadline() == 510.0 - IDLE_SPARE
    liveness.set_interval(0.0, 506.0)
    assert liveness.deadline() == inf


def test_another_interval_neither_wakes_a_peer_that_is_down_nor_answers_a_ping() -> None:
    down = Liveness(0.0)
    down.set_interval(10.0, 500.0)
    assert down.deadline() == inf
    asked = up()
    asked.sent_ping(1, 120.0)
    asked.set_interval(10.0, 120.1)
    assert asked.unanswered_since == 120.0
    assert asked.deadline() == 120.0 + PING_RETRY
