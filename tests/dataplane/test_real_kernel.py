"""The reference kernel is the real one: what our runs become behind a TAP, byte for byte.

outbox -> loss -> inbox -> tap0 (offloads) -- br0 -- tap1 (none: the kernel must cut and sum) -> compared with `segments`
                                                 \\-- tap2 (offloads: as a guest's super-frames reach us)
"""

import os
import random
import select
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from l2overlay.counters import Counters
from l2overlay.dataplane.inbox import Inbox
from l2overlay.dataplane.outbox import Outbox
from l2overlay.linux.tap import LinuxTap
from l2overlay.seams import Pieces, TapFrame
from l2overlay.testing.lab import Namespace
from tests.linux.conftest import inside

from .reference_kernel import all_segments, check
from .super_frames import ACK, CWR, ECE, FIN, PSH, SuperFrame, partial_frame, super_frame

pytestmark = pytest.mark.host

SHAPES = [
    super_frame("tcp4", 60_000, flags=ACK | PSH | FIN | CWR),
    super_frame("tcp4", 20_000, 536, tags=1, ip_extra=8, tcp_options=0, seed=1),
    super_frame("tcp4", 9000, 1448, tags=2, flags=ACK | ECE | CWR, seed=2),
    super_frame("tcp4", 20_000, 8948, seed=3),
    super_frame("tcp6", 60_000, 1428, flags=ACK | PSH | FIN | CWR, seed=4),
    super_frame("tcp6", 20_000, 1220, tags=1, seed=5),
    super_frame("tcp6", 20_000, 1400, ip_extra=3, seed=10),
    super_frame("udp4", 60_000, 1472, seed=6),
    super_frame("udp4", 10_001, 1000, tags=1, ip_extra=4, seed=7),
    super_frame("udp6", 60_000, 1452, seed=8),
    super_frame("udp6", 10_001, 999, seed=9),
    super_frame("udp6", 10_001, 998, tags=2, ip_extra=1, seed=11),
]
NAMES = [f"{shape.kind}-{shape.gso_size}" for shape in SHAPES]


class Bench:
    """Three TAPs in one bridge."""

    def __init__(self, namespace: Namespace, taps: list[LinuxTap]) -> None:
        self.namespace = namespace
        self.giver, self.plain, self.offloading = taps

    def pass_on(self, frames: list[Pieces]) -> tuple[list[bytes], list[bytes]]:
        """What comes out of the other two TAPs, virtio headers included."""
        assert self.giver.deliver_frames(frames) == {}
        return self.drain(self.plain), self.drain(self.offloading)

    @staticmethod
    def drain(tap: LinuxTap) -> list[bytes]:
        """Everything; the kernel has put it there before the write returned, or in the moment after."""
        frames: list[bytes] = []
        deadline = time.monotonic() + 5
        while (
            time.monotonic() < deadline and select.select([tap.fileno()], [], [], 0.05 if frames else 1.0)[0]
        ):
            frames += tap.receive_frames(1000)
        return frames


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    namespace = Namespace(f"l2o-{os.getpid()}-kernel")
    taps: list[LinuxTap] = []
    try:
        namespace.create()
        namespace.ip("link add br0 type bridge mcast_snooping 0")
        with inside(namespace):
            for number, offload in enumerate((True, False, True)):
                taps.append(LinuxTap.open(f"tap{number}", offload=offload))
                Path(f"/proc/sys/net/ipv6/conf/tap{number}/disable_ipv6").write_text("1")
                namespace.ip(f"link set tap{number} mtu 9000 master br0 up")
            Path("/proc/sys/net/ipv6/conf/br0/disable_ipv6").write_text("1")
        namespace.ip("link set br0 mtu 9000 up")
        if "uso4" not in taps[0].offloads:
            pytest.skip("this kernel has no USO on TAPs (Linux 6.2)")
        yield Bench(namespace, taps)
    finally:
        for tap in taps:
            tap.close()
        namespace.delete()


def travel(frames: list[TapFrame], path_size: int, loss: float) -> list[Pieces]:
    """What the far end's inbox delivers."""
    outbox, inbox = Outbox(path_size), Inbox(Counters())
    assert outbox.add_all(frames) == []
    chance = random.Random(1)
    arrived = [plaintext for plaintext in outbox.take() if chance.random() >= loss]
    return inbox.receive_untrusted(arrived, 0.0).frames


@pytest.mark.parametrize("shape", SHAPES, ids=NAMES)
@pytest.mark.parametrize("loss", [0.0, 0.2])
def test_kernel_cuts_our_runs_as_the_reference_does(bench: Bench, shape: SuperFrame, loss: float) -> None:
    frames = travel([shape.frame], 1472, loss)
    expected = all_segments(frames)
    got, _ = bench.pass_on(frames)
    assert [frame[10:] for frame in got] == expected
    assert {frame[:10] for frame in got} == {bytes(10)}
    for frame in got:
        check(frame[10:])


@pytest.mark.parametrize("shape", SHAPES, ids=NAMES)
def test_super_frames_of_these_tests_are_as_the_kernel_hands_them_over(
    bench: Bench, shape: SuperFrame
) -> None:
    """Passed through the bridge uncut; only the length of the linear part, which is no promise, may differ."""
    _, (got,) = bench.pass_on([(shape.frame,)])
    assert got[10:] == shape.header + shape.payload
    kernel, ours = (struct.unpack("<BBHHHH", virtio) for virtio in (got[:10], shape.virtio))
    assert kernel[:2] == ours[:2]
    assert kernel[3:] == ours[3:]
    assert all_segments(travel([TapFrame(got)], 1472, 0.0)) == all_segments([[shape.frame]])


@pytest.mark.parametrize("kind", ["tcp4", "tcp6", "udp4", "udp6"])
def test_kernel_completes_the_partial_checksums_that_we_hand_on(bench: Bench, kind: str) -> None:
    frames = travel(
        [partial_frame(kind, length, tags=length % 2) for length in (1, 60, 1400, 3000)], 1472, 0.0
    )
    got, _ = bench.pass_on(frames)
    assert [frame[10:] for frame in got] == all_segments(frames)
    for frame in got:
        check(frame[10:])
