"""INIT and RESP between two of our nodes: what is agreed on, what is refused, and that refusal costs nothing."""

import dataclasses
import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from l2overlay.addresses import PeerKey
from l2overlay.config.types import Suite
from l2overlay.controlplane import handshake
from l2overlay.controlplane.cookie import CookieChecker, append_macs, mac1_of
from l2overlay.controlplane.handshake import (
    INIT_LEN,
    RESP_LEN,
    HandshakeContext,
    PendingHandshake,
    ReceivedInit,
    SessionKeys,
    initiate,
    receive_init_untrusted,
    receive_resp_untrusted,
    resp_receiver_untrusted,
    respond,
)
from l2overlay.controlplane.noise import HandshakeState, NoiseProtocol
from l2overlay.errors import DatagramError

INITIATOR_KEY, RESPONDER_KEY, STRANGER_KEY = b"\x11" * 32, b"\x22" * 32, b"\x77" * 32
EPHEMERALS = b"\x33" * 32, b"\x44" * 32
PSK = b"\x55" * 32

both_suites = pytest.mark.parametrize("suite", list(Suite), ids=lambda s: s.name)


def context_of(
    private_key: bytes, suite: Suite = Suite.AESGCM, segment: str = "lan", psk: bytes | None = PSK
) -> HandshakeContext:
    return HandshakeContext.create(private_key, suite, segment, psk)


def dial(initiator: HandshakeContext, responder: HandshakeContext, stamp: int = 5) -> PendingHandshake:
    return initiate(
        initiator, responder.public_key, sender=7, stamp=stamp, features=3, ephemeral=EPHEMERALS[0]
    )


def answer(responder: HandshakeContext, received: ReceivedInit) -> tuple[bytes, SessionKeys]:
    return respond(responder, received, sender=9, features=1, ephemeral=EPHEMERALS[1])


def accept_init(responder: HandshakeContext, datagram: bytes) -> ReceivedInit:
    """As a node does: length, mac1, then the rest."""
    if len(datagram) == INIT_LEN and not CookieChecker(responder.public_key).verify_mac1(datagram):
        raise DatagramError("mac1")
    return receive_init_untrusted(responder, datagram)


def accept_resp(
    initiator: HandshakeContext, pending: PendingHandshake, datagram: bytes
) -> tuple[SessionKeys, int, int]:
    if len(datagram) == RESP_LEN and not CookieChecker(initiator.public_key).verify_mac1(datagram):
        raise DatagramError("mac1")
    return receive_resp_untrusted(initiator, pending, datagram)


def flipped(datagram: bytes, bit: int) -> bytes:
    forged = bytearray(datagram)
    forged[bit // 8] ^= 1 << (bit % 8)
    return bytes(forged)


@both_suites
def test_both_sides_get_the_same_keys_and_read_what_the_other_said(suite: Suite) -> None:
    initiator, responder = context_of(INITIATOR_KEY, suite), context_of(RESPONDER_KEY, suite)
    pending = dial(initiator, responder)
    assert (pending.remote, pending.sender, len(pending.datagram)) == (responder.public_key, 7, INIT_LEN)
    assert pending.mac1 == mac1_of(pending.datagram)

    received = accept_init(responder, pending.datagram)
    assert (received.remote, received.sender) == (initiator.public_key, 7)
    assert (received.stamp, received.features) == (5, 3)

    datagram, responder_keys = answer(responder, received)
    assert (len(datagram), resp_receiver_untrusted(datagram)) == (RESP_LEN, 7)
    keys, sender, features = accept_resp(initiator, pending, datagram)
    assert (sender, features) == (9, 1)
    assert (keys.send, keys.receive) == (responder_keys.receive, responder_keys.send)
    assert keys.send != keys.receive
    assert len(keys.send) == len(keys.receive) == 32


def test_segment_without_psk_agrees_too() -> None:
    initiator, responder = context_of(INITIATOR_KEY, psk=None), context_of(RESPONDER_KEY, psk=None)
    pending = dial(initiator, responder)
    datagram, responder_keys = answer(responder, accept_init(responder, pending.datagram))
    assert accept_resp(initiator, pending, datagram)[0].send == responder_keys.receive


def test_fresh_ephemerals_give_fresh_keys() -> None:
    initiator, responder = context_of(INITIATOR_KEY), context_of(RESPONDER_KEY)
    received = [accept_init(responder, dial(initiator, responder).datagram) for _ in range(2)]
    first = respond(responder, received[0], sender=9, features=0, ephemeral=b"\x01" * 32)[1]
    second = respond(responder, received[1], sender=9, features=0, ephemeral=b"\x02" * 32)[1]
    assert len({first.send, first.receive, second.send, second.receive}) == 4


@both_suites
def test_every_flipped_bit_of_an_init_is_refused_and_the_genuine_one_succeeds_after(suite: Suite) -> None:
    initiator, responder = context_of(INITIATOR_KEY, suite), context_of(RESPONDER_KEY, suite)
    genuine = dial(initiator, responder).datagram
    for bit in range(8 * (INIT_LEN - 16)):
        with pytest.raises(DatagramError):
            accept_init(responder, flipped(genuine, bit))
    assert responder.static_shared == {}
    assert accept_init(responder, genuine).stamp == 5


@both_suites
def test_every_flipped_bit_of_a_resp_is_refused_and_the_genuine_one_succeeds_after(suite: Suite) -> None:
    initiator, responder = context_of(INITIATOR_KEY, suite), context_of(RESPONDER_KEY, suite)
    pending = dial(initiator, responder)
    genuine, responder_keys = answer(responder, accept_init(responder, pending.datagram))
    for bit in range(8 * (RESP_LEN - 16)):
        with pytest.raises(DatagramError):
            accept_resp(initiator, pending, flipped(genuine, bit))
    assert accept_resp(initiator, pending, genuine)[0].send == responder_keys.receive


def test_flips_are_refused_by_noise_alone_when_the_forger_knows_the_public_key() -> None:
    """A forger with the public key makes a good mac1; only the sender's index is then open to it, as in WireGuard."""
    initiator, responder = context_of(INITIATOR_KEY), context_of(RESPONDER_KEY)
    pending = dial(initiator, responder)
    resp, _ = answer(responder, accept_init(responder, pending.datagram))
    for bit in [*range(32), *range(64, 8 * (INIT_LEN - 32))]:
        forged = append_macs(flipped(pending.datagram, bit)[:-32], responder.public_key, None)
        with pytest.raises(DatagramError):
            accept_init(responder, forged)
    for bit in [*range(32), *range(64, 8 * (RESP_LEN - 32))]:
        forged = append_macs(flipped(resp, bit)[:-32], initiator.public_key, None)
        with pytest.raises(DatagramError):
            accept_resp(initiator, pending, forged)
    assert accept_resp(initiator, pending, resp)[1] == 9


def test_truncated_and_prolonged_datagrams_are_refused_at_every_length() -> None:
    initiator, responder = context_of(INITIATOR_KEY), context_of(RESPONDER_KEY)
    pending = dial(initiator, responder)
    received = accept_init(responder, pending.datagram)
    resp, _ = answer(responder, received)
    for length in [*range(INIT_LEN), INIT_LEN + 1]:
        with pytest.raises(DatagramError, match="INIT of"):
            receive_init_untrusted(responder, (pending.datagram + b"\0")[:length])
    for length in [*range(RESP_LEN), RESP_LEN + 1]:
        with pytest.raises(DatagramError, match="RESP of"):
            receive_resp_untrusted(initiator, pending, (resp + b"\0")[:length])
        with pytest.raises(DatagramError, match="RESP of"):
            resp_receiver_untrusted((resp + b"\0")[:length])
    assert accept_resp(initiator, pending, resp)[1] == 9


@pytest.mark.parametrize(
    "other",
    [
        context_of(RESPONDER_KEY, segment="lan2"),
        context_of(RESPONDER_KEY, segment=""),
        dataclasses.replace(context_of(RESPONDER_KEY), prologue=b"l2overlay\x02\x01lan"),
        context_of(STRANGER_KEY),
    ],
    ids=["another segment", "no segment", "another version", "another key"],
)
def test_init_for_another_segment_version_or_key_is_refused(other: HandshakeContext) -> None:
    pending = dial(context_of(INITIATOR_KEY), context_of(RESPONDER_KEY))
    with pytest.raises(DatagramError, match="tag"):
        receive_init_untrusted(other, pending.datagram)


@pytest.mark.parametrize("psk", [None, b"\x56" * 32], ids=["no psk", "another psk"])
def test_resp_of_a_node_with_another_psk_is_refused(psk: bytes | None) -> None:
    """IKpsk2 mixes the psk into the RESP: the responder answers, and gets keys that nobody shares."""
    initiator, responder = context_of(INITIATOR_KEY), context_of(RESPONDER_KEY, psk=psk)
    pending = dial(initiator, responder)
    datagram, responder_keys = answer(responder, accept_init(responder, pending.datagram))
    with pytest.raises(DatagramError, match="tag"):
        accept_resp(initiator, pending, datagram)
    assert len(responder_keys.send) == 32


def test_another_suite_is_refused_by_its_number_and_by_noise() -> None:
    initiator = context_of(INITIATOR_KEY, Suite.AESGCM)
    responder = context_of(RESPONDER_KEY, Suite.CHACHAPOLY)
    init = dial(initiator, responder).datagram
    with pytest.raises(DatagramError, match="suite"):
        accept_init(responder, init)
    relabelled = append_macs(init[:1] + b"\x02" + init[2:-32], responder.public_key, None)
    with pytest.raises(DatagramError, match="tag"):
        accept_init(responder, relabelled)


def test_forged_resps_before_the_genuine_one_do_not_disturb_it() -> None:
    initiator, responder = context_of(INITIATOR_KEY), context_of(RESPONDER_KEY)
    pending = dial(initiator, responder)
    genuine, responder_keys = answer(responder, accept_init(responder, pending.datagram))
    body = b"\x09" * (RESP_LEN - 12 - 32)
    forged = append_macs(genuine[:12] + body, initiator.public_key, None)
    for _ in range(100):
        with pytest.raises(DatagramError):
            accept_resp(initiator, pending, forged)
    assert accept_resp(initiator, pending, genuine)[0].receive == responder_keys.send


def test_forged_init_in_another_nodes_name_is_refused() -> None:
    """Key compromise aside, only the owner of the static key can make the `ss` that seals the payload."""
    responder, stranger = context_of(RESPONDER_KEY), context_of(STRANGER_KEY)
    claimed = context_of(INITIATOR_KEY).static.public
    liar = dataclasses.replace(stranger)
    object.__setattr__(liar, "static", dataclasses.replace(stranger.static, public=claimed))
    with pytest.raises(DatagramError, match="tag"):
        accept_init(responder, dial(liar, responder).datagram)
    assert accept_init(responder, dial(stranger, responder).datagram).remote == stranger.public_key


def test_resp_to_another_init_is_refused() -> None:
    initiator, responder = context_of(INITIATOR_KEY), context_of(RESPONDER_KEY)
    pending = dial(initiator, responder)
    resp, _ = answer(responder, accept_init(responder, pending.datagram))
    other_index = initiate(
        initiator, responder.public_key, sender=8, stamp=6, features=3, ephemeral=EPHEMERALS[0]
    )
    with pytest.raises(DatagramError, match="another INIT"):
        receive_resp_untrusted(initiator, other_index, resp)
    same_index = dial(initiator, responder, stamp=6)
    with pytest.raises(DatagramError, match="tag"):
        receive_resp_untrusted(initiator, same_index, resp)


def test_a_resp_is_good_for_one_session() -> None:
    initiator, responder = context_of(INITIATOR_KEY), context_of(RESPONDER_KEY)
    pending = dial(initiator, responder)
    received = accept_init(responder, pending.datagram)
    resp, _ = answer(responder, received)
    accept_resp(initiator, pending, resp)
    with pytest.raises(DatagramError, match="not expected"):
        accept_resp(initiator, pending, resp)
    with pytest.raises(RuntimeError, match="has been written"):
        answer(responder, received)


def test_replayed_init_reads_the_same_and_gives_other_keys() -> None:
    """The stamp is what tells the caller; whoever replays does not get the keys."""
    initiator, responder = context_of(INITIATOR_KEY), context_of(RESPONDER_KEY)
    init = dial(initiator, responder).datagram
    first, replayed = accept_init(responder, init), accept_init(responder, init)
    assert first.stamp == replayed.stamp == 5
    keys = respond(responder, first, sender=9, features=0, ephemeral=b"\x01" * 32)[1]
    assert keys != respond(responder, replayed, sender=9, features=0, ephemeral=b"\x02" * 32)[1]


def test_init_payload_with_reserved_bytes_set_is_refused() -> None:
    initiator, responder = context_of(INITIATOR_KEY), context_of(RESPONDER_KEY)
    state = HandshakeState(
        NoiseProtocol.named("Noise_IKpsk2_25519_AESGCM_BLAKE2s"),
        initiator=True,
        prologue=initiator.prologue,
        static=initiator.static,
        remote_static=responder.public_key,
        psk=PSK,
    )
    message = state.write_message(struct.pack("<QII", 5, 3, 1), EPHEMERALS[0])
    head = dial(initiator, responder).datagram[:8]
    with pytest.raises(DatagramError, match="reserved"):
        accept_init(responder, append_macs(head + message, responder.public_key, None))


def test_resp_payload_with_reserved_bytes_set_is_refused() -> None:
    initiator, responder = context_of(INITIATOR_KEY), context_of(RESPONDER_KEY)
    pending = dial(initiator, responder)
    received = accept_init(responder, pending.datagram)
    message = received.state.write_message(struct.pack("<II", 1, 1), EPHEMERALS[1])
    head = struct.pack("<BBHII", 2, 1, 0, 9, 7)
    with pytest.raises(DatagramError, match="reserved"):
        accept_resp(initiator, pending, append_macs(head + message, initiator.public_key, None))


def test_init_with_a_low_order_key_is_refused() -> None:
    responder = context_of(RESPONDER_KEY)
    genuine = dial(context_of(INITIATOR_KEY), responder).datagram
    forged = append_macs(genuine[:8] + bytes(32) + genuine[40:-32], responder.public_key, None)
    with pytest.raises(DatagramError, match="low order"):
        accept_init(responder, forged)
    with pytest.raises(DatagramError, match="low order"):
        initiate(responder, PeerKey(bytes(32)), sender=1, stamp=1, features=0, ephemeral=EPHEMERALS[0])
    assert responder.static_shared == {}


def test_static_dh_is_kept_only_for_remotes_that_were_dialled_or_answered() -> None:
    initiator, responder, stranger = (context_of(k) for k in (INITIATOR_KEY, RESPONDER_KEY, STRANGER_KEY))
    receive_init_untrusted(responder, dial(stranger, responder).datagram)
    assert responder.static_shared == {}
    pending = dial(initiator, responder)
    resp, _ = answer(responder, receive_init_untrusted(responder, pending.datagram))
    receive_resp_untrusted(initiator, pending, resp)
    assert set(responder.static_shared) == {initiator.public_key}
    assert set(initiator.static_shared) == {responder.public_key}
    assert initiator.static_shared[responder.public_key] == responder.static_shared[initiator.public_key]
    again = dial(initiator, responder)
    assert again.datagram == pending.datagram
    assert receive_init_untrusted(responder, again.datagram).remote == initiator.public_key


def test_memory_of_static_dh_is_bounded_and_forgets_the_oldest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handshake, "STATIC_SHARED_LIMIT", 2)
    node = context_of(INITIATOR_KEY)
    remotes = [context_of(bytes([n]) * 32).public_key for n in (1, 2, 3)]
    for remote in [*remotes[:2], remotes[0], remotes[2]]:
        node.remember_static_dh(remote)
    assert list(node.static_shared) == remotes[1:]


def test_static_dh_that_is_kept_is_used() -> None:
    """A wrong value shows that it is: whoever measures will find the 30 us of the right one."""
    initiator, responder = context_of(INITIATOR_KEY), context_of(RESPONDER_KEY)
    responder.static_shared[initiator.public_key] = bytes(32)
    with pytest.raises(DatagramError, match="tag"):
        receive_init_untrusted(responder, dial(initiator, responder).datagram)


def test_static_dh_is_forgotten_with_the_key_that_made_it() -> None:
    node = context_of(INITIATOR_KEY)
    node.remember_static_dh(context_of(RESPONDER_KEY).public_key)
    assert dataclasses.replace(node, private_key=STRANGER_KEY).static_shared == {}


def test_secrets_do_not_show_in_what_is_printed() -> None:
    node = context_of(INITIATOR_KEY)
    pending = dial(node, context_of(RESPONDER_KEY))
    shown = f"{node!r} {pending!r} {SessionKeys(INITIATOR_KEY, PSK)!r}"
    assert repr(INITIATOR_KEY) not in shown
    assert repr(PSK) not in shown


def test_keys_of_wrong_length_are_refused() -> None:
    with pytest.raises(ValueError, match="psk has 32 bytes, not 31"):
        context_of(INITIATOR_KEY, psk=bytes(31))
    with pytest.raises(ValueError, match="32"):
        context_of(bytes(31))


FUZZED = context_of(RESPONDER_KEY)
FUZZED_PENDING = dial(FUZZED, context_of(INITIATOR_KEY))


@given(st.binary(max_size=300))
@example(b"")
def test_any_bytes_are_refused_and_never_raise_anything_else(datagram: bytes) -> None:
    for receive in (
        lambda: receive_init_untrusted(FUZZED, datagram),
        lambda: receive_resp_untrusted(FUZZED, FUZZED_PENDING, datagram),
    ):
        with pytest.raises(DatagramError):
            receive()


@given(st.binary(min_size=INIT_LEN - 4, max_size=INIT_LEN - 4))
def test_any_bytes_behind_a_good_head_are_refused_as_init(body: bytes) -> None:
    with pytest.raises(DatagramError):
        receive_init_untrusted(FUZZED, b"\x01\x01\x00\x00" + body)


@given(st.binary(min_size=RESP_LEN - 12, max_size=RESP_LEN - 12), st.binary(min_size=4, max_size=4))
def test_any_bytes_behind_a_good_head_are_refused_as_resp(body: bytes, sender: bytes) -> None:
    datagram = b"\x02\x01\x00\x00" + sender + b"\x07\x00\x00\x00" + body
    assert resp_receiver_untrusted(datagram) == FUZZED_PENDING.sender
    with pytest.raises(DatagramError):
        receive_resp_untrusted(FUZZED, FUZZED_PENDING, datagram)
