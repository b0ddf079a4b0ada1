"""Containers of LXC on two hosts in one segment: `sudo .venv/bin/python examples/lxc/run.py [--out DIR]`.

    host h1                                                   host h2
    container web: ping, wget --veth--[br-boxes]--node ==UDP== node--[br-boxes]--veth-- container files: httpd

Each container has the NIC that `l2overlay attach lxc` prints on its host: the bridge, a MAC, and an address that the
other host does not hand out. In it is nothing but busybox. The two hosts are network namespaces.
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from l2overlay.testing.lab import Lab, LabError, NodeProcess

BUSYBOX = Path("/bin/busybox")
START_TIMEOUT = 20.0
RUN_TIMEOUT = 60.0
PAYLOAD_LEN = 1 << 20
CLIENT = """
alias ping='busybox ping' wget='busybox wget' sha256sum='busybox sha256sum'
ping -c 3 {address}
wget -q -O - http://{address}/payload | sha256sum
"""
ADDRESSES = 'addresses = { h1 = ["10.9.0.1/24"], h2 = ["10.9.0.2/24"] }'


@dataclass(frozen=True, slots=True)
class Container:
    """One that can be started: its host's node, its directory, its name, and what `attach` printed for it."""

    node: NodeProcess
    folder: Path
    name: str
    lines: str
    address: str

    def argv(self, command: str) -> list[str]:
        """The command line that runs a shell command in it."""
        options = [
            "--lxcpath",
            str(self.folder),
            "--name",
            self.name,
            "--rcfile",
            str(self.folder / "config"),
        ]
        return ["lxc-execute", *options, "--", "/bin/busybox", "sh", "-c", command]


def make(lab: Lab, node: NodeProcess, name: str) -> Container:
    """A directory with busybox, and a configuration whose NIC is what `l2overlay attach lxc` prints."""
    told = node.ask("attach", "lxc", name)
    folder = lab.folder / name
    for inside in ("bin", "dev", "proc", "sys", "tmp", "www"):
        (folder / "rootfs" / inside).mkdir(parents=True)
    shutil.copy(BUSYBOX, folder / "rootfs" / "bin" / "busybox")
    basis = f"lxc.uts.name = {name}\nlxc.rootfs.path = dir:{folder}/rootfs\nlxc.mount.auto = proc:rw sys:ro\n"
    lines = told["steps"][0]["text"]
    (folder / "config").write_text(basis + lines)
    return Container(node, folder, name, lines, told["address"].partition("/")[0])


def serve(files: Container, payload: bytes) -> subprocess.Popen[str]:
    """Start the web server, and wait until its port is in the bridge."""
    (files.folder / "rootfs" / "www" / "payload").write_bytes(payload)
    server = files.node.host.popen(files.argv("exec busybox httpd -f -p 80 -h /www"))
    deadline = time.monotonic() + START_TIMEOUT
    while len(files.node.ask("status")["bridge"]["ports"]) < 2:  # the node's TAP is the other one
        if server.poll() is not None or time.monotonic() > deadline:
            server.terminate()
            raise LabError(f"the container {files.name} did not start:\n{server.communicate()[0]}")
        time.sleep(0.1)
    return server


def run(lab: Lab) -> str:
    """Two hosts, a container on each; what the first says of the second."""
    lab.add_underlay(2)
    lab.write_peers_toml(segment=ADDRESSES)
    nodes = lab.start_nodes()
    web, files = make(lab, nodes[0], "web"), make(lab, nodes[1], "files")
    payload = os.urandom(PAYLOAD_LEN)
    server = serve(files, payload)
    seen = web.node.host.run(web.argv(CLIENT.format(address=files.address)), timeout=RUN_TIMEOUT).stdout
    server.terminate()
    if hashlib.sha256(payload).hexdigest() not in seen:
        raise LabError(f"the file did not arrive as it was sent:\n{seen}")
    nics = f"--- NIC of web\n{web.lines}--- NIC of files\n{files.lines}"
    return f"{nics}--- web\n{seen}--- {len(payload)} bytes arrived by TCP as they were sent\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, help="write seen.txt there too")
    out: Path | None = parser.parse_args().out
    with Lab("boxes") as lab:
        seen = run(lab)
    if out:
        (out / "seen.txt").write_text(seen)
    sys.stdout.write(seen)


if __name__ == "__main__":
    try:
        main()
    except LabError as error:
        sys.exit(str(error))
