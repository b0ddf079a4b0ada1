"""The rehearsal of a lone frame, on real sockets of the loopback."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from l2overlay.config.types import Suite
from l2overlay.dataplane.microflows import Microflows
from l2overlay.errors import HostSetupError
from l2overlay.linux.udp import LinuxUdp
from l2overlay.node.latency.rehearsal import Rehearsal
from l2overlay.testing.lab import Namespace
from tests.linux.conftest import inside


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture(params=list(Suite), ids=lambda suite: suite.name)
def rehearsal(request: pytest.FixtureRequest) -> Iterator[Rehearsal]:
    before = descriptors()
    made = Rehearsal(request.param)
    yield made
    made.close()
    assert descriptors() == before


def test_a_frame_arrives_each_time(rehearsal: Rehearsal) -> None:
    assert all(rehearsal.once() for _ in range(200))
    counted = rehearsal._there.overlay.total_counters()
    assert counted.rx_frames == 201  # one to get acquainted
    assert counted.drops == {}


def test_the_frame_goes_the_way_that_a_lone_one_goes(
    rehearsal: Rehearsal, monkeypatch: pytest.MonkeyPatch
) -> None:
    rehearsal.once()
    went: list[object] = []
    unpack = Microflows.unpack_untrusted

    def recorded(*given: Any) -> object:
        went.append(unpack(*given))
        return went[-1]

    monkeypatch.setattr(Microflows, "unpack_untrusted", recorded)
    rehearsal.once()
    rehearsal.once()
    assert None not in went
    assert len(went) == 2


def test_nothing_is_ever_due_and_nothing_piles_up(rehearsal: Rehearsal) -> None:
    for _ in range(100):
        rehearsal.once()
    for node in (rehearsal._here, rehearsal._there):
        assert node.overlay.next_timer() > 0
        assert node.overlay.bursts_to_send() == []
        assert node.overlay.frames_to_deliver() == []


def test_what_others_send_to_its_sockets_changes_nothing(rehearsal: Rehearsal) -> None:
    stranger = LinuxUdp.open_loopback()
    for node in (rehearsal._here, rehearsal._there):
        stranger._socket.sendto(b"\x04" * 60, stranger._book.sockaddr_of(node.at))
    arrived = [rehearsal.once() for _ in range(3)]
    stranger.close()
    assert arrived[1:] == [True, True]
    assert sum(rehearsal._there.overlay.total_counters().drops.values()) == 1


@pytest.mark.host
def test_without_a_loopback_no_frame_arrives_and_no_harm_is_done() -> None:
    host = Namespace(f"l2o-{os.getpid()}-0-quiet")
    try:
        host.create()
        host.ip("link set lo down")
        with inside(host):
            rehearsal = Rehearsal(Suite.AESGCM)
            assert not any(rehearsal.once() for _ in range(100))
            rehearsal.close()
    finally:
        host.delete()


def test_sockets_that_cannot_be_had_leave_none_open(monkeypatch: pytest.MonkeyPatch) -> None:
    before, opened = descriptors(), list[LinuxUdp]()

    def open_one() -> LinuxUdp:
        if opened:
            raise HostSetupError("no more")
        opened.append(LinuxUdp.open(0))
        return opened[0]

    monkeypatch.setattr(LinuxUdp, "open_loopback", open_one)
    with pytest.raises(HostSetupError):
        Rehearsal(Suite.AESGCM)
    assert descriptors() == before
