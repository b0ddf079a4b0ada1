"""Faults of the way between two nodes, made by a relay of our own: doubled, overtaken, altered, replayed, a NAT forgets.

    g1 --[br-lab h1]--(node)-- 10.77.0.1 -- relay 10.77.0.3 -- 10.77.0.2 --(node)--[br-lab h2]-- g2

h1 calls the relay; h2 sees h1 at the relay's changing port and has no endpoint for it, as for a host behind a NAT.
"""

import os
import random
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from l2overlay.testing.lab import Lab, NodeProcess
from tests.host.relay import Relay, Weather
from tests.host.stations import (
    BROADCAST,
    Ear,
    Flow,
    carry_tcp,
    carry_udp,
    eventually,
    frame,
    peer_of,
    random_file,
    speak,
    status,
    tell_nodes,
)
from tests.linux.conftest import inside

SEED = 20250731
KEEPALIVE = 1
CALM = Weather()
BAD = {
    "duplication": Weather(duplication=0.3),
    "reordering": Weather(reordering=0.2),
    "corruption": Weather(corruption=0.05),
    "truncation": Weather(truncation=0.05),
    "everything": Weather(loss=0.02, duplication=0.05, reordering=0.05, corruption=0.02, truncation=0.01),
}


@pytest.fixture(scope="module")
def net() -> Iterator[Lab]:
    with Lab() as lab:
        h1, h2, _ = lab.add_underlay(hosts=3)
        lab.add_guest(h1)
        lab.add_guest(h2)
        yield lab


@pytest.fixture(scope="module")
def relay(net: Lab) -> Iterator[Relay]:
    h1, h2, between = net.hosts
    print(f"seed {SEED}")
    with Relay(between, between.ipv4, (h1.ipv4, 7470), (h2.ipv4, 7470), SEED) as relay:
        for host, file in zip((h1, h2), _peers_files(net, between.ipv4), strict=True):
            net.start_node(host, peers_file=file)
        net.wait_ready()
        eventually(lambda: peer_of(net.nodes[1], "h1")["up"], 5.0)
        yield relay


def _peers_files(net: Lab, relay_host: str) -> list[Path]:
    """h1's file has the relay as h2's endpoint, h2's has none for h1."""
    h1, h2, _ = net.hosts
    stanza = f"persistent_keepalive = {KEEPALIVE}"
    both = net.write_peers_toml([h1, h2], stanza=stanza, name="both.toml").read_text()
    texts = {
        "near.toml": both.replace(f"{h2.ipv4}:7470", f"{relay_host}:7471"),
        "far.toml": both.replace(f'endpoint = "{h1.ipv4}:7470"', ""),
    }
    for name, text in texts.items():
        (net.folder / name).write_text(text)
    return [net.folder / name for name in texts]


@pytest.fixture(autouse=True)
def _calm_again(net: Lab, relay: Relay) -> Iterator[None]:
    yield
    relay.weather = CALM
    relay.record = False
    print(f"seed {SEED}: {replace(relay.fates, recorded=[])}")
    tell_nodes(net)


def drops(node: NodeProcess) -> dict[str, int]:
    return dict(status(node)["drops"])


# Bad weather


@pytest.mark.parametrize("weather", BAD.values(), ids=BAD.keys())
def test_a_file_arrives_whole_through_bad_weather(net: Lab, relay: Relay, weather: Weather) -> None:
    g1, g2 = net.guests
    relay.weather = weather
    for sender, receiver, family in ((g1, g2, 4), (g2, g1, 6)):
        seconds = carry_tcp(sender, receiver, random_file(2 << 20), family=family)
        print(f"IPv{family}: {(2 << 20) * 8e-6 / seconds:.0f} Mbit/s")


@pytest.mark.parametrize("weather", BAD.values(), ids=BAD.keys())
@pytest.mark.parametrize("size", [100, 1472], ids=["small", "fragments"])
def test_no_frame_arrives_twice_or_altered(net: Lab, relay: Relay, weather: Weather, size: int) -> None:
    """Raw frames: no checksum of UDP or IP of the guests' stacks could hide what is wrong."""
    g1, g2 = net.guests
    assert net.ping(g1, g2.ipv4, count=3).received
    marker = os.urandom(8)
    chance = random.Random(SEED)
    sent = [frame(g2.mac, g1.mac, marker + n.to_bytes(4) + chance.randbytes(size)) for n in range(1000)]
    before = replace(relay.fates, recorded=[])
    with Ear(g2) as ear:
        relay.weather = weather
        for at in range(0, len(sent), 10):
            speak(g1, *sent[at : at + 10])
        relay.weather = CALM
        received = ear.heard(marker)
    assert len(set(received)) == len(received)
    assert set(received) <= set(sent)
    harmed = sum(
        getattr(relay.fates, name) - getattr(before, name) for name in ("lost", "corrupted", "truncated")
    )
    print(f"{len(sent) - len(received)} frames lost, {harmed} datagrams harmed")
    assert len(received) > len(sent) / 2
    if not harmed:
        assert len(received) == len(sent)


def test_frames_of_one_flow_keep_the_order_in_which_their_datagrams_arrived(net: Lab, relay: Relay) -> None:
    g1, g2 = net.guests
    assert net.ping(g1, g2.ipv4, count=3).received
    relay.weather = Weather(loss=0.1, duplication=0.3)
    sent = [n.to_bytes(4) + os.urandom(60) for n in range(2000)]
    received = carry_udp(g1, g2, sent)
    assert received == sorted(received)
    assert len(received) > 500


def test_what_the_weather_spoilt_is_counted_by_reason(net: Lab, relay: Relay) -> None:
    g1, g2 = net.guests
    before = drops(net.nodes[1])
    with Flow(g1, g2, interval=0.001):
        relay.weather = Weather(duplication=0.3, corruption=0.1)
        time.sleep(0.5)
    after = drops(net.nodes[1])
    assert after["replayed"] > before["replayed"]
    assert after["bad_tag"] > before["bad_tag"]


# Replay


def test_a_replayed_capture_delivers_nothing_and_changes_nothing(net: Lab, relay: Relay) -> None:
    """All of a minute's worth of datagrams in both directions, at once, again, backwards, and from another address."""
    g1, g2 = net.guests
    relay.fates.recorded.clear()
    relay.record = True
    carry_tcp(g1, g2, random_file(1 << 20))
    net.ping(g1, g2.ipv4, count=100, interval=0.002)
    relay.record = False
    captured = list(relay.fates.recorded)
    assert len(captured) > 700
    before = _state(net)
    with Ear(g1) as one, Ear(g2) as other, Flow(g1, g2) as flow:
        for to_far in (True, False):
            datagrams = [datagram for towards, datagram in captured if towards is to_far]
            for again in (datagrams, datagrams[::-1]):
                for at in range(0, len(again), 50):
                    relay.inject(to_far, *again[at : at + 50])
                    time.sleep(0.002)
        heard = [one.heard(), other.heard()]
    unicast = {bytes.fromhex(guest.mac.replace(":", "")) for guest in net.guests}
    strange = [f for ear in heard for f in ear if f[:6] in unicast and f[12:14] == b"\x08\x00"]
    assert strange == []
    assert flow.lost == flow.repeated == []
    assert _state(net) == before
    assert drops(net.nodes[1])["replayed"] >= sum(towards for towards, _ in captured)


def test_a_capture_replayed_to_a_restarted_node_delivers_nothing(net: Lab, relay: Relay) -> None:
    g1, g2 = net.guests
    relay.fates.recorded.clear()
    relay.record = True
    assert net.ping(g1, g2.ipv4, count=20, interval=0.01).received == 20
    relay.record = False
    captured = [datagram for towards, datagram in relay.fates.recorded if towards]
    assert net.nodes[1].terminate() == 0
    net.nodes[1] = net.start_node(net.hosts[1], peers_file=net.folder / "far.toml")
    net.nodes.pop()
    net.nodes[1].wait_ready()
    eventually(lambda: peer_of(net.nodes[1], "h1")["up"], 6.0)
    with Ear(g2) as ear:
        relay.inject(True, *captured)
        relay.inject(True, *captured)
        assert [f for f in ear.heard() if f[6:12] == bytes.fromhex(g1.mac.replace(":", ""))] == []
    assert drops(net.nodes[1])["unknown_session"] >= 2 * len(captured) - 2
    assert net.ping(g1, g2.ipv4, count=3).lost == 0


def _state(net: Lab) -> list[tuple[object, ...]]:
    """What must not change: who is up, where, and how often stations moved."""
    return [
        (peer["name"], peer["up"], peer["endpoint"], peer["stations"])
        for node in net.nodes
        for peer in status(node)["peers"]
    ]


# Strangers


def test_garbage_of_every_length_is_survived_and_answered_by_nothing(net: Lab, relay: Relay) -> None:
    g1, g2 = net.guests
    chance = random.Random(SEED)
    relay.fates.recorded.clear()
    garbage = [chance.randbytes(length) for length in range(1473)]
    garbage += [bytes([kind]) + chance.randbytes(length) for kind in range(8) for length in range(0, 200, 3)]
    before = status(net.nodes[1])
    with Flow(g1, g2) as flow:
        for at in range(0, len(garbage), 50):
            relay.inject(True, *garbage[at : at + 50])
            time.sleep(0.002)
    after = status(net.nodes[1])
    assert flow.lost == flow.repeated == []
    grown = sum(after["drops"].values()) - sum(before["drops"].values())
    assert grown == len(garbage)
    assert (
        after["counters"]["tx_datagrams"] - before["counters"]["tx_datagrams"] < 10
    )  # a keepalive, no answers


# NAT


def test_a_nat_that_forgets_costs_what_was_under_way(net: Lab, relay: Relay) -> None:
    """The host behind it talks: its next datagram shows the new address, one round trip proves it."""
    g1, g2 = net.guests
    with Flow(g1, g2) as out, Flow(g2, g1) as back:
        time.sleep(0.3)
        port = relay.rebind()
        time.sleep(0.5)
    print(f"outage {out.outage():.3f} s out, {back.outage():.3f} s back")
    assert out.lost == []
    assert (
        back.outage() < 0.05
    )  # the next datagram comes within 5 ms; the rest is the round trip, on a busy machine
    assert peer_of(net.nodes[1], "h1")["endpoint"] == f"10.77.0.3:{port}"


def test_a_nat_that_forgets_an_idle_host_is_noticed_with_the_next_keepalive(net: Lab, relay: Relay) -> None:
    """`persistent_keepalive` is 1 s here, 20 s by default."""
    g1, g2 = net.guests
    assert net.ping(g1, g2.ipv4, count=1).received == 1
    port = relay.rebind()
    seconds = eventually(
        lambda: peer_of(net.nodes[1], "h1")["endpoint"] == f"10.77.0.3:{port}", KEEPALIVE + 0.5, pause=0.01
    )
    print(f"noticed after {seconds:.2f} s")
    with Ear(g1) as ear:
        speak(g2, frame(BROADCAST, g2.mac, b"the far end speaks first"))
        assert len(ear.heard(b"speaks first", expected=1)) == 1


# Under attack


class Stranger:
    """Floods a host with DATA of no session for the length of the block."""

    def __init__(self, net: Lab, target: str) -> None:
        with inside(net.hosts[2]):
            self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.connect((target, 7470))
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join()
        self._socket.close()

    def _run(self) -> None:
        datagram = b"\4\0\0\0".ljust(100, b"?")
        while not self._ending.wait(0.001):
            for _ in range(25):
                self._socket.send(datagram)


def test_under_a_flood_the_kernel_drops_and_a_peer_that_roams_and_one_that_restarts_come_through(
    net: Lab, relay: Relay
) -> None:
    """The stranger sends from a port of the relay's host that no peer has."""
    g1, g2 = net.guests
    h1, h2, _ = net.hosts
    with Stranger(net, h2.ipv4):
        eventually(lambda: drops(net.nodes[1])["flood_filtered"] > 0, 10.0)
        with Flow(g1, g2) as out:
            time.sleep(0.3)
            port = relay.rebind()
            eventually(lambda: peer_of(net.nodes[1], "h1")["endpoint"] == f"10.77.0.3:{port}", 5.0)
        print(f"under attack, outage {out.outage():.3f} s out")
        net.nodes.pop(0).kill()
        relay.rebind()
        started = time.monotonic()
        net.nodes.insert(0, net.start_node(h1, peers_file=net.folder / "near.toml"))
        net.nodes.pop()
        net.nodes[0].wait_ready()
        eventually(lambda: peer_of(net.nodes[0], "h2")["up"], 5.0)
        print(f"up {time.monotonic() - started:.3f} s after its start")
        before = drops(net.nodes[1])["flood_filtered"]
        eventually(lambda: drops(net.nodes[1])["flood_filtered"] > before, 5.0)
