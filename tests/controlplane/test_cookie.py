"""mac1, mac2 and the cookie: who is met with silence, who with a cookie, and who gets on."""

import itertools
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from l2overlay.addresses import PeerKey
from l2overlay.config.types import Suite
from l2overlay.controlplane.cookie import COOKIE_LEN, CookieChecker, CookieHolder, append_macs, mac1_of
from l2overlay.controlplane.handshake import (
    INIT_LEN,
    RESP_LEN,
    HandshakeContext,
    initiate,
    receive_init_untrusted,
    respond,
)
from l2overlay.errors import DatagramError

NODE, OTHER_NODE = PeerKey(b"\x22" * 32), PeerKey(b"\x23" * 32)
QUESTION = append_macs(b"\x01\x01\x00\x00\x07\x00\x00\x00" + bytes(112), NODE, None)
SOURCE, OTHER_SOURCE = b"192.0.2.1:7470", b"192.0.2.1:7471"


@pytest.fixture
def random() -> Callable[[int], bytes]:
    """Never the same twice, the same in every run."""
    numbers = itertools.count(1)
    return lambda size: next(numbers).to_bytes(size, "big")


def answered(checker: CookieChecker, now: float, random: Callable[[int], bytes]) -> bytes:
    """The question once more, with the cookie that `checker` gives for it now."""
    holder = CookieHolder(NODE)
    holder.receive_untrusted(checker.reply(QUESTION, SOURCE, now, random), mac1_of(QUESTION), now)
    return append_macs(QUESTION[:-32], NODE, holder.cookie(now))


def test_mac1_proves_knowledge_of_the_public_key() -> None:
    assert CookieChecker(NODE).verify_mac1(QUESTION)
    assert not CookieChecker(OTHER_NODE).verify_mac1(QUESTION)


def test_mac1_covers_every_bit_before_it_and_its_own() -> None:
    checker = CookieChecker(NODE)
    for bit in range(8 * (len(QUESTION) - 16)):
        forged = bytearray(QUESTION)
        forged[bit // 8] ^= 1 << (bit % 8)
        assert not checker.verify_mac1(bytes(forged))


def test_mac2_is_zero_without_a_cookie_and_proves_nothing(random: Callable[[int], bytes]) -> None:
    checker = CookieChecker(NODE)
    assert QUESTION[-16:] == bytes(16)
    assert not checker.verify_mac2(QUESTION, SOURCE, 0.0)
    checker.reply(QUESTION, SOURCE, 0.0, random)
    assert not checker.verify_mac2(QUESTION, SOURCE, 0.0)


def test_cookie_lets_its_own_address_through_and_no_other(random: Callable[[int], bytes]) -> None:
    checker = CookieChecker(NODE)
    question = answered(checker, 0.0, random)
    assert checker.verify_mac1(question)
    assert checker.verify_mac2(question, SOURCE, 0.0)
    assert not checker.verify_mac2(question, OTHER_SOURCE, 0.0)


def test_mac2_covers_every_bit_before_it_and_its_own(random: Callable[[int], bytes]) -> None:
    checker = CookieChecker(NODE)
    question = answered(checker, 0.0, random)
    for bit in range(8 * len(question)):
        forged = bytearray(question)
        forged[bit // 8] ^= 1 << (bit % 8)
        assert not checker.verify_mac2(bytes(forged), SOURCE, 0.0)


def test_cookie_of_another_node_proves_nothing(random: Callable[[int], bytes]) -> None:
    checker, other = CookieChecker(NODE), CookieChecker(NODE)
    question = answered(checker, 0.0, random)
    answered(other, 0.0, random)
    assert not other.verify_mac2(question, SOURCE, 0.0)


def test_holder_uses_a_cookie_for_120_seconds(random: Callable[[int], bytes]) -> None:
    holder = CookieHolder(NODE)
    assert holder.cookie(0.0) is None
    datagram = CookieChecker(NODE).reply(QUESTION, SOURCE, 10.0, random)
    holder.receive_untrusted(datagram, mac1_of(QUESTION), 10.0)
    assert holder.cookie(129.9) is not None
    assert holder.cookie(130.0) is None


def test_secret_changes_every_120_seconds(random: Callable[[int], bytes]) -> None:
    checker = CookieChecker(NODE)
    first = answered(checker, 0.0, random)
    assert answered(checker, 119.9, random) == first
    assert answered(checker, 120.0, random) != first


def test_cookie_made_just_before_the_secret_changed_is_good_for_its_holders_120_seconds(
    random: Callable[[int], bytes],
) -> None:
    checker = CookieChecker(NODE)
    checker.reply(QUESTION, SOURCE, 0.0, random)
    question = answered(checker, 119.9, random)
    checker.reply(QUESTION, OTHER_SOURCE, 120.0, random)
    assert checker.verify_mac2(question, SOURCE, 239.8)


@pytest.mark.parametrize("others_ask_at", [[], [120.0], [120.0, 239.9], [300.0]])
def test_cookie_is_worthless_240_seconds_after_its_secret_was_made(
    others_ask_at: list[float], random: Callable[[int], bytes]
) -> None:
    checker = CookieChecker(NODE)
    question = answered(checker, 0.0, random)
    for time in others_ask_at:
        checker.reply(QUESTION, OTHER_SOURCE, time, random)
    assert not checker.verify_mac2(question, SOURCE, 240.0)


def test_checker_remembers_two_secrets_and_nothing_of_any_sender(random: Callable[[int], bytes]) -> None:
    checker = CookieChecker(NODE)
    sizes = set()
    for number in range(1000):
        checker.reply(QUESTION, number.to_bytes(18, "big"), 60.0 * number, random)
        sizes.add(len(checker._secrets))
    assert sizes == {1, 2}


def test_cookie_is_sealed_anew_each_time(random: Callable[[int], bytes]) -> None:
    checker = CookieChecker(NODE)
    first, second = (checker.reply(QUESTION, SOURCE, 0.0, random) for _ in range(2))
    assert first[8:32] != second[8:32]
    assert first[32:] != second[32:]


def test_every_flip_and_every_other_length_of_a_cookie_is_refused_and_the_genuine_one_taken_after(
    random: Callable[[int], bytes],
) -> None:
    """Bits 32..63 are the index by which the caller finds the question: a wrong one finds another mac1, or none."""
    holder = CookieHolder(NODE)
    genuine = CookieChecker(NODE).reply(QUESTION, SOURCE, 0.0, random)
    for bit in [*range(32), *range(64, 8 * COOKIE_LEN)]:
        forged = bytearray(genuine)
        forged[bit // 8] ^= 1 << (bit % 8)
        refuse(holder, bytes(forged))
    for length in [*range(COOKIE_LEN), COOKIE_LEN + 1]:
        refuse(holder, (genuine + b"\0")[:length])
    holder.receive_untrusted(genuine, mac1_of(QUESTION), 0.0)
    assert holder.cookie(0.0) is not None


def refuse(holder: CookieHolder, datagram: bytes) -> None:
    with pytest.raises(DatagramError):
        holder.receive_untrusted(datagram, mac1_of(QUESTION), 0.0)
    assert holder.cookie(0.0) is None


def test_cookie_of_another_node_or_for_another_question_is_refused(random: Callable[[int], bytes]) -> None:
    holder = CookieHolder(NODE)
    refuse(holder, CookieChecker(OTHER_NODE).reply(QUESTION, SOURCE, 0.0, random))
    another = append_macs(b"\x01" + QUESTION[1:-32], NODE, b"\x01" * 16)
    assert mac1_of(another) == mac1_of(QUESTION)  # mac1 does not depend on mac2
    another = append_macs(b"\x02" + QUESTION[1:-32], NODE, None)
    refuse(holder, CookieChecker(NODE).reply(another, SOURCE, 0.0, random))


def test_forged_cookie_does_not_displace_the_one_we_hold(random: Callable[[int], bytes]) -> None:
    holder = CookieHolder(NODE)
    genuine = CookieChecker(NODE).reply(QUESTION, SOURCE, 0.0, random)
    holder.receive_untrusted(genuine, mac1_of(QUESTION), 0.0)
    held = holder.cookie(0.0)
    with pytest.raises(DatagramError, match="tag"):
        holder.receive_untrusted(genuine[:-1] + b"\0", mac1_of(QUESTION), 50.0)
    assert holder.cookie(119.9) == held
    assert holder.cookie(120.0) is None


def test_answer_is_never_longer_than_the_question(random: Callable[[int], bytes]) -> None:
    checker = CookieChecker(NODE)
    for length in range(COOKIE_LEN):
        with pytest.raises(DatagramError, match="cannot be answered"):
            checker.reply(bytes(length), SOURCE, 0.0, random)
    assert len(checker.reply(bytes(COOKIE_LEN), SOURCE, 0.0, random)) == COOKIE_LEN
    assert COOKIE_LEN < RESP_LEN < INIT_LEN


def test_handshake_under_load_is_asked_for_a_cookie_and_then_let_in(random: Callable[[int], bytes]) -> None:
    """Both directions: the responder asks about the INIT, then the initiator about the RESP."""
    initiator = HandshakeContext.create(b"\x11" * 32, Suite.AESGCM, "lan")
    responder = HandshakeContext.create(b"\x22" * 32, Suite.AESGCM, "lan")
    at_responder, of_responder = CookieChecker(responder.public_key), CookieHolder(responder.public_key)
    at_initiator, of_initiator = CookieChecker(initiator.public_key), CookieHolder(initiator.public_key)

    init = initiate(initiator, responder.public_key, sender=7, stamp=1, features=0, ephemeral=b"\x33" * 32)
    cookie = at_responder.reply(init.datagram, SOURCE, 0.0, random)
    assert cookie[4:8] == b"\x07\x00\x00\x00"
    of_responder.receive_untrusted(cookie, init.mac1, 0.0)
    init = initiate(
        initiator,
        responder.public_key,
        sender=7,
        stamp=2,
        features=0,
        ephemeral=b"\x34" * 32,
        cookie=of_responder.cookie(1.0),
    )
    assert at_responder.verify_mac2(init.datagram, SOURCE, 1.0)

    received = receive_init_untrusted(responder, init.datagram)
    resp, _ = respond(responder, received, sender=9, features=0, ephemeral=b"\x44" * 32)
    assert at_initiator.verify_mac1(resp)
    of_initiator.receive_untrusted(at_initiator.reply(resp, OTHER_SOURCE, 1.0, random), mac1_of(resp), 1.0)
    received = receive_init_untrusted(responder, init.datagram)
    resp, _ = respond(
        responder,
        received,
        sender=9,
        features=0,
        ephemeral=b"\x45" * 32,
        cookie=of_initiator.cookie(1.0),
    )
    assert at_initiator.verify_mac2(resp, OTHER_SOURCE, 1.0)


@given(st.binary(max_size=200), st.binary(max_size=32))
def test_any_bytes_are_refused_and_never_raise_anything_else(datagram: bytes, source: bytes) -> None:
    checker, holder = CookieChecker(NODE), CookieHolder(NODE)
    checker.reply(QUESTION, SOURCE, 0.0, bytes)
    assert not checker.verify_mac1(datagram)
    assert not checker.verify_mac2(datagram, source, 0.0)
    refuse(holder, datagram)


@given(st.binary(min_size=COOKIE_LEN - 4, max_size=COOKIE_LEN - 4))
def test_any_bytes_behind_a_good_head_are_refused_as_cookie(body: bytes) -> None:
    refuse(CookieHolder(NODE), b"\x03\x00\x00\x00" + body)
