"""A burst that the node cannot read in time is lost in the TAP's queue, and the node says so."""

import os
import signal
import sys
from collections.abc import Callable

from l2overlay.linux.features.tap import TAP_QUEUE
from l2overlay.testing.lab import Lab
from tests.host.test_node_lifecycle import answer, both_up, call, events, two_hosts

MakeLab = Callable[..., Lab]
SEND = """
import socket, sys
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
s.bind(("eth0", 0))
for _ in range(int(sys.argv[1])):
    s.send(bytes.fromhex("ffffffffffff02000000000188b5") + bytes(46))
"""


def test_frames_that_found_the_queue_full_are_named_by_status_events_and_doctor(lab: MakeLab) -> None:
    net = lab()
    h1, _, g1, _ = two_hosts(net)
    node = both_up(net)[0]
    os.kill(node.pid, signal.SIGSTOP)
    g1.run([sys.executable, "-c", SEND, str(TAP_QUEUE + 500)])
    os.kill(node.pid, signal.SIGCONT)
    lost = answer(net, h1)["drops"]["tap_overflow"]
    assert 450 <= lost <= 600
    assert f"{lost} tap_overflow" in call(net, h1, "status").stdout
    assert [event["lost"] for event in events(net, h1) if event["event"] == "tap_overflow"] == [lost]
    found = call(net, h1, "doctor").stdout
    assert f"the queue of tap-lab was full: {lost} frames of this host's side were lost" in found
