"""Our Noise code against the published vectors of cacophony and snow, and what it does with forged messages.

Vectors: https://github.com/mcginty/snow/tree/main/tests/vectors (cacophony.txt, snow.txt), in ../shared/vectors.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from l2overlay.controlplane.noise import HandshakeState, KeyPair, NoiseProtocol
from l2overlay.errors import DatagramError

VECTORS_FILE = Path(__file__).parents[3] / "shared" / "vectors" / "noise_ik.json"
VECTORS = json.loads(VECTORS_FILE.read_text())["vectors"] if VECTORS_FILE.exists() else []
needs_vectors = pytest.mark.skipif(not VECTORS, reason=f"the published vectors are not at {VECTORS_FILE}")

NAMES = [
    f"Noise_{pattern}_25519_{cipher}_{hash_name}"
    for pattern in ("IK", "IKpsk1", "IKpsk2")
    for cipher in ("AESGCM", "ChaChaPoly")
    for hash_name in ("BLAKE2s", "SHA256")
]

# RFC 7748 section 6.1 demands the all-zero check; these are the points that fail it (cr.yp.to/ecdh.html#validate),
# the last ones with the bit set that X25519 ignores.
LOW_ORDER_POINTS = [
    bytes.fromhex(text)
    for text in (
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
        "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "0000000000000000000000000000000000000000000000000000000000000080",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    )
]

Pair = tuple[HandshakeState, HandshakeState]


def pair_of(name: str, prologue: bytes = b"here", psk: bytes = bytes(range(32))) -> Pair:
    protocol = NoiseProtocol.named(name)
    initiator, responder = KeyPair.from_private(b"\x11" * 32), KeyPair.from_private(b"\x22" * 32)
    return (
        HandshakeState(
            protocol,
            initiator=True,
            prologue=prologue,
            static=initiator,
            remote_static=responder.public,
            psk=psk,
        ),
        HandshakeState(protocol, initiator=False, prologue=prologue, static=responder, psk=psk),
    )


def state_of(vector: dict[str, Any], side: str) -> HandshakeState:
    def field(name: str) -> bytes:
        return bytes.fromhex(vector.get(f"{side}_{name}", ""))

    return HandshakeState(
        NoiseProtocol.named(vector["protocol_name"]),
        initiator=side == "init",
        prologue=field("prologue"),
        static=KeyPair.from_private(field("static")),
        remote_static=field("remote_static"),
        psk=bytes.fromhex(vector.get(f"{side}_psks", [""])[0]),
    )


@needs_vectors
def test_vector_file_holds_all_twelve_protocols() -> None:
    assert sorted(v["protocol_name"] for v in VECTORS) == sorted(NAMES)


@needs_vectors
@pytest.mark.parametrize("vector", VECTORS, ids=lambda v: v["protocol_name"])
def test_handshake_and_transport_messages_equal_the_published_vector(vector: dict[str, Any]) -> None:
    initiator, responder = state_of(vector, "init"), state_of(vector, "resp")
    ephemerals = [bytes.fromhex(vector["init_ephemeral"]), bytes.fromhex(vector["resp_ephemeral"])]
    messages = [(bytes.fromhex(m["payload"]), bytes.fromhex(m["ciphertext"])) for m in vector["messages"]]

    for (payload, ciphertext), ephemeral, writer, reader in zip(
        messages, ephemerals, (initiator, responder), (responder, initiator), strict=False
    ):
        assert writer.write_message(payload, ephemeral) == ciphertext
        assert reader.read_message_untrusted(ciphertext) == payload
    assert initiator.handshake_hash == responder.handshake_hash == bytes.fromhex(vector["handshake_hash"])

    (to_responder, to_initiator) = initiator.split()
    assert responder.split() == (to_initiator, to_responder)
    cipher = NoiseProtocol.named(vector["protocol_name"]).cipher
    for number, (payload, ciphertext) in enumerate(messages[2:]):
        aead = cipher.aead(to_initiator if number % 2 else to_responder)
        assert aead.encrypt(cipher.nonce(number // 2), payload, None) == ciphertext
        assert aead.decrypt(cipher.nonce(number // 2), ciphertext, None) == payload


@pytest.mark.parametrize("name", NAMES)
def test_both_sides_agree_on_keys_and_transcript(name: str) -> None:
    initiator, responder = pair_of(name)
    assert responder.read_message_untrusted(initiator.write_message(b"question", b"\x33" * 32)) == b"question"
    assert initiator.read_message_untrusted(responder.write_message(b"answer", b"\x44" * 32)) == b"answer"
    assert initiator.split() == responder.split()[::-1]
    assert initiator.handshake_hash == responder.handshake_hash
    assert responder.remote_static == KeyPair.from_private(b"\x11" * 32).public


def test_nonces_are_big_endian_for_aesgcm_and_little_endian_for_chachapoly() -> None:
    counter = 0x0102030405060708
    aesgcm = NoiseProtocol.named("Noise_IK_25519_AESGCM_SHA256").cipher
    chachapoly = NoiseProtocol.named("Noise_IK_25519_ChaChaPoly_SHA256").cipher
    assert aesgcm.nonce(counter).hex() == "000000000102030405060708"
    assert chachapoly.nonce(counter).hex() == "000000000807060504030201"


@pytest.mark.parametrize("name", NAMES)
def test_flipped_bits_are_refused_and_the_genuine_messages_still_succeed(name: str) -> None:
    initiator, responder = pair_of(name)
    first = initiator.write_message(b"q", b"\x33" * 32)
    refuse_every_flip(responder, first)
    responder.read_message_untrusted(first)
    second = responder.write_message(b"a", b"\x44" * 32)
    refuse_every_flip(initiator, second)
    initiator.read_message_untrusted(second)
    assert initiator.split() == responder.split()[::-1]


def refuse_every_flip(reader: HandshakeState, message: bytes) -> None:
    """One bit of every byte; the handshake tests flip all of them in the suites that we speak."""
    before = reader.handshake_hash, reader.remote_static
    for position in range(len(message)):
        forged = bytearray(message)
        forged[position] ^= 1 << (position % 8)
        with pytest.raises(DatagramError):
            reader.read_message_untrusted(bytes(forged))
    assert (reader.handshake_hash, reader.remote_static) == before


@pytest.mark.parametrize("name", ["Noise_IK_25519_AESGCM_BLAKE2s", "Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s"])
def test_truncated_messages_are_refused_at_every_length(name: str) -> None:
    initiator, responder = pair_of(name)
    first = initiator.write_message(b"q", b"\x33" * 32)
    for length in range(len(first)):
        with pytest.raises(DatagramError):
            responder.read_message_untrusted(first[:length])
    responder.read_message_untrusted(first)
    second = responder.write_message(b"a", b"\x44" * 32)
    for length in range(len(second)):
        with pytest.raises(DatagramError):
            initiator.read_message_untrusted(second[:length])
    initiator.read_message_untrusted(second)


@pytest.mark.parametrize("name", ["Noise_IKpsk1_25519_AESGCM_SHA256", "Noise_IKpsk2_25519_AESGCM_BLAKE2s"])
def test_another_psk_fails_at_the_message_that_mixes_it(name: str) -> None:
    initiator, _ = pair_of(name)
    _, responder = pair_of(name, psk=bytes(32))
    first = initiator.write_message(b"q", b"\x33" * 32)
    if "psk2" in name:
        responder.read_message_untrusted(first)
        first, responder = responder.write_message(b"a", b"\x44" * 32), initiator
    with pytest.raises(DatagramError, match="tag"):
        responder.read_message_untrusted(first)


def test_another_prologue_fails_at_the_first_message() -> None:
    initiator, _ = pair_of("Noise_IK_25519_AESGCM_BLAKE2s", prologue=b"here")
    _, responder = pair_of("Noise_IK_25519_AESGCM_BLAKE2s", prologue=b"there")
    with pytest.raises(DatagramError, match="tag"):
        responder.read_message_untrusted(initiator.write_message(b"", b"\x33" * 32))


@pytest.mark.parametrize("point", LOW_ORDER_POINTS, ids=bytes.hex)
def test_low_order_points_are_refused(point: bytes) -> None:
    with pytest.raises(DatagramError, match="low order"):
        KeyPair.from_private(b"\x11" * 32).exchange_untrusted(point)


def test_ephemeral_of_low_order_is_refused_before_anything_is_opened() -> None:
    _, responder = pair_of("Noise_IKpsk2_25519_AESGCM_BLAKE2s")
    with pytest.raises(DatagramError, match="low order"):
        responder.read_message_untrusted(LOW_ORDER_POINTS[0] + bytes(64))


def test_a_message_is_taken_once_and_in_turn() -> None:
    initiator, responder = pair_of("Noise_IKpsk2_25519_AESGCM_BLAKE2s")
    with pytest.raises(RuntimeError, match="not ours"):
        responder.write_message(b"", b"\x44" * 32)
    first = initiator.write_message(b"", b"\x33" * 32)
    with pytest.raises(RuntimeError, match="has been written"):
        initiator.write_message(b"", b"\x33" * 32)
    responder.read_message_untrusted(first)
    with pytest.raises(DatagramError, match="not expected"):
        responder.read_message_untrusted(first)
    with pytest.raises(RuntimeError, match="not complete"):
        responder.split()
    second = responder.write_message(b"", b"\x44" * 32)
    initiator.read_message_untrusted(second)
    with pytest.raises(DatagramError, match="not expected"):
        initiator.read_message_untrusted(second)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "Noise_XX_25519_AESGCM_BLAKE2s",
        "Noise_IK_448_AESGCM_BLAKE2s",
        "Noise_IK_25519_AESGCM_SHA512",
        "Noise_IK_25519_none_BLAKE2s",
        "Noise_IK_25519_AESGCM_BLAKE2s\n",
    ],
)
def test_protocols_that_we_do_not_speak_are_refused_by_name(name: str) -> None:
    with pytest.raises(ValueError, match="not a Noise protocol"):
        NoiseProtocol.named(name)
