"""A node whose file descriptors have run out: it repairs from its reserve, or degrades and tries again; it never ends."""

import os
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from l2overlay.testing.lab import Lab, child_environment
from tests.host.test_node_lifecycle import both_up, events, eventually, is_port, two_hosts

MakeLab = Callable[..., Lab]


def leave_free(pid: int, count: int) -> None:
    """Let the process open only `count` descriptors more."""
    taken = {int(entry.name) for entry in Path(f"/proc/{pid}/fd").iterdir()}
    limit, free = 0, 0
    while limit in taken or free < count:
        free += limit not in taken
        limit += 1
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (limit, 4096))


def test_tap_and_bridge_are_repaired_with_no_descriptor_left(lab: MakeLab) -> None:
    net = lab()
    h1, _, g1, g2 = two_hosts(net)
    node = both_up(net)[0]
    leave_free(node.pid, 0)
    for fault in ("link del tap-lab", "link set tap-lab nomaster", "link set tap-lab down"):
        h1.ip(fault)
        eventually(lambda: is_port(h1), 2.0)
    assert net.ping(g1, g2.ipv4).received == 3
    assert node.terminate() == 0


def test_without_even_a_reserve_the_node_degrades_and_repairs_when_it_can(lab: MakeLab) -> None:
    net = lab()
    h1, _, g1, g2 = two_hosts(net)
    node = both_up(net)[0]
    resource.prlimit(node.pid, resource.RLIMIT_NOFILE, (3, 4096))
    h1.ip("link set tap-lab nomaster")
    eventually(lambda: "degraded: " in node.output(), 3.0)
    assert "Too many open files" in node.output()
    time.sleep(6.0)  # it is tried again, and fails again
    assert node.process.poll() is None
    resource.prlimit(node.pid, resource.RLIMIT_NOFILE, (1024, 4096))
    eventually(lambda: is_port(h1), 6.0)
    assert net.ping(g1, g2.ipv4).received == 3
    assert "repaired" in [event["event"] for event in events(net, h1)]


def test_refused_accepts_are_one_line_and_a_full_log_holds_nobody_up(lab: MakeLab) -> None:
    """accept() fails ten times a second; later nobody reads the node's output any more."""
    net = lab()
    h1, _, g1, g2 = two_hosts(net)
    both_up(net)
    assert net.nodes[0].terminate() == 0
    argv = [sys.executable, "-m", "l2overlay", "join", "--peers", str(net.peers_file), "--key"]
    argv += [str(net.key_file(h1)), "--run-dir", str(net.run_dir(h1))]
    node = h1.popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=child_environment())
    assert node.stdout is not None
    while "READY" not in node.stdout.readline():
        assert node.poll() is None
    leave_free(node.pid, 0)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(net.run_dir(h1) / "control.sock"))
        time.sleep(2.0)
        os.set_blocking(node.stdout.fileno(), False)
        said = node.stdout.read()
        assert said.count("accept returned EMFILE") == 1
        assert said.count("\n") < 5
        fill(Path(f"/proc/{node.pid}/fd/1"))
        time.sleep(1.0)
        h1.ip("link del tap-lab")
        eventually(lambda: is_port(h1), 2.0)
    assert net.ping(g1, g2.ipv4).received == 3
    node.terminate()
    assert node.wait(3) == 0


def fill(pipe: Path) -> None:
    """Until it takes no byte more."""
    descriptor = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
    with suppress(BlockingIOError):
        while True:
            os.write(descriptor, b"x" * 4096)
    with suppress(BlockingIOError):
        while True:
            os.write(descriptor, b"x")
    os.close(descriptor)
