"""Stands an example's own peers.toml up in network namespaces: `sudo .venv/bin/python examples/stand_up.py two-hosts`.

Every `[[peers]]` stanza becomes a host with the address of its endpoint, a node with the example's key, and a guest in
the bridge that the node made. Then every host pings every other one's address on the bridge, and every guest every other
guest. Ends with 0 when all answered.
"""

import argparse
import sys
import time
from pathlib import Path

from l2overlay import keys
from l2overlay.config.read import load_config
from l2overlay.config.types import Config
from l2overlay.testing.lab import Host, Lab, LabError

EXAMPLES = Path(__file__).parent
FIRST_CALL_TIMEOUT = 10.0
"""Seconds for a peer without endpoint to have called everyone, after all nodes are READY."""


def stand_up(lab: Lab, folder: Path) -> Config:
    """Hosts, nodes and guests of one example, with every session up."""
    config = load_config(folder / "peers.toml")
    lab.add_underlay(len(config.peers), names=[peer.name for peer in config.peers])
    give_endpoints(lab, config)
    for host in lab.hosts:
        key_file = lab.folder / f"example-{host.label}.key"
        # git keeps no 0600, and a node refuses a key that others can read
        keys.save(key_file, keys.parse_secret(public_example_key(folder, host), host.label, "private key"))
        lab.start_node(host, peers_file=folder / "peers.toml", key_file=key_file)
    lab.wait_ready()
    wait_for_sessions(lab)
    for host in lab.hosts:
        lab.add_guest(host, attach=False).attach(config.segment.bridge)
    return config


def public_example_key(folder: Path, host: Host) -> bytes:
    """The host's private key, which the example publishes."""
    return (folder / "public-example-keys" / f"{host.label}.key").read_bytes()


def give_endpoints(lab: Lab, config: Config) -> None:
    """Each host gets the address of its endpoint; all others get there over the one switch."""
    addresses = {peer.name: peer.endpoint.host for peer in config.peers if peer.endpoint}
    for host in lab.hosts:
        own = addresses.get(host.label)
        others = [address for address in addresses.values() if address != own]
        if own is None:
            host.ip(*(f"route add {address} dev under0" for address in others))
            continue
        nodad, length, lab_subnet = ("nodad", 128, "fd77::/64") if ":" in own else ("", 32, "10.77.0.0/24")
        host.ip(f"addr add {own}/{length} dev under0 {nodad}")
        # a host without endpoint calls from the address that the lab gave it, and is answered from where it called
        host.ip(*(f"route replace {there} dev under0 src {own}" for there in (*others, lab_subnet)))


def wait_for_sessions(lab: Lab) -> None:
    """Until every node has a session with every other one."""
    deadline = time.monotonic() + FIRST_CALL_TIMEOUT
    waiting = list(lab.nodes)
    while waiting:
        states = [(node, node.ask("status")) for node in waiting]
        waiting = [node for node, status in states if status["peers_up"] < status["peers_total"]]
        if waiting and time.monotonic() > deadline:
            raise LabError(f"not all peers are up: {[status['degraded'] for _, status in states]}")


def bridge_pings(lab: Lab, config: Config) -> dict[tuple[str, str], int]:
    """By (from, address): how many of three echo requests were lost, for all addresses that others have on their bridge."""
    return {
        (host.label, str(interface.ip)): lab.ping(host, str(interface.ip)).lost
        for host in lab.hosts
        for name, interfaces in config.segment.addresses.items()
        for interface in interfaces
        if name != host.label
    }


def guest_pings(lab: Lab) -> dict[tuple[str, str], int]:
    """By (from, to and family): lost echo requests."""
    return {(a, f"{b} (IPv{family})"): result.lost for (a, b, family), result in lab.ping_matrix().items()}


def main() -> int:
    names = sorted(path.parent.name for path in EXAMPLES.glob("*/peers.toml"))
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("example", choices=names)
    folder = EXAMPLES / parser.parse_args().example
    with Lab(load_config(folder / "peers.toml").segment.name) as lab:
        config = stand_up(lab, folder)
        for node in lab.nodes:
            sys.stdout.write(f"{node.host.label}: {node.ready_line()}\n")
        results = {**bridge_pings(lab, config), **guest_pings(lab)}
        for (source, destination), lost in results.items():
            sys.stdout.write(f"ping {source} -> {destination}: {f'{lost} of 3 LOST' if lost else 'ok'}\n")
    return 1 if any(results.values()) else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except LabError as error:
        sys.exit(str(error))
