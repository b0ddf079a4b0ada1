"""One session: two keys, a send counter and a replay window (WireGuard paper, section 5.4.6).

Sealing gives every plaintext the next counter, whether it travels as one datagram (DATA) or as several (`train`).
Opening checks in this order: length, prefix (type, reserved bytes, receiver), counter limit, replay window, AEAD. It commits
to the window last. Before a tag verifies nothing of ours changes, but that cars of a train wait for each other, within
bounds. A key has one writer: a `Session` is never shared between threads or processes.

The check and the commit stand in each of the three ways to open, and not in a function of their own: one way is a loop, and
one is that of a lone frame, on which every call counts (architecture.md, "Where the speed comes from").

The nonce is bytes 4 to 15 of the header: the receiver's index, which is fixed for the key, and the counter, which never
repeats. There is no associated data. Of DATA the first eight bytes must equal what the session expects, the other eight
are in the nonce, so no bit of a header can change unnoticed; what may change of a car's stands in `train`.
"""

from collections.abc import Sequence
from struct import Struct

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from l2overlay.addresses import Address, PeerKey
from l2overlay.config.types import Suite
from l2overlay.counters import Counters, DropReason
from l2overlay.dataplane.replay import WINDOW_MASK, new_window
from l2overlay.dataplane.train import Arrivals, TrainTally, cut, take_cars_untrusted
from l2overlay.dataplane.wire import (
    COUNTER_LIMIT,
    DATA_HEADER_LEN,
    DATA_OVERHEAD,
    DATA_TYPE,
    MAX_CARS,
    MAX_TRAIN_LEN,
    TAG_LEN,
    TRAIN_TYPE,
    Record,
)
from l2overlay.seams import Burst, burst_limit

REJECT_TIME = 180.0
"""Seconds. Nothing is sealed or opened under a session that is older."""

_PREFIX = Struct("<BBHI")
_COUNTER = Struct("<Q")
_TRAIN = bytes((TRAIN_TYPE,))
_PATH_PROBE = bytes((Record.PATH_PROBE,))


class Session:
    """Keys of one handshake. `remote_index` names it to the peer, `local_index` to us."""

    __slots__ = (
        "_arrivals",
        "_decrypt",
        "_encrypt",
        "_receive_index",
        "_receive_prefix",
        "_send_prefix",
        "address",
        "created_time",
        "initiator",
        "local_index",
        "newest_opened",
        "opened_count",
        "peer",
        "remote_index",
        "send_counter",
        "trains",
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
        self.window = new_window()
        self.opened_count = 0
        """Plaintexts that came, each with a counter of its own."""
        self.newest_opened = -1
        """The largest counter among them."""
        self.trains = TrainTally(self.window)
        self._arrivals = Arrivals(self.trains)
        self._encrypt = aead(send_key).encrypt
        self._decrypt = aead(receive_key).decrypt
        self._send_prefix = _PREFIX.pack(DATA_TYPE, 0, 0, remote_index)
        self._receive_prefix = _PREFIX.pack(DATA_TYPE, 0, 0, local_index)
        self._receive_index = self._receive_prefix[4:]

    def seal(self, plaintexts: Sequence[bytes]) -> list[bytes | bytearray]:
        """A header and a ciphertext for every plaintext, alternating, ready for one gathering send."""
        first = self._use_counters(len(plaintexts))
        encrypt, prefix = self._encrypt, self._send_prefix
        sealed: list[bytes | bytearray] = []
        for counter, plaintext in enumerate(plaintexts, first):
            header = prefix + counter.to_bytes(8, "little")
            sealed += (header, encrypt(header[4:], plaintext, None))
        return sealed

    def seal_alone(self, plaintext: bytes, address: Address) -> Burst:
        """One plaintext as one datagram: the quick way for a lone frame, and for a broadcast to each of many peers."""
        header = self._send_prefix + self._use_counters(1).to_bytes(8, "little")
        datagram = header + self._encrypt(header[4:], plaintext, None)
        return Burst(address, len(datagram), [datagram])

    def seal_train(self, plaintext: bytes, datagram_size: int) -> bytearray:
        """One plaintext as a train: its cars one after the other, all of `datagram_size` bytes but the last."""
        nonce = self._send_prefix[4:] + self._use_counters(1).to_bytes(8, "little")
        return cut(nonce, self._encrypt(nonce, plaintext, None), datagram_size)

    def seal_bursts(
        self, plaintexts: Sequence[bytes], address: Address, datagram_size: int
    ) -> tuple[list[Burst], int]:
        """Plaintexts of any length as bursts, and how many datagrams: what is too long for one becomes a train."""
        longest = datagram_size - DATA_OVERHEAD
        if max(map(len, plaintexts)) <= longest:
            return to_bursts(address, self.seal(plaintexts)), len(plaintexts)
        bursts: list[Burst] = []
        buffers: list[bytes | bytearray] = []
        count, room = 0, 0
        for plaintext in plaintexts:
            is_train = len(plaintext) > longest
            sealed: list[bytes | bytearray]
            sealed = [self.seal_train(plaintext, datagram_size)] if is_train else self.seal([plaintext])
            size = sum(map(len, sealed))
            datagrams = -(-size // datagram_size)
            if datagrams <= room:
                buffers += sealed
            else:
                buffers = sealed
                bursts.append(Burst(address, min(size, datagram_size), buffers))
                room = burst_limit(datagram_size)
            # One that is not full ends its burst.
            room = room - datagrams if size % datagram_size == 0 else 0
            count += datagrams
        return bursts, count

    def _use_counters(self, count: int) -> int:
        """The first of `count` counters that nothing else will have."""
        first = self.send_counter
        self.send_counter = first + count
        if self.send_counter > COUNTER_LIMIT:
            raise OverflowError("the session's counter is used up; the rekey timer must come first")
        return first

    def open_untrusted(
        self,
        data: bytes,
        start: int,
        datagram_size: int,
        counters: Counters,
        *,
        now: float = 0.0,
        strange: bool = False,
    ) -> tuple[list[bytes], int]:
        """Open a burst from byte `start` on: datagrams of `datagram_size` bytes in a row, the last may be shorter.

        `strange`: it came from elsewhere than the peer, as far as we know where the peer is. `now` and `strange` matter to
        trains, which wait.

        Returns the plaintexts of those that are ours, fresh, genuine and (trains) whole; and where the first datagram
        begins that is of another kind or another session. What fails is counted in `counters`; nothing is raised.
        """
        if data[start] == TRAIN_TYPE:
            return self._open_trains_untrusted(data, start, datagram_size, counters, now, strange)
        decrypt, prefix, newest, read_counter = (
            self._decrypt,
            self._receive_prefix,
            self.window,
            _COUNTER.unpack_from,
        )
        plaintexts: list[bytes] = []
        view, end, newest_opened = memoryview(data), len(data), -1
        for at in range(start, end, datagram_size):
            if not data.startswith(prefix, at):
                end = at
                break
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
            newest[slot] = newest_opened = counter
        self.opened_count += len(plaintexts)
        if newest_opened > self.newest_opened:
            self.newest_opened = newest_opened
        return plaintexts, end

    def open_alone_untrusted(self, data: bytes | bytearray) -> bytes | None:
        """Open one datagram. None: something is wrong with it; nothing changed, and `open_untrusted` counts what it is."""
        if len(data) < DATA_OVERHEAD or not data.startswith(self._receive_prefix):
            return None
        (counter,) = _COUNTER.unpack_from(data, 8)
        slot = counter & WINDOW_MASK
        if counter <= self.window[slot] or counter >= COUNTER_LIMIT:
            return None
        try:
            plaintext = self._decrypt(data[4:DATA_HEADER_LEN], data[DATA_HEADER_LEN:], None)
        except InvalidTag:
            return None
        self.window[slot] = counter
        self.opened_count += 1
        if counter > self.newest_opened:
            self.newest_opened = counter
        return plaintext

    def _open_trains_untrusted(
        self, data: bytes, at: int, datagram_size: int, counters: Counters, now: float, strange: bool
    ) -> tuple[list[bytes], int]:
        plaintexts: list[bytes] = []
        arrivals = self._arrivals.strange if strange else self._arrivals
        assert arrivals is not None
        while data.startswith(_TRAIN, at) and data.startswith(self._receive_index, at + 4):
            if min(datagram_size, len(data) - at) <= DATA_HEADER_LEN:
                counters.drop(DropReason.BAD_LENGTH)
                at += datagram_size
                continue
            if data[at + 3]:
                break
            header = data[at : at + DATA_HEADER_LEN]
            cars, piece = take_cars_untrusted(data, at, datagram_size)
            if 1 < cars < header[2] and arrivals.has_some_of(header, cars):
                # One of them came before, which must not cost those beside it: take them one by one.
                cars, piece = 1, data[at + DATA_HEADER_LEN : at + datagram_size]
            plaintext = self._open_cars_untrusted(arrivals, header, cars, piece, counters, now)
            if plaintext is not None:
                plaintexts.append(plaintext)
            at += cars * datagram_size
        return plaintexts, min(at, len(data))

    def _open_cars_untrusted(
        self, arrivals: Arrivals, header: bytes, cars: int, piece: bytes, counters: Counters, now: float
    ) -> bytes | None:
        """So many cars of one train came, the first with this header. Returns the plaintext when they were the last."""
        index, count = header[1], header[2]
        (counter,) = _COUNTER.unpack_from(header, 8)
        slot = counter & WINDOW_MASK
        if not 1 < count <= MAX_CARS or index + cars > count or len(piece) > MAX_TRAIN_LEN:
            counters.drop(DropReason.BAD_TRAIN, cars)
            return None
        if counter <= self.window[slot] or counter >= COUNTER_LIMIT:
            counters.drop(DropReason.REPLAYED, cars)
            return None
        sealed: bytes | None = piece
        if cars < count:
            sealed = arrivals.arrive_untrusted(header, cars, piece, counters, self.newest_opened, now)
        if sealed is None:
            return None
        try:
            plaintext = self._decrypt(header[4:], sealed, None)
        except InvalidTag:
            counters.drop(DropReason.BAD_TAG, count)
            self.trains.failed_untrusted(counter)
            return None
        if plaintext.startswith(_PATH_PROBE):
            # Its datagram's size is what it says, and this was another one before somebody cut it anew.
            counters.drop(DropReason.BAD_TRAIN, count)
            return None
        self.window[slot] = counter
        self.opened_count += 1
        self.trains.opened += 1
        self.newest_opened = max(self.newest_opened, counter)
        self._arrivals.departed(counter, counters)
        return plaintext

    def close(self, counters: Counters) -> None:
        """Nothing more is opened: count what still waited for the rest of its train."""
        self._arrivals.close(counters)


def to_bursts(address: Address, sealed: list[bytes | bytearray]) -> list[Burst]:
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
