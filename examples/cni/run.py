"""The CNI plugin `bridge` on two hosts: `sudo .venv/bin/python examples/cni/run.py [--out DIR]`.

    host h1                                               host h2
    namespace web --veth--[br-cni]--node ==UDP== node--[br-cni]--veth-- namespace db

On each host the script that `l2overlay attach cni` prints runs as it is: it writes the network into /etc/cni/net.d, makes a
namespace, and calls the plugin with ADD. Then web pings db, and what `attach cni` prints as undo calls DEL. No container
engine is needed. The two hosts are network namespaces, and /etc, /run and /var/lib in them are empty.
"""

import argparse
import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from l2overlay.testing.lab import Lab, LabError, NodeProcess

ADD_TIMEOUT = 20.0
ADDRESSES = 'addresses = { h1 = ["10.9.0.1/24"], h2 = ["10.9.0.2/24"] }'
EMPTY_FOLDERS = "for folder in /etc /run /var/lib; do mount -t tmpfs none $folder; done"


@dataclass(frozen=True, slots=True)
class Runtime:
    """What plays the container runtime on a host: a shell that did ADD and waits for what to do next."""

    node: NodeProcess
    shell: subprocess.Popen[str]
    told: dict[str, Any]
    result: dict[str, Any]
    """What the plugin answered to ADD."""

    @property
    def address(self) -> str:
        return str(self.result["ips"][0]["address"]).partition("/")[0]

    def finish(self, command: str = "") -> str:
        """Run a command on the host, then DEL; what they print."""
        script = "\n".join(["set -e", command, *self.told["undo"]])
        return self.shell.communicate(script + "\n", timeout=ADD_TIMEOUT)[0]


def add(lab: Lab, node: NodeProcess, name: str) -> Runtime:
    """Run the script that `attach` prints."""
    told = node.ask("attach", "cni", name)
    script = lab.folder / f"{name}.sh"
    script.write_text(
        "\n".join(["set -e", EMPTY_FOLDERS, *(step["script"] for step in told["steps"])]) + "\n"
    )
    log, done = lab.folder / f"{name}.json", lab.folder / f"{name}.done"
    shell = node.host.popen(
        ["unshare", "--mount", "bash", "-c", f". {script} >{log} && touch {done} && exec bash"],
        stdin=subprocess.PIPE,
    )
    deadline = time.monotonic() + ADD_TIMEOUT
    while not done.exists():
        if shell.poll() is not None or time.monotonic() > deadline:
            shell.kill()
            raise LabError(f"the plugin did not ADD {name}:\n{log.read_text()}{shell.communicate()[0]}")
        time.sleep(0.05)
    return Runtime(node, shell, told, json.loads(log.read_text()))


def ports(node: NodeProcess) -> list[str]:
    """What is in the bridge besides the node's TAP."""
    found: list[str] = node.ask("status")["bridge"]["ports"]
    return [port for port in found if not port.startswith("tap-")]


def run(lab: Lab) -> str:
    """ADD on two hosts, a ping, DEL on both."""
    lab.add_underlay(2)
    lab.write_peers_toml(segment=ADDRESSES)
    nodes = lab.start_nodes()
    web, db = add(lab, nodes[0], "web"), add(lab, nodes[1], "db")
    lines = [f"ADD {name}: {json.dumps(r.result)}" for name, r in (("web", web), ("db", db))]
    lines.append(f"ports after ADD: {[len(ports(node)) for node in nodes]}")
    lines.append(web.finish(f"ip netns exec web ping -n -c 3 {db.address}").strip())
    lines.append(db.finish().strip())
    lines.append(f"ports after DEL: {[len(ports(node)) for node in nodes]}")
    lines.append(f"exit codes: {[web.shell.returncode, db.shell.returncode]}")
    return "\n".join(line for line in lines if line) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, help="write seen.txt there too")
    out: Path | None = parser.parse_args().out
    with Lab("cni") as lab:
        seen = run(lab)
    if out:
        (out / "seen.txt").write_text(seen)
    sys.stdout.write(seen)


if __name__ == "__main__":
    try:
        main()
    except LabError as error:
        sys.exit(str(error))
