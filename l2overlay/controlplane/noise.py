"""The Noise handshakes IK, IKpsk1 and IKpsk2 over X25519 (Noise Protocol Framework, revision 34).

    IK                      -> e, es, s, ss             <- e, ee, se
    IKpsk1, IKpsk2          `psk` at the end of the first or of the second message (section 9.4)
    ciphers, hashes         AESGCM, ChaChaPoly; BLAKE2s, SHA256 (section 12)

l2overlay speaks IKpsk2 with BLAKE2s only; the rest is here so that published vectors check the very code that
runs. From the top down: primitives, `SymmetricState` (sections 5.1, 5.2), `HandshakeState` (section 5.3).

A message is read on copies, and the state changes only after the last tag has verified: after a forged message
the genuine one is still welcome. Chance is an argument: the caller brings the ephemeral private key.
"""

import hashlib
import hmac
import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from l2overlay.errors import DatagramError

DH_LEN: Final = 32
HASH_LEN: Final = 32  # of BLAKE2s and of SHA256
TAG_LEN: Final = 16

Aead = AESGCM | ChaCha20Poly1305


def _nonce_big_endian(counter: int) -> bytes:
    return counter.to_bytes(12, "big")


def _nonce_little_endian(counter: int) -> bytes:
    return bytes(4) + counter.to_bytes(8, "little")


@dataclass(frozen=True, slots=True)
class Cipher:
    """Section 4.2: an AEAD, and how it writes a 64-bit counter as its 96-bit nonce."""

    aead: Callable[[bytes], Aead]
    nonce: Callable[[int], bytes]


CIPHERS: Final = {
    "AESGCM": Cipher(AESGCM, _nonce_big_endian),  # section 12.4
    "ChaChaPoly": Cipher(ChaCha20Poly1305, _nonce_little_endian),  # section 12.3
}
HASHES: Final[dict[str, Callable[..., Any]]] = {"BLAKE2s": hashlib.blake2s, "SHA256": hashlib.sha256}


class Token(Enum):
    """Section 7.1. Of the two letters of a DH, the first is the initiator's key, the second the responder's."""

    E = "e"
    S = "s"
    EE = "ee"
    ES = "es"
    SE = "se"
    SS = "ss"
    PSK = "psk"


MessagePattern = tuple[Token, ...]
_IK_INIT: Final = (Token.E, Token.ES, Token.S, Token.SS)
_IK_RESP: Final = (Token.E, Token.EE, Token.SE)
PATTERNS: Final[dict[str, tuple[MessagePattern, MessagePattern]]] = {
    "IK": (_IK_INIT, _IK_RESP),
    "IKpsk1": ((*_IK_INIT, Token.PSK), _IK_RESP),
    "IKpsk2": (_IK_INIT, (*_IK_RESP, Token.PSK)),
}


@dataclass(frozen=True, slots=True)
class NoiseProtocol:
    """A protocol name (section 8) and what it stands for."""

    name: bytes
    messages: tuple[MessagePattern, MessagePattern]
    psk: bool
    cipher: Cipher
    hash: Callable[..., Any]

    @classmethod
    def named(cls, name: str) -> "NoiseProtocol":
        """`Noise_IKpsk2_25519_AESGCM_BLAKE2s` and its relatives. Raises ValueError for any other."""
        match = re.fullmatch(r"Noise_(\w+)_25519_([A-Za-z]+)_(\w+)", name)
        pattern, cipher, hash_name = match.groups() if match else ("", "", "")
        if pattern not in PATTERNS or cipher not in CIPHERS or hash_name not in HASHES:
            raise ValueError(f"{name!r} is not a Noise protocol that we speak")
        return cls(name.encode(), PATTERNS[pattern], "psk" in pattern, CIPHERS[cipher], HASHES[hash_name])


@dataclass(frozen=True, slots=True)
class KeyPair:
    """An X25519 key pair; the public half as the bytes that travel."""

    private: X25519PrivateKey
    public: bytes

    @classmethod
    def from_private(cls, private_key: bytes) -> "KeyPair":
        """The pair of 32 private bytes (one X25519 multiplication). Raises ValueError for another length."""
        private = X25519PrivateKey.from_private_bytes(private_key)
        return cls(private, private.public_key().public_bytes_raw())

    def exchange_untrusted(self, public: bytes) -> bytes:
        """DH of section 4.1. Raises DatagramError when the result is all zero: `public` has low order.

        Section 12.1 leaves that check open; such a key contributes nothing and has no honest use.
        """
        try:
            return self.private.exchange(X25519PublicKey.from_public_bytes(public))
        except ValueError:
            raise DatagramError("X25519 public key of low order") from None


class SymmetricState:
    """Section 5.2 with the CipherState of 5.1 folded in: ck, h and k are all there is, so a copy is cheap.

    In all our patterns a DH or the psk is mixed in before each ciphertext: k is never empty when it is used,
    and it seals once, so that its nonce n is always 0.
    """

    __slots__ = ("ck", "h", "k", "protocol")

    def __init__(self, protocol: NoiseProtocol) -> None:
        name = protocol.name
        self.protocol = protocol
        self.h: bytes = name.ljust(HASH_LEN, b"\0") if len(name) <= HASH_LEN else protocol.hash(name).digest()
        self.ck = self.h
        self.k = b""

    def copy(self) -> "SymmetricState":
        """A second state that can be thrown away."""
        twin = SymmetricState.__new__(SymmetricState)
        twin.protocol, twin.h, twin.ck, twin.k = self.protocol, self.h, self.ck, self.k
        return twin

    def hkdf(self, key_material: bytes, outputs: int) -> list[bytes]:
        """Section 4.3: HMAC-based extract and expand with ck as salt; two or three outputs."""
        digest = self.protocol.hash
        temp_key = hmac.digest(self.ck, key_material, digest)
        blocks = [hmac.digest(temp_key, b"\x01", digest)]
        for number in range(2, outputs + 1):
            blocks.append(hmac.digest(temp_key, blocks[-1] + bytes((number,)), digest))
        return blocks

    def mix_hash(self, data: bytes) -> None:
        """h = HASH(h || data)."""
        self.h = self.protocol.hash(self.h + data).digest()

    def mix_key(self, key_material: bytes) -> None:
        """New ck and k from a DH result (or, in psk patterns, from an ephemeral public key)."""
        self.ck, self.k = self.hkdf(key_material, 2)

    def mix_key_and_hash(self, key_material: bytes) -> None:
        """New ck, h and k from the pre-shared key (section 9.2)."""
        self.ck, temp_h, self.k = self.hkdf(key_material, 3)
        self.mix_hash(temp_h)

    def encrypt_and_hash(self, plaintext: bytes) -> bytes:
        """Seal under k with h as associated data, then mix the ciphertext into h."""
        cipher = self.protocol.cipher
        ciphertext = cipher.aead(self.k).encrypt(cipher.nonce(0), plaintext, self.h)
        self.mix_hash(ciphertext)
        return ciphertext

    def decrypt_and_hash_untrusted(self, ciphertext: bytes) -> bytes:
        """The reverse. Raises DatagramError, and changes nothing, when the tag does not verify."""
        cipher = self.protocol.cipher
        try:
            plaintext = cipher.aead(self.k).decrypt(cipher.nonce(0), ciphertext, self.h)
        except InvalidTag:
            raise DatagramError("Noise tag does not verify") from None
        self.mix_hash(ciphertext)
        return plaintext

    def split(self) -> tuple[bytes, bytes]:
        """The two transport keys: initiator to responder, responder to initiator."""
        first, second = self.hkdf(b"", 2)
        return first, second


class HandshakeState:
    """One handshake of two messages, seen from one side (section 5.3).

    The initiator calls write, read; the responder read, write; both then `split`. Each message is taken once:
    a duplicate is refused, so that no handshake yields the same keys twice.
    """

    __slots__ = (
        "_ephemeral",
        "_initiator",
        "_messages_done",
        "_protocol",
        "_psk",
        "_remote_ephemeral",
        "_static",
        "_static_dh",
        "_symmetric",
        "remote_static",
    )
    _ephemeral: KeyPair  # set by the first `e` that we write, which comes before all that use it

    def __init__(
        self,
        protocol: NoiseProtocol,
        *,
        initiator: bool,
        prologue: bytes,
        static: KeyPair,
        remote_static: bytes = b"",
        psk: bytes = b"",
        static_dh: Callable[[bytes], bytes] | None = None,
    ) -> None:
        """`remote_static` is the initiator's to know beforehand; `psk` has 32 bytes in psk patterns.

        `static_dh` answers `ss` in place of `static`: the result depends on the two static keys alone, so that
        a caller may remember it.
        """
        self._protocol = protocol
        self._initiator = initiator
        self._static = static
        self._psk = psk
        self._static_dh = static_dh or static.exchange_untrusted
        self._remote_ephemeral = b""
        self._messages_done = 0
        self.remote_static = remote_static
        self._symmetric = SymmetricState(protocol)
        self._symmetric.mix_hash(prologue)
        self._symmetric.mix_hash(remote_static if initiator else static.public)  # pre-message `<- s`

    @property
    def handshake_hash(self) -> bytes:
        """h: once both messages are done, it names this handshake (channel binding, section 11.2)."""
        return self._symmetric.h

    def write_message(self, payload: bytes, ephemeral: bytes) -> bytes:
        """The next message. `ephemeral` is a fresh X25519 private key, never used before or after.

        Raises DatagramError when `remote_static` is of low order, RuntimeError when it is not our turn.
        """
        if self._messages_done != (0 if self._initiator else 1):
            raise RuntimeError("this handshake message has been written, or is not ours to write")
        symmetric = self._symmetric
        pair = self._ephemeral = KeyPair.from_private(ephemeral)
        message = b""
        for token in self._protocol.messages[self._messages_done]:
            if token is Token.E:
                message += pair.public
                self._mix_ephemeral(symmetric, pair.public)
            elif token is Token.S:
                message += symmetric.encrypt_and_hash(self._static.public)
            elif token is Token.PSK:
                symmetric.mix_key_and_hash(self._psk)
            else:
                symmetric.mix_key(self._dh_untrusted(token, self._remote_ephemeral, self.remote_static))
        self._messages_done += 1
        return message + symmetric.encrypt_and_hash(payload)

    def read_message_untrusted(self, message: bytes) -> bytes:
        """The payload of the next message. Raises DatagramError, and changes nothing, when it is not genuine."""
        if self._messages_done != (1 if self._initiator else 0):
            raise DatagramError("this handshake message is not expected")
        symmetric = self._symmetric.copy()
        remote_ephemeral, remote_static, rest = self._remote_ephemeral, self.remote_static, message
        for token in self._protocol.messages[self._messages_done]:
            if token is Token.E:
                remote_ephemeral, rest = rest[:DH_LEN], rest[DH_LEN:]
                self._mix_ephemeral(symmetric, remote_ephemeral)
            elif token is Token.S:
                remote_static = symmetric.decrypt_and_hash_untrusted(rest[: DH_LEN + TAG_LEN])
                rest = rest[DH_LEN + TAG_LEN :]
            elif token is Token.PSK:
                symmetric.mix_key_and_hash(self._psk)
            else:
                symmetric.mix_key(self._dh_untrusted(token, remote_ephemeral, remote_static))
        payload = symmetric.decrypt_and_hash_untrusted(rest)
        self._symmetric, self._remote_ephemeral, self.remote_static = (
            symmetric,
            remote_ephemeral,
            remote_static,
        )
        self._messages_done += 1
        return payload

    def split(self) -> tuple[bytes, bytes]:
        """Our transport keys after both messages: to send with, to receive with."""
        if self._messages_done != len(self._protocol.messages):
            raise RuntimeError("the handshake is not complete")
        to_responder, to_initiator = self._symmetric.split()
        return (to_responder, to_initiator) if self._initiator else (to_initiator, to_responder)

    def _mix_ephemeral(self, symmetric: SymmetricState, public: bytes) -> None:
        """Token `e`; in psk patterns it enters the key too, so that no key depends on the psk alone (9.2)."""
        symmetric.mix_hash(public)
        if self._protocol.psk:
            symmetric.mix_key(public)

    def _dh_untrusted(self, token: Token, remote_ephemeral: bytes, remote_static: bytes) -> bytes:
        if token is Token.SS:
            return self._static_dh(remote_static)
        ours, theirs = token.value if self._initiator else reversed(token.value)
        pair = self._ephemeral if ours == "e" else self._static
        return pair.exchange_untrusted(remote_ephemeral if theirs == "e" else remote_static)
