"""What protection costs: `pytest tests/bench/test_micro_protection.py --benchmark-only`. Without and with.

A batch is what one wake-up of a busy node holds; the rows "bare", "default" and "guards" of one kind belong together.
"""

from typing import Any

import pytest

from l2overlay.config.types import Party, ProtectConfig
from l2overlay.seams import Burst, TapFrame

from .frames import small_frame, super_frame
from .inmemory import Mesh

Benchmark = Any  # pytest_benchmark.fixture.BenchmarkFixture, which is not typed

EVERY_GUARD = ProtectConfig(
    dhcp_servers=Party(),
    router_advertisements=Party(),
    arp_spoof_guard=True,
    ethertypes_allow=frozenset({0x0800, 0x0806, 0x86DD}),
)
PROTECTIONS = {"bare": None, "default": ProtectConfig(), "guards": EVERY_GUARD}
BATCHES = {
    "small": [small_frame(64)] * 64,
    "large": [small_frame(1400)] * 32,
    "super": [super_frame()],
}
ROUNDS = 300


@pytest.fixture(scope="module", params=list(PROTECTIONS))
def pair(request: pytest.FixtureRequest) -> Mesh:
    """Two nodes with a session; the hub knows that the frames' destination is behind the spoke."""
    mesh = Mesh(1, PROTECTIONS[request.param])
    frame = small_frame(64)
    answer = TapFrame(frame[:10] + frame[16:22] + frame[10:16] + frame[22:])
    mesh.spokes[0].receive_frames([answer], mesh.now)
    mesh.hub.receive_datagrams(mesh.spokes[0].bursts_to_send(), mesh.now)
    for overlay in (mesh.hub, *mesh.spokes):
        overlay.bursts_to_send()
        overlay.frames_to_deliver()
    return mesh


@pytest.mark.parametrize("kind", list(BATCHES))
def test_out_and_in(benchmark: Benchmark, pair: Mesh, kind: str) -> None:
    """A batch from the TAP of one node to that of the other."""
    batch, spoke = BATCHES[kind], pair.spokes[0]

    def carry() -> list[Any]:
        pair.hub.receive_frames(batch, pair.now)
        bursts = pair.hub.bursts_to_send()
        spoke.receive_datagrams(
            [Burst(pair.addresses[0], b.datagram_size, b.buffers) for b in bursts], pair.now
        )
        return spoke.frames_to_deliver()

    assert len(benchmark(carry)) == len(batch)


def test_broadcasts_out(benchmark: Benchmark, pair: Mesh) -> None:
    """Within the limits: one a millisecond."""
    frame = TapFrame(bytes(10) + b"\xff" * 6 + small_frame(64)[16:])
    now = [pair.now]

    def flood() -> list[Burst]:
        now[0] += 0.001
        pair.hub.receive_frames([frame], now[0])
        return pair.hub.bursts_to_send()

    assert len(benchmark.pedantic(flood, rounds=ROUNDS, warmup_rounds=20)) == 1
