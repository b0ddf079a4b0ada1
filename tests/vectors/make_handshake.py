"""Makes handshake.json: known INIT, RESP and COOKIE datagrams from fixed keys, without a line of l2overlay.

`noiseprotocol` gives the Noise messages, hashlib and `cryptography` the rest, after docs/protocol.md. Run it again only
when the protocol changes on purpose: python tests/vectors/make_handshake.py > tests/vectors/handshake.json
"""

import hashlib
import json
import struct
import sys
import warnings

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from noise.connection import Keypair, NoiseConnection

INITIATOR, RESPONDER = b"\x11" * 32, b"\x22" * 32
INITIATOR_EPHEMERAL, RESPONDER_EPHEMERAL = b"\x33" * 32, b"\x44" * 32
PSK, SECRET, NONCE = b"\x55" * 32, b"\x66" * 32, bytes(range(24))
SOURCE = b"192.0.2.1:7470"
INITIATOR_INDEX, RESPONDER_INDEX = 0x11223344, 0x55667788
STAMP, INITIATOR_FEATURES, RESPONDER_FEATURES = 0x0102030405060708, 0x0A0B0C0D, 0x0E0F1011


def public(private_key: bytes) -> bytes:
    return X25519PrivateKey.from_private_bytes(private_key).public_key().public_bytes_raw()


def keyed(key: bytes, data: bytes, size: int = 16) -> bytes:
    return hashlib.blake2s(data, key=key, digest_size=size).digest()


def with_macs(message: bytes, receiver: bytes) -> bytes:
    return message + keyed(hashlib.blake2s(b"mac1----" + receiver).digest(), message) + bytes(16)


def noise_side(suite: int, cipher: str, initiator: bool) -> NoiseConnection:
    noise = NoiseConnection.from_name(f"Noise_IKpsk2_25519_{cipher}_BLAKE2s".encode())
    noise.set_psks(PSK)
    noise.set_prologue(b"l2overlay" + bytes((1, suite)) + b"lan")
    noise.set_keypair_from_private_bytes(Keypair.STATIC, INITIATOR if initiator else RESPONDER)
    ephemeral = INITIATOR_EPHEMERAL if initiator else RESPONDER_EPHEMERAL
    noise.set_keypair_from_private_bytes(Keypair.EPHEMERAL, ephemeral)
    if initiator:
        noise.set_as_initiator()
        noise.set_keypair_from_public_bytes(Keypair.REMOTE_STATIC, public(RESPONDER))
    else:
        noise.set_as_responder()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "One of ephemeral keypairs is already set")
        noise.start_handshake()
    return noise


def cookie_for(init: bytes) -> dict[str, str]:
    cookie = keyed(SECRET, SOURCE)
    key = keyed(hashlib.blake2s(b"cookie--" + public(RESPONDER)).digest(), NONCE, 32)
    sealed = ChaCha20Poly1305(key).encrypt(bytes(12), cookie, init[-32:-16])
    datagram = struct.pack("<BBHI", 3, 0, 0, INITIATOR_INDEX) + NONCE + sealed
    mac2 = keyed(cookie, init[:-16])
    return {"COOKIE": datagram.hex(), "cookie": cookie.hex(), "INIT_with_cookie": (init[:-16] + mac2).hex()}


def handshake(suite: int, cipher: str) -> dict[str, str | int]:
    initiator, responder = noise_side(suite, cipher, True), noise_side(suite, cipher, False)
    message = bytes(initiator.write_message(struct.pack("<QII", STAMP, INITIATOR_FEATURES, 0)))
    init = with_macs(struct.pack("<BBHI", 1, suite, 0, INITIATOR_INDEX) + message, public(RESPONDER))
    responder.read_message(message)
    message = bytes(responder.write_message(struct.pack("<II", RESPONDER_FEATURES, 0)))
    head = struct.pack("<BBHII", 2, suite, 0, RESPONDER_INDEX, INITIATOR_INDEX)
    resp = with_macs(head + message, public(INITIATOR))
    initiator.read_message(message)
    return {
        "suite": suite,
        "INIT": init.hex(),
        "RESP": resp.hex(),
        "to_responder": initiator.noise_protocol.cipher_state_encrypt.k.hex(),
        "to_initiator": initiator.noise_protocol.cipher_state_decrypt.k.hex(),
        **cookie_for(init),
    }


if __name__ == "__main__":
    answers = {
        "made by": "make_handshake.py",
        "handshakes": [handshake(1, "AESGCM"), handshake(2, "ChaChaPoly")],
    }
    json.dump(answers, sys.stdout, indent=1)
    print()
