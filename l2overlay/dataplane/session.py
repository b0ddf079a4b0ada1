"""One session: two keys, a send counter and a replay window (WireGuard paper, section 5.4.6).

Sealing gives every datagram the next counter; opening checks in this order: length, prefix (type, lane, receiver),
counter limit, replay window, AEAD, and commits to the window last. Nothing of ours changes before a tag verifies.
A key has one writer: a `Session` is never shared between threads or processes.
"""

from collections.abc import Sequence
from struct import Struct

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from l2overlay.addresses import Address, PeerKey
from l2overlay.config import Suite
from l2overlay.counters import Counters, DropReason
from l2overlay.dataplane.replay import WINDOW_MASK, ReplayWindow
from l2overlay.dataplane.wire import COUNTER_LIMIT, DATA_HEADER_LEN, DATA_OVERHEAD, DATA_TYPE
from l2overlay.seams import Burst

_PREFIX = Struct("<BBHI")
_NONCE = {Suite.AESGCM: Struct(">4xQ"), Suite.CHACHAPOLY: Struct("<4xQ")}  # Noise rev 34, section 12


class Session:
    """Keys of one handshake. `remote_index` names it to the peer, `local_index` to us."""

    __slots__ = (
        "_newest",
        "_nonce",
        "_receive_cipher",
        "_receive_prefix",
        "_send_cipher",
        "_send_prefix",
        "address",
        "created_time",
        "initiator",
        "local_index",
        "peer",
        "remote_index",
        "send_counter",
        "window",
    )

    def __init__(
        self,
        peer: PeerKey,
        suite: Suite,
        *,
        send_key: bytes,
        receive_key: bytes,
        local_index: int,
        remote_index: int,
        initiator: bool,
        created_time: float,
        address: Address,
    ) -> None:
        aead = AESGCM if suite is Suite.AESGCM else ChaCha20Poly1305
        self.peer = peer
        self.local_index = local_index
        self.remote_index = remote_index
        self.initiator = initiator
        self.created_time = created_time
        self.address = address
        self.send_counter = 0
        self.window = ReplayWindow()
        self._newest = self.window.newest
        self._nonce = _NONCE[suite]
        self._send_cipher = aead(send_key)
        self._receive_cipher = aead(receive_key)
        self._send_prefix = _PREFIX.pack(DATA_TYPE, 0, 0, remote_index)
        self._receive_prefix = _PREFIX.pack(DATA_TYPE, 0, 0, local_index)

    def seal(self, plaintexts: Sequence[bytes]) -> list[bytes]:
        """A header and a ciphertext for every plaintext, alternating, ready for one gathering send."""
        first = self.send_counter
        self.send_counter = first + len(plaintexts)
        if self.send_counter > COUNTER_LIMIT:
            raise OverflowError("the session's counter is used up; the rekey timer must come first")
        encrypt, nonce, prefix = self._send_cipher.encrypt, self._nonce.pack, self._send_prefix
        sealed: list[bytes] = []
        for counter, plaintext in enumerate(plaintexts, first):
            header = prefix + counter.to_bytes(8, "little")
            sealed += (header, encrypt(nonce(counter), plaintext, header))
        return sealed

    def open_untrusted(
        self, datagrams: Sequence[bytes], counters: Counters
    ) -> tuple[list[bytes], list[bytes]]:
        """The plaintexts of those that are ours, fresh and genuine; and, apart, the datagrams that are not of this session.

        What fails is counted in `counters`; nothing is raised.
        """
        decrypt, nonce, prefix, newest = (
            self._receive_cipher.decrypt,
            self._nonce.pack,
            self._receive_prefix,
            self._newest,
        )
        plaintexts: list[bytes] = []
        strangers: list[bytes] = []
        for datagram in datagrams:
            header = datagram[:DATA_HEADER_LEN]
            if header[:8] != prefix:
                strangers.append(datagram)
                continue
            if len(datagram) < DATA_OVERHEAD:
                counters.drop(DropReason.BAD_LENGTH)
                continue
            counter = int.from_bytes(header[8:], "little")
            slot = counter & WINDOW_MASK
            if counter <= newest[slot] or counter >= COUNTER_LIMIT:
                counters.drop(DropReason.REPLAYED)
                continue
            try:
                plaintexts.append(decrypt(nonce(counter), datagram[DATA_HEADER_LEN:], header))
            except InvalidTag:
                counters.drop(DropReason.BAD_TAG)
                continue
            newest[slot] = counter
        return plaintexts, strangers


def to_bursts(address: Address, sealed: Sequence[bytes]) -> list[Burst]:
    """Sealed datagrams (header, ciphertext, ...) as bursts: in each all are equally long but the last, as UDP GSO wants."""
    bursts: list[Burst] = []
    size = 0
    for i in range(0, len(sealed), 2):
        length = DATA_HEADER_LEN + len(sealed[i + 1])
        if size and length <= size:
            bursts[-1].buffers += sealed[i : i + 2]
            if length < size:
                size = 0
        else:
            size = length
            bursts.append(Burst(address, size, list(sealed[i : i + 2])))
    return bursts
