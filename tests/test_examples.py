"""Every example does what its README says.

The hosts of an example's own peers.toml become namespaces on one switch, each with a guest in the bridge that its node made.
"""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from l2overlay.config.read import load_config
from l2overlay.testing.lab import child_environment

EXAMPLES = Path(__file__).parent.parent / "examples"
NAMES = sorted(path.parent.name for path in EXAMPLES.glob("*/peers.toml"))


def run_example(*argv: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", *argv],
        capture_output=True,
        text=True,
        timeout=180,
        env=child_environment(),
        check=False,
    )


def require(*paths: str) -> None:
    """Skip the test unless all of these files are there."""
    missing = [path for path in paths if not Path(path).exists()]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed (`make test` does it)")


def test_there_are_examples() -> None:
    assert set(NAMES) >= {"two-hosts", "three-hosts", "ipv6-underlay"}


@pytest.mark.parametrize("name", NAMES)
def test_an_example_has_a_key_for_each_stanza_and_a_readme(name: str) -> None:
    config = load_config(EXAMPLES / name / "peers.toml")
    found = {path.stem for path in (EXAMPLES / name / "public-example-keys").iterdir()}
    assert found == {peer.name for peer in config.peers}
    assert name in (EXAMPLES / "README.md").read_text()
    assert f"stand_up.py {name}" in (EXAMPLES / name / "README.md").read_text()


@pytest.mark.host
@pytest.mark.parametrize("name", NAMES)
def test_hosts_and_guests_of_an_example_reach_each_other(name: str) -> None:
    done = run_example(EXAMPLES / "stand_up.py", name)
    assert done.returncode == 0, done.stdout + done.stderr
    hosts = len(load_config(EXAMPLES / name / "peers.toml").peers)
    pings = [line for line in done.stdout.splitlines() if line.startswith("ping ")]
    assert len(pings) >= 3 * hosts * (hosts - 1)
    assert all(line.endswith(": ok") for line in pings)


@pytest.mark.host
@pytest.mark.slow
def test_a_diskless_vm_boots_by_pxe_from_a_server_on_the_other_host(tmp_path: Path) -> None:
    require("/usr/bin/qemu-system-x86_64", "/usr/lib/ipxe/qemu/pxe-virtio.rom")
    done = run_example(EXAMPLES / "qemu" / "run.py", "--out", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    console, dnsmasq = (tmp_path / "console.txt").read_text(), (tmp_path / "dnsmasq.txt").read_text()
    assert "booted over l2overlay: 52:54:00:09:00:64 has 10.9.0.1" in console
    assert "payload... ok" in console
    assert "DHCPDISCOVER(eth0) 52:54:00:09:00:64" in dnsmasq
    assert "DHCPACK(eth0) 10.9.0.1" in dnsmasq
    assert "boot.ipxe to 10.9.0.1" in dnsmasq
    assert "payload to 10.9.0.1" in dnsmasq


@pytest.mark.host
def test_containers_of_lxc_on_two_hosts_ping_each_other_and_fetch_a_file(tmp_path: Path) -> None:
    require("/usr/bin/lxc-execute", "/bin/busybox")
    done = run_example(EXAMPLES / "lxc" / "run.py", "--out", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    seen = (tmp_path / "seen.txt").read_text()
    assert seen.count("lxc.net.0.link = br-boxes") == 2
    assert "3 packets transmitted, 3 packets received" in seen
    assert "1048576 bytes arrived by TCP as they were sent" in seen
    addresses = re.findall(r"ipv4\.address = 10\.9\.0\.(\d+)/24", seen)
    slices = [range(48, 64), range(80, 96)]  # the upper half of each host's own
    assert all(int(number) in part for number, part in zip(addresses, slices, strict=True))


@pytest.mark.host
def test_a_guest_of_one_host_reaches_the_world_behind_the_gateway_of_another(tmp_path: Path) -> None:
    require("/usr/sbin/iptables", "/usr/sbin/ip6tables")
    done = run_example(EXAMPLES / "gateway" / "run.py", "--out", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    seen = (tmp_path / "seen.txt").read_text()
    assert "g1 asks 203.0.113.1: you are 203.0.113.2\n" in seen  # masqueraded: not 10.9.0.1
    assert "g1 asks 2001:db8::1: you are 2001:db8::2\n" in seen
    assert "after leave: exit codes [0, 0], 0 lines of rules are left" in seen


@pytest.mark.host
def test_the_cni_plugin_adds_and_deletes_by_what_attach_prints(tmp_path: Path) -> None:
    require("/usr/lib/cni/bridge")
    done = run_example(EXAMPLES / "cni" / "run.py", "--out", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    seen = (tmp_path / "seen.txt").read_text()
    assert '"address": "10.9.0.33/24"' in seen
    assert '"address": "10.9.0.65/24"' in seen
    assert "ports after ADD: [1, 1]" in seen
    assert "3 packets transmitted, 3 received, 0% packet loss" in seen
    assert "ports after DEL: [0, 0]" in seen
    assert "exit codes: [0, 0]" in seen


@pytest.mark.host
@pytest.mark.slow
def test_containers_of_two_docker_engines_ping_each_other(tmp_path: Path) -> None:
    if not Path("/usr/sbin/dockerd").exists():
        pytest.skip("no Docker engine here (Debian's docker.io is not among what `make test` installs)")
    require("/bin/busybox")
    done = run_example(EXAMPLES / "docker" / "run.py", "--out", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    seen = (tmp_path / "seen.txt").read_text()
    assert "--ip-range 10.9.0.32/28" in seen
    assert "inet 10.9.0.33/24" in seen
    assert "3 packets transmitted, 3 packets received" in seen
    bridge = seen.partition("--- the bridge of h1")[2]
    assert bridge.count("inet ") == 1  # the host's own address, and no gateway of Docker's
    assert "after `network rm`: still there" in bridge
