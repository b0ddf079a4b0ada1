"""How a node comes and goes on a real host, and what it does when somebody pulls its TAP or bridge away.

h1 [br-lab]--tap-lab--(node)== underlay ==(node)--tap-lab--[br-lab] h2
      |  g1                                                  |  g2
"""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from l2overlay.testing.lab import Guest, Host, Lab, NodeProcess, PingResult, differences
from l2overlay.testing.lab import child_environment as environment

MakeLab = Callable[..., Lab]
SEEN = 1.0
"""Seconds in which the node promises to notice."""


def call(
    lab: Lab, host: Host, verb: str, *extra: str, run_dir: Path | None = None
) -> "subprocess.CompletedProcess[str]":
    """`l2overlay VERB --run-dir ...` in the host; whatever its exit code."""
    env = [f"{name}={value}" for name, value in environment().items() if name.startswith("PYTHON")]
    where = ["--run-dir", str(run_dir or lab.run_dir(host))]
    return host.run(["env", *env, sys.executable, "-m", "l2overlay", verb, *where, *extra], check=False)


def answer(lab: Lab, host: Host, verb: str = "status") -> Any:
    return json.loads(call(lab, host, verb, "--json").stdout)


def eventually(true: Callable[[], bool], seconds: float) -> float:
    """Wait until `true()`; how long it took. Fails after `seconds`."""
    start = time.monotonic()
    while not true():
        assert time.monotonic() - start < seconds, f"not within {seconds} s"
        time.sleep(0.02)
    return time.monotonic() - start


def link(host: Host, name: str) -> dict[str, Any]:
    """One link as `ip` shows it; empty when there is none."""
    found = json.loads(host.run(["ip", "-j", "link", "show", "dev", name], check=False).stdout or "[]")
    return dict(found[0]) if found else {}


def is_port(host: Host, bridge: str = "br-lab") -> bool:
    tap = link(host, "tap-lab")
    return tap.get("master") == bridge and "UP" in tap["flags"]


@contextmanager
def pinging(guest: Guest, address: str, count: int, interval: float = 0.01) -> Iterator[list[PingResult]]:
    """Ping in the background; the result is in the list when the block has ended."""
    result: list[PingResult] = []
    thread = threading.Thread(target=lambda: result.append(Lab.ping(None, guest, address, count, interval)))  # type: ignore[arg-type]
    thread.start()
    try:
        yield result
    finally:
        thread.join()


def two_hosts(lab: Lab, *, with_bridge: bool = True) -> tuple[Host, Host, Guest, Guest]:
    """Two hosts with a guest each; without a bridge the guests are not plugged in yet."""
    h1, h2 = lab.add_underlay(hosts=2)
    g1, g2 = (lab.add_guest(host, attach=with_bridge) for host in (h1, h2))
    lab.write_peers_toml()
    return h1, h2, g1, g2


def both_up(lab: Lab) -> list[NodeProcess]:
    nodes = [lab.start_node(host) for host in lab.hosts]
    lab.wait_ready()
    return nodes


# Coming and going


@pytest.mark.parametrize("with_bridge", [True, False], ids=["bridge was there", "no bridge before"])
def test_sigterm_leaves_the_host_as_it_was(lab: MakeLab, with_bridge: bool) -> None:
    net = lab()
    h1, _, g1, g2 = two_hosts(net, with_bridge=with_bridge)
    before = [net.snapshot(host) for host in net.hosts]
    nodes = both_up(net)
    if not with_bridge:
        for guest in (g1, g2):
            guest.attach("br-lab")
    assert net.ping(g1, g2.ipv4).received == 3
    assert net.snapshot(h1)["files"]
    if not with_bridge:
        for guest in (g1, g2):
            guest.detach()
    for node in nodes:
        started = time.monotonic()
        assert node.terminate() == 0
        assert time.monotonic() - started < 2.0
    assert [differences(b, net.snapshot(host)) for b, host in zip(before, net.hosts, strict=True)] == [[], []]


@pytest.mark.parametrize("with_bridge", [True, False], ids=["bridge was there", "no bridge before"])
def test_killed_node_is_followed_by_one_that_leaves_nothing_behind(lab: MakeLab, with_bridge: bool) -> None:
    net = lab()
    h1, _, g1, g2 = two_hosts(net, with_bridge=with_bridge)
    before = net.snapshot(h1)
    both_up(net)
    for _ in range(3):
        net.nodes[0].kill()
        net.nodes[0] = net.start_node(h1)
        net.nodes.pop()
        net.nodes[0].wait_ready()
    if not with_bridge:
        for guest in (g1, g2):
            guest.attach("br-lab")
    assert net.ping(g1, g2.ipv4).received == 3
    if not with_bridge:
        g1.detach()
    assert net.nodes[0].terminate() == 0
    assert differences(before, net.snapshot(h1)) == []


@pytest.mark.parametrize("with_bridge", [True, False], ids=["bridge was there", "no bridge before"])
def test_cleanup_takes_away_what_a_killed_node_left(lab: MakeLab, with_bridge: bool) -> None:
    net = lab()
    h1, *_ = two_hosts(net, with_bridge=with_bridge)
    before = net.snapshot(h1)
    node = net.start_node(h1)
    node.wait_ready()
    refused = call(net, h1, "cleanup")
    assert refused.returncode == 1
    assert f"is running (pid {node.pid})" in refused.stderr
    node.kill()
    assert call(net, h1, "cleanup").returncode == 0
    assert differences(before, net.snapshot(h1)) == []
    assert call(net, h1, "cleanup").stdout == "nothing to undo\n"


def test_ready_within_a_second_and_a_half_when_peers_answer(lab: MakeLab) -> None:
    """The best of three starts: what else the machine does is not the node's, and what the node does is in all three."""
    net = lab()
    two_hosts(net)
    both_up(net)  # the first start compiles
    slowest = []
    for _ in range(3):
        for node in net.nodes:
            node.terminate()
        net.nodes.clear()
        nodes = both_up(net)
        assert all("peers 1/1" in (node.ready_line() or "") for node in nodes)
        slowest.append(max(float(re.findall(r"in ([\d.]+) s", node.ready_line() or "")[0]) for node in nodes))
        if slowest[-1] < 1.5:
            return
    pytest.fail(f"READY after {slowest} s")


def test_silent_peer_is_named_with_endpoint_reason_and_next_try_and_does_not_hold_up_ready(
    lab: MakeLab,
) -> None:
    net = lab()
    h1, h2 = net.add_underlay(hosts=2)
    net.write_peers_toml()
    node = net.start_node(h1)
    node.wait_ready()
    assert "READY segment lab node h1 peers 0/1" in node.output()
    assert re.search(rf"peer h2 \({h2.ipv4}:7470\) is not up: .+; next try in [\d.]+ s", node.output())
    status = call(net, h1, "status")
    assert status.returncode == 4
    assert re.search(r"down: .+; next try in", status.stdout)


def test_first_frame_passes_within_a_second_of_ready(lab: MakeLab) -> None:
    net = lab()
    _, _, g1, g2 = two_hosts(net)
    both_up(net)
    started = time.monotonic()
    assert net.ping(g1, g2.ipv4, count=1).received == 1
    assert time.monotonic() - started < 1.0


def test_leave_verb_waits_until_the_node_is_gone(lab: MakeLab) -> None:
    net = lab()
    h1, *_ = two_hosts(net)
    before = net.snapshot(h1)
    node = net.start_node(h1)
    node.wait_ready()
    assert call(net, h1, "leave").stdout == "left segment lab\n"
    assert differences(before, net.snapshot(h1)) == []
    assert node.process.wait(2) == 0


def test_second_interrupt_ends_at_once(lab: MakeLab) -> None:
    net = lab()
    h1, *_ = two_hosts(net)
    node = net.start_node(h1)
    node.wait_ready()
    os.kill(node.pid, signal.SIGSTOP)  # so that both are there before it looks
    os.kill(node.pid, signal.SIGINT)
    os.kill(node.pid, signal.SIGTERM)
    os.kill(node.pid, signal.SIGCONT)
    assert node.process.wait(1) in {130, 143}
    call(net, h1, "cleanup")


def test_restarted_peer_is_usable_a_second_after_it_is_ready(lab: MakeLab) -> None:
    net = lab()
    h1, _, g1, g2 = two_hosts(net)
    both_up(net)
    net.nodes[0].kill()
    again = net.start_node(h1)
    again.wait_ready()
    started = time.monotonic()
    assert net.ping(g2, g1.ipv4, count=1).received == 1
    assert time.monotonic() - started < 1.0


@pytest.mark.slow
def test_a_hundred_kills_leave_no_duplicates(lab: MakeLab) -> None:
    """Four hosts at once, 25 kills each: a start waits more than it works."""
    net = lab()
    hosts = net.add_underlay(hosts=4)
    with ThreadPoolExecutor(len(hosts)) as threads:
        for found in threads.map(partial(left_after_kills, net, kills=25), hosts):
            assert found == []


def left_after_kills(net: Lab, host: Host, kills: int) -> list[str]:
    """What differs on the host when its node was killed so often, and the next one has left by itself."""
    before = net.snapshot(host)
    file = net.write_peers_toml(hosts=[host], name=f"{host.label}.toml")
    for _ in range(kills):
        node = net.start_node(host, peers_file=file)
        node.wait_ready()
        node.kill()
    node = net.start_node(host, peers_file=file)
    node.wait_ready()
    links = json.loads(host.run(["ip", "-j", "link"]).stdout)
    assert sorted(entry["ifname"] for entry in links) == ["br-lab", "lo", "tap-lab", "under0"]
    assert node.terminate() == 0
    return differences(before, net.snapshot(host))


# What is refused


def test_second_node_on_one_run_directory_is_refused_with_a_line_and_the_pid(lab: MakeLab) -> None:
    net = lab()
    h1, *_ = two_hosts(net)
    first = net.start_node(h1)
    first.wait_ready()
    second = net.start_node(h1)
    assert second.process.wait(10) == 1
    assert f"held by the node with pid {first.pid}" in second.output()
    assert first.process.poll() is None


def test_second_node_of_a_segment_on_one_host_is_refused(lab: MakeLab) -> None:
    net = lab()
    h1, *_ = two_hosts(net)
    first = net.start_node(h1)
    first.wait_ready()
    second = net.start_node(h1, "--run-dir", str(net.folder / "other"))
    assert second.process.wait(10) == 1
    assert f"segment lab runs already in this network namespace (pid {first.pid})" in second.output()
    assert not (net.folder / "other").exists()


def test_port_in_use_is_one_line_and_nothing_stays(lab: MakeLab) -> None:
    net = lab()
    h1, *_ = two_hosts(net, with_bridge=False)
    before = net.snapshot(h1)
    taken = h1.popen(
        [
            sys.executable,
            "-c",
            "import socket; s = socket.socket(2, 2); s.bind(('', 7470)); print(1, flush=True); input()",
        ],
        stdin=subprocess.PIPE,
    )
    assert taken.stdout is not None
    taken.stdout.readline()
    node = net.start_node(h1)
    assert node.process.wait(10) == 1
    assert "UDP port 7470 is in use" in node.output().splitlines()[-1]
    assert differences(before, net.snapshot(h1)) == []


def test_without_privilege_it_exits_5_and_names_the_command(lab: MakeLab) -> None:
    net = lab()
    h1, *_ = two_hosts(net)
    env = [f"{name}={value}" for name, value in environment().items() if name.startswith("PYTHON")]
    drop = ["setpriv", "--bounding-set=-net_admin", "--inh-caps=-all"]
    argv = [
        sys.executable,
        "-m",
        "l2overlay",
        "join",
        "--peers",
        str(net.peers_file),
        "--run-dir",
        str(net.run_dir(h1)),
    ]
    done = h1.run(["env", *env, *drop, *argv], check=False)
    assert done.returncode == 5
    assert "root has no CAP_NET_ADMIN here; a container gets it with --cap-add=NET_ADMIN" in done.stderr
    as_user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all"]
    done = h1.run(["env", *env, *as_user, *argv], check=False)
    assert (done.returncode, "sudo l2overlay join" in done.stderr) == (5, True)
    assert not net.run_dir(h1).exists()


def test_net_admin_is_all_the_privilege_that_it_needs(lab: MakeLab) -> None:
    net = lab()
    h1, h2, g1, g2 = two_hosts(net, with_bridge=False)
    before = net.snapshot(h1)
    net.start_node(h2)
    env = [f"{name}={value}" for name, value in environment().items() if name.startswith("PYTHON")]
    only = ["setpriv", "--bounding-set=-all,+net_admin", "--inh-caps=-all"]
    files = [
        "--peers",
        str(net.peers_file),
        "--key",
        str(net.key_file(h1)),
        "--run-dir",
        str(net.run_dir(h1)),
    ]
    node = h1.popen(["env", *env, *only, sys.executable, "-m", "l2overlay", "join", *files])
    assert node.stdout is not None
    while "READY" not in (line := node.stdout.readline()):
        assert line, "ended before it was READY"
    net.wait_ready()
    for guest in (g1, g2):
        guest.attach("br-lab")
    assert net.ping(g1, g2.ipv4).received == 3
    g1.detach()
    node.terminate()
    assert node.wait(2) == 0
    assert differences(before, net.snapshot(h1)) == []


def test_missing_own_stanza_is_exit_78_with_the_stanza_to_paste(lab: MakeLab) -> None:
    net = lab()
    h1, h2 = net.add_underlay(hosts=2)
    net.write_peers_toml(hosts=[h2])
    node = net.start_node(h1)
    assert node.process.wait(10) == 78
    assert "[[peers]]" in node.output()
    assert not net.run_dir(h1).exists()


def test_full_disk_is_told_and_does_not_stop_a_node(lab: MakeLab) -> None:
    """The run directory is a file system of one page, and that is taken."""
    net = lab()
    h1, *_ = two_hosts(net)
    run_dir = net.run_dir(h1)
    run_dir.mkdir()
    env = [f"{name}={value}" for name, value in environment().items() if name.startswith("PYTHON")]
    join = [
        sys.executable,
        "-m",
        "l2overlay",
        "join",
        "--peers",
        str(net.peers_file),
        "--key",
        str(net.key_file(h1)),
    ]
    script = 'mount -t tmpfs -o size=4k tmpfs "$0" && head -c 4096 /dev/zero > "$0/fill"; exec "$@"'
    private = ["unshare", "-m", "sh", "-c", script, str(run_dir)]
    node = h1.popen(["env", *env, *private, *join, "--run-dir", str(run_dir)])
    assert node.stdout is not None
    said = ""
    while "READY" not in said:
        line = node.stdout.readline()
        assert line, said
        said += line
    assert "stamp cannot be written (No space left on device); going on without it" in said
    node.terminate()
    assert node.wait(2) == 0


# Somebody pulls the carpet away


def test_deleted_tap_is_made_again_within_a_second_with_the_same_mac(lab: MakeLab) -> None:
    net = lab()
    h1, _, g1, g2 = two_hosts(net)
    node = both_up(net)[0]
    mac = link(h1, "tap-lab")["address"]
    h1.ip("link del tap-lab")
    eventually(lambda: is_port(h1), SEEN)
    assert link(h1, "tap-lab")["address"] == mac
    assert net.ping(g1, g2.ipv4).received == 3
    before = node.cpu_seconds()
    time.sleep(1.0)
    assert node.cpu_seconds() - before < 0.1  # no busy loop
    assert answer(net, h1)["state"] == "ok"
    assert "tap_lost" in [event["event"] for event in events(net, h1)]


def test_tap_that_is_deleted_again_and_again_comes_back_every_time(lab: MakeLab) -> None:
    net = lab()
    h1, _, g1, g2 = two_hosts(net)
    node = both_up(net)[0]
    descriptors = Path(f"/proc/{node.pid}/fd")
    before = len(list(descriptors.iterdir()))
    for _ in range(5):
        h1.ip("link del tap-lab")
        eventually(lambda: is_port(h1), 4.0)
    assert net.ping(g1, g2.ipv4).received == 3
    assert len(list(descriptors.iterdir())) < before + 5


def test_tap_set_down_is_set_up_within_a_second(lab: MakeLab) -> None:
    net = lab()
    h1, _, g1, g2 = two_hosts(net)
    both_up(net)
    h1.ip("link set tap-lab down")
    eventually(lambda: is_port(h1), SEEN)
    assert net.ping(g1, g2.ipv4).received == 3


def test_tap_taken_out_of_its_bridge_is_back_within_a_second(lab: MakeLab) -> None:
    net = lab()
    h1, _, g1, g2 = two_hosts(net)
    both_up(net)
    h1.ip("link set tap-lab nomaster")
    eventually(lambda: is_port(h1), SEEN)
    assert net.ping(g1, g2.ipv4).received == 3


def test_deleted_bridge_of_ours_is_made_again(lab: MakeLab) -> None:
    net = lab()
    h1, _, g1, g2 = two_hosts(net, with_bridge=False)
    before = net.snapshot(h1)
    node = both_up(net)[0]
    h1.ip("link del br-lab")
    eventually(lambda: is_port(h1), SEEN)
    for guest in (g1, g2):
        guest.attach("br-lab")
    assert net.ping(g1, g2.ipv4).received == 3
    g1.detach()
    assert node.terminate() == 0
    assert differences(before, net.snapshot(h1)) == []


def test_adopted_bridge_that_its_owner_deletes_is_a_trouble_until_it_is_back(lab: MakeLab) -> None:
    net = lab()
    h1, _, g1, g2 = two_hosts(net)
    both_up(net)
    h1.ip("link del br-lab")
    eventually(lambda: answer(net, h1)["state"] == "degraded", SEEN + 0.5)
    assert "br-lab was removed" in answer(net, h1)["degraded"][0]
    net.add_bridge(h1)
    g1.attach("br-lab")
    eventually(lambda: is_port(h1), SEEN)
    assert net.ping(g1, g2.ipv4).received == 3
    assert answer(net, h1)["state"] == "ok"


def test_new_underlay_address_is_used_within_two_seconds(lab: MakeLab) -> None:
    net = lab()
    h1, h2, g1, g2 = two_hosts(net)
    both_up(net)
    assert net.ping(g1, g2.ipv4).received == 3
    h1.ip("addr del 10.77.0.1/24 dev under0", "addr add 10.77.0.99/24 dev under0")
    eventually(lambda: net.ping(g1, g2.ipv4, count=1, wait=0.3).received == 1, 2.0)
    eventually(lambda: answer(net, h2)["peers"][0]["endpoint"] == "10.77.0.99:7470", 2.0)


def test_underlay_link_that_goes_down_and_up_carries_again_at_once(lab: MakeLab) -> None:
    net = lab()
    h1, _, g1, g2 = two_hosts(net)
    both_up(net)
    h1.ip("link set under0 down", "link set under0 up")
    eventually(lambda: net.ping(g1, g2.ipv4, count=1, wait=0.3).received == 1, 2.0)


def test_underlay_mtu_is_followed_down_and_up(lab: MakeLab) -> None:
    net = lab()
    h1, _, g1, g2 = two_hosts(net)
    both_up(net)

    def size() -> int:
        return int(answer(net, h1)["peers"][0]["datagram_size"])

    eventually(lambda: size() == 1472, 5.0)
    h1.ip("link set under0 mtu 1400")
    eventually(lambda: size() == 1372, 5.0)
    assert net.ping(g1, g2.ipv4, size=1472).received == 3  # still 1500 bytes for the guests
    h1.ip("link set under0 mtu 1500")
    eventually(lambda: size() == 1472, 5.0)


# Reload


def test_broken_file_at_reload_is_told_with_its_place_and_no_ping_is_lost(lab: MakeLab) -> None:
    net = lab()
    h1, _, g1, g2 = two_hosts(net)
    node = both_up(net)[0]
    assert net.peers_file is not None
    good = net.peers_file.read_text()
    assert net.ping(g1, g2.ipv4).received == 3
    with pinging(g1, g2.ipv4, count=200) as result:
        for broken in (good[: len(good) // 2], good.replace("[segment]", "[segmnet]"), "", good + good):
            net.peers_file.write_text(broken)
            refused = call(net, h1, "reload")
            assert refused.returncode == 78
            assert "the node keeps its old configuration" in refused.stderr
        net.peers_file.write_text(good.replace('name = "h2"', 'name = "h2"\nmacs = ["nonsense"]'))
        place = re.search(r"peers\.toml:\d+:\d+: .*nonsense", call(net, h1, "reload").stderr)
        net.peers_file.unlink()
        node.process.send_signal(signal.SIGHUP)
        eventually(lambda: "cannot be read" in node.output(), 1.0)
    assert place
    assert result[0].lost == 0


def test_reload_adds_and_removes_peers_and_leaves_the_others_alone(lab: MakeLab) -> None:
    net = lab()
    h1, h2, h3 = net.add_underlay(hosts=3)
    g1, g2, g3 = (net.add_guest(host) for host in (h1, h2, h3))
    net.write_peers_toml()
    net.start_nodes()
    assert net.peers_file is not None
    everyone = net.peers_file.read_text()
    with pinging(g1, g2.ipv4, count=200) as result:
        net.peers_file.write_text(everyone[: everyone.rindex("[[peers]]")])
        assert call(net, h1, "reload").stdout == "- peer h3\n"
        assert call(net, h2, "reload").stdout == "- peer h3\n"
        eventually(lambda: net.ping(g1, g3.ipv4, count=1, wait=0.2).received == 0, SEEN)
        net.peers_file.write_text(everyone)
        assert "+ peer h3" in call(net, h1, "reload").stdout
        eventually(lambda: net.ping(g1, g3.ipv4, count=1, wait=0.3).received == 1, 7.0)
    assert result[0].lost == 0


def test_reload_moves_to_another_port_and_adds_an_address(lab: MakeLab) -> None:
    net = lab()
    h1, h2, g1, g2 = two_hosts(net, with_bridge=False)
    before = net.snapshot(h1)
    node = both_up(net)[0]
    for guest in (g1, g2):
        guest.attach("br-lab")
    net.write_peers_toml(port=7480, segment='addresses = { h1 = ["10.9.0.201/24"] }')
    for host in (h1, h2):
        assert call(net, host, "reload").returncode == 0
    eventually(lambda: net.ping(g1, g2.ipv4, count=1, wait=0.3).received == 1, 3.0)
    assert net.ping(g2, "10.9.0.201").received == 3
    assert answer(net, h1)["underlay"]["port"] == 7480
    g1.detach()
    assert node.terminate() == 0
    assert differences(before, net.snapshot(h1)) == []


def test_what_needs_a_restart_is_said_and_not_done(lab: MakeLab) -> None:
    net = lab()
    h1, _, g1, g2 = two_hosts(net)
    both_up(net)
    net.write_peers_toml(segment='mtu = 9000\nsuite = "chacha20-poly1305"')
    said = call(net, h1, "reload").stdout
    assert said.count("needs a restart") == 2
    assert net.ping(g1, g2.ipv4).received == 3
    assert answer(net, h1)["mtu"] == 1500


# Looking in


def events(net: Lab, host: Host) -> list[dict[str, Any]]:
    return [json.loads(line) for line in call(net, host, "events", "--json").stdout.splitlines()]


def test_the_host_bridge_forgets_the_stations_of_a_peer_that_left(lab: MakeLab) -> None:
    net = lab()
    h1, _, g1, g2 = two_hosts(net)
    _, node = both_up(net)
    assert net.ping(g1, g2.ipv4).received == 3

    def learned() -> bool:
        return g2.mac in h1.run(["bridge", "fdb", "show", "dev", "tap-lab"]).stdout

    assert learned()
    assert node.terminate() == 0
    eventually(lambda: not learned(), SEEN)


def test_an_adopted_bridge_that_takes_router_advertisements_is_noted_at_join(lab: MakeLab) -> None:
    net = lab()
    h1 = net.add_underlay(hosts=2)[0]
    net.add_bridge(h1, "br-lab")
    h1.run(["sh", "-c", "echo 2 > /proc/sys/net/ipv6/conf/br-lab/accept_ra"])
    net.write_peers_toml()
    node = net.start_node(h1)
    net.wait_ready()
    assert "note: bridge br-lab takes router advertisements" in node.output()


def test_status_shows_a_port_that_somebody_else_adds_or_takes_away(lab: MakeLab) -> None:
    net = lab()
    h1, _ = net.add_underlay(hosts=2)
    net.write_peers_toml()
    net.start_node(h1)
    net.wait_ready()

    def seen() -> Any:
        return answer(net, h1)["bridge"]["ports"]

    assert seen() == ["tap-lab"]
    h1.ip("link add vm1 type veth peer name guest1", "link set vm1 master br-lab")
    eventually(lambda: seen() == ["tap-lab", "vm1"], SEEN)
    h1.ip("link del vm1")
    eventually(lambda: seen() == ["tap-lab"], SEEN)


def test_verbs_answer_in_words_and_in_json(lab: MakeLab) -> None:
    net = lab()
    h1, h2, g1, g2 = two_hosts(net)
    both_up(net)
    assert net.ping(g1, g2.ipv4).received == 3
    status = answer(net, h1)
    assert status["schema"] == "l2overlay.status/1"
    assert (status["segment"], status["node"], status["peers_up"]) == ("lab", "h1", 1)
    assert status["bridge"]["ports"] == ["g1", "tap-lab"]
    assert {s["mac"]: s["peer"] for s in answer(net, h1, "fdb")["stations"]}[g2.mac] == "h2"
    assert answer(net, h1, "peers")["peers"][0]["endpoint"] == f"{h2.ipv4}:7470"
    assert "peer_up" in [event["event"] for event in events(net, h1)]
    assert re.search(r"h2 +10\.77\.0\.2:7470 +up ", call(net, h1, "status").stdout)
    assert re.search(rf"{g2.mac} +- +h2 ", call(net, h1, "fdb").stdout)
    assert call(net, h1, "status", run_dir=net.folder / "nowhere").returncode == 3


def test_events_follow_until_the_node_ends(lab: MakeLab) -> None:
    net = lab()
    h1, *_ = two_hosts(net)
    node = net.start_node(h1)
    node.wait_ready()
    env = [f"{name}={value}" for name, value in environment().items() if name.startswith("PYTHON")]
    argv = [sys.executable, "-m", "l2overlay", "events", "-f", "--json", "--run-dir", str(net.run_dir(h1))]
    follower = h1.popen(["env", *env, *argv])
    eventually(lambda: _clients(h1, net.run_dir(h1)) > 0, 3.0)
    h1.ip("link set tap-lab nomaster")
    assert follower.stdout is not None
    while json.loads(follower.stdout.readline())["event"] != "repaired":
        pass
    node.terminate()
    assert follower.wait(2) == 0


def _clients(host: Host, run_dir: Path) -> int:
    """Connections at the control socket: the listener is one line, each connection another."""
    return host.run(["cat", "/proc/net/unix"]).stdout.count(str(run_dir / "control.sock")) - 1


def test_memory_stays_below_80_mib(lab: MakeLab) -> None:
    net = lab()
    _, _, g1, g2 = two_hosts(net)
    nodes = both_up(net)
    net.ping(g1, g2.ipv4, count=500, interval=0.002, size=1400)
    assert max(node.resident_memory() for node in nodes) < 80 << 20
