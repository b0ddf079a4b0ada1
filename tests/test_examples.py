"""Every example does what its README says.

The hosts of an example's own peers.toml become namespaces on one switch, each with a guest in the bridge that its node made.
"""

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
    missing = [
        p
        for p in ("/usr/bin/qemu-system-x86_64", "/usr/lib/ipxe/qemu/pxe-virtio.rom")
        if not Path(p).exists()
    ]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed (`make test` does it)")
    done = run_example(EXAMPLES / "qemu" / "run.py", "--out", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    console, dnsmasq = (tmp_path / "console.txt").read_text(), (tmp_path / "dnsmasq.txt").read_text()
    assert "booted over l2overlay: 52:54:00:09:00:64 has 10.9.0.1" in console
    assert "payload... ok" in console
    assert "DHCPDISCOVER(eth0) 52:54:00:09:00:64" in dnsmasq
    assert "DHCPACK(eth0) 10.9.0.1" in dnsmasq
    assert "boot.ipxe to 10.9.0.1" in dnsmasq
    assert "payload to 10.9.0.1" in dnsmasq
