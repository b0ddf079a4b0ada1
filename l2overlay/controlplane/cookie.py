"""mac1, mac2 and the cookie: who may make us work (WireGuard paper, sections 5.3, 5.4.4 and 5.4.7).

Every INIT and RESP ends in two MACs, each keyed BLAKE2s-128 over all bytes before it:

    mac1[16]    key = BLAKE2s("mac1----" || receiver's public key): who lacks that key is met with silence
    mac2[16]    key = the cookie that the receiver gave for our address; zeros while we have none

A node under load answers a datagram whose mac1 is good and whose mac2 is not with a COOKIE, which is cheap,
instead of with X25519, which is not. The cookie is a MAC of the source address under a secret that changes: the
receiver keeps nothing per sender, and only who receives at the address it sends from can go on.

    COOKIE  type 3 | 0 0 0 | receiver u32 | nonce[24] | enc(cookie)[16+16]      little-endian, 64 bytes

WireGuard seals the cookie with XChaCha20-Poly1305 under BLAKE2s("cookie--" || public key). `cryptography` has
the form with a 96-bit nonce only, too short to be drawn at random under one key. So the 24 random bytes first
become a key of their own:

    key    = BLAKE2s-256(key = BLAKE2s("cookie--" || public key), nonce)
    sealed = ChaCha20-Poly1305(key, nonce 0, cookie, associated data = the mac1 that is answered)

That is XChaCha's own construction with keyed BLAKE2s in the place of HChaCha20. It is sound because keyed
BLAKE2s is a pseudo-random function: distinct nonces give independent keys, and 24 random bytes do not repeat (a
collision is likely after 2**96 replies), so each derived key seals one message, and the constant nonce is never
used twice under one key. As in WireGuard, the key is no secret from those who know the public key; what keeps a
blind sender from planting a cookie is the associated data, since it has not seen our mac1.
"""

import hashlib
import hmac
from collections.abc import Callable
from struct import Struct
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from l2overlay.addresses import PeerKey
from l2overlay.errors import DatagramError

MAC_LEN: Final = 16
MACS_LEN: Final = 2 * MAC_LEN
NO_MAC: Final = bytes(MAC_LEN)

COOKIE_TYPE: Final = 3
COOKIE_LEN: Final = 64
# type u8, reserved u24 (0), receiver u32, nonce 24 bytes; then the sealed cookie
_COOKIE_HEAD: Final = Struct("<II24s")
_INDEX: Final = Struct("<I")
_INDEX_OFFSET: Final = 4  # of the sender's index in INIT and RESP

COOKIE_LIFETIME = (
    120.0  # seconds that a holder uses a cookie, and that one secret makes cookies (WireGuard: the same)
)
# A cookie made in the last moment of a secret lives 120 s more. Refusing it earlier would cost a genuine
# newcomer one retry each time the secret changes, just when we are under load.
SECRET_LIFETIME = 2 * COOKIE_LIFETIME

_NONCE_LEN: Final = 24
_SECRET_LEN: Final = 32
_ZERO_NONCE: Final = bytes(12)


def _keyed_mac(key: bytes, *data: bytes) -> bytes:
    mac = hashlib.blake2s(key=key, digest_size=MAC_LEN)
    for piece in data:
        mac.update(piece)
    return mac.digest()


def _label_key(label: bytes, public_key: bytes) -> bytes:
    return hashlib.blake2s(label + public_key).digest()


def append_macs(message: bytes, receiver: PeerKey, cookie: bytes | None) -> bytes:
    """`message` with mac1 for `receiver`, and mac2 under `cookie` or zeros (section 5.4.4)."""
    message += _keyed_mac(_label_key(b"mac1----", receiver), message)
    return message + (_keyed_mac(cookie, message) if cookie is not None else NO_MAC)


def mac1_of(datagram: bytes) -> bytes:
    """The mac1 field of an INIT or RESP of right length: what a COOKIE that answers it is bound to."""
    return datagram[-MACS_LEN:-MAC_LEN]


def has_mac2(datagram: bytes) -> bool:
    """Whether the sender of an INIT or RESP claims to have a cookie."""
    return datagram[-MAC_LEN:] != NO_MAC


def _sealer(cookie_key: bytes, nonce: bytes) -> ChaCha20Poly1305:
    return ChaCha20Poly1305(hashlib.blake2s(nonce, key=cookie_key).digest())


class CookieChecker:
    """The receiver's half: tells who knows our public key, and who receives at the address it sends from.

    Callers check a datagram's length and type first. Its size does not grow with the number of senders.
    """

    def __init__(self, public_key: PeerKey) -> None:
        self._mac1_key = _label_key(b"mac1----", public_key)
        self._cookie_key = _label_key(b"cookie--", public_key)
        self._secrets: list[tuple[float, bytes]] = []  # (time made, secret), newest first, two at most

    def verify_mac1(self, datagram: bytes) -> bool:
        """Whether the sender knows our public key. Any bytes; never raises."""
        mac1 = _keyed_mac(self._mac1_key, datagram[:-MACS_LEN])
        return hmac.compare_digest(mac1, datagram[-MACS_LEN:-MAC_LEN])

    def verify_mac2(self, datagram: bytes, source: bytes, now: float) -> bool:
        """Whether mac2 proves a cookie of ours for `source`: good for at least 120 s, at most 240 s.

        Any bytes; never raises.
        """
        message, mac2 = datagram[:-MAC_LEN], datagram[-MAC_LEN:]
        return any(
            hmac.compare_digest(_keyed_mac(_keyed_mac(secret, source), message), mac2)
            for made_time, secret in self._secrets
            if now < made_time + SECRET_LIFETIME
        )

    def reply(self, datagram: bytes, source: bytes, now: float, random: Callable[[int], bytes]) -> bytes:
        """The COOKIE that answers an INIT or RESP whose mac1 is good.

        Raises DatagramError when the question is shorter than the answer would be: we never amplify.
        """
        if len(datagram) < COOKIE_LEN:
            raise DatagramError(f"{len(datagram)} bytes cannot be answered with a COOKIE of {COOKIE_LEN}")
        (receiver,) = _INDEX.unpack_from(datagram, _INDEX_OFFSET)
        nonce = random(_NONCE_LEN)
        cookie = _keyed_mac(self._current_secret(now, random), source)
        sealed = _sealer(self._cookie_key, nonce).encrypt(_ZERO_NONCE, cookie, mac1_of(datagram))
        return _COOKIE_HEAD.pack(COOKIE_TYPE, receiver, nonce) + sealed

    def _current_secret(self, now: float, random: Callable[[int], bytes]) -> bytes:
        if not self._secrets or now >= self._secrets[0][0] + COOKIE_LIFETIME:
            self._secrets = [(now, random(_SECRET_LEN)), *self._secrets[:1]]
        return self._secrets[0][1]


class CookieHolder:
    """The sender's half, one for a remote: the newest cookie that the remote gave us, for 120 s."""

    def __init__(self, remote: PeerKey) -> None:
        self._cookie_key = _label_key(b"cookie--", remote)
        self._cookie = b""
        self._expiry_time = float("-inf")

    def receive_untrusted(self, datagram: bytes, mac1_sent: bytes, now: float) -> None:
        """Take the cookie out of a COOKIE that answers the INIT or RESP whose mac1 was `mac1_sent`.

        Raises DatagramError, and keeps what it had, when it is anything else. The receiver index is for
        the caller to look up.
        """
        if len(datagram) != COOKIE_LEN:
            raise DatagramError(f"a COOKIE of {len(datagram)} bytes")
        kind, _, nonce = _COOKIE_HEAD.unpack_from(datagram)
        if kind != COOKIE_TYPE:
            raise DatagramError("not a COOKIE, or its reserved bytes are not 0")
        try:
            cookie = _sealer(self._cookie_key, nonce).decrypt(
                _ZERO_NONCE, datagram[_COOKIE_HEAD.size :], mac1_sent
            )
        except InvalidTag:
            raise DatagramError("COOKIE tag does not verify") from None
        self._cookie, self._expiry_time = cookie, now + COOKIE_LIFETIME

    def cookie(self, now: float) -> bytes | None:
        """What mac2 is keyed with, or None when there is none that the remote still honours."""
        return self._cookie if now < self._expiry_time else None
