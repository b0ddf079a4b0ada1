"""The journal: every event once for people, once for programs, and never a reason to wait."""

import os
from collections.abc import Iterator

import pytest
import trio

from l2overlay.addresses import Address, MacAddress, PeerKey
from l2overlay.controlplane.events import (
    PeerDown,
    PeerMoved,
    PeerOnTwoHosts,
    PeerUnanswered,
    PeerUp,
    StationMoved,
)
from l2overlay.node.journal import BURST, FOLLOWER_BACKLOG, RECENT_EVENTS, Journal, LineWriter

A = PeerKey(b"a" * 32)
HERE, THERE = Address("192.0.2.1", 7), Address("2001:db8::1", 7)


class Log:
    """A pipe as stdout, and a clock."""

    def __init__(self) -> None:
        self.out, self.fd = os.pipe()
        self.now = 0.0
        self.writer = LineWriter(self.fd)
        self.journal = Journal(self.writer, lambda key: "athens" if key == A else "?", lambda: self.now)
        os.set_blocking(self.out, False)

    def lines(self) -> list[str]:
        data = b""
        while True:
            try:
                data += os.read(self.out, 65536)
            except BlockingIOError:
                return data.decode().splitlines()

    def close(self) -> None:
        os.close(self.out)
        os.close(self.fd)


@pytest.fixture
def log() -> Iterator[Log]:
    made = Log()
    yield made
    made.close()


def test_events_read_as_sentences_that_name_the_peer(log: Log) -> None:
    log.journal.tell_event(PeerUp(A, HERE))
    log.journal.tell_event(PeerMoved(A, HERE, THERE))
    log.journal.tell_event(PeerOnTwoHosts(A, HERE, THERE))
    log.journal.tell_event(StationMoved(MacAddress(b"RT\x00\x00\x00\x01"), 7, None, A))
    log.journal.tell_event(PeerDown(A, "it said goodbye"))
    assert log.lines() == [
        "peer athens is up at 192.0.2.1:7",
        "peer athens moved from 192.0.2.1:7 to [2001:db8::1]:7",
        "peer athens answers at 192.0.2.1:7 and at [2001:db8::1]:7 in turn: two hosts have its key",
        "station 52:54:00:00:00:01 (VLAN 7) moved from this host to athens",
        "peer athens is down: it said goodbye",
    ]


def test_events_for_programs_carry_names_keys_and_addresses(log: Log) -> None:
    log.journal.tell_event(PeerUp(A, HERE))
    event = log.journal.recent()[0]
    assert event["schema"] == "l2overlay.event/1"
    assert event["event"] == "peer_up"
    assert event["address"] == "192.0.2.1:7"
    assert event["peer"]["name"] == "athens"


def test_flapping_station_is_summed_up_not_repeated(log: Log) -> None:
    moved = StationMoved(MacAddress(b"RT\x00\x00\x00\x01"), 0, None, A)
    for _ in range(1000):
        log.journal.tell_event(moved)
    assert len(log.lines()) == BURST
    log.now += 5
    log.journal.tell_event(moved)
    assert log.lines() == [
        f"station 52:54:00:00:00:01 moved from this host to athens (and {1000 - BURST} like it before)"
    ]


def test_many_events_of_one_kind_do_not_silence_another(log: Log) -> None:
    for _ in range(100):
        log.journal.tell_event(PeerMoved(A, HERE, THERE))
    log.lines()
    log.journal.tell_event(PeerDown(A, "no answer"))
    assert log.lines() == ["peer athens is down: no answer"]


def test_silent_peer_is_told_each_time_the_attempts_have_doubled(log: Log) -> None:
    for attempts in [*range(3, 100, 5), 3]:
        log.journal.tell_event(PeerUnanswered(A, attempts))
    assert [line.split()[5] for line in log.lines()] == ["3", "8", "18", "38", "78", "3"]


def test_recent_events_are_bounded(log: Log) -> None:
    for _ in range(RECENT_EVENTS + 100):
        log.now += 10
        log.journal.tell("something", "text")
    assert len(log.journal.recent()) == RECENT_EVENTS


def test_blocked_log_loses_lines_and_says_so_when_it_takes_them_again(log: Log) -> None:
    for _ in range(1000):
        log.journal.say("x" * 200)  # three times what a pipe holds
    lost = log.journal.lines_lost
    assert 0 < lost < 1000
    log.lines()
    log.journal.say("after")
    assert log.lines() == [f"({lost} log lines were lost: the log did not take them)", "after"]


def test_closed_log_is_no_error(log: Log) -> None:
    os.close(log.out)
    log.journal.say("nobody reads this")
    assert log.journal.lines_lost == 1
    log.out = os.open(os.devnull, os.O_RDONLY)


async def test_follower_gets_events_from_now_on(log: Log) -> None:
    log.journal.tell("old", "before")
    async with log.journal.follow() as events:
        log.journal.tell("new", "after", detail=1)
        event = await events.receive()
    assert (event["event"], event["text"], event["detail"]) == ("new", "after", 1)
    log.journal.tell("new", "nobody is there, nothing happens")


async def test_follower_that_does_not_keep_up_is_let_go(log: Log) -> None:
    async with log.journal.follow() as slow:
        for _ in range(FOLLOWER_BACKLOG + 1):
            log.now += 10
            log.journal.tell("something", "text")
        with trio.fail_after(1):
            assert len([event async for event in slow]) == FOLLOWER_BACKLOG
