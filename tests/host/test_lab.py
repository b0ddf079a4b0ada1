"""The namespace toolkit itself: what it promises to the tests that stand on it.

g1 --[br-lab h1]-- under0 .1 ==(switch)== .2 under0 --[br-lab h2]-- g2
"""

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable

import pytest

from l2overlay.testing.lab import Lab, LabError, differences, existing_namespaces

OpenLab = Callable[..., Lab]


def test_hosts_reach_each_other_over_the_underlay_in_both_families(lab: OpenLab) -> None:
    opened = lab()
    h1, h2 = opened.add_underlay(hosts=2)
    assert opened.ping(h1, h2.ipv4).lost == 0
    assert opened.ping(h1, h2.ipv6).lost == 0


def test_guests_of_one_bridge_reach_each_other_and_those_of_another_host_do_not(lab: OpenLab) -> None:
    opened = lab()
    h1, h2 = opened.add_underlay(hosts=2)
    near, far = opened.add_guest(h1), opened.add_guest(h2)
    beside = opened.add_guest(h1)
    assert opened.ping(near, beside.ipv6).lost == 0
    assert opened.ping(near, far.ipv4, count=1, wait=0.2).received == 0


def test_a_small_underlay_mtu_refuses_larger_datagrams(lab: OpenLab) -> None:
    opened = lab()
    h1, h2 = opened.add_underlay(hosts=2, host_mtus=[1400])
    assert "mtu 1400" in h1.run(["ip", "link", "show", "under0"]).stdout
    assert "mtu 1500" in h2.run(["ip", "link", "show", "under0"]).stdout


def test_a_capture_holds_whole_frames(lab: OpenLab) -> None:
    opened = lab()
    h1, h2 = opened.add_underlay(hosts=2)
    with opened.capture(h2, "under0", "icmp") as capture:
        h1.run(["ping", "-c", "1", "-p", "cafe", "-s", "100", h2.ipv4])
    assert [len(frame) for frame in capture.frames()] == [142, 142]
    assert capture.contains(bytes.fromhex("cafe" * 20))
    assert not capture.contains(bytes.fromhex("beef" * 4))
    assert capture.dropped == 0


def test_a_snapshot_shows_a_new_link_and_forgets_it_when_it_is_gone(lab: OpenLab) -> None:
    opened = lab()
    (host,) = opened.add_underlay(hosts=1)
    before = opened.snapshot(host)
    host.ip("link add extra type bridge")
    assert any(line.startswith("ip link: new: extra ") for line in differences(before, opened.snapshot(host)))
    host.ip("link del extra")
    assert differences(before, opened.snapshot(host)) == []


def test_a_snapshot_shows_a_changed_sysctl(lab: OpenLab) -> None:
    opened = lab()
    (host,) = opened.add_underlay(hosts=1)
    before = opened.snapshot(host)
    host.run(["sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"])
    changed = differences(before, opened.snapshot(host))
    assert "sysctl net: new: /proc/sys/net/ipv4/ip_forward:1" in changed


def test_an_error_in_the_block_leaves_no_namespace_no_process_and_no_file() -> None:
    opened = Lab()
    with contextlib.suppress(ZeroDivisionError), opened:
        (host,) = opened.add_underlay(hosts=1)
        sleeper = opened.add_guest(host).popen(["sleep", "60"])
        raise ZeroDivisionError
    assert opened.left_behind() == []
    assert sleeper.returncode == -signal.SIGTERM
    assert not opened.folder.exists()


def test_a_set_up_that_fails_half_way_is_removed_too() -> None:
    opened = Lab()
    with pytest.raises(LabError), opened:
        opened.add_underlay(hosts=2, mtu=1)
    assert opened.left_behind() == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_takes_everything_down(number: signal.Signals) -> None:
    script = """
        import signal, time
        from l2overlay.testing.lab import Lab
        # Whoever runs the tests in the background of a shell has it ignored, and children inherit that.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        with Lab() as lab:
            (host,) = lab.add_underlay(hosts=1)
            lab.add_guest(host).popen(["sleep", "60"])
            print("up", flush=True)
            time.sleep(60)
    """
    argv = [sys.executable, "-c", textwrap.dedent(script)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        assert any(name.startswith(f"l2o-{process.pid}-") for name in existing_namespaces())
        os.kill(process.pid, number)
        process.wait(10)
    assert not any(name.startswith(f"l2o-{process.pid}-") for name in existing_namespaces())


def test_a_node_that_ends_before_ready_is_told_with_its_output(lab: OpenLab) -> None:
    opened = lab()
    (host,) = opened.add_underlay(hosts=1)
    missing = opened.folder / "missing.toml"
    with pytest.raises(LabError, match="the node of h1 ended with"):
        opened.start_node(host, peers_file=missing).wait_ready()
