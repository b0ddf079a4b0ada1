"""`python -m tests.bench.cold`: what a lone frame costs the core after a pause, when the caches have forgotten it.

One frame out and in, in memory (`inmemory.Mesh`), after the process has slept or spun. Medians; no kernel takes part.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from statistics import median

from l2overlay.dataplane.ethernet import DESTINATION, SOURCE, VIRTIO_LEN
from l2overlay.overlay import Overlay
from l2overlay.seams import Burst, TapFrame

from .frames import small_frame
from .inmemory import Mesh

PAUSES = (0.0, 0.0002, 0.001, 0.002, 0.003, 0.005, 0.02)
ROUNDS = 200


class Pair:
    """Two nodes that know a station behind each other."""

    def __init__(self) -> None:
        self._mesh = Mesh(1)
        self._there, self._here = self._mesh.hub, self._mesh.spokes[0]
        frame = small_frame(64)
        back = frame[:VIRTIO_LEN] + frame[SOURCE] + frame[DESTINATION] + frame[SOURCE.stop :]
        self._frames = [TapFrame(frame)]
        self._carry(self._there, [TapFrame(back)], self._here, 0)
        self.pass_frame()

    def pass_frame(self) -> None:
        """Out of the one, into the other."""
        self._carry(self._here, self._frames, self._there, 1)

    def _carry(self, source: Overlay, frames: list[TapFrame], target: Overlay, number: int) -> None:
        now = self._mesh.now
        source.receive_frames(frames, now)
        (burst,) = source.bursts_to_send()
        data = b"".join(burst.buffers)
        target.receive_datagrams([Burst(self._mesh.addresses[number], len(data), [data])], now)
        assert target.frames_to_deliver() == [(frames[0],)]


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.cold")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"for each figure (default: {ROUNDS})")
    rounds = parser.parse_args(argv).rounds
    pair = Pair()
    print(f"{'after':>8}{'asleep':>12}{'spinning':>12}")
    for pause in PAUSES:
        asleep, spinning = (cost(pair, rest, pause, rounds) * 1e6 for rest in (time.sleep, spin))
        print(f"{pause * 1e3:>5g} ms{asleep:>9.1f} us{spinning:>9.1f} us", flush=True)
    return 0


def cost(pair: Pair, rest: Callable[[float], None], pause: float, rounds: int) -> float:
    """Seconds that a frame takes after `rest` has taken `pause`."""
    found = []
    for _ in range(rounds):
        rest(pause)
        start = time.perf_counter()
        pair.pass_frame()
        found.append(time.perf_counter() - start)
    return median(found)


def spin(pause: float) -> None:
    """Keep the processor."""
    end = time.perf_counter() + pause
    while time.perf_counter() < end:
        pass


if __name__ == "__main__":
    raise SystemExit(main())
