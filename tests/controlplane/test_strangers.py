"""What is looked at before the address of a stranger has a name: who is turned away, and what a newcomer's chance is."""

from ipaddress import IPv4Address
from random import Random

import pytest

from l2overlay.addresses import Address, host_bytes
from l2overlay.controlplane.cookie import MACS_LEN
from l2overlay.controlplane.membership import (
    COOKIE_RATE,
    HANDSHAKE_BURST,
    MOVING_RATE,
    NAMING_RATE,
)
from l2overlay.counters import DropReason

from .far_end import COOKIE, DATA, RESP, FarEnd, NearEnd, config_of

NEAR, FAR, STRANGER = b"\x11" * 32, b"\x22" * 32, b"\x33" * 32
NEWCOMER = Address("192.0.2.99", 7470)
RETRY = 0.75 * 1.2
"""The longest pause between a node's first INITs (`peer.FIRST_RETRY`)."""


class Door:
    """A node, and datagrams from addresses that its socket does not know."""

    def __init__(self) -> None:
        self.near = NearEnd(NEAR, config_of(NEAR, FAR))
        self.stranger, self.chance = FarEnd(STRANGER, self.near.key), Random(7)

    def let_in(self, datagram: bytes, source: Address) -> bool:
        now = self.near.now
        return self.near.overlay.admits_untrusted(
            datagram, max(1, len(datagram)), host_bytes(source.host), lambda: source, now
        )

    def arrive(self, datagram: bytes, source: Address) -> list[tuple[Address, bytes]]:
        """As the shell does it; returns what the node sends."""
        if self.let_in(datagram, source):
            return self.near.receive(datagram, source=source)
        return self.near.sent()

    def anybody(self) -> Address:
        return Address(str(IPv4Address(self.chance.getrandbits(32))), 1024 + self.chance.getrandbits(15))

    def exhaust(self) -> None:
        """As many come as are let in unseen."""
        while self.let_in(b"\xff", self.anybody()):
            pass

    def flood(self, datagram: bytes, seconds: float, rate: float = 20_000.0) -> list[tuple[Address, bytes]]:
        """The same datagram from as many addresses; returns what the node sends."""
        sent = []
        for _ in range(int(seconds * rate)):
            self.near.now += 1 / rate
            sent += self.arrive(datagram, self.anybody())
        return sent


@pytest.fixture
def door() -> Door:
    return Door()


def test_in_peace_whoever_comes_is_let_in_unseen(door: Door) -> None:
    assert all(door.let_in(b"?", door.anybody()) for _ in range(int(NAMING_RATE)))
    assert not door.let_in(b"?", door.anybody())


@pytest.mark.parametrize(
    ("datagram", "reason"),
    [
        (b"", DropReason.BAD_TYPE),
        (b"\x09" * 40, DropReason.BAD_TYPE),
        (bytes([1]) + bytes(40), DropReason.BAD_LENGTH),
        (bytes([1, 1]) + bytes(150), DropReason.BAD_MAC1),
        (bytes([2, 1]) + bytes(98), DropReason.UNKNOWN_SESSION),
        (bytes([3]) + bytes(63), DropReason.UNKNOWN_SESSION),
        (bytes([4]) + bytes(60), DropReason.UNKNOWN_SESSION),
        (bytes([5]) + bytes(60), DropReason.UNKNOWN_SESSION),
    ],
)
def test_what_is_worth_no_name_is_counted_once_and_gets_no_answer(
    door: Door, datagram: bytes, reason: DropReason
) -> None:
    door.exhaust()
    drops, total = door.near.drops(reason), door.near.overlay.total_counters().rx_datagrams
    assert not door.let_in(datagram, door.anybody())
    assert door.near.drops(reason) == drops + 1
    assert door.near.overlay.total_counters().rx_datagrams == total + 1
    assert door.near.sent() == []


def test_datagrams_with_a_session_s_index_from_new_addresses_are_bounded(door: Door) -> None:
    far = FarEnd(FAR, door.near.key)
    ((_, resp),) = door.near.receive(far.init())
    far.receive_resp(resp)
    assert far.session is not None
    datagram = bytes([DATA, 0, 0, 0]) + far.session.remote_index.to_bytes(4, "little") + bytes(40)
    door.exhaust()
    let_in = sum(door.let_in(datagram, door.anybody()) for _ in range(5000))
    assert let_in == MOVING_RATE
    assert door.near.drops(DropReason.FLOOD_FILTERED) == 5000 - let_in


def test_a_newcomer_s_third_init_is_answered_in_a_flood_of_20_000_a_second(door: Door) -> None:
    """Its first is one of many first ones, its second gets a cookie, and with that the third a RESP: 1.8 s at most."""
    door.flood(door.stranger.init(), 1.0)
    newcomer, began, answers = FarEnd(FAR, door.near.key), door.near.now, []
    while RESP not in answers:
        for _, datagram in [
            found for found in door.arrive(newcomer.init(door.near.now), NEWCOMER) if found[0] == NEWCOMER
        ]:
            answers.append(datagram[0])
            if datagram[0] == COOKIE:
                assert newcomer.pending is not None
                newcomer.cookie.receive_untrusted(datagram, newcomer.pending.mac1, door.near.now)
        if RESP not in answers:
            door.flood(door.stranger.init(), RETRY)
        assert door.near.now < began + 3.0
    assert door.near.now <= began + 2 * RETRY + 0.1


def test_a_flood_is_answered_with_cookies_at_a_rate_and_no_answer_is_longer_than_the_question(
    door: Door,
) -> None:
    init = door.stranger.init()
    sent = door.flood(init, 3.0)
    assert 0 < len(sent) < 3 * COOKIE_RATE
    assert {datagram[0] for _, datagram in sent} == {COOKIE}
    assert max(len(datagram) for _, datagram in sent) < len(init)
    assert door.near.drops(DropReason.UNKNOWN_PEER) < 1.1 * HANDSHAKE_BURST


def test_a_flood_with_a_wrong_mac1_gets_no_answer(door: Door) -> None:
    init = door.stranger.init()
    assert door.flood(init[:-MACS_LEN] + bytes(MACS_LEN), 1.0) == []


def test_a_flood_that_claims_cookies_has_few_of_them_verified(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A claim costs two hashes more than a look."""
    init = door.stranger.init()
    door.flood(init, 1.0)
    checker, verified = door.near.overlay._members._checker, list[bytes]()

    def refuse(datagram: bytes, source: bytes, now: float) -> bool:
        verified.append(source)
        return False

    monkeypatch.setattr(checker, "verify_mac2", refuse)
    door.flood(init[:-16] + b"?" * 16, 1.0)
    assert 0 < len(verified) < 4000


def test_load_lasts_as_long_as_the_flood(door: Door) -> None:
    """Else a burst of handshakes would be tried each second, 20 ms long."""
    door.flood(door.stranger.init(), 1.0)
    tried = door.near.drops(DropReason.UNKNOWN_PEER)
    door.flood(door.stranger.init(), 4.0)
    assert door.near.drops(DropReason.UNKNOWN_PEER) == tried
