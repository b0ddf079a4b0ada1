"""One session: two keys, a send counter and a replay window (WireGuard paper, section 5.4.6).

Sealing gives every datagram the next counter; opening checks in this order: length, prefix (type, lane, receiver),
counter limit, replay window, AEAD, and commits to the window last. Nothing of ours changes before a tag verifies.
A key has one writer: a `Session` is never shared between threads or processes.

The nonce is bytes 4 to 15 of the header: the receiver's index, which is fixed for the key, and the counter, which never
repeats. There is no associated data: the first eight bytes must equal what the session expects, the other eight are in
the nonce, so no bit of a header can change unnoticed.
"""

from collections.abc import Sequence
from struct import Struct

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from l2overlay.addresses import Address, PeerKey
from l2overlay.config import Suite
from l2overlay.counters import Counters, DropReason
from l2overlay.dataplane.replay import WINDOW_MASK, ReplayWindow
from l2overlay.dataplane.wire import COUNTER_LIMIT, DATA_HEADER_LEN, DATA_TYPE, TAG_LEN
from l2overlay.seams import Burst

_PREFIX = Struct("<BBHI")
_COUNTER = Struct("<Q")


class Session:
    """Keys of one handshake. `remote_index` names it to the peer, `local_index` to us."""

    __slots__ = (
        "_decrypt",
        "_encrypt",
        "_newest",
        "_receive_prefix",
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
        self._encrypt = aead(send_key).encrypt
        self._decrypt = aead(receive_key).decrypt
        self._send_prefix = _PREFIX.pack(DATA_TYPE, 0, 0, remote_index)
        self._receive_prefix = _PREFIX.pack(DATA_TYPE, 0, 0, local_index)

    def seal(self, plaintexts: Sequence[bytes]) -> list[bytes]:
        """A header and a ciphertext for every plaintext, alternating, ready for one gathering send."""
        first = self.send_counter
        self.send_counter = first + len(plaintexts)
        if self.send_counter > COUNTER_LIMIT:
            raise OverflowError("the session's counter is used up; the rekey timer must come first")
        encrypt, prefix = self._encrypt, self._send_prefix
        sealed: list[bytes] = []
        for counter, plaintext in enumerate(plaintexts, first):
            header = prefix + counter.to_bytes(8, "little")
            sealed += (header, encrypt(header[4:], plaintext, None))
        return sealed

    def open_untrusted(
        self, data: bytes, datagram_size: int, counters: Counters
    ) -> tuple[list[bytes], list[bytes]]:
        """Open a burst: datagrams of `datagram_size` bytes one after the other, the last may be shorter.

        Returns the plaintexts of those that are ours, fresh and genuine; and, apart, the datagrams that are not of this
        session. What fails is counted in `counters`; nothing is raised.
        """
        decrypt, prefix, newest, read_counter = (
            self._decrypt,
            self._receive_prefix,
            self._newest,
            _COUNTER.unpack_from,
        )
        plaintexts: list[bytes] = []
        strangers: list[bytes] = []
        view = memoryview(data)
        for at in range(0, len(data), datagram_size):
            if not data.startswith(prefix, at):
                strangers.append(data[at : at + datagram_size])
                continue
            sealed = view[at + DATA_HEADER_LEN : at + datagram_size]
            if len(sealed) < TAG_LEN:
                counters.drop(DropReason.BAD_LENGTH)
                continue
            (counter,) = read_counter(data, at + 8)
            slot = counter & WINDOW_MASK
            if counter <= newest[slot] or counter >= COUNTER_LIMIT:
                counters.drop(DropReason.REPLAYED)
                continue
            try:
                plaintexts.append(decrypt(data[at + 4 : at + DATA_HEADER_LEN], sealed, None))
            except InvalidTag:
                counters.drop(DropReason.BAD_TAG)
                continue
            newest[slot] = counter
        return plaintexts, strangers


def to_bursts(address: Address, sealed: list[bytes]) -> list[Burst]:
    """Sealed datagrams (header, ciphertext, ...) as bursts: in each all are equally long but the last, as UDP GSO wants."""
    if len(sealed) == 2:
        return [Burst(address, DATA_HEADER_LEN + len(sealed[1]), sealed)]
    sizes = [DATA_HEADER_LEN + len(ciphertext) for ciphertext in sealed[1::2]]
    bursts: list[Burst] = []
    start, count = 0, len(sizes)
    while start < count:
        size, end = sizes[start], start + 1
        while end < count and sizes[end] == size:
            end += 1
        if end < count and sizes[end] < size:
            end += 1
        bursts.append(Burst(address, size, sealed[2 * start : 2 * end]))
        start = end
    return bursts
