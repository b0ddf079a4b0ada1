"""INIT and RESP: the two datagrams that give two nodes their session keys (little-endian, exact lengths).

    INIT   type 1 | suite | 0 0 | sender u32                | e[32] | enc(static)[48] | enc(payload)[16+16] | MACs
    RESP   type 2 | suite | 0 0 | sender u32 | receiver u32 | e[32] | enc(payload)[8+16]                    | MACs

    INIT payload   stamp u64 | features u32 | 0 u32           RESP payload   features u32 | 0 u32
    MACs           mac1[16] | mac2[16]                        see `cookie`

The middle is a message of `Noise_IKpsk2_25519_AESGCM_BLAKE2s` (suite 1) or `..._ChaChaPoly_BLAKE2s` (suite 2),
revision 34; the frame around it is that of the WireGuard paper, sections 5.4.2 and 5.4.3. The prologue is
`"l2overlay" | version u8 | suite u8 | segment name`: nodes that differ in any of them, or in the psk, never get a
session.

Order on receipt of either: length, type, suite and reserved bytes; mac1 and, under load, mac2 (the caller, by
`cookie`); the Noise message; its payload; then the caller's part again: is this peer known, is the stamp newer
than its last. Nothing is kept for a sender before its message has verified. Header and mac2 stand outside the
Noise transcript, as in WireGuard: mac1 guards the header against damage and against those who do not know the
receiver's public key.

Each side reads on copies (`noise`): no forged datagram disturbs a handshake that is under way.
"""

from dataclasses import dataclass, field
from struct import Struct
from typing import Final

from l2overlay.addresses import PeerKey
from l2overlay.config.types import Suite
from l2overlay.controlplane.cookie import MACS_LEN, append_macs, mac1_of
from l2overlay.controlplane.noise import HandshakeState, KeyPair, NoiseProtocol
from l2overlay.errors import DatagramError

PROTOCOL_VERSION: Final = 1

INIT_TYPE: Final = 1
RESP_TYPE: Final = 2
INIT_LEN: Final = 152
RESP_LEN: Final = 100

# type u8, suite u8, reserved u16 (0), sender u32
_INIT_HEAD: Final = Struct("<BBHI")
# type u8, suite u8, reserved u16 (0), sender u32, receiver u32
_RESP_HEAD: Final = Struct("<BBHII")
FEATURE_LAN = 1
"""Bit of `features`: LAN records are understood."""
FEATURE_TRAIN = 2
"""Trains and RECEPTION records are understood."""
OUR_FEATURES = FEATURE_LAN | FEATURE_TRAIN
_MTU_SHIFT = 16
"""The upper half of `features` is the segment's MTU: a node that does not know it ignores those bits. 0: not told."""

# stamp u64, features u32, reserved u32 (0)
_INIT_PAYLOAD: Final = Struct("<QII")
# features u32, reserved u32 (0)
_RESP_PAYLOAD: Final = Struct("<II")

_PROTOCOLS: Final = {
    Suite.AESGCM: NoiseProtocol.named("Noise_IKpsk2_25519_AESGCM_BLAKE2s"),
    Suite.CHACHAPOLY: NoiseProtocol.named("Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s"),
}

PSK_LEN: Final = 32
NO_PSK: Final = bytes(PSK_LEN)

# Static-static DH results that are kept: four times the largest segment we test (1000 peers), about 1 MB.
STATIC_SHARED_LIMIT: Final = 4096


@dataclass(frozen=True, slots=True)
class HandshakeContext:
    """What every handshake of one node in one segment has in common."""

    private_key: bytes = field(repr=False)
    public_key: PeerKey
    suite: Suite
    psk: bytes = field(repr=False)
    """32 bytes; zeros when the segment has none (WireGuard paper, section 5.2)."""
    prologue: bytes
    static: KeyPair = field(init=False, repr=False, compare=False)
    static_shared: dict[PeerKey, bytes] = field(init=False, default_factory=dict, repr=False, compare=False)
    """Static-static DH by remote: only of remotes dialled or answered, so that strangers cannot fill it."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "static", KeyPair.from_private(self.private_key))

    @classmethod
    def create(
        cls, private_key: bytes, suite: Suite, segment_name: str, psk: bytes | None = None
    ) -> "HandshakeContext":
        """For a node's private key and its segment. Raises ValueError when a key has not 32 bytes."""
        if psk is not None and len(psk) != PSK_LEN:
            raise ValueError(f"a psk has {PSK_LEN} bytes, not {len(psk)}")
        public_key = PeerKey(KeyPair.from_private(private_key).public)
        prologue = b"l2overlay" + bytes((PROTOCOL_VERSION, suite)) + segment_name.encode()
        return cls(private_key, public_key, suite, psk or NO_PSK, prologue)

    def static_dh_untrusted(self, remote: bytes) -> bytes:
        """DH of our static key and `remote`, from memory if possible; keeps nothing: `remote` may be a lie."""
        return self.static_shared.get(PeerKey(remote)) or self.static.exchange_untrusted(remote)

    def remember_static_dh(self, remote: PeerKey) -> None:
        """Keep the DH with a remote that the caller deals with: 30 us less for each further INIT."""
        known = self.static_shared
        if remote not in known:
            if len(known) >= STATIC_SHARED_LIMIT:
                del known[next(iter(known))]
            known[remote] = self.static.exchange_untrusted(remote)


@dataclass(frozen=True, slots=True)
class SessionKeys:
    """The transport keys (Noise section 5.2, Split): 32 bytes each, one for each direction."""

    send: bytes = field(repr=False)
    receive: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class PendingHandshake:
    """An INIT that we sent and whose RESP has not come. Good for one RESP."""

    remote: PeerKey
    sender: int
    """Our index: the RESP, or a COOKIE, carries it as its receiver."""
    datagram: bytes
    mac1: bytes
    """What a COOKIE that answers this INIT is bound to."""
    state: HandshakeState = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class ReceivedInit:
    """An INIT whose tags verified. Whether `remote` is a peer and `stamp` is news is for the caller to say."""

    remote: PeerKey
    sender: int
    """The initiator's index."""
    stamp: int
    features: int
    state: HandshakeState = field(repr=False, compare=False)


def features_with(mtu: int) -> int:
    """What we tell of ourselves: our features, and the segment's MTU."""
    return OUR_FEATURES | mtu << _MTU_SHIFT


def mtu_in(features: int) -> int:
    """The MTU of the other's segment; 0 when it did not tell."""
    return features >> _MTU_SHIFT


def suite_untrusted(datagram: bytes) -> int:
    """The suite that an INIT or a RESP claims."""
    return datagram[1]


def initiate(
    context: HandshakeContext,
    remote: PeerKey,
    *,
    sender: int,
    stamp: int,
    features: int,
    ephemeral: bytes,
    cookie: bytes | None = None,
) -> PendingHandshake:
    """An INIT for `remote`. `ephemeral` is 32 fresh random bytes; `stamp` is higher than in any INIT before.

    Raises DatagramError when `remote` is of low order, which the check of peers.toml refuses beforehand.
    """
    context.remember_static_dh(remote)
    state = _handshake_state(context, remote)
    message = state.write_message(_INIT_PAYLOAD.pack(stamp, features, 0), ephemeral)
    head = _INIT_HEAD.pack(INIT_TYPE, context.suite, 0, sender)
    datagram = append_macs(head + message, remote, cookie)
    return PendingHandshake(remote, sender, datagram, mac1_of(datagram), state)


def receive_init_untrusted(context: HandshakeContext, datagram: bytes) -> ReceivedInit:
    """Read an INIT whose mac1 the caller has checked. Raises DatagramError; keeps nothing either way."""
    if len(datagram) != INIT_LEN:
        raise DatagramError(f"an INIT of {len(datagram)} bytes")
    kind, suite, reserved, sender = _INIT_HEAD.unpack_from(datagram)
    if kind != INIT_TYPE or suite != context.suite or reserved:
        raise DatagramError(f"not an INIT of suite {context.suite}, or its reserved bytes are not 0")
    state = _handshake_state(context, None)
    payload = state.read_message_untrusted(datagram[_INIT_HEAD.size : -MACS_LEN])
    stamp, features, reserved = _INIT_PAYLOAD.unpack(payload)
    if reserved:
        raise DatagramError("reserved bytes of the INIT payload are not 0")
    return ReceivedInit(PeerKey(state.remote_static), sender, stamp, features, state)


def respond(
    context: HandshakeContext,
    received: ReceivedInit,
    *,
    sender: int,
    features: int,
    ephemeral: bytes,
    cookie: bytes | None = None,
) -> tuple[bytes, SessionKeys]:
    """The RESP to an INIT that the caller accepts, and the keys. `ephemeral` is 32 fresh random bytes.

    The responder sends nothing under these keys before the initiator's first DATA has arrived: that proves that
    the initiator is there now, and that INIT was no replay (WireGuard paper, section 5.4.5). Raises RuntimeError
    when called twice for one INIT.
    """
    context.remember_static_dh(received.remote)
    message = received.state.write_message(_RESP_PAYLOAD.pack(features, 0), ephemeral)
    head = _RESP_HEAD.pack(RESP_TYPE, context.suite, 0, sender, received.sender)
    datagram = append_macs(head + message, received.remote, cookie)
    return datagram, SessionKeys(*received.state.split())


def resp_receiver_untrusted(datagram: bytes) -> int:
    """The index that a RESP claims to answer. Raises DatagramError when its length is wrong."""
    if len(datagram) != RESP_LEN:
        raise DatagramError(f"a RESP of {len(datagram)} bytes")
    receiver: int = _RESP_HEAD.unpack_from(datagram)[4]
    return receiver


def receive_resp_untrusted(
    context: HandshakeContext, pending: PendingHandshake, datagram: bytes
) -> tuple[SessionKeys, int, int]:
    """The keys, the responder's index and its features, from the RESP to `pending`.

    Raises DatagramError, and `pending` still waits for the genuine one, when this is not it. `pending` is spent by
    the first RESP that verifies: a duplicate of it is refused.
    """
    if resp_receiver_untrusted(datagram) != pending.sender:
        raise DatagramError("a RESP for another INIT")
    kind, suite, reserved, sender, _ = _RESP_HEAD.unpack_from(datagram)
    if kind != RESP_TYPE or suite != context.suite or reserved:
        raise DatagramError(f"not a RESP of suite {context.suite}, or its reserved bytes are not 0")
    payload = pending.state.read_message_untrusted(datagram[_RESP_HEAD.size : -MACS_LEN])
    features, reserved = _RESP_PAYLOAD.unpack(payload)
    if reserved:
        raise DatagramError("reserved bytes of the RESP payload are not 0")
    return SessionKeys(*pending.state.split()), sender, features


def _handshake_state(context: HandshakeContext, remote: PeerKey | None) -> HandshakeState:
    return HandshakeState(
        _PROTOCOLS[context.suite],
        initiator=remote is not None,
        prologue=context.prologue,
        static=context.static,
        remote_static=remote or b"",
        psk=context.psk,
        static_dh=context.static_dh_untrusted,
    )
