"""What `[segment] tos` costs: `python -m tests.bench.marks`. One node's way out in memory, and one socket on loopback."""

import time
from collections.abc import Callable, Sequence

from l2overlay.addresses import Address
from l2overlay.config.types import Tos
from l2overlay.linux.udp import LinuxUdp
from l2overlay.seams import Burst, MarkedBurst, TapFrame
from tests.dataplane.super_frames import partial_frame, super_frame
from tests.dataplane.test_marks import EF, Pair, marked

ROUNDS = 1000
SMALL = [partial_frame("tcp4", 100, seed=seed) for seed in range(64)]
FRAMES: dict[str, list[TapFrame]] = {
    "a lone frame": [marked(SMALL[0], EF)],
    "64 small frames of one mark": [marked(frame, EF) for frame in SMALL],
    "64 small frames, every second marked": [
        marked(frame, EF * (number % 2)) for number, frame in enumerate(SMALL)
    ],
    "40 KB of TCP": [super_frame("tcp4", 40_000).frame],
}


def best(work: Callable[[], object]) -> float:
    """The shortest of many rounds, in microseconds."""
    times = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return min(times) * 1e6


def way_out(tos: Tos, frames: Sequence[TapFrame]) -> float:
    overlay, now = (pair := Pair(tos, tos)).a, pair.now
    receive = overlay.receive_frames if tos is Tos.OFF else overlay.receive_marked_frames
    return best(lambda: (receive(frames, now), overlay.bursts_to_send()))


def socket_costs(marks: Sequence[int] | None) -> tuple[float, float]:
    """Microseconds a datagram to send and to receive. None: no marks are copied."""
    here, there = LinuxUdp.open_loopback(), LinuxUdp.open_loopback()
    address, data = Address("127.0.0.1", there.port), [bytes(100)]
    bursts = [Burst(address, 100, data)] * 8
    if marks is not None:
        here.copy_tos(on=True)
        there.copy_tos(on=True)
        bursts = [MarkedBurst(address, 100, data, tos) for tos in marks]
    out = best(lambda: (here.send_bursts(bursts), there.receive_bursts(8)))
    back = out - best(lambda: here.send_bursts(bursts))
    here.close()
    there.close()
    return (out - back) / 8, back / 8


def main() -> None:
    for name, frames in FRAMES.items():
        print(name, *(f"{tos.value} {way_out(tos, frames):.1f} us" for tos in Tos), sep="  ")
    for name, marks in (("off", None), ("one mark", [EF] * 8), ("every second", [0, EF] * 4)):
        print(
            f"socket, {name}: send {socket_costs(marks)[0]:.2f} us, receive {socket_costs(marks)[1]:.2f} us a datagram"
        )


if __name__ == "__main__":
    main()
