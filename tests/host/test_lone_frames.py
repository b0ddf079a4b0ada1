"""`join --linger`: while lone frames come, a node rehearses their way; it says so, and stops when they stop."""

import time
from collections.abc import Iterator

import pytest

from l2overlay.testing.lab import Lab
from tests.host.stations import BROADCAST, frame, speak, status, tell_nodes


@pytest.fixture
def net() -> Iterator[Lab]:
    with Lab() as lab:
        for host in lab.add_underlay(hosts=2):
            lab.add_guest(host)
        lab.write_peers_toml()
        yield lab
        tell_nodes(lab)


def rehearsals(net: Lab) -> list[int]:
    return [status(node)["linger"]["rehearsals"] for node in net.nodes]


def test_a_node_rehearses_while_lone_frames_come_and_no_longer(net: Lab) -> None:
    net.start_nodes("--linger", "0.1")
    one, other = net.guests
    net.ping(one, other.ipv4)
    before = rehearsals(net)
    assert net.ping(one, other.ipv4, count=20, interval=0.02).lost == 0
    after = rehearsals(net)
    # Half a second of echoes, each 2 ms at most one: a tenth of that must come on the busiest machine.
    assert all(20 <= new - old <= 400 for new, old in zip(after, before, strict=True))
    time.sleep(0.2)
    still = rehearsals(net)
    time.sleep(0.3)
    assert rehearsals(net) == still


def test_without_linger_there_are_none(net: Lab) -> None:
    net.start_nodes("--linger", "0")
    one, other = net.guests
    assert net.ping(one, other.ipv4, count=20, interval=0.02).lost == 0
    assert rehearsals(net) == [0, 0]
    assert status(net.nodes[0])["linger"]["seconds"] == 0


def test_broadcast_chatter_starts_none(net: Lab) -> None:
    net.start_nodes()
    one = net.guests[0]
    time.sleep(0.6)  # what the nodes' own start led to is over
    before, sent = rehearsals(net), status(net.nodes[0])["counters"]["tx_frames"]
    for _ in range(5):
        speak(one, frame(BROADCAST, one.mac, bytes(50)))
        time.sleep(0.02)
    assert status(net.nodes[0])["counters"]["tx_frames"] >= sent + 5
    assert rehearsals(net) == before
