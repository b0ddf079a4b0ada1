"""Fragments against a model: frames cut by hand, their parts late, lost, repeated and reordered."""

from collections import Counter
from dataclasses import dataclass, field

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from l2overlay.counters import Counters, DropReason
from l2overlay.dataplane.inbox import MAX_REASSEMBLIES, REASSEMBLY_TIME, Inbox

from .test_inbox import fragment

MAX_FRAME_LEN = 5000


@dataclass
class Waiting:
    """A frame of which the model has some bytes."""

    total: int
    deadline: float
    parts: dict[int, bytes] = field(default_factory=dict)


class ReassemblyMachine(RuleBasedStateMachine):
    """Frames of one peer, in parts of 100 bytes and a rest; time; and a dict of what has come."""

    @initialize()
    def start(self) -> None:
        self.counters = Counters()
        self.inbox = Inbox(self.counters, MAX_FRAME_LEN)
        self.now = 100.0
        self.next_id = 0
        self.on_the_way: list[tuple[int, int, bytes, bytes]] = []
        """Id, offset, part, record."""
        self.waiting: dict[int, Waiting] = {}
        self.drops: Counter[DropReason] = Counter()

    @rule(length=st.sampled_from((14, 99, 100, 101, 250, 4999, 5000)), count=st.integers(1, 12))
    def frames_are_sent(self, length: int, count: int) -> None:
        self.send(length, count)

    def send(self, length: int, count: int) -> None:
        for _ in range(count):
            self.next_id += 1
            body = self.next_id.to_bytes(4, "big") * (length // 4 + 1)
            self.cut(body[:length], self.next_id)

    def cut(self, body: bytes, frame_id: int) -> None:
        for at in range(0, len(body), 100):
            part = body[at : at + 100]
            self.on_the_way.append((frame_id, at, part, fragment(body, at, at + 100, frame_id)))

    @rule(seconds=st.sampled_from((0.0, 0.1, 0.2, REASSEMBLY_TIME)))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: self.on_the_way)
    @rule(data=st.data(), count=st.integers(1, 60), in_order=st.booleans())
    def parts_arrive(self, data: st.DataObject, count: int, in_order: bool) -> None:
        for _ in range(min(count, len(self.on_the_way))):
            place = 0 if in_order else data.draw(st.integers(0, len(self.on_the_way) - 1))
            self.arrive(*self.on_the_way.pop(place))

    @precondition(lambda self: self.on_the_way)
    @rule(data=st.data())
    def a_part_is_lost(self, data: st.DataObject) -> None:
        self.on_the_way.pop(data.draw(st.integers(0, len(self.on_the_way) - 1)))

    @precondition(lambda self: self.on_the_way)
    @rule(data=st.data())
    def a_part_comes_twice(self, data: st.DataObject) -> None:
        self.on_the_way.append(data.draw(st.sampled_from(self.on_the_way)))

    @rule(count=st.sampled_from((5, MAX_REASSEMBLIES)))
    def of_many_frames_only_the_first_part_arrives(self, count: int) -> None:
        rest = len(self.on_the_way)
        self.send(200, count)
        for frame_id, at, part, record in self.on_the_way[rest:]:
            if at == 0:
                self.arrive(frame_id, at, part, record)
        self.on_the_way[rest:] = [sent for sent in self.on_the_way[rest:] if sent[1]]

    def arrive(self, frame_id: int, at: int, part: bytes, record: bytes) -> None:
        self.forget_the_late()
        frames = [b"".join(frame)[10:] for frame in self.inbox.receive_untrusted([record], self.now).frames]
        assert frames == self.expected(frame_id, at, part, int.from_bytes(record[10:12], "little"))

    def forget_the_late(self) -> None:
        for frame_id in [i for i, waiting in self.waiting.items() if waiting.deadline <= self.now]:
            del self.waiting[frame_id]
            self.drops[DropReason.FRAGMENT_TIMEOUT] += 1

    def expected(self, frame_id: int, at: int, part: bytes, total: int) -> list[bytes]:
        if frame_id not in self.waiting:
            if len(self.waiting) == MAX_REASSEMBLIES:
                del self.waiting[next(iter(self.waiting))]
                self.drops[DropReason.FRAGMENT_LIMIT] += 1
            self.waiting[frame_id] = Waiting(total, self.now + REASSEMBLY_TIME)
        waiting = self.waiting[frame_id]
        if at in waiting.parts:
            del self.waiting[frame_id]
            self.drops[DropReason.BAD_FRAGMENT] += 1
            return []
        waiting.parts[at] = part
        if sum(map(len, waiting.parts.values())) < total:
            return []
        del self.waiting[frame_id]
        return [b"".join(waiting.parts[start] for start in sorted(waiting.parts))]

    @rule()
    def the_timer_comes(self) -> None:
        self.forget_the_late()
        deadline = self.inbox.expire(self.now)
        assert deadline == min((waiting.deadline for waiting in self.waiting.values()), default=None)

    @invariant()
    def drops_are_the_same(self) -> None:
        if hasattr(self, "counters") and not any(w.deadline <= self.now for w in self.waiting.values()):
            assert {r: n for r, n in self.counters.drops.items() if n} == dict(self.drops)


TestReassembly = ReassemblyMachine.TestCase
