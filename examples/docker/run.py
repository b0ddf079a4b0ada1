"""Containers of Docker on two hosts in one segment: `sudo .venv/bin/python examples/docker/run.py [--out DIR]`.

    host h1                                                 host h2
    dockerd: web --veth--[br-docks]--node ==UDP== node--[br-docks]--veth-- db :dockerd

Each host has a Docker daemon of its own, and the network that `l2overlay attach docker` prints there: the segment's
bridge, and addresses that the other host does not hand out. The two hosts are network namespaces; the daemons
keep everything in a directory that goes at the end, and change nothing but the iptables of their hosts.
"""

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from l2overlay.testing.lab import Lab, LabError, NodeProcess
from l2overlay.testing.namespace import run_command, stop_processes

DOCKER, DOCKERD = "/usr/bin/docker", "/usr/sbin/dockerd"
BUSYBOX = Path("/bin/busybox")
DAEMON_TIMEOUT = 30.0
CGROUPS = Path("/sys/fs/cgroup")
ADDRESSES = 'addresses = { h1 = ["10.9.0.1/24"], h2 = ["10.9.0.2/24"] }'
PROGRAMS = "/usr/sbin:/usr/bin:/sbin:/bin"
"""Where Debian's docker is, of one version with its dockerd."""
LIMITS = ("--ulimit", "nofile=1024:1024")
"""dockerd gives a million, which a host without CAP_SYS_RESOURCE refuses."""


@dataclass(frozen=True, slots=True)
class Engine:
    """A Docker daemon of a host, and what `attach` prints for it."""

    node: NodeProcess
    socket: Path
    told: dict[str, Any]

    def run(self, script: str) -> str:
        """Lines of shell on the host, with `docker` for this daemon."""
        lines = ["set -e", f"export DOCKER_HOST=unix://{self.socket} PATH={PROGRAMS}", script]
        return run_command([*inside(self.node), "bash", "-c", "\n".join(lines)], timeout=60).stdout

    @property
    def address(self) -> str:
        """What the first container of this host gets."""
        return str(self.told["slice"]["first"])


def inside(node: NodeProcess) -> list[str]:
    """The way into a host that keeps /sys, where Docker needs its cgroups."""
    return ["nsenter", f"--net=/run/netns/{node.host.name}"]


@contextlib.contextmanager
def own_folder(folder: Path) -> Iterator[None]:
    """Make a directory if it is missing, and remove it then: something else is mounted there meanwhile."""
    missing = not folder.exists()
    folder.mkdir(exist_ok=True)
    try:
        yield
    finally:
        if missing:
            folder.rmdir()


@contextlib.contextmanager
def engine(lab: Lab, node: NodeProcess) -> Iterator[Engine]:
    """A daemon, with the network in it and an image that is nothing but busybox."""
    folder, group = lab.folder / f"docker-{node.host.label}", f"{lab.prefix}-{node.host.label}"
    folder.mkdir()
    told = Engine(node, folder / "docker.sock", node.ask("attach", "docker"))
    argv = [
        "dockerd",
        f"--host=unix://{told.socket}",
        f"--data-root={folder}/data",
        f"--exec-root={folder}/exec",
    ]
    argv += [f"--pidfile={folder}/pid", "--storage-driver=vfs", f"--cgroup-parent=/{group}"]
    private = 'for empty in /run /etc/docker; do mount -t tmpfs none $empty; done; exec "$@"'
    with (folder / "log").open("w") as log:
        daemon = subprocess.Popen(
            [*inside(node), "unshare", "--mount", "sh", "-c", private, "sh", *argv],
            stdout=log,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
    try:
        wait_for(told, daemon, folder / "log")
        told.run(f"tar -C {image(folder)} -c . | docker import - busybox")
        told.run("\n".join(step["script"] for step in told.told["steps"][:-1]))
        yield told
    finally:
        stop_processes([daemon], timeout=20.0)
        for left in [*CGROUPS.glob(f"*/{group}"), *CGROUPS.glob(group)]:
            left.rmdir()


def wait_for(engine: Engine, daemon: subprocess.Popen[str], log: Path) -> None:
    """Until it answers."""
    deadline = time.monotonic() + DAEMON_TIMEOUT
    asked = [DOCKER, f"--host=unix://{engine.socket}", "version"]
    while run_command(asked, check=False).returncode:
        if daemon.poll() is not None or time.monotonic() > deadline:
            raise LabError(f"dockerd did not start:\n{log.read_text()[-2000:]}")
        time.sleep(0.2)


def image(folder: Path) -> Path:
    """A directory with busybox and its names."""
    (folder / "image" / "bin").mkdir(parents=True)
    shutil.copy(BUSYBOX, folder / "image" / "bin" / "busybox")
    for name in ("sh", "ping", "sleep", "ip"):
        (folder / "image" / "bin" / name).symlink_to("busybox")
    return folder / "image"


def run(lab: Lab) -> str:
    """Two hosts, a container on each; what the first sees of the second."""
    lab.add_underlay(2)
    lab.write_peers_toml(segment=ADDRESSES)
    first, second = lab.start_nodes()
    options = f"--network {lab.segment} {' '.join(LIMITS)}"
    with own_folder(Path("/etc/docker")), engine(lab, first) as one, engine(lab, second) as two:
        two.run(f"docker run --detach --rm --name db {options} busybox sleep 60")
        mac = f"--mac-address {one.told['mac']}"
        client = f"ip address show dev eth0; ping -c 3 {two.address}"
        seen = one.run(f"docker run --rm {mac} {options} busybox sh -c '{client}'")
        two.run("docker kill db")
        on_bridge = one.run(f"ip -4 address show dev {one.told['bridge']}")
        one.run(f"docker network rm {lab.segment}")
        left = "still there" if first.host.has_link(one.told["bridge"]) else "gone"
    script = one.told["steps"][0]["script"]
    return f"--- on h1\n{script}\n--- web\n{seen}--- the bridge of h1\n{on_bridge}--- after `network rm`: {left}\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, help="write seen.txt there too")
    out: Path | None = parser.parse_args().out
    os.environ.pop("DOCKER_HOST", None)
    with Lab("docks") as lab:
        seen = run(lab)
    if out:
        (out / "seen.txt").write_text(seen)
    sys.stdout.write(seen)


if __name__ == "__main__":
    try:
        main()
    except LabError as error:
        sys.exit(str(error))
