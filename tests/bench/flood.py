"""What one broadcast costs a node with many peers: real sessions, real sends, no TAP.

Each peer has its own key, so each copy is sealed, and each has its own address, so each is one send.
"""

import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial

from l2overlay.addresses import Address
from l2overlay.demo.namespace import Namespace
from l2overlay.linux.udp import LinuxUdp
from l2overlay.seams import Burst, TapFrame

from .inmemory import Mesh
from .topology import inside

ROUNDS = 200
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


@contextmanager
def wire() -> Iterator[Send]:
    """Sends each burst to an address of its own, out of a veth at whose other end all is dropped unseen."""
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
            yield partial(_send, udp)
    finally:
        namespace.delete()


def _send(udp: LinuxUdp, bursts: list[Burst]) -> None:
    for number, burst in enumerate(bursts):
        burst.address = Address(f"198.51.100.{number % 250 + 1}", 7470)
    udp.send_bursts(bursts)
