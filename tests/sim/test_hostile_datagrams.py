"""What strangers send: nothing of a node changes, nobody gets an answer, nothing is delivered."""

from collections.abc import Iterator

import pytest

from l2overlay.addresses import Address
from l2overlay.config.types import Suite
from l2overlay.controlplane.cookie import MAC_LEN
from l2overlay.controlplane.events import HandshakeRefused, PeerDown
from l2overlay.controlplane.handshake import INIT_LEN, RESP_LEN
from l2overlay.counters import DropReason
from l2overlay.seams import Burst

from .simulator import STRANGER, Captured, Node, Simulation, as_bursts, started
from .snapshot import changes, snapshot

INIT, RESP, COOKIE, DATA = 1, 2, 3, 4


def assert_nothing_happens(node: Node, datagrams: list[bytes], source: Address = STRANGER) -> None:
    """Give all of them to `node`, one by one and as the bursts that GRO would make of them."""
    overlay, now = node.overlay, node.sim.now
    before = snapshot(overlay)
    for datagram in datagrams:
        overlay.receive_datagrams([Burst(source, max(1, len(datagram)), [datagram])], now)
        assert overlay.bursts_to_send() == [], datagram.hex()
        assert overlay.frames_to_deliver() == [], datagram.hex()
        event = overlay.next_event()
        assert event is None or isinstance(event, HandshakeRefused), datagram.hex()
    overlay.receive_datagrams(as_bursts([(source, datagram) for datagram in datagrams]), now)
    assert overlay.bursts_to_send() == []
    assert changes(before, snapshot(overlay)) == []


def flips(datagram: bytes, end: int | None = None) -> list[bytes]:
    """It with each single bit of its first `end` bytes turned over."""
    return [
        datagram[:i] + bytes([datagram[i] ^ 1 << bit]) + datagram[i + 1 :]
        for i in range(len(datagram) if end is None else end)
        for bit in range(8)
    ]


def cuts(datagram: bytes) -> list[bytes]:
    """Every shorter one, and a longer one."""
    return [*(datagram[:length] for length in range(len(datagram))), datagram + b"\0"]


def withheld(kind: int, suite: Suite = Suite.AESGCM) -> tuple[Simulation, Captured]:
    """The first datagram of `kind`, which its receiver would take now: it has been sent and has not arrived."""
    sim = Simulation(11, 2, capture=True, suite=suite, start=False)
    a, b = sim.nodes
    b.start()
    if kind == COOKIE:
        b.overlay._members._under_load_until = sim.now + 100.0
    a.start()
    if kind == DATA:
        sim.run_until_all_up(within=1.0)
        sim.run(0.2)
        a.send(b)
    captured = sim.captured
    assert captured is not None
    sim.run_until(lambda: captured and captured[-1].kind == kind, within=1.0)
    genuine = captured[-1]
    sim.run(0.0)
    return sim, genuine


@pytest.mark.parametrize("suite", list(Suite), ids=lambda suite: suite.name)
@pytest.mark.parametrize("kind", [INIT, RESP, COOKIE, DATA], ids=["INIT", "RESP", "COOKIE", "DATA"])
def test_no_flipped_bit_and_no_cut_changes_anything_and_the_genuine_datagram_is_still_taken(
    kind: int, suite: Suite
) -> None:
    sim, genuine = withheld(kind, suite)
    receiver = genuine.receiver
    assert receiver is not None
    # mac2 is looked at only under load, as in WireGuard: with another one the datagram is as good.
    end = len(genuine.datagram) - MAC_LEN if kind in (INIT, RESP) else None
    forged = flips(genuine.datagram, end) + cuts(genuine.datagram)
    assert_nothing_happens(receiver, forged, genuine.source)
    before = snapshot(receiver.overlay)
    receiver.overlay.receive_datagrams(
        [Burst(genuine.source, len(genuine.datagram), [genuine.datagram])], sim.now
    )
    assert changes(before, snapshot(receiver.overlay)), "this one it takes"


def random_datagrams(sim: Simulation, node: Node) -> Iterator[bytes]:
    """Of every length, and with heads that lead as deep into the node as one can get without a key."""
    indices = [*node.overlay._local.links.sessions, *node.overlay._local.pending]
    for length in range(200):
        yield sim.random.randbytes(length)
    for kind in range(8):
        for length in (0, 7, 16, 31, 32, 64, RESP_LEN, INIT_LEN, 1472):
            yield bytes([kind]) + sim.random.randbytes(length)
            yield bytes([kind, 1, 0, 0]) + sim.random.randbytes(length)
            for index in indices:
                yield bytes([kind, 0, 0, 0]) + index.to_bytes(4, "little") + sim.random.randbytes(length)


def test_random_datagrams_of_every_length_change_nothing() -> None:
    sim = started(12, 3)
    sim.run(1.0)
    for node in sim.nodes:
        node.send()
        sim.run(0.1)
        assert_nothing_happens(node, list(random_datagrams(sim, node)))


def busy(seed: int, seconds: float) -> tuple[Simulation, list[Captured]]:
    """Two nodes that talked for a while, and everything an eavesdropper has of it."""
    sim = started(seed, 2, capture=True)
    a, b = sim.nodes
    talks = sim.conversation(a, b, every=0.5)
    sim.run(seconds)
    for talk in talks:
        talk.stop()
    sim.run(0.2)
    assert sim.captured is not None
    return sim, list(sim.captured)


def replay(sim: Simulation, capture: list[Captured], source: Address | None = None) -> None:
    """All of it again, to whom it was sent, from where it came or from elsewhere."""
    for captured in capture:
        assert captured.receiver is not None
        sim.inject(captured.receiver, captured.datagram, source or captured.source)
    sim.run(1.0)


@pytest.mark.parametrize("seconds", [10.0, 300.0], ids=["at once", "after rekeys"])
def test_a_whole_capture_replayed_changes_nothing_and_delivers_nothing(seconds: float) -> None:
    sim, capture = busy(13, seconds)
    for source in (None, STRANGER):
        for node in sim.nodes:
            mine = [c for c in capture if c.receiver is node]
            assert len(mine) > 20
            assert_nothing_happens(node, [c.datagram for c in mine], source or mine[0].source)


@pytest.mark.parametrize("who_restarts", [0, 1])
@pytest.mark.parametrize("seed", range(3))
def test_a_capture_from_before_a_restart_brings_nothing_back(who_restarts: int, seed: int) -> None:
    """A restarted node has forgotten the stamps: an old INIT may get one RESP, and comes to nothing."""
    sim, capture = busy(seed, 250.0)
    restarted, other = sim.nodes[who_restarts], sim.nodes[1 - who_restarts]
    restarted.kill()
    sim.run(1.0)
    restarted.start()
    sim.run_until_all_up(within=2.0)
    sim.run(0.1)
    before = {node.name: (dict(node.delivered), node.status(peer).endpoint) for node, peer in _pairs(sim)}
    talks = sim.conversation(restarted, other)
    replay(sim, capture, STRANGER)
    sim.run(10.0)
    replay(sim, capture)
    sim.run(10.0)
    for talk in talks:
        talk.stop()
    sim.run(1.0)
    assert [talk.lost() for talk in talks] == [0.0, 0.0]
    numbers = {number for talk in talks for number in talk.numbers}
    for node, peer in _pairs(sim):
        assert set(node.delivered) - numbers == set(before[node.name][0])
        assert node.status(peer).endpoint == before[node.name][1]
    assert restarted.times(PeerDown) == []


def _pairs(sim: Simulation) -> list[tuple[Node, Node]]:
    a, b = sim.nodes
    return [(a, b), (b, a)]


def test_datagrams_with_bad_tags_cost_established_peers_nothing_but_time() -> None:
    sim = started(14, 2, capture=True)
    a, b = sim.nodes
    talks = sim.conversation(a, b)
    sim.run(1.0)
    assert sim.captured is not None
    genuine = next(c.datagram for c in reversed(sim.captured) if c.receiver is b and c.kind == DATA)
    for i in range(2000):
        forged = genuine[:8] + (10_000 + i).to_bytes(8, "little") + genuine[16:]
        sim.inject(b, forged)
        if i % 100 == 0:
            sim.run(0.05)
    assert b.drops(DropReason.BAD_TAG) == 2000
    for talk in talks:
        talk.stop()
    sim.run(1.0)
    assert [talk.lost() for talk in talks] == [0.0, 0.0]
    assert a.address == b.status(a).endpoint, "it did not move to where the forgeries came from"
