"""The handshake against `noiseprotocol`, an implementation by others: live in both roles, and by known answers.

tests/vectors/handshake.json was made by tests/vectors/make_handshake.py with noiseprotocol, hashlib and `cryptography`.
"""

import json
import struct
from pathlib import Path
from typing import Any

import pytest
from noise.connection import Keypair, NoiseConnection

from l2overlay.addresses import PeerKey
from l2overlay.config.types import Suite
from l2overlay.controlplane.cookie import CookieChecker, CookieHolder, append_macs
from l2overlay.controlplane.handshake import (
    HandshakeContext,
    initiate,
    receive_init_untrusted,
    receive_resp_untrusted,
    respond,
)

ANSWERS = json.loads((Path(__file__).parents[1] / "vectors" / "handshake.json").read_text())["handshakes"]
known_answers = pytest.mark.parametrize("known", ANSWERS, ids=lambda a: Suite(a["suite"]).name)

NOISE_NAMES = {
    Suite.AESGCM: b"Noise_IKpsk2_25519_AESGCM_BLAKE2s",
    Suite.CHACHAPOLY: b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s",
}
OUR_KEY, THEIR_KEY, PSK = b"\x11" * 32, b"\x22" * 32, b"\x55" * 32
SOURCE = b"192.0.2.1:7470"


def second_opinion(suite: Suite, initiator_of: PeerKey | None) -> NoiseConnection:
    """The other node; as initiator when `initiator_of` names the one that it dials."""
    noise = NoiseConnection.from_name(NOISE_NAMES[suite])
    noise.set_psks(PSK)
    noise.set_prologue(b"l2overlay" + bytes((1, suite)) + b"lan")
    noise.set_keypair_from_private_bytes(Keypair.STATIC, THEIR_KEY)
    if initiator_of is None:
        noise.set_as_responder()
    else:
        noise.set_as_initiator()
        noise.set_keypair_from_public_bytes(Keypair.REMOTE_STATIC, initiator_of)
    noise.start_handshake()
    return noise


@pytest.fixture(params=list(Suite), ids=lambda s: s.name)
def us(request: pytest.FixtureRequest) -> HandshakeContext:
    return HandshakeContext.create(OUR_KEY, request.param, "lan", PSK)


def their_public_key() -> PeerKey:
    return HandshakeContext.create(THEIR_KEY, Suite.AESGCM, "").public_key


def test_we_dial_and_the_second_opinion_answers(us: HandshakeContext) -> None:
    them = second_opinion(us.suite, None)
    pending = initiate(us, their_public_key(), sender=7, stamp=1 << 63, features=3, ephemeral=b"\x33" * 32)
    payload = them.read_message(pending.datagram[8:-32])
    assert struct.unpack("<QII", payload) == (1 << 63, 3, 0)
    message = bytes(them.write_message(struct.pack("<II", 1, 0)))
    resp = append_macs(struct.pack("<BBHII", 2, us.suite, 0, 9, 7) + message, us.public_key, None)
    keys, sender, features = receive_resp_untrusted(us, pending, resp)
    assert (sender, features) == (9, 1)
    assert keys.send == them.noise_protocol.cipher_state_decrypt.k
    assert keys.receive == them.noise_protocol.cipher_state_encrypt.k


def test_the_second_opinion_dials_and_we_answer(us: HandshakeContext) -> None:
    them = second_opinion(us.suite, us.public_key)
    message = bytes(them.write_message(struct.pack("<QII", 5, 3, 0)))
    init = append_macs(struct.pack("<BBHI", 1, us.suite, 0, 9) + message, us.public_key, None)
    received = receive_init_untrusted(us, init)
    assert (received.remote, received.sender) == (their_public_key(), 9)
    assert (received.stamp, received.features) == (5, 3)
    resp, keys = respond(us, received, sender=7, features=1, ephemeral=b"\x44" * 32)
    assert struct.unpack("<BBHII", resp[:12]) == (2, us.suite, 0, 7, 9)
    assert struct.unpack("<II", them.read_message(resp[12:-32])) == (1, 0)
    assert keys.send == them.noise_protocol.cipher_state_decrypt.k
    assert keys.receive == them.noise_protocol.cipher_state_encrypt.k


def contexts_of(known: dict[str, Any]) -> tuple[HandshakeContext, HandshakeContext]:
    suite = Suite(known["suite"])
    return (
        HandshakeContext.create(OUR_KEY, suite, "lan", PSK),
        HandshakeContext.create(THEIR_KEY, suite, "lan", PSK),
    )


def known_bytes(known: dict[str, Any], name: str) -> bytes:
    return bytes.fromhex(known[name])


@known_answers
def test_init_resp_and_keys_equal_the_known_answers(known: dict[str, Any]) -> None:
    initiator, responder = contexts_of(known)
    pending = initiate(
        initiator,
        responder.public_key,
        sender=0x11223344,
        stamp=0x0102030405060708,
        features=0x0A0B0C0D,
        ephemeral=b"\x33" * 32,
    )
    assert pending.datagram == known_bytes(known, "INIT")
    received = receive_init_untrusted(responder, pending.datagram)
    resp, keys = respond(responder, received, sender=0x55667788, features=0x0E0F1011, ephemeral=b"\x44" * 32)
    assert resp == known_bytes(known, "RESP")
    assert keys.receive == known_bytes(known, "to_responder")
    assert keys.send == known_bytes(known, "to_initiator")


@known_answers
def test_cookie_and_the_init_that_carries_it_equal_the_known_answers(known: dict[str, Any]) -> None:
    initiator, responder = contexts_of(known)
    init = known_bytes(known, "INIT")
    checker, holder = CookieChecker(responder.public_key), CookieHolder(responder.public_key)
    chance = {24: bytes(range(24)), 32: b"\x66" * 32}

    cookie_datagram = checker.reply(init, SOURCE, 0.0, chance.__getitem__)
    assert cookie_datagram == known_bytes(known, "COOKIE")
    holder.receive_untrusted(cookie_datagram, init[-32:-16], 0.0)
    assert holder.cookie(0.0) == known_bytes(known, "cookie")
    again = initiate(
        initiator,
        responder.public_key,
        sender=0x11223344,
        stamp=0x0102030405060708,
        features=0x0A0B0C0D,
        ephemeral=b"\x33" * 32,
        cookie=holder.cookie(0.0),
    )
    assert again.datagram == known_bytes(known, "INIT_with_cookie")
    assert checker.verify_mac2(again.datagram, SOURCE, 0.0)
