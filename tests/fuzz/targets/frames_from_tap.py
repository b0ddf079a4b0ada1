"""Frames of a guest, with every guard on and with none: each is sent or counted under one reason."""

import random
import struct
from collections.abc import Callable, Sequence

from l2overlay.config.read import parse_config
from l2overlay.config.types import Config
from l2overlay.counters import Counters
from l2overlay.dataplane.inbox import Inbox
from l2overlay.seams import TapFrame
from tests.dataplane.insider import Meeting
from tests.dataplane.super_frames import DESTINATION, SOURCE, super_frame
from tests.fuzz.corpus import HERE, PROTECTED, THERE, working
from tests.fuzz.mutation import mutate_bytes

MAX_ROUNDS = 200
"""Iterations with one node; then the next begins."""
ETHERTYPES = (
    b"\x08\x00",
    b"\x86\xdd",
    b"\x08\x06",
    b"\x81\x00",
    b"\x88\xa8",
    b"\x91\x00",
    b"\x88\x63",
    b"\x88\xcc",
)
GROUPS = (
    b"\xff" * 6,
    bytes.fromhex("3333000000fb"),
    bytes.fromhex("0180c2000000"),
    bytes.fromhex("0180c200000e"),
)


def make(chance: random.Random) -> Callable[[], None]:
    """Read one batch of up to ten frames."""
    protected = parse_config(PROTECTED, "peers.toml", base_dir=None)
    kinds = [super_frame(kind, 9000).frame for kind in ("tcp4", "tcp6", "udp4", "udp6")]
    kinds.append(super_frame("tcp4", 9000, tags=2).frame)
    node = _Node(chance, protected)

    def iterate() -> None:
        nonlocal node
        if node.rounds == MAX_ROUNDS:
            node = _Node(chance, protected)
        node.read([_frame(chance, kinds) for _ in range(chance.randint(1, 10))])

    return iterate


class _Node:
    def __init__(self, chance: random.Random, protected: Config) -> None:
        self.meeting = Meeting()
        self.rounds = 0
        self._chance = chance
        if chance.random() < 0.5:
            self.meeting.node.reconfigure(protected, self.meeting.now)
        self._count = self._counted()

    def read(self, frames: list[bytes]) -> None:
        self.rounds += 1
        meeting = self.meeting
        meeting.now += self._chance.choice((0.0, 0.0, 0.001, 0.01))
        meeting.settle()
        before = self._counted()
        meeting.read_from_tap(*frames)
        assert self._counted() - before == len(frames), frames
        if self.rounds % 50 == 0:
            assert working(meeting)
            self._check_super_frame()

    def _check_super_frame(self) -> None:
        """One of today reaches the peer as it was read."""
        meeting, whole = self.meeting, super_frame("tcp4", 9000).frame
        good = TapFrame(whole[:10] + THERE + HERE + whole[22:])
        meeting.settle()
        meeting.read_from_tap(good)
        received = Inbox(Counters()).receive_untrusted(meeting.opened(), meeting.now)
        assert [b"".join(frame) for frame in received.frames] == [good]

    def _counted(self) -> int:
        counters = self.meeting.counters()
        return counters.tx_frames + sum(counters.drops.values())


def _frame(chance: random.Random, kinds: Sequence[bytes]) -> bytes:
    match chance.randrange(4):
        case 0:
            return mutate_bytes(chance, chance.choice(kinds)[: chance.choice((60, 200, 70_000))], kinds)
        case 1:
            return chance.choice(kinds)
        case 2:
            virtio = chance.choice((bytes(10), chance.randbytes(10), _virtio(chance)))
            return virtio + chance.randbytes(chance.choice((0, 1, 13, 14, 60, 1514, 1522, 1523)))
        case _:
            destination = chance.choice((DESTINATION, *GROUPS))
            tags = b"".join(
                chance.choice(ETHERTYPES) + chance.randbytes(2) for _ in range(chance.randint(0, 3))
            )
            payload = chance.randbytes(chance.choice((0, 4, 20, 40, 60, 400)))
            frame = destination + SOURCE + tags + chance.choice(ETHERTYPES) + payload
            return chance.choice((bytes(10), _virtio(chance))) + frame


def _virtio(chance: random.Random) -> bytes:
    sizes = (0, 1, 14, 34, 54, 1448, 1500, 65_535)
    return struct.pack(
        "<BBHHHH",
        chance.choice((0, 1, 2, 255)),
        chance.choice((0, 1, 3, 4, 5, 0x80, 0x81)),
        *(chance.choice(sizes) for _ in range(4)),
    )
