"""What the hot functions cost: `pytest tests/bench/test_micro.py --benchmark-only`. No kernel, no sockets.

Each works on what one wake-up of a busy node holds, so that the figures add up: a TCP super-frame of 64 KiB, which is 45
datagrams of 1472 bytes on the wire; 64 small frames, which are four; or a lone one. `OPS` of a row times that is the rate of
a node that did nothing else. Each also asserts that the work was done.
"""

from collections.abc import Callable
from typing import Any

import pytest

from l2overlay.addresses import Address, PeerKey
from l2overlay.config.types import Suite
from l2overlay.counters import Counters
from l2overlay.dataplane.ethernet import station_key
from l2overlay.dataplane.fdb import LOCAL, FilteringDatabase, Port
from l2overlay.dataplane.inbox import Inbox
from l2overlay.dataplane.outbox import Outbox
from l2overlay.dataplane.session import Session, to_bursts
from l2overlay.dataplane.switch import Switch
from l2overlay.dataplane.train import max_cars, plaintext_len
from l2overlay.dataplane.wire import DATA_OVERHEAD, RECEPTION, TRAIN_TYPE, Record
from l2overlay.seams import Burst, TapFrame

from .frames import ETHERNET_LEN, IPV4_LEN, PLAIN_VIRTIO, TCP_LEN, small_frame, super_frame
from .inmemory import PATH_LIMIT, Mesh

Benchmark = Any  # pytest_benchmark.fixture.BenchmarkFixture, which is not typed

DATAGRAMS = 45
SMALL_FRAMES = 64
LARGE_FRAMES = 32
CARS = max_cars(PATH_LIMIT)
HEADERS_LEN = len(PLAIN_VIRTIO) + ETHERNET_LEN + IPV4_LEN + TCP_LEN
"""Of the super-frame, with its virtio header."""
ROUNDS = 300
ADDRESS = Address("192.0.2.2", 7470)
PEER = PeerKey(bytes(range(32)))
FRAMES = {
    "lone": small_frame(64),
    "small": small_frame(64),
    "large": small_frame(1400),
    "super": super_frame(),
}
COUNTS = {"lone": 1, "small": SMALL_FRAMES, "large": LARGE_FRAMES, "super": 1}


def make_session(suite: Suite = Suite.AESGCM) -> Session:
    """One that opens what it seals: both directions have one key."""
    return Session(
        PEER,
        suite,
        send_key=bytes(32),
        receive_key=bytes(32),
        local_index=1,
        remote_index=1,
        initiator=True,
        created_time=0.0,
        address=ADDRESS,
    )


def each_time(benchmark: Benchmark, prepare: Callable[[], tuple[Any, ...]], work: Callable[..., Any]) -> Any:
    """Run `work` on fresh arguments every round; only the work is timed."""
    return benchmark.pedantic(work, setup=lambda: (prepare(), {}), rounds=ROUNDS, warmup_rounds=20)


def packed(kind: str) -> list[bytes]:
    """The plaintexts of one batch."""
    outbox = Outbox(PATH_LIMIT)
    for _ in range(COUNTS[kind]):
        outbox.add(FRAMES[kind])
    return outbox.take()


@pytest.mark.parametrize("suite", list(Suite), ids=lambda suite: suite.name)
def test_seal_a_super_frames_datagrams(benchmark: Benchmark, suite: Suite) -> None:
    session = make_session(suite)
    plaintexts = [bytes(PATH_LIMIT - DATA_OVERHEAD)] * DATAGRAMS
    assert len(benchmark(session.seal, plaintexts)) == 2 * DATAGRAMS


@pytest.mark.parametrize("suite", list(Suite), ids=lambda suite: suite.name)
def test_open_a_super_frames_datagrams(benchmark: Benchmark, suite: Suite) -> None:
    data = b"".join(make_session(suite).seal([bytes(PATH_LIMIT - DATA_OVERHEAD)] * DATAGRAMS))
    plaintexts, end = each_time(
        benchmark,
        lambda: (make_session(suite), Counters()),
        lambda session, counters: session.open_untrusted(data, 0, PATH_LIMIT, counters),
    )
    assert (len(plaintexts), end) == (DATAGRAMS, len(data))


@pytest.mark.parametrize("suite", list(Suite), ids=lambda suite: suite.name)
def test_seal_a_train(benchmark: Benchmark, suite: Suite) -> None:
    """The longest, which is half a super-frame: one AEAD call, and 22 headers."""
    session = make_session(suite)
    plaintext = bytes(plaintext_len(CARS, PATH_LIMIT))
    cars = benchmark(session.seal_train, plaintext, PATH_LIMIT)
    assert len(cars) == CARS * PATH_LIMIT


@pytest.mark.parametrize("suite", list(Suite), ids=lambda suite: suite.name)
@pytest.mark.parametrize("bursts", [1, 2], ids=["in one burst", "in two"])
def test_open_a_train(benchmark: Benchmark, suite: Suite, bursts: int) -> None:
    plaintext = bytes(plaintext_len(CARS, PATH_LIMIT))
    sent, _ = make_session(suite).seal_bursts([plaintext], ADDRESS, PATH_LIMIT)
    data = b"".join(sent[0].buffers)
    step = CARS // bursts * PATH_LIMIT
    parts = [data[at : at + step] for at in range(0, len(data), step)]
    assert len(parts) == bursts

    def open_all(session: Session, counters: Counters) -> list[bytes]:
        return [
            plaintext
            for part in parts
            for plaintext in session.open_untrusted(part, 0, PATH_LIMIT, counters)[0]
        ]

    assert each_time(benchmark, lambda: (make_session(suite), Counters()), open_all) == [plaintext]


def test_sealed_datagrams_become_bursts(benchmark: Benchmark) -> None:
    sealed = make_session().seal([bytes(PATH_LIMIT - DATA_OVERHEAD)] * DATAGRAMS)
    assert len(benchmark(to_bursts, ADDRESS, sealed)) == 1


def test_received_burst_becomes_datagrams(benchmark: Benchmark) -> None:
    burst = Burst(ADDRESS, PATH_LIMIT, [bytes(PATH_LIMIT * 44)])
    assert len(benchmark(burst.datagrams)) == 44


@pytest.mark.parametrize("kind", list(FRAMES))
def test_pack(benchmark: Benchmark, kind: str) -> None:
    """Small frames share datagrams, a super-frame is cut into slices."""
    plaintexts = benchmark(packed, kind)
    assert len(plaintexts) == len(packed(kind))


@pytest.mark.parametrize("kind", list(FRAMES))
def test_unpack(benchmark: Benchmark, kind: str) -> None:
    """Small frames come apart, slices are joined to a run."""
    plaintexts = packed(kind)
    received = benchmark(lambda: Inbox(Counters()).receive_untrusted(plaintexts, 0.0))
    assert len(received.frames) == COUNTS[kind]
    assert b"".join(received.frames[0])[10:24] == FRAMES[kind][10:24]


def test_learn_and_look_up_a_station(benchmark: Benchmark) -> None:
    fdb = FilteringDatabase(300.0)
    for number in range(1000):
        fdb.learn(station_key(b"\x02" + number.to_bytes(5, "big"), 0), Port(PEER), 0.0)
    source, destination = (station_key(b"\x02" + n.to_bytes(5, "big"), 0) for n in (7, 8))

    def learn_and_look_up() -> Port | None:
        fdb.learn(source, Port(PEER), 1.0)
        return fdb.lookup(destination, 1.0)

    assert benchmark(learn_and_look_up) == PEER


def test_evict_from_a_full_table(benchmark: Benchmark) -> None:
    fdb = FilteringDatabase(300.0)
    numbers = iter(range(1 << 40))

    def learn_another() -> None:
        fdb.learn(station_key(b"\x02" + next(numbers).to_bytes(5, "big"), 0), LOCAL, 1.0)

    for _ in range(fdb.max_entries):
        learn_another()
    benchmark(learn_another)
    assert len(fdb) == fdb.max_entries


def test_switch_a_frame_from_the_tap(benchmark: Benchmark) -> None:
    switch = Switch(FilteringDatabase(300.0))
    frame = small_frame()
    switch.fdb.learn(station_key(frame[10:16], 0), Port(PEER), 0.0)
    assert benchmark(switch.forward_from_tap, frame, 1.0) == PEER


def test_switch_a_frame_from_a_peer(benchmark: Benchmark) -> None:
    switch = Switch(FilteringDatabase(300.0))
    assert benchmark(switch.forward_from_peer, small_frame(), Port(PEER), 1.0) is None


def make_pair() -> Mesh:
    """Two nodes with a session; the hub knows that guest b is behind the spoke."""
    mesh = Mesh(1)
    answer = TapFrame(
        FRAMES["small"][:10] + FRAMES["small"][16:22] + FRAMES["small"][10:16] + FRAMES["small"][22:]
    )
    mesh.spokes[0].receive_frames([answer], mesh.now)
    mesh.hub.receive_datagrams(mesh.spokes[0].bursts_to_send(), mesh.now)
    assert len(mesh.hub.frames_to_deliver()) == 1
    mesh.hub.bursts_to_send()
    return mesh


@pytest.fixture(scope="module")
def pair() -> Mesh:
    """Before any report: each datagram is sealed alone."""
    return make_pair()


@pytest.fixture(scope="module")
def pair_in_trains() -> Mesh:
    """After reports that nothing was lost."""
    mesh = make_pair()
    (peer,) = mesh.hub._members
    while peer.paths.used.trains.cars < CARS:
        peer.receive_control(Record.RECEPTION, RECEPTION.pack(1024, 1024), ADDRESS, mesh.now)
    return mesh


def send_out(mesh: Mesh, batch: list[TapFrame]) -> list[Burst]:
    mesh.hub.receive_frames(batch, mesh.now)
    return mesh.hub.bursts_to_send()


def time_way_in(benchmark: Benchmark, mesh: Mesh, batch: list[TapFrame]) -> list[Any]:
    """From the socket's bursts to frames for the TAP."""
    spoke = mesh.spokes[0]

    def seal() -> tuple[list[Burst]]:
        bursts = send_out(mesh, batch)
        return ([Burst(b.address, b.datagram_size, [b"".join(b.buffers)]) for b in bursts],)

    def take_in(bursts: list[Burst]) -> list[Any]:
        spoke.receive_datagrams(bursts, mesh.now)
        return spoke.frames_to_deliver()

    return list(each_time(benchmark, seal, take_in))


@pytest.mark.parametrize("kind", list(FRAMES))
def test_whole_way_out(benchmark: Benchmark, pair: Mesh, kind: str) -> None:
    """From the TAP's frames to sealed bursts."""
    bursts = benchmark(send_out, pair, [FRAMES[kind]] * COUNTS[kind])
    assert sum(len(burst.datagrams()) for burst in bursts) == len(packed(kind))


@pytest.mark.parametrize("kind", list(FRAMES))
def test_whole_way_in(benchmark: Benchmark, pair: Mesh, kind: str) -> None:
    assert len(time_way_in(benchmark, pair, [FRAMES[kind]] * COUNTS[kind])) == COUNTS[kind]


def test_whole_way_out_in_trains(benchmark: Benchmark, pair_in_trains: Mesh) -> None:
    """A super-frame: beside `test_whole_way_out[super]` it shows what trains save."""
    bursts = benchmark(send_out, pair_in_trains, [FRAMES["super"]])
    datagrams = [datagram for burst in bursts for datagram in burst.datagrams()]
    assert {datagram[0] for datagram in datagrams[:CARS]} == {TRAIN_TYPE}
    assert len({datagram[8:16] for datagram in datagrams}) <= 3


def test_whole_way_in_in_trains(benchmark: Benchmark, pair_in_trains: Mesh) -> None:
    (frame,) = time_way_in(benchmark, pair_in_trains, [FRAMES["super"]])
    assert b"".join(frame)[HEADERS_LEN:] == FRAMES["super"][HEADERS_LEN:]


def test_broadcast_to_a_hundred_peers(benchmark: Benchmark) -> None:
    """One frame, a hundred keys: sealed, not sent."""
    mesh = Mesh(100)
    frame = TapFrame(bytes(10) + b"\xff" * 6 + FRAMES["small"][16:])

    def flood() -> list[Burst]:
        mesh.hub.receive_frames([frame], mesh.now)
        return mesh.hub.bursts_to_send()

    assert len(benchmark(flood)) == 100
