"""`attach` and `detach` on real hosts.

h1 [br-lab]--tap--(node) ==UDP== (node)--tap--[br-lab] h2
    |  what is attached                          |  g: 10.9.0.1
"""

import json
import re
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from l2overlay.testing.lab import Guest, Host, Lab, Namespace, child_environment, differences
from l2overlay.testing.namespace import run_command, signal_group

MakeLab = Callable[..., Lab]
ADDRESSES = 'addresses = { h1 = ["10.9.0.201/24"], h2 = ["10.9.0.202/24"] }'
BOOT_TIMEOUT = 120.0
EXAMPLE = runpy.run_path(str(Path(__file__).parents[2] / "examples" / "qemu" / "run.py"))
"""A server that a VM can boot from, and what its console says then."""
BOOTED = EXAMPLE["BOOTED"]

FAIL_AT_EACH_STEP = """
import errno, itertools, sys
from l2overlay.cli.main import main
from l2overlay.linux import apply

real = apply.apply_changes

def apply_until(changes):
    if step == len(changes):
        sys.exit(0)
    change, kind = changes[step], type(changes[step])
    def fail(self, ipr):
        kind.apply(self, ipr)
        raise OSError(errno.EIO, "injected")
    object.__setattr__(change, "__class__", type(kind.__name__, (kind,), {"apply": fail, "__slots__": ()}))
    return real(changes)

apply.apply_changes = apply_until
for step in itertools.count():
    if main() == 0:
        break
"""
"""The verb again and again; each time another of its changes fails, after it was made. One line of stderr a time."""


TAKEN_MEANWHILE = """
import subprocess, sys
from l2overlay.cli.main import main
from l2overlay.linux import apply

real, link = apply.apply_changes, sys.argv.pop(1)

def apply_late(changes):
    subprocess.run(["ip", "tuntap", "add", "dev", link, "mode", "tap"], check=True)
    return real(changes)

apply.apply_changes = apply_late
sys.exit(main())
"""
"""The verb; somebody else makes a link of the same name after it has looked."""


@pytest.fixture
def net(lab: MakeLab) -> tuple[Lab, Host, Guest]:
    """Two nodes, and a guest behind the second."""
    opened = lab()
    h1, h2 = opened.add_underlay(2)
    opened.write_peers_toml(segment=ADDRESSES)
    opened.start_nodes()
    guest = opened.add_guest(h2, attach=False)
    guest.attach("br-lab")
    return opened, h1, guest


@pytest.fixture
def empty(net: tuple[Lab, Host, Guest]) -> Iterator[Namespace]:
    """A namespace with nothing in it."""
    namespace = Namespace(f"{net[0].prefix}-web")
    namespace.create()
    yield namespace
    namespace.delete()


def attach(net: Lab, host: Host, *argv: str) -> subprocess.CompletedProcess[str]:
    return call(host, "attach", *argv, "--run-dir", str(net.run_dir(host)))


def call(host: Host, *argv: str) -> subprocess.CompletedProcess[str]:
    """The verb on a host. It keeps the mounts of this machine, so that a namespace that it makes stays."""
    return run_python(host, "-m", "l2overlay", *argv)


def run_python(host: Host, *argv: str) -> subprocess.CompletedProcess[str]:
    command = ["nsenter", f"--net=/run/netns/{host.name}", sys.executable, *argv]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=30, env=child_environment(), check=False
    )


def succeeds(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_namespace_joins_and_detach_leaves_the_host_as_it_was(
    net: tuple[Lab, Host, Guest], empty: Namespace
) -> None:
    opened, h1, guest = net
    before = opened.snapshot(h1)
    options = ["--link", "veth-web", "--address", "10.9.0.33/24"]
    said = succeeds(attach(opened, h1, "netns", empty.name, *options))
    assert f"in {empty.name} with 10.9.0.33/24 is joined to br-lab by veth-web" in said
    assert opened.ping(empty, guest.ipv4).received == 3
    assert opened.ping(guest, "10.9.0.33").received == 3
    assert "undone: remove veth-web" in succeeds(call(h1, "detach", "netns", empty.name))
    assert differences(before, opened.snapshot(h1)) == []
    assert json.loads(empty.run(["ip", "-j", "link"]).stdout)[1:] == []


def test_a_namespace_that_attach_made_goes_with_detach(net: tuple[Lab, Host, Guest]) -> None:
    opened, h1, guest = net
    made = Namespace(f"{opened.prefix}-made")
    try:
        options = ["--create", "--link", "veth-made", "--address", "10.9.0.34/24"]
        succeeds(attach(opened, h1, "netns", made.name, *options))
        assert made.exists()
        assert opened.ping(made, guest.ipv4).received == 3
        assert f"undone: remove the network namespace {made.name}" in succeeds(
            call(h1, "detach", "netns", made.name)
        )
        assert not made.exists()
    finally:
        made.delete()


def test_a_failure_at_each_step_leaves_nothing_changed(net: tuple[Lab, Host, Guest]) -> None:
    opened, h1, _ = net
    before, created = opened.snapshot(h1), Namespace(f"{opened.prefix}-made")
    calls = {
        ("tap", "vm1"): ["make the TAP vm1", "set net.ipv6", "put vm1 into br-lab", "set vm1 up"],
        ("netns", created.name, "--create", "--link", "v0"): [
            "make the network namespace",
            "make v0 with its other end",
            "set net.ipv6",
            "put v0 into br-lab",
            "set v0 up",
            "set eth0 in",
        ],
    }
    try:
        for argv, steps in calls.items():
            run_dir = ["--run-dir", str(opened.run_dir(h1))]
            lines = run_python(h1, "-c", FAIL_AT_EACH_STEP, "attach", *argv, *run_dir).stderr.splitlines()
            assert len(lines) == len(steps), lines
            for line, step in zip(lines, steps, strict=True):
                assert f"l2overlay: could not {step}" in line
            assert not created.exists()
            assert differences(before, opened.snapshot(h1)) == []
    finally:
        created.delete()


def test_a_link_that_somebody_makes_meanwhile_is_neither_taken_nor_removed(
    net: tuple[Lab, Host, Guest], empty: Namespace
) -> None:
    opened, h1, _ = net
    run_dir = ["--run-dir", str(opened.run_dir(h1))]
    for link, argv in (("vm1", ["tap", "vm1"]), ("v0", ["netns", empty.name, "--link", "v0"])):
        failed = run_python(h1, "-c", TAKEN_MEANWHILE, link, "attach", *argv, *run_dir)
        assert (failed.returncode, failed.stderr.count("\n")) == (1, 1), failed.stderr
        assert f"could not make {'the TAP ' if link == 'vm1' else ''}{link}" in failed.stderr
        (theirs,) = json.loads(h1.run(["ip", "-j", "link", "show", "dev", link]).stdout)
        assert "master" not in theirs
        assert "ifalias" not in theirs
    assert json.loads(empty.run(["ip", "-j", "link"]).stdout)[1:] == []


def test_bad_input_is_one_line_with_its_exit_code_and_changes_nothing(
    net: tuple[Lab, Host, Guest], empty: Namespace
) -> None:
    opened, h1, _ = net
    h1.ip("link add taken type veth peer name taken2")
    succeeds(attach(opened, h1, "tap", "ours"))
    before = opened.snapshot(h1)
    for argv, code, text in (
        (["tap", "taken"], 2, "this host has a link taken already"),
        (["tap", "ours"], 2, "ours is attached to lab already; 'l2overlay detach tap ours' removes it, or"),
        (["qemu", "taken"], 2, "this host has a link taken already"),
        (["tap", "a-name-too-long-for-it"], 2, "has 22 bytes, and a link's name at most 15"),
        (["tap", "vm1", "--user", "nobdy"], 2, "this host has no user 'nobdy' (did you mean 'nobody'?)"),
        (["netns", f"{empty.name}x", "--link", "v0"], 2, f"(did you mean '{empty.name}'?)"),
        (
            ["netns", empty.name, "--link", "v0", "--address", "10.9.0.202/24"],
            2,
            "is the address of h2 in peers",
        ),
        (["docker", "--gateway", "192.0.2.1"], 2, "the gateway 192.0.2.1 is not in 10.9.0.0/24"),
    ):
        done = attach(opened, h1, *argv)
        assert (done.returncode, done.stdout) == (code, ""), (argv, done.stderr)
        assert text in done.stderr
        assert done.stderr.count("\n") == 1
    changed = differences(before, opened.snapshot(h1))
    assert [line for line in changed if " ours " not in line] == []  # it lost its carrier meanwhile


def test_detach_removes_nothing_that_attach_did_not_make(net: tuple[Lab, Host, Guest]) -> None:
    _, h1, _ = net
    h1.ip("tuntap add dev vm1 mode tap", "link set vm1 master br-lab up")
    refused = call(h1, "detach", "tap", "vm1")
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert "'attach tap' made no vm1 on this host" in refused.stderr
    assert h1.has_link("vm1")


def test_a_host_without_the_bridge_is_told_how_to_start_the_node(net: tuple[Lab, Host, Guest]) -> None:
    opened, h1, _ = net
    opened.nodes[0].terminate()
    before = opened.snapshot(h1)
    peers = str(opened.peers_file)
    done = call(h1, "attach", "tap", "vm1", "--peers", peers)
    assert done.returncode == 3
    assert "no bridge br-lab: start the node that makes it with 'l2overlay join lab'" in done.stderr
    assert "note: no node of lab runs" in succeeds(call(h1, "attach", "qemu", "--peers", peers))
    assert differences(before, opened.snapshot(h1)) == []


def test_who_is_not_root_is_told_so(net: tuple[Lab, Host, Guest]) -> None:
    opened, h1, _ = net
    peers = opened.folder / "readable.toml"
    peers.write_text(Path(str(opened.peers_file)).read_text())
    opened.folder.chmod(0o755)
    drop = ["setpriv", "--inh-caps=-all", "--bounding-set=-all", "--reuid=65534", "--clear-groups"]
    argv = [sys.executable, "-m", "l2overlay", "attach", "tap", "vm1", "--peers", str(peers)]
    done = h1.run([*drop, *argv], check=False)
    if "Permission denied" in done.stderr and "python" in done.stderr:
        pytest.skip("this interpreter is closed to other users")
    assert done.returncode == 5, done.stderr
    assert (
        "attach changes links, which needs CAP_NET_ADMIN; run it as root: sudo l2overlay attach"
        in done.stderr
    )
    assert not h1.has_link("vm1")


def test_json_says_what_was_changed_and_what_undoes_it(net: tuple[Lab, Host, Guest]) -> None:
    opened, h1, _ = net
    made = json.loads(succeeds(attach(opened, h1, "tap", "vm1", "--json")))
    assert (made["schema"], made["changed"], made["link"]) == ("l2overlay.attach/1", True, "vm1")
    assert made["undo"] == ["l2overlay detach tap vm1"]
    assert made["slice"] == {
        "subnet": "10.9.0.0/24",
        "range": "10.9.0.32/27",
        "pool": "10.9.0.32/28",
        "first": "10.9.0.33",
        "last": "10.9.0.47",
    }
    applied = json.loads(succeeds(attach(opened, h1, "firecracker", "vm2", "--apply", "--json")))
    assert (applied["changed"], applied["changes"][0]) == (True, "make the TAP vm2 for the user 0")
    assert applied["undo"] == ["l2overlay detach tap vm2"]
    succeeds(call(h1, "detach", "tap", "vm2"))
    printed = json.loads(succeeds(attach(opened, h1, "docker", "--json")))
    assert printed["changed"] is False
    assert any("--ip-range 10.9.0.32/28" in step["script"] for step in printed["steps"])
    listed = json.loads(succeeds(call(h1, "detach", "--json")))
    assert listed["attached"] == [{"kind": "tap", "name": "vm1", "segment": "lab", "link": "vm1"}]


def test_two_hosts_give_disjoint_slices_and_different_macs(net: tuple[Lab, Host, Guest]) -> None:
    opened, *_ = net
    told = [json.loads(succeeds(attach(opened, host, "docker", "--json"))) for host in opened.hosts]
    assert [data["slice"]["range"] for data in told] == ["10.9.0.32/27", "10.9.0.64/27"]
    assert told[0]["mac"] != told[1]["mac"]


@pytest.mark.slow
def test_qemu_as_nobody_boots_across_the_overlay_by_the_line_that_attach_prints(
    net: tuple[Lab, Host, Guest],
) -> None:
    """The TAP is nobody's, /dev/net/tun is open for it as udev makes it, and QEMU runs without any privilege."""
    missing = [
        p
        for p in ("/usr/bin/qemu-system-x86_64", "/usr/lib/ipxe/qemu/pxe-virtio.rom")
        if not Path(p).exists()
    ]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed (`make test` does it)")
    opened, h1, guest = net
    log, console = opened.folder / "dnsmasq.log", opened.folder / "console.log"
    EXAMPLE["serve"](guest, opened.folder / "tftp", log)
    script = opened.folder / "vm1.sh"
    script.write_text(succeeds(attach(opened, h1, "qemu", "vm1", "--user", "nobody", "--apply")))
    opened.folder.chmod(0o755)
    with console.open("wb") as output:
        vm = h1.popen(as_nobody(opened, script), stdout=output)
    deadline = time.monotonic() + BOOT_TIMEOUT
    while BOOTED not in (text := EXAMPLE["read_console"](console)):
        assert vm.poll() is None, text
        assert time.monotonic() < deadline, f"{text}\n{log.read_text()}"
        time.sleep(0.1)
    mac = mac_in(script)
    assert f"{BOOTED} {mac} has 10.9.0.1" in text
    assert "Uid:\t65534\t65534" in Path(f"/proc/{vm.pid}/status").read_text()
    held = call(h1, "detach", "tap", "vm1")
    assert (held.returncode, "a program holds the TAP vm1" in held.stderr) == (1, True)
    known = {station["mac"] for station in opened.nodes[1].ask("fdb")["stations"]}
    assert mac in known
    again = json.loads(succeeds(attach(opened, h1, "qemu", "vm1", "--json")))
    assert again["mac"] not in known  # the segment knows the first one now
    signal_group(vm, signal.SIGTERM)


def test_the_bridge_helper_joins_a_vm_by_the_script_that_attach_prints(net: tuple[Lab, Host, Guest]) -> None:
    """/etc is empty there, so that the host's own /etc/qemu is left alone."""
    helper = "/usr/lib/qemu/qemu-bridge-helper"
    if not Path(helper).exists():
        pytest.skip(f"{helper} not installed (`make test` does it)")
    opened, h1, _ = net
    script = opened.folder / "vm1.sh"
    script.write_text(succeeds(attach(opened, h1, "qemu-bridge", "vm1")))
    mac = mac_in(script)
    options = "-machine accel=tcg -m 64 -nographic -boot n"
    run = f"mount -t tmpfs none /etc && QEMU_OPTIONS='{options}' exec bash {script}"
    vm = h1.popen(["unshare", "--mount", "bash", "-c", run], stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + BOOT_TIMEOUT
    while mac not in {station["mac"] for station in opened.nodes[1].ask("fdb")["stations"]}:
        assert vm.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert "tap0" in opened.nodes[0].ask("status")["bridge"]["ports"]
    signal_group(vm, signal.SIGTERM)


def mac_in(script: Path) -> str:
    """The guest's MAC in what attach printed."""
    (mac,) = set(re.findall(r"\bmac=(52:[0-9a-f:]{14})", script.read_text()))
    return str(mac)


def as_nobody(net: Lab, script: Path) -> list[str]:
    """The command that runs the script as nobody, in mounts of its own where all may open /dev/net/tun."""
    tun = net.folder / "tun"
    run_command(["mknod", "-m", "666", str(tun), "c", "10", "200"])
    prepare = f"mount --bind {tun} /dev/net/tun"
    options = "QEMU_OPTIONS='-machine accel=tcg -m 64 -nographic -boot n'"
    drop = "setpriv --reuid=nobody --regid=nogroup --clear-groups --inh-caps=-all"
    return ["unshare", "--mount", "bash", "-c", f"{prepare} && exec env {options} {drop} bash {script}"]
