"""README's first steps and those of examples/two-hosts, line by line as they stand there, on two hosts in namespaces.

    alpha (192.0.2.1) ---- switch ---- beta

Each host has an /etc and a /run of its own (a mount namespace; what was in /etc is linked there), so that the paths in the
documents are those that are used. `scp` copies from one to the other. A line `HOST# COMMAND` is run by sh on that host,
`both#` on both; the KEY in a line is what the line before printed.
"""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from l2overlay.config.read import load_config
from l2overlay.testing.lab import Host, Lab, child_environment

ROOT = Path(__file__).parents[2]

OWN_ETC_AND_RUN = """\
set -e
mkdir -p "$0" && mount --bind /etc "$0" && mount -t tmpfs tmpfs /etc && ln -s "$0"/* /etc/ && rm -f /etc/l2overlay
mount -t tmpfs tmpfs /run
echo ready
exec sleep 600
"""


class Place:
    """A host with an /etc and a /run of its own."""

    def __init__(self, lab: Lab, host: Host) -> None:
        self.host = host
        self.log = lab.folder / f"{host.label}.log"
        programs = lab.folder / "programs"
        programs.mkdir(exist_ok=True)
        (programs / "l2overlay").write_text(f'#!/bin/sh\nexec {sys.executable} -m l2overlay "$@"\n')
        (programs / "l2overlay").chmod(0o755)
        self.env = {**child_environment(), "PATH": f"{programs}:{os.environ['PATH']}"}
        self.holder = host.popen(["sh", "-c", OWN_ETC_AND_RUN, str(lab.folder / f"etc-{host.label}")])
        assert self.holder.stdout is not None
        assert self.holder.stdout.readline() == "ready\n"

    def argv(self, command: str) -> list[str]:
        return ["nsenter", "-t", str(self.holder.pid), "-m", "sh", "-c", command]

    def run(self, command: str, stdin: str | None = None) -> str:
        """The command's output; it must end with 0."""
        done = subprocess.run(
            self.host.argv(self.argv(command)),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=30,
            env=self.env,
            check=False,
        )
        assert done.returncode == 0, f"{self.host.label}# {command}\n{done.stdout}{done.stderr}"
        return done.stdout

    def start(self, command: str) -> None:
        with self.log.open("wb") as output:
            self.host.popen(self.argv(f"exec {command}"), stdout=output, env=self.env)

    def wait_for_peer(self, timeout: float = 15.0) -> None:
        """Until the node has printed READY and that its peer is up."""
        deadline = time.monotonic() + timeout
        while not {"READY", "peer"} <= {
            line.split()[0] for line in self.log.read_text().splitlines() if line
        }:
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.05)


def prompted(text: str) -> list[tuple[str, str]]:
    """(host, command) of every line that has a prompt."""
    return re.findall(r"^\s*([a-z]+)#\s+(.*?)(?:  +#.*)?$", text, re.MULTILINE)


def walk(places: dict[str, Place], steps: list[tuple[str, str]]) -> list[str]:
    """Run them in order; what each printed."""
    printed = [""]
    for name, command in steps:
        line = command.replace("KEY", printed[-1].strip())
        chosen = list(places.values()) if name == "both" else [places[name]]
        if line.startswith("scp "):
            file, target = line.split()[1:]
            there, _, folder = target.partition(":")
            printed.append(places[there].run(f"cat >{folder}{Path(file).name}", chosen[0].run(f"cat {file}")))
        elif " join " in line:
            for place in chosen:
                place.start(line)
            for place in chosen:
                place.wait_for_peer()
        else:
            printed.append(chosen[0].run(line))
    return printed[1:]


@pytest.fixture
def places(lab: Callable[..., Lab]) -> Callable[..., dict[str, Place]]:
    """Hosts by name, with an address on the underlay each; every one reaches every other."""

    def make(addresses: dict[str, str]) -> dict[str, Place]:
        opened = lab()
        hosts = opened.add_underlay(len(addresses), names=list(addresses))
        for host in hosts:
            own = addresses[host.label]
            others = [address for address in addresses.values() if address != own]
            host.ip(f"addr add {own}/32 dev under0", *(f"route add {a} dev under0 src {own}" for a in others))
        return {host.label: Place(opened, host) for host in hosts}

    return make


def test_the_readme_s_first_steps_end_in_a_ping_that_works(places: Callable[..., dict[str, Place]]) -> None:
    text = (ROOT / "README.md").read_text()
    first_steps = text[text.index("## First steps") : text.index("## How fast")]
    steps = prompted(first_steps)
    assert steps[-1][1].startswith("ping")
    hosts = places({"alpha": "192.0.2.1", "beta": "192.0.2.2"})
    printed = walk(hosts, steps)
    assert " 0% packet loss" in printed[-1]
    # what init prints is what the README says next
    told = [step for step in prompted(printed[0]) if not step[1].startswith("l2overlay check")]
    assert told == [step for step in steps[1:] if not step[1].startswith("l2overlay check")]
    for command in re.findall(r"^(l2overlay (?!events|doctor)[a-z]+ lan)  ", first_steps, re.MULTILINE):
        hosts["alpha"].run(command)


def test_the_steps_of_two_hosts_make_its_own_peers_toml_and_end_in_a_ping(
    places: Callable[..., dict[str, Place]], tmp_path: Path
) -> None:
    steps = prompted((ROOT / "examples/two-hosts/README.md").read_text())
    assert steps[-1][1].startswith("ping")
    hosts = places({"berlin": "192.0.2.1", "paris": "198.51.100.2"})
    assert " 0% packet loss" in walk(hosts, steps)[-1]
    made = tmp_path / "office.toml"
    made.write_text(hosts["paris"].run("cat /etc/l2overlay/office.toml"))
    example = load_config(ROOT / "examples/two-hosts/peers.toml")
    assert load_config(made).segment == example.segment
    assert [(p.name, p.endpoint) for p in load_config(made).peers] == [
        (p.name, p.endpoint) for p in example.peers
    ]
