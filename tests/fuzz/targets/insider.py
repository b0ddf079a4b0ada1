"""Records of a peer that has keys and no manners, sealed as they must be: nobody else is worse off for them."""

import random
import struct
from collections.abc import Callable, Sequence
from dataclasses import replace

from l2overlay.addresses import Address
from l2overlay.config.read import parse_config
from l2overlay.config.types import Config, PeerConfig
from l2overlay.dataplane.inbox import MAX_REASSEMBLIES
from l2overlay.dataplane.wire import CONTROL_BODY_LEN, Record
from l2overlay.keys import public_key
from l2overlay.overlay import Overlay
from l2overlay.seams import Burst, TapFrame
from tests import drive
from tests.dataplane.insider import (
    INSIDER_ADDRESS,
    INSIDER_KEY,
    NODE_KEY,
    STRANGER_ADDRESS,
    Meeting,
    deterministic,
)
from tests.dataplane.super_frames import DESTINATION, SOURCE, super_frame
from tests.dataplane.test_inbox import fragment, frame_record, record, slice_record, template
from tests.fuzz.corpus import PLAIN, PROTECTED
from tests.fuzz.mutation import mutate_bytes

MAX_ROUNDS = 100
"""Iterations with one node; then the next begins."""
CHECK_ROUNDS = 10
"""Iterations after which the third node's frames must still pass."""
MAX_ANSWERS = 4
"""Datagrams that may leave for each that came: it may hold many questions, and the node asks, too, when a timer is due."""
MAX_EVENTS = 12
HONEST_PRIVATE = b"\x03" * 32
HONEST = PeerConfig("honest", public_key(HONEST_PRIVATE))
NODE_ADDRESS, HONEST_ADDRESS = Address("192.0.2.1", 7470), Address("192.0.2.3", 7470)
HERE, HONEST_STATION = bytes.fromhex("52540000cc01"), bytes.fromhex("52540000cc03")
KINDS = ("tcp4", "tcp6", "udp4", "udp6")
FRAMES = (
    DESTINATION + SOURCE + b"\x08\x00" + bytes(46),
    b"\xff" * 6 + SOURCE + b"\x08\x06" + bytes(46),
    bytes.fromhex("0180c2000000") + SOURCE + b"\x00\x26\x42\x42\x03" + bytes(43),
    DESTINATION + SOURCE + b"\x81\x00\x00\x05\x86\xdd" + bytes(1490),
)


def make(chance: random.Random) -> Callable[[], None]:
    """Say a few datagrams of records."""
    configs = [_with_honest(parse_config(text, "peers.toml", base_dir=None)) for text in (PLAIN, PROTECTED)]
    company = _Company(configs[0])

    def iterate() -> None:
        nonlocal company
        if company.rounds == MAX_ROUNDS:
            company = _Company(chance.choice(configs))
        company.say(chance, [_plaintext(chance) for _ in range(chance.randint(1, 8))])

    return iterate


def _with_honest(config: Config) -> Config:
    return replace(config, peers=(*config.peers, HONEST))


class _Company:
    """The node, its insider, and a third node that is honest."""

    def __init__(self, config: Config) -> None:
        self.rounds = 0
        self.meeting = meeting = Meeting()
        meeting.node.reconfigure(config, meeting.now)
        self.honest = Overlay(
            config, HONEST_PRIVATE, now=meeting.now, wall_clock=1.8e9, random=deterministic(3), own_macs=[]
        )
        self.honest.set_endpoint(NODE_KEY, NODE_ADDRESS, meeting.now)
        self._exchange(5.0)
        self._check_honest(b"first")

    def say(self, chance: random.Random, plaintexts: list[bytes]) -> None:
        self.rounds += 1
        meeting = self.meeting
        self._exchange(chance.choice((0.0, 0.0, 0.001, 0.3, 1.0)))
        if not meeting.node.peers(meeting.now)[0].up:
            meeting.session = meeting.handshake()
        seal_train = chance.random() < 0.2
        datagrams = self._train(chance, plaintexts) if seal_train else meeting.sealed(*plaintexts)
        address = STRANGER_ADDRESS if chance.random() < 0.05 else INSIDER_ADDRESS
        before, is_exact = self._counted(), not seal_train and not self._waits()
        meeting.node.receive_datagrams([Burst(address, max(1, len(d)), [d]) for d in datagrams], meeting.now)
        if is_exact:
            self._check_books(plaintexts, self._counted() - before)
        self._check_answers(address, datagrams)
        self._check_memory()
        if self.rounds % CHECK_ROUNDS == 0:
            self._check_honest(chance.randbytes(20))

    def _train(self, chance: random.Random, plaintexts: list[bytes]) -> list[bytes]:
        size = chance.choice((400, 1472))
        train = bytes(self.meeting.session.seal_train(b"".join(plaintexts)[:20_000], size))
        return [train[at : at + size] for at in range(0, len(train), size)]

    def _counted(self) -> int:
        counters = self.meeting.counters()
        return counters.rx_frames + sum(counters.drops.values())

    def _waits(self) -> bool:
        """Whether parts of frames wait for the rest: what comes next delivers or ends them, too."""
        inbox = self.meeting.node._members.peers[INSIDER_KEY].link.inbox
        return bool(inbox._reassemblies) or inbox._run is not None

    def _check_books(self, plaintexts: list[bytes], counted: int) -> None:
        """Where no frame comes in parts, each is delivered or counted once, and each mistake is counted once."""
        expected = [countable(plaintext) for plaintext in plaintexts]
        if None not in expected:
            assert counted == sum(n for n in expected if n is not None), (expected, self.meeting.drops())

    def _check_answers(self, address: Address, datagrams: list[bytes]) -> None:
        meeting = self.meeting
        meeting.delivered()
        assert len(meeting.events()) <= MAX_EVENTS * len(datagrams)
        sent = drive.sent(meeting.node)
        assert len(sent) <= MAX_ANSWERS * len(datagrams), len(sent)
        assert {where for where, _ in sent} <= {INSIDER_ADDRESS, HONEST_ADDRESS, address}
        reflected = [datagram for where, datagram in sent if where == STRANGER_ADDRESS]
        assert len(reflected) <= len(datagrams)
        self._to_honest([datagram for where, datagram in sent if where == HONEST_ADDRESS])

    def _check_memory(self) -> None:
        inbox = self.meeting.node._members.peers[INSIDER_KEY].link.inbox
        waiting = inbox._reassemblies.values()
        assert len(waiting) <= MAX_REASSEMBLIES
        assert all(whole.received_len < whole.total for whole in waiting)
        assert inbox._run is None or sum(map(len, inbox._run.pieces)) <= 65_535

    def _check_honest(self, words: bytes) -> None:
        """What was said between the other two arrives, in either direction, and nowhere else."""
        meeting, frame = self.meeting, HERE + HONEST_STATION + b"\x88\xb5" + words.ljust(46)
        self._exchange(0.0)
        self.honest.receive_frames([TapFrame(bytes(10) + frame)], meeting.now)
        bursts = [replace_address(burst, HONEST_ADDRESS) for burst in self.honest.bursts_to_send()]
        meeting.node.receive_datagrams(bursts, meeting.now)
        assert [b"".join(f)[10:] for f in meeting.delivered()] == [frame]
        answer = HONEST_STATION + HERE + frame[12:]
        meeting.node.receive_frames([TapFrame(bytes(10) + answer)], meeting.now)
        self._exchange(0.0)
        assert [b"".join(f)[10:] for f in self.arrived] == [answer]

    def _exchange(self, seconds: float) -> None:
        """Let this much time pass, with timers of both nodes, and what they say to each other."""
        meeting = self.meeting
        self.arrived: list[Sequence[bytes | memoryview]] = []
        meeting.now += seconds
        for _ in range(20):
            for node in (meeting.node, self.honest):
                while node.next_timer() <= meeting.now:
                    node.handle_timer(meeting.now)
            there = [replace_address(burst, HONEST_ADDRESS) for burst in self.honest.bursts_to_send()]
            meeting.node.receive_datagrams(there, meeting.now)
            back = [burst for burst in meeting.node.bursts_to_send() if burst.address == HONEST_ADDRESS]
            self._to_honest([datagram for burst in back for datagram in burst.datagrams()])
            meeting.delivered()
            meeting.events()
            if not there and not back:
                return

    def _to_honest(self, datagrams: list[bytes]) -> None:
        self.honest.receive_datagrams(drive.bursts_of(datagrams, NODE_ADDRESS), self.meeting.now)
        self.arrived += self.honest.frames_to_deliver()
        drive.events(self.honest)


def replace_address(burst: Burst, address: Address) -> Burst:
    return Burst(address, burst.datagram_size, burst.buffers)


def countable(plaintext: bytes) -> int | None:
    """How many frames and mistakes a plaintext holds, after docs/protocol.md; None when frames come in parts."""
    found = at = 0
    while len(plaintext) - at >= 4 and plaintext[at] != Record.PADDING:
        kind, flags, length = struct.unpack_from("<BBH", plaintext, at)
        body = plaintext[at + 4 : at + 4 + length]
        at += 4 + length
        if kind in (Record.SLICE, Record.FRAGMENT):
            return None
        if len(body) < length or not _sound(kind, flags, body):
            return found + 1
        found += kind == Record.FRAME
    return found + (len(plaintext) - at < 4 and any(plaintext[at:]))


def _sound(kind: int, flags: int, body: bytes) -> bool:
    if kind == Record.FRAME:
        start, offset = struct.unpack_from("<HH", body) if flags and len(body) >= 4 else (14, 0)
        frame_len = len(body) - 4 * flags
        return flags < 2 and frame_len >= 14 and (not flags or 14 <= start <= start + offset + 2 <= frame_len)
    if kind == Record.PATH_PROBE:
        return flags == 0 and len(body) >= 4
    return flags == 0 and CONTROL_BODY_LEN.get(kind) == len(body)  # type: ignore[call-overload]


def _plaintext(chance: random.Random) -> bytes:
    pieces = [_record(chance) for _ in range(chance.choice((0, 1, 1, 2, 3, 6)))]
    plaintext = b"".join(pieces)
    if chance.random() < 0.3:
        plaintext = mutate_bytes(chance, plaintext, [_record(chance)])
    return plaintext[:9000]


def _record(chance: random.Random) -> bytes:
    match chance.randrange(6):
        case 0:
            return _control(chance)
        case 1:
            return _slices(chance)
        case 2:
            return _fragments(chance)
        case 3:
            return record(
                chance.randrange(256), chance.randbytes(chance.choice((0, 1, 8, 40))), chance.randrange(4)
            )
        case _:
            return _frame(chance)


def _control(chance: random.Random) -> bytes:
    kind, length = chance.choice([*CONTROL_BODY_LEN.items(), (Record.PATH_PROBE, chance.choice((4, 1400)))])
    length = max(0, length + chance.choice((0, 0, 0, 0, 1, -1)))
    body = chance.choice((bytes(length), b"\xff" * length, chance.randbytes(length)))
    return record(kind, body) * chance.choice((1, 1, 1, 50))


def _frame(chance: random.Random) -> bytes:
    frame = chance.choice(FRAMES)
    if chance.random() < 0.5:
        frame = mutate_bytes(chance, frame, FRAMES)
    if chance.random() < 0.2:
        return record(
            1,
            struct.pack("<HH", chance.choice((0, 14, 34, 65_535)), chance.choice((0, 16, 65_535))) + frame,
            1,
        )
    return frame_record(frame)


def _slices(chance: random.Random) -> bytes:
    """Those of one super-frame in order; some may be missing, and the template may lie."""
    whole = super_frame(
        chance.choice(KINDS), chance.choice((100, 3000, 8000)), gso_size=chance.choice((40, 1000, 1448))
    )
    fields: dict[str, int] = {}
    if chance.random() < 0.3:
        name = chance.choice(("id", "gso_type", "gso_size", "header_len", "csum_start", "total"))
        fields[name] = (
            chance.choice((0, 1, 2, 5, 0x81, 0xFF))
            if name == "gso_type"
            else chance.choice((0, 1, 14, 54, 65_535))
        )
    head = template(whole, chance.randrange(4), **fields)
    step = chance.choice((whole.gso_size, 1000, 64))
    cuts = range(0, len(whole.payload), step)
    return b"".join(slice_record(whole, at, at + step, head) for at in cuts if chance.random() < 0.9)


def _fragments(chance: random.Random) -> bytes:
    """Those of one frame, in any order, where some may be missing, overlap, or lie; or the first of many frames."""
    if chance.random() < 0.2:
        return b"".join(fragment(FRAMES[3], 0, 64, chance.randrange(1 << 32)) for _ in range(40))
    frame = chance.choice(FRAMES).ljust(chance.choice((60, 200, 1514)), b"\1")
    total = chance.choice((-1, -1, -1, 0, 13, 65_535, len(frame) + 1))
    step, number = chance.choice((1, 64, 500)), chance.randrange(1 << chance.choice((1, 32)))
    starts = [at for at in range(0, len(frame), step) if chance.random() < 0.95][:60]
    if chance.random() < 0.3:
        chance.shuffle(starts)
    overlap = chance.choice((0, 0, 0, 7))
    return b"".join(fragment(frame, at, at + step + overlap, number, total=total) for at in starts)
