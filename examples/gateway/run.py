"""A guest reaches the world behind another host: `sudo .venv/bin/python examples/gateway/run.py [--out DIR] [--turns N]`.

    guest g1 --[br-office]-- h1 ==UDP== h2 --[br-office 10.9.0.254 fd09::fe]-- guest g2
                                         |wan0  203.0.113.2  2001:db8::2
                                       world    203.0.113.1  2001:db8::1: knows no way to the guests

All are network namespaces. `--turns` measures TCP from g1 to g2 and from g1 to the world, in turns.
"""

import argparse
import json
import statistics
import sys
from pathlib import Path

from l2overlay.testing.lab import Guest, Lab, LabError, Namespace

PEERS = 'addresses = { h2 = ["10.9.0.254/24", "fd09::fe/64"] }'
UPLINK = 'uplink = { nat = "wan0" }'
WORLD = ("203.0.113.1", "2001:db8::1")
TRANSFER = [sys.executable, "-m", "l2overlay.demo.transfer"]
TURN_TIME = 2.0
SOURCE = "import socket; s = socket.create_connection(({!r}, 80)); print(s.recv(100).decode())"
WHO = """
import socket
with socket.create_server(({!r}, 80), family={}) as server:
    print(flush=True)
    connection, address = server.accept()
    connection.sendall(("you are " + address[0]).encode())
"""


def write_peers(lab: Lab) -> None:
    """peers.toml, with the uplink in the stanza of h2."""
    path = lab.write_peers_toml(segment=PEERS)
    path.write_text(path.read_text().replace('name = "h2"\n', f'name = "h2"\n{UPLINK}\n'))


def add_world(lab: Lab, world: Namespace) -> None:
    """The outside of h2."""
    world.create()
    lab.hosts[1].ip(
        f"link add wan0 type veth peer name eth0 netns {world.name}",
        "addr add 203.0.113.2/24 dev wan0",
        "addr add 2001:db8::2/64 dev wan0 nodad",
        "link set wan0 up",
    )
    world.ip("addr add 203.0.113.1/24 dev eth0", "addr add 2001:db8::1/64 dev eth0 nodad", "link set eth0 up")


def ask_who(guest: Guest, world: Namespace, address: str) -> str:
    """What a server in the world says of the guest's address."""
    family = 10 if ":" in address else 2
    server = world.popen([sys.executable, "-c", WHO.format(address, family)])
    try:
        assert server.stdout is not None
        server.stdout.readline()
        return guest.run([sys.executable, "-c", SOURCE.format(address)]).stdout.strip()
    finally:
        server.kill()
        server.communicate()


def megabits(sender: Namespace, receiver: Namespace, address: str) -> float:
    """TCP throughput."""
    server = receiver.popen([*TRANSFER, "receive", address, "5000"])
    assert server.stdout is not None
    server.stdout.readline()
    sender.run([*TRANSFER, "send", address, "5000", "--seconds", f"{TURN_TIME}"], timeout=30)
    said = json.loads(server.communicate(timeout=30)[0].splitlines()[-1])
    if not said["intact"]:
        raise LabError("the stream did not arrive as it was sent")
    return float(said["bytes"] * 8 / said["seconds"] / 1e6)


def run(lab: Lab, turns: int) -> list[str]:
    """What is seen, as lines."""
    h1, h2 = lab.add_underlay(2)
    g1, g2 = lab.add_guest(h1), lab.add_guest(h2)
    world = Namespace(f"{lab.prefix}-world")
    try:
        add_world(lab, world)
        g1.ip("route add default via 10.9.0.254", "route add default via fd09::fe")
        write_peers(lab)
        lab.start_nodes()
        lines = [f"g1 asks {address}: {ask_who(g1, world, address)}" for address in WORLD]
        measured = [(megabits(g1, g2, g2.ipv4), megabits(g1, world, WORLD[0])) for _ in range(turns)]
        lines += [f"TCP to g2 {inside:.0f} Mbit/s, to the world {out:.0f} Mbit/s" for inside, out in measured]
        if measured:
            inside, out = (statistics.median(column) for column in zip(*measured, strict=True))
            lines.append(f"medians: the world has {out / inside:.2f}x of guest to guest")
        rules = h2.run(["iptables-save", "-t", "nat"]).stdout.splitlines()
        lines += [rule for rule in rules if rule.startswith("-A") and "L2U-office" in rule]
        codes = [node.terminate() for node in lab.nodes]
        rest = h2.run(["iptables-save"]).stdout + h2.run(["ip6tables-save"]).stdout
        return [*lines, f"after leave: exit codes {codes}, {rest.count('L2U-')} lines of rules are left"]
    finally:
        world.delete()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, help="write seen.txt there too")
    parser.add_argument("--turns", type=int, default=0, help="measure so many times")
    args = parser.parse_args()
    with Lab("office") as lab:
        seen = "\n".join(run(lab, args.turns)) + "\n"
    if args.out:
        (args.out / "seen.txt").write_text(seen)
    sys.stdout.write(seen)


if __name__ == "__main__":
    try:
        main()
    except LabError as error:
        sys.exit(str(error))
