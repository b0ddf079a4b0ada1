"""What is told of what arrives, and how long trains become of it: alone, in one node, and between two."""

import struct
from collections.abc import Callable
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from l2overlay.addresses import Address, PeerKey
from l2overlay.config.types import Config, PeerConfig, Suite
from l2overlay.controlplane.handshake import FEATURE_TRAIN, OUR_FEATURES
from l2overlay.controlplane.peer import Peer
from l2overlay.controlplane.reception import (
    GROW_BELOW,
    MIN_HOLD,
    REPORT_COUNTERS,
    REPORT_INTERVAL,
    REPORT_LOST,
    SHRINK_ABOVE,
    Reception,
    TrainLength,
)
from l2overlay.counters import DropReason
from l2overlay.dataplane.session import Session
from l2overlay.dataplane.train import max_cars
from l2overlay.dataplane.wire import BASE_SIZE, RECEPTION, Record
from l2overlay.keys import public_key
from l2overlay.overlay import Overlay
from l2overlay.seams import Burst, TapFrame

from .far_end import FAR_ADDRESS, FarEnd, NearEnd, config_of, segment

TRAIN = 5
SIZE = 1472
LONGEST = max_cars(SIZE)
NOW = 100.0


# -- reports -------------------------------------------------------------------------------------------------------------


def a_session() -> Session:
    keys = {"send_key": b"\x01" * 32, "receive_key": b"\x02" * 32}
    return Session(
        PeerKey(bytes(32)),
        Suite.AESGCM,
        **keys,
        local_index=1,
        remote_index=2,
        initiator=True,
        created_time=0.0,
        address=FAR_ADDRESS,
    )


class Heard:
    """A reception, and a session under which counters go by."""

    def __init__(self) -> None:
        self.session = a_session()
        self.reception = Reception()
        self.now = 100.0
        assert self.hear(1) is None, "it begins with what it hears first"

    def hear(self, used: int, lost: int = 0) -> tuple[int, int] | None:
        """So many counters go by, and all but `lost` of them are opened; fewer than none are late ones of before."""
        self.session.newest_opened += used
        self.session.opened_count += used - lost
        return self.reception.report(self.session, self.now)


def test_1024_counters_are_reported_and_begin_anew() -> None:
    heard = Heard()
    assert heard.hear(REPORT_COUNTERS - 1) is None
    assert heard.hear(1) == (1024, 1024)
    heard.now += 1.0
    assert heard.hear(REPORT_COUNTERS - 1) is None
    assert heard.hear(100, lost=3) == (1123, 1120)


def test_four_lost_are_reported_of_however_few() -> None:
    heard = Heard()
    assert heard.hear(10, lost=REPORT_LOST - 1) is None
    assert heard.hear(2, lost=1) == (12, 8)


def test_two_reports_are_50_ms_apart_and_the_second_covers_the_time_between() -> None:
    heard = Heard()
    assert heard.hear(2000) == (2000, 2000)
    heard.now += REPORT_INTERVAL * 0.99
    assert heard.hear(2000, lost=100) is None
    heard.now += REPORT_INTERVAL * 0.02
    assert heard.hear(1) == (2001, 1901)


def test_what_comes_late_makes_no_report_of_more_than_was_used() -> None:
    heard = Heard()
    assert heard.hear(50, lost=10) == (50, 40)
    heard.now += 1.0
    heard.hear(0, lost=-10)
    assert heard.hear(1024) == (1024, 1024)


def test_another_session_begins_anew() -> None:
    heard = Heard()
    heard.hear(1000, lost=3)
    heard.session = a_session()
    assert heard.hear(500, lost=400) is None, "what went before it was heard of first"
    assert heard.hear(1024, lost=1) == (1024, 1023)


def test_a_time_in_which_the_own_socket_had_no_room_is_left_out() -> None:
    heard = Heard()
    heard.hear(1000, lost=3)
    heard.reception.overflowed()
    assert heard.hear(500, lost=400) is None
    assert heard.hear(1024) == (1024, 1024)


heard_things = st.tuples(st.integers(0, 3000), st.integers(-5, 3000), st.floats(0, 0.1), st.booleans())


@given(st.lists(heard_things, max_size=20))
def test_reports_are_never_more_than_went_by_and_never_too_often(
    things: list[tuple[int, int, float, bool]],
) -> None:
    heard, reported, last, total = Heard(), 0, -1.0, 1
    for used, lost, pause, overflow in things:
        heard.now += pause
        if overflow:
            heard.reception.overflowed()
        report = heard.hear(used, min(used, lost))
        total += used
        if report is None:
            continue
        assert 0 <= report[1] <= report[0]
        assert report[0] >= REPORT_COUNTERS or report[0] - report[1] >= REPORT_LOST
        assert heard.now - last >= REPORT_INTERVAL * 0.999
        last, reported = heard.now, reported + report[0]
    assert reported <= total


def test_trains_that_are_lost_are_reported_among_however_many_datagrams_that_arrive() -> None:
    """Two trains in 100 000 datagrams would not count otherwise, and the guests' bulk transfer would be lost for good."""
    heard = Heard()
    heard.session.trains.lost += 1
    assert heard.hear(900) is None
    heard.session.trains.lost += 1
    assert heard.hear(100) == (1000, 0)
    heard.now += 1.0
    heard.session.trains.lost += 2
    heard.session.trains.opened += 2
    assert heard.hear(100) is None, "some are always lost on a path that loses"


def test_trains_that_shrank_wait_before_they_grow_and_longer_each_time() -> None:
    trains, now, waits = TrainLength(), NOW, []
    for _ in range(9):
        while trains.cars == 1:
            now += 0.05
            trains.reported_untrusted(1024, 1024, SIZE, now)
        waits.append(round(now - NOW, 1))
        assert trains.reported_untrusted(10, 0, SIZE, now)
    pauses = [later - earlier for earlier, later in pairwise(waits)]
    assert pauses == pytest.approx([0.5, 1, 2, 4, 8, 16, 32, 64], abs=0.11)
    trains.reported_untrusted(1024, 1024, SIZE, now + 200)
    assert trains.reported_untrusted(10, 0, SIZE, now + 200)
    assert trains.reported_untrusted(1024, 1024, SIZE, now + 200 + MIN_HOLD), "all went well for long"


# -- lengths -------------------------------------------------------------------------------------------------------------


def test_trains_begin_with_one_car_double_and_end_at_32_kib() -> None:
    trains, lengths = TrainLength(), []
    assert trains.cars == 1
    while trains.reported_untrusted(1024, 1024, SIZE, NOW):
        lengths.append(trains.cars)
    assert lengths == [2, 4, 8, 16, LONGEST]
    assert LONGEST == 22


@pytest.mark.parametrize(
    ("lost", "cars"), [(0, 22), (10, 22), (11, 11), (50, 11), (51, 5), (100, 2), (250, 1), (10_000, 1)]
)
def test_what_was_lost_of_10000_decides(lost: int, cars: int) -> None:
    """Up to 0.1 % doubles, up to 0.5 % leaves; more divides so that 0.25 % would have been lost."""
    assert (GROW_BELOW, SHRINK_ABOVE) == (0.001, 0.005)
    trains = TrainLength()
    trains.cars = 11
    assert trains.reported_untrusted(10_000, 10_000 - lost, SIZE, NOW) == (cars != 11)
    assert trains.cars == cars


@pytest.mark.parametrize(("used", "opened"), [(0, 0), (0, 5), (10, 11), (1, 0xFFFFFFFF)])
def test_a_report_that_cannot_be_changes_nothing(used: int, opened: int) -> None:
    trains = TrainLength()
    trains.cars = 8
    assert not trains.reported_untrusted(used, opened, SIZE, NOW)
    assert trains.cars == 8


@given(st.lists(st.tuples(*[st.integers(0, 2**32 - 1) | st.integers(0, 2000)] * 2, st.integers(1200, 9000))))
def test_whatever_is_reported_trains_have_one_car_and_no_more_than_pay(
    reports: list[tuple[int, int, int]],
) -> None:
    trains = TrainLength()
    for used, opened, size in reports:
        before = trains.cars
        assert trains.reported_untrusted(used, opened, size, NOW) == (trains.cars != before)
        assert trains.cars == before or 1 <= trains.cars <= max_cars(size)
        assert trains.cars <= 2 * before


# -- one node ------------------------------------------------------------------------------------------------------------

NEAR_PRIVATE, FAR_PRIVATE = b"\x01" * 32, b"\x02" * 32
FRAME = b"\x02\0\0\0\0\x02" + b"\x02\0\0\0\0\x01" + b"\x88\xb5"


def near_and_far(features: int) -> tuple[NearEnd, FarEnd]:
    near = NearEnd(NEAR_PRIVATE, config_of(NEAR_PRIVATE, FAR_PRIVATE))
    far = FarEnd(FAR_PRIVATE, near.key, features=features)
    far.dial(near)
    return near, far


def grow(near: NearEnd, far: FarEnd) -> None:
    for _ in range(6):
        near.receive(far.control(Record.RECEPTION, RECEPTION.pack(1024, 1024)))


def types_of_a_batch(near: NearEnd) -> set[int]:
    """First bytes of the datagrams that ten large frames leave in; flooded, for nobody has learned anything."""
    near.overlay.receive_frames([TapFrame(bytes(10) + FRAME + bytes(1000))] * 10, near.now)
    return {datagram[0] for _, datagram in near.sent()}


def hear_2000_counters(near: NearEnd, far: FarEnd) -> list[tuple[Record, bytes]]:
    """What the node says meanwhile. All but every 100th of them arrive, without a record in it."""
    records = []
    for number in range(2000):
        datagram = far.seal()
        if number % 100 != 50:
            near.now += 0.001
            records += [r for _, d in near.receive(datagram) for r in far.open(d)]
    return records


def test_a_peer_that_knows_trains_is_told_what_arrives_and_gets_trains_when_it_says_so() -> None:
    near, far = near_and_far(FEATURE_TRAIN)
    reports = [RECEPTION.unpack(b) for kind, b in hear_2000_counters(near, far) if kind is Record.RECEPTION]
    assert 0.98 < sum(opened for _, opened in reports) / sum(used for used, _ in reports) < 1.0
    assert types_of_a_batch(near) == {4}
    grow(near, far)
    assert TRAIN in types_of_a_batch(near)


def test_a_peer_without_the_feature_is_told_nothing() -> None:
    near, far = near_and_far(OUR_FEATURES & ~FEATURE_TRAIN)
    assert Record.RECEPTION not in [kind for kind, _ in hear_2000_counters(near, far)]
    assert types_of_a_batch(near) == {4}


def test_a_peer_without_the_feature_gets_no_trains_whatever_it_reports() -> None:
    near, far = near_and_far(0)
    grow(near, far)
    assert types_of_a_batch(near) == {4}


def test_a_peer_that_comes_back_as_an_older_version_gets_no_trains() -> None:
    """Its restart was so quick that it was never down."""
    near, far = near_and_far(FEATURE_TRAIN)
    grow(near, far)
    far.features = 0
    far.dial(near)
    assert types_of_a_batch(near) == {4}


def test_trains_begin_anew_when_a_peer_comes_up_again_on_a_path_of_the_base_size() -> None:
    near, far = near_and_far(FEATURE_TRAIN)
    near.overlay.set_path_limit(PeerKey(public_key(FAR_PRIVATE)), BASE_SIZE, near.now)
    grow(near, far)
    assert TRAIN in types_of_a_batch(near)
    near.receive(far.control(Record.BYE))
    far.dial(near)
    assert types_of_a_batch(near) == {4}


def test_trains_begin_anew_when_a_peer_has_moved_on_a_path_of_the_base_size() -> None:
    near, far = near_and_far(FEATURE_TRAIN)
    near.overlay.set_path_limit(PeerKey(public_key(FAR_PRIVATE)), BASE_SIZE, near.now)
    grow(near, far)
    elsewhere = Address("198.51.100.7", 9)
    sent = near.receive(far.seal(bytes(12)), source=elsewhere)
    (token,) = [b for _, d in sent for kind, b in far.open(d) if kind is Record.PATH_CHALLENGE]
    near.receive(far.control(Record.PATH_RESPONSE, token), source=elsewhere)
    assert near.status().endpoint == elsewhere
    assert types_of_a_batch(near) == {4}


def test_a_peer_that_leaves_out_more_counters_than_a_report_can_say_does_not_end_the_node() -> None:
    near, far = near_and_far(FEATURE_TRAIN)
    assert far.session is not None
    far.session.send_counter = 1 << 59
    near.receive(far.seal())
    assert near.status().up


# -- two nodes -----------------------------------------------------------------------------------------------------------

PAYLOAD = bytes(range(256)) * 254
GUEST, STATION = b"\x02\0\0\0\0\x01", b"\x02\0\0\0\0\x02"


def super_frame() -> TapFrame:
    """65 KB of TCP over IPv4 in one piece."""
    ip = struct.pack("!BBHHHBBH", 0x45, 0, 40 + len(PAYLOAD), 1, 0, 64, 6, 0) + bytes(
        (10, 0, 0, 1, 10, 0, 0, 2)
    )
    tcp = struct.pack("!HHIIBBHHH", 40_000, 42_000, 0, 0, 5 << 4, 0x10, 500, 0, 0)
    virtio = struct.pack("<BBHHHH", 1, 1, 54, 1460, 34, 16)
    return TapFrame(virtio + STATION + GUEST + b"\x08\0" + ip + tcp + PAYLOAD)


class Line:
    """Two overlays, and a path from `a` to `b` that loses datagrams by chance; the way back loses none."""

    def __init__(self, seed: int, path_limit: int = SIZE) -> None:
        self.now, self.loss, self.chance = 1000.0, 0.0, Random(seed)
        self.addresses = {"a": Address("192.0.2.1", 7470), "b": Address("192.0.2.2", 7470)}
        self.carries = 65_507
        self.sent = self.lost = 0
        self.types: set[int] = set()
        private = {name: self.chance.randbytes(32) for name in "ab"}
        self.keys = {name: public_key(private[name]) for name in "ab"}
        config = Config(segment(), tuple(PeerConfig(name, self.keys[name]) for name in "ab"))
        self.a, self.b = (
            Overlay(config, private[n], now=self.now, wall_clock=1.8e9, random=self.chance.randbytes)
            for n in "ab"
        )
        self.a.set_endpoint(self.keys["b"], self.addresses["b"], self.now)
        self.a.set_path_limit(self.keys["b"], path_limit, self.now)
        self.frame = super_frame()
        self.run(0.2)
        assert self.peer.up
        self.b.receive_frames([TapFrame(bytes(10) + GUEST + STATION + bytes(60))], self.now)
        self.run(0.1)
        self.b.frames_to_deliver()

    @property
    def peer(self) -> Peer:
        """What a knows of b."""
        return self.a._members.peers[self.keys["b"]]

    @property
    def cars(self) -> int:
        return self.peer.paths.used.trains.cars

    def run(self, seconds: float, step: float = 0.01, each: Callable[[], None] = lambda: None) -> None:
        end = self.now + seconds
        while self.now < end:
            self.now += step
            each()
            for overlay in (self.a, self.b):
                if overlay.next_timer() <= self.now:
                    overlay.handle_timer(self.now)
            while self._carry():
                pass

    def bulk(self, super_frames: int, rate: float = 2000.0) -> int:
        """Guests send so many super-frames, 2000 a second (1 Gbit/s); returns how many payload bytes arrive."""
        arrived = 0

        def send() -> None:
            self.a.receive_frames([self.frame] * 4, self.now)

        self.types.clear()
        for _ in range(super_frames // 4):
            self.run(4 / rate, 4 / rate, send)
            arrived += sum(self._payload_len(b"".join(frame)) for frame in self.b.frames_to_deliver())
        return arrived

    @staticmethod
    def _payload_len(frame: bytes) -> int:
        """Of a run; fails when it holds other bytes than its sequence number says. (A loop guard's probe has none.)"""
        if frame[22:24] != b"\x08\0":
            return 0
        (at,) = struct.unpack_from("!I", frame, 10 + 34 + 4)
        assert frame[64:] == PAYLOAD[at : at + len(frame) - 64]
        return len(frame) - 64

    def _carry(self) -> bool:
        carried = False
        for name, overlay, other in (("a", self.a, self.b), ("b", self.b, self.a)):
            for burst in overlay.bursts_to_send():
                carried = True
                datagrams = [d for d in burst.datagrams() if len(d) <= self.carries]
                if name == "a":
                    self.types.update(d[0] for d in datagrams)
                    self.sent += len(datagrams)
                    if self.loss:
                        datagrams = [d for d in datagrams if self.chance.random() >= self.loss]
                for arriving in self._as_received(datagrams):
                    other.receive_datagrams(
                        [Burst(self.addresses[name], len(arriving[0]), [b"".join(arriving)])], self.now
                    )
        return carried

    @staticmethod
    def _as_received(datagrams: list[bytes]) -> list[list[bytes]]:
        """As UDP GRO merges one burst of which some are lost: a shorter last one belongs to it."""
        return [datagrams] if datagrams else []


def grown(seed: int) -> Line:
    """A line whose trains are as long as they get."""
    line = Line(seed)
    for _ in range(40):
        line.bulk(40)
        if line.cars == LONGEST:
            return line
    raise AssertionError(f"trains of {line.cars} cars after 1600 super-frames")


def test_on_a_path_that_loses_nothing_trains_grow_to_32_kib_and_all_arrives() -> None:
    line = Line(1)
    assert line.bulk(4) == 4 * len(PAYLOAD)
    assert line.types == {4}
    lengths = [line.cars]
    for _ in range(200):
        assert line.bulk(8) == 8 * len(PAYLOAD)
        if line.cars != lengths[-1]:
            lengths.append(line.cars)
    assert lengths == [1, 2, 4, 8, 16, 22]
    assert TRAIN in line.types
    drops = line.b.total_counters().drops
    assert not [reason for reason in drops if drops[reason]]


@pytest.mark.parametrize("loss", [0.01, 0.05, 0.3])
@pytest.mark.parametrize("seed", range(2))
def test_where_datagrams_are_lost_trains_are_given_up_within_a_second_and_come_back_afterwards(
    seed: int, loss: float
) -> None:
    line = grown(seed)
    line.loss = loss
    began = line.now
    while line.cars > 1:
        line.bulk(8)
        assert line.now - began < 1.0
    share = line.bulk(800) / (800 * len(PAYLOAD))
    assert line.cars == 1
    assert share == pytest.approx(1 - loss, abs=0.005), "a lost datagram costs its own bytes"
    line.loss = 0.0
    for _ in range(40):
        line.bulk(40)
    assert line.cars == LONGEST
    check_only_reason(line)


def check_only_reason(line: Line) -> None:
    """What did not get through at b was of trains that had lost a car."""
    drops = line.b.total_counters().drops
    assert {reason for reason in drops if drops[reason]} == {DropReason.TRAIN_INCOMPLETE}


def test_at_a_thousandth_lost_trains_cost_less_than_a_hundredth() -> None:
    """They try longer ones again and again, and the reports bound what that costs."""
    line = grown(5)
    line.loss = 0.001
    line.bulk(400)
    assert line.bulk(2000) / (2000 * len(PAYLOAD)) > 0.99
    assert line.cars < LONGEST
    check_only_reason(line)


def test_another_path_size_begins_with_one_car() -> None:
    line = grown(6)
    line.a.set_path_limit(line.keys["b"], 1280, line.now)
    assert line.cars == 1
    line.bulk(4)
    assert line.types == {4}
    assert all(line.bulk(40) == 40 * len(PAYLOAD) for _ in range(30))
    assert line.cars == max_cars(1280)


def test_a_path_that_shrinks_takes_trains_with_it() -> None:
    line = grown(7)
    line.carries = 1300
    line.bulk(1600, rate=400.0)
    assert line.peer.paths.used.mtu.size == BASE_SIZE
    line.run(10.0)
    assert line.peer.paths.used.mtu.size == 1280
    assert line.cars == 1
    assert line.bulk(8) == 8 * len(PAYLOAD)


def test_a_peer_that_has_moved_gets_one_car() -> None:
    line = grown(8)
    line.addresses["b"] = Address("198.51.100.7", 9)
    lengths: list[int] = []
    line.b.probe_peers(line.now)
    line.run(0.05, 0.01, lambda: lengths.append(line.cars))
    assert line.peer.link.endpoint == line.addresses["b"]
    assert line.cars == 1
    line.a.set_path_limit(line.keys["b"], SIZE, line.now)
    line.run(1.0)
    assert line.bulk(4) == 4 * len(PAYLOAD)
    assert line.types == {4}
    for _ in range(40):
        line.bulk(40)
    assert line.cars == LONGEST


def test_records_of_a_train_are_those_of_data() -> None:
    """Answers and reports go with frames in trains as well: PINGs are answered all the time."""
    line = grown(9)
    line.bulk(2000)
    assert line.peer.liveness.rtt is not None
    assert line.peer.liveness.unanswered_since > line.now - 0.1
