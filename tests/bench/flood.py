"""What one broadcast costs a node with many peers: real sessions, real sends, no TAP.

Each peer has its own key, so each copy is sealed, and each has its own address, so each is one datagram.

`python -m tests.bench.flood`, as root: what one datagram costs that leaves alone or together with others.
"""

import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from itertools import cycle

from l2overlay.addresses import Address
from l2overlay.linux.sendmmsg import MAX_MESSAGES
from l2overlay.linux.udp import LinuxUdp
from l2overlay.seams import Burst, TapFrame
from l2overlay.testing.namespace import Namespace

from .inmemory import Mesh
from .topology import inside

ROUNDS = 200
SENDS = 50_000
VIRTIO_LEN = 10
ARP_REQUEST = TapFrame(bytes(VIRTIO_LEN) + b"\xff" * 6 + b"\x02\0\0\0\0\x0a" + b"\x08\x06" + bytes(46))
"""What is flooded most often: 60 bytes."""

DROP_ALL = """table netdev flood {
chain unseen {
type filter hook ingress device v1 priority 0
drop
}
}
"""

ADDRESSES = [Address(f"198.51.100.{number}", 7470) for number in range(1, 251)]
"""Made beforehand, as an overlay's are: 100 of them take 33 microseconds (timeit)."""

Send = Callable[[list[Burst]], None]


def flooding_times(peers: int) -> dict[str, float]:
    """Median seconds of one broadcast to this many peers: until all is sealed, and until all has been sent."""
    mesh = Mesh(peers)
    with wire() as send:
        return {
            f"flood{peers}_sealed": _median_of(mesh, lambda _: None),
            f"flood{peers}": _median_of(mesh, send),
        }


def _median_of(mesh: Mesh, send: Send) -> float:
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        mesh.hub.receive_frames([ARP_REQUEST], mesh.now)
        send(mesh.hub.bursts_to_send())
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def sending_times(peers: int, size: int) -> dict[str, float]:
    """Median seconds of one datagram when so many leave to as many peers: each alone, and together. In turn."""
    bursts = [Burst(address, size, [os.urandom(size)]) for address in ADDRESSES[:peers]]
    times: dict[str, list[float]] = {"alone": [], "together": []}
    with underlay() as udp:
        ways: dict[str, Callable[[], int]] = {
            "alone": lambda: udp._send_each(bursts, {}),
            "together": lambda: udp._send_together(bursts, *udp._batch_from(bursts, 0), {}),
        }
        for _ in range(max(ROUNDS, SENDS // peers)):
            for name, send in ways.items():
                start = time.perf_counter()
                assert send() == peers
                times[name].append((time.perf_counter() - start) / peers)
    return {name: statistics.median(rounds) for name, rounds in times.items()}


@contextmanager
def wire() -> Iterator[Send]:
    """Sends each burst to an address of its own."""
    with underlay() as udp:
        yield partial(_send, udp)


@contextmanager
def underlay() -> Iterator[LinuxUdp]:
    """A socket whose datagrams leave by a veth at whose other end all is dropped unseen."""
    namespace = Namespace(f"l2b{os.getpid()}-flood")
    namespace.create()
    try:
        namespace.ip(
            "link add dev v0 type veth peer name v1",
            "link set v0 up",
            "link set v1 up",
            "addr add 192.0.2.1/24 dev v0",
            "neigh add 192.0.2.254 lladdr 02:00:00:00:00:fe dev v0",
            "route add default via 192.0.2.254",
        )
        namespace.run(["nft", "-f", "-"], stdin=DROP_ALL)
        with closing(inside(namespace, lambda: LinuxUdp.open(0))) as udp:
            yield udp
    finally:
        namespace.delete()


def _send(udp: LinuxUdp, bursts: list[Burst]) -> None:
    for burst, address in zip(bursts, cycle(ADDRESSES), strict=False):
        burst.address = address
    udp.send_bursts(bursts)


def main() -> None:
    """Print microseconds a datagram."""
    for size in (96, 1472):
        for peers in (1, 2, 4, 8, 12, 16, 32, MAX_MESSAGES):
            times = sending_times(peers, size)
            told = ", ".join(f"{name} {seconds * 1e6:.2f}" for name, seconds in times.items())
            print(f"{size} bytes to {peers} peers: {told}")


if __name__ == "__main__":
    main()
