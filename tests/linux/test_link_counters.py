"""The kernel's counters of a real TAP that nobody reads."""

import socket
from collections.abc import Callable

from l2overlay.linux.link_counters import read_link_counters
from l2overlay.linux.tap import LinuxTap
from l2overlay.testing.lab import Namespace

from .conftest import inside

FRAME = bytes.fromhex("ffffffffffff02000000000188b5") + bytes(46)


def test_frames_that_the_queue_of_a_tap_had_no_room_for_are_counted(
    namespace: Callable[[], Namespace],
) -> None:
    host = namespace()
    with inside(host):
        tap = LinuxTap.open("tap0", offload=False)
        host.ip("link set tap0 txqueuelen 10 addrgenmode none up")
        before = read_link_counters("tap0")
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender:
            sender.bind(("tap0", 0))
            for _ in range(50):
                sender.send(FRAME)
        after = read_link_counters("tap0")
        assert before is not None
        assert after is not None
        ours = [frame for frame in tap.receive_frames(100) if frame.endswith(FRAME)]
        assert (
            50 <= len(ours) + after.tx_dropped - before.tx_dropped <= 60
        )  # the kernel's own MLD is lost, too
        assert after.tx_dropped - before.tx_dropped >= 38
        assert read_link_counters("tap1") is None
        tap.close()
