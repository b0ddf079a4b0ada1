"""Faults of the host that a node runs on: a file that is broken when it is read again, a full disk, a log that blocks.

g1 --[br-lab h1]--(node)==(switch)==(node)--[br-lab h2]-- g2
"""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from l2overlay import keys
from l2overlay.addresses import format_key
from l2overlay.control.client import ask, change
from l2overlay.errors import NoDaemonError
from l2overlay.testing.lab import Host, Lab, child_environment
from tests.host.stations import Flow, eventually, peer_of, pinging, stations_of, status, tell_nodes

SEVEN_MISTAKES = """\
[segment]
name = "lab"
mtu = "large"
ageing = 300

[[peers]]
name = "h1"
public_key = "{h1}"
endpoint = "10.77.0.1"

[[peers]]
name = "h2"
public_key = "{h2}"
endpoint = "10.77.0.2:7470"
macs = ["52:54:09:00:00:0"]

[[peers]]
name = "h2"
public_key = "{h1}"
persistent_keepalive = -1
"""
PLACES = [(3, 7), (4, 1), (9, 12), (15, 9), (18, 8), (19, 14), (20, 24)]


@pytest.fixture(scope="module")
def net() -> Iterator[Lab]:
    with Lab() as lab:
        for host in lab.add_underlay(hosts=2):
            lab.add_guest(host)
        lab.write_peers_toml()
        lab.start_nodes()
        yield lab


@pytest.fixture(autouse=True)
def _what_the_nodes_say(net: Lab) -> Iterator[None]:
    yield
    tell_nodes(net)


@contextmanager
def another_file(net: Lab, text: str) -> Iterator[None]:
    """peers.toml with other content, for the length of the block."""
    assert net.peers_file is not None
    good = net.peers_file.read_text()
    net.peers_file.write_text(text)
    try:
        yield
    finally:
        net.peers_file.write_text(good)


def reload(net: Lab, host: Host) -> "subprocess.CompletedProcess[str]":
    """`l2overlay reload` as a person types it."""
    argv = [sys.executable, "-m", "l2overlay", "reload", "--run-dir", str(net.run_dir(host))]
    return host.run(["env", *_environment(), *argv], check=False)


def _environment() -> list[str]:
    return [f"{name}={value}" for name, value in child_environment().items() if name.startswith("PYTHON")]


# peers.toml


def test_seven_mistakes_are_seven_lines_with_their_places_and_no_ping_of_a_thousand_is_lost(net: Lab) -> None:
    (h1, h2), (g1, g2) = net.hosts, net.guests
    broken = SEVEN_MISTAKES.format(h1=format_key(h1.public_key), h2=format_key(h2.public_key))
    assert net.ping(g1, g2.ipv4).lost == 0
    with pinging(net, g1, g2.ipv4, 1000, 0.002) as pings, another_file(net, broken):
        refused = reload(net, h1)
    said = refused.stdout + refused.stderr
    print(said)
    found = [(int(line), int(column)) for line, column in re.findall(r"peers\.toml:(\d+):(\d+): \S", said)]
    assert found == PLACES
    assert refused.returncode == 78
    assert pings[0].lost == 0
    assert peer_of(net.nodes[0], "h2")["up"]
    assert "reloaded: no changes" in reload(net, h1).stdout + net.nodes[0].output()


def test_a_peer_whose_key_was_changed_is_refused_within_a_second_and_its_stations_flushed(net: Lab) -> None:
    (h1, h2), (g1, g2) = net.hosts, net.guests
    assert net.peers_file is not None
    changed = net.peers_file.read_text().replace(
        format_key(h2.public_key), format_key(keys.public_key(keys.generate()))
    )
    assert net.ping(g1, g2.ipv4).lost == 0
    assert g2.mac in stations_of(net.nodes[0], "h2")
    with another_file(net, changed):
        assert reload(net, h1).returncode == 0
        seconds = eventually(lambda: not peer_of(net.nodes[1], "h1")["up"], 1.0)
        print(f"down at the other end {seconds:.3f} s after the reload")
        assert stations_of(net.nodes[0], "h2") == []
        assert "peer h2 is down: it was removed" in net.nodes[0].output()
        assert g1.mac not in stations_of(net.nodes[1], "h1")
        assert net.ping(g2, g1.ipv4, count=3, wait=0.2).received == 0
    assert reload(net, h1).returncode == 0
    eventually(lambda: net.ping(g1, g2.ipv4, count=1, wait=0.3).received == 1, 7.0)


# Files and logs


def test_a_full_disk_costs_one_line_and_nothing_else(net: Lab) -> None:
    """A tmpfs of one page in the node's own mount namespace; it goes with the node."""
    h1, g1, g2 = net.hosts[0], *net.guests
    assert net.nodes[0].terminate() == 0
    run_dir = net.folder / "full"
    run_dir.mkdir()
    with _node_with_run_dir_on(net, h1, run_dir, "size=4k") as (node, log):
        inside = Path(f"/proc/{node.pid}/root{run_dir}/control.sock")
        eventually(lambda: "READY" in log.read_text(), 10.0)
        assert log.read_text().count("No space left on device") == 1
        assert net.ping(g1, g2.ipv4).lost == 0
        assert ask(inside, "status")["peers_up"] == 1
        os.killpg(node.pid, signal.SIGTERM)
        assert node.wait(2) == 0
    net.nodes[0] = net.start_node(h1)
    net.nodes.pop()
    net.nodes[0].wait_ready()


def test_a_run_directory_that_cannot_be_written_is_one_line_and_nothing_stays(net: Lab) -> None:
    h1 = net.hosts[0]
    assert net.nodes[0].terminate() == 0
    run_dir = net.folder / "never"
    run_dir.mkdir()
    with _node_with_run_dir_on(net, h1, run_dir, "size=64k,ro") as (node, log):
        assert node.wait(5) != 0
        said = log.read_text()
        print(said)
        assert "Traceback" not in said
        assert str(run_dir) in said.splitlines()[-1]
        assert "Read-only file system" in said.splitlines()[-1]
        assert not h1.has_link("tap-lab")
    net.nodes[0] = net.start_node(h1)
    net.nodes.pop()
    net.nodes[0].wait_ready()


@contextmanager
def _node_with_run_dir_on(
    net: Lab, host: Host, run_dir: Path, options: str
) -> Iterator[tuple["subprocess.Popen[str]", Path]]:
    """`l2overlay join` whose run directory is a file system of its own."""
    join = [sys.executable, "-m", "l2overlay", "join", "--peers", str(net.peers_file)]
    join += ["--key", str(net.key_file(host)), "--run-dir", str(run_dir)]
    script = 'mount -t tmpfs -o "$1" tmpfs "$2" && shift 2 && exec "$@"'
    log = net.folder / f"{run_dir.name}.log"
    with log.open("wb") as output:
        node = host.popen(
            ["unshare", "-m", "sh", "-c", script, "sh", options, str(run_dir), *join],
            stdout=output,
            env=child_environment(),
        )
    try:
        yield node, log
    finally:
        print(log.read_text())
        if node.poll() is None:
            os.killpg(node.pid, signal.SIGKILL)
            node.wait()


def test_a_log_that_nobody_reads_holds_nothing_up(net: Lab) -> None:
    """A pipe that is full, then one whose reader is gone."""
    h1, g1, g2 = net.hosts[0], *net.guests
    assert net.nodes[0].terminate() == 0
    argv = [sys.executable, "-m", "l2overlay", "join", "--peers", str(net.peers_file)]
    argv += ["--key", str(net.key_file(h1)), "--run-dir", str(net.run_dir(h1))]
    node = h1.popen(argv, env=child_environment())
    socket_path = net.run_dir(h1) / "control.sock"
    eventually(lambda: _answers(socket_path) and ask(socket_path, "status")["peers_up"] == 1, 5.0)
    with Flow(g1, g2) as flow, another_file(net, "[segment]\n" + "nonsense = 1\n" * 2 + "x = 1\n" * 400):
        while not ask(socket_path, "status")["log_lines_lost"]:
            change(socket_path, "reload")
    assert flow.lost == []
    assert node.stdout is not None
    node.stdout.close()
    with Flow(g1, g2) as flow, another_file(net, "nonsense = 1\n"):
        change(socket_path, "reload")
        time.sleep(0.1)
    assert flow.lost == []
    os.killpg(node.pid, signal.SIGTERM)
    assert node.wait(2) == 0
    net.nodes[0] = net.start_node(h1)
    net.nodes.pop()
    net.nodes[0].wait_ready()
    assert status(net.nodes[0])["log_lines_lost"] == 0


def _answers(path: Path) -> bool:
    try:
        ask(path, "status")
    except NoDaemonError:
        return False
    return True
