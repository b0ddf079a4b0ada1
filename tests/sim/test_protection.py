"""Guards and storm control between real nodes: refused at the door, counted once where it was refused, and told."""

from dataclasses import replace
from ipaddress import ip_address

from scapy.layers.dhcp import BOOTP, DHCP
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import ARP, Ether

from l2overlay.addresses import format_mac
from l2overlay.config.types import Learn, Party, ProtectConfig, StormConfig, StormLimit
from l2overlay.controlplane.events import FrameRefused, StormEnded, StormStarted
from l2overlay.counters import DropReason
from l2overlay.dataplane.ethernet import plain
from l2overlay.dataplane.protect.storm import PEER_MARGIN, QUIET_FRAMES, RELEASE_TIME

from .lans import LanNode, LanSimulation

NOBODY = Party()
STRICT = ProtectConfig(dhcp_servers=NOBODY, router_advertisements=NOBODY, arp_spoof_guard=True)


def up(seed: int, count: int, protect: ProtectConfig) -> LanSimulation:
    sim = LanSimulation(seed, count, protect=protect)
    sim.run_until(sim.all_up, within=10.0)
    sim.run(0.5)
    return sim


def offer(node: LanNode) -> bytes:
    head = (
        Ether(src=format_mac(node.mac), dst="ff:ff:ff:ff:ff:ff")
        / IP(src="10.9.0.66")
        / UDP(sport=67, dport=68)
    )
    return bytes(head / BOOTP(op=2) / DHCP(options=[("message-type", "offer"), "end"]))


def told(node: LanNode, kind: type) -> list[object]:
    return [event for _, event in node.events if isinstance(event, kind)]


def test_a_rogue_is_refused_at_its_own_node_and_counted_there() -> None:
    sim = up(1, 2, STRICT)
    a, b = sim.nodes
    for _ in range(10):
        a.receive_frames([plain(offer(a))] * 5)
    sim.run(1.0)
    assert a.overlay.counters.drops == {DropReason.ROGUE_DHCP: 50}
    assert told(a, FrameRefused) == [FrameRefused(DropReason.ROGUE_DHCP, None, a.mac, "from 10.9.0.66", 0)]
    assert told(b, FrameRefused) == []


def test_a_rogue_behind_a_careless_peer_is_refused_by_the_others_and_counted_with_that_peer() -> None:
    sim = up(2, 3, STRICT)
    a, b, c = sim.nodes
    a.reconfigure(replace(sim.config, protect=ProtectConfig()))
    a.receive_frames([plain(offer(a))])
    sim.run(1.0)
    for node in (b, c):
        assert node.status(a).counters.drops == {DropReason.ROGUE_DHCP: 1}
        assert told(node, FrameRefused) == [
            FrameRefused(DropReason.ROGUE_DHCP, a.key, a.mac, "from 10.9.0.66", 0)
        ]


def test_what_goes_on_is_told_again_after_a_minute_with_how_many_more_there_were() -> None:
    sim = up(3, 2, STRICT)
    a, _ = sim.nodes
    for _ in range(70):
        a.receive_frames([plain(offer(a))])
        sim.run(1.0)
    first, second = told(a, FrameRefused)
    assert (first.more, second.more) == (0, 59)  # type: ignore[attr-defined]


def test_a_refused_frame_teaches_the_switch_nothing() -> None:
    sim = up(4, 2, STRICT)
    a, b = sim.nodes
    thief = bytes.fromhex("52540000aaaa")
    frame = bytes(Ether(src=format_mac(thief), dst="ff:ff:ff:ff:ff:ff") / ARP(op=2, hwsrc=format_mac(b.mac)))
    a.receive_frames([plain(frame)])
    sim.run(0.2)
    assert a.drops(DropReason.SPOOFED_ADDRESS) == 1
    assert thief not in [entry.mac for entry in a.overlay.stations(sim.now)]


def test_bindings_outlive_a_reload() -> None:
    sim = up(5, 2, STRICT)
    a, b = sim.nodes

    def claim(node: LanNode) -> None:
        mac = format_mac(node.mac)
        node.receive_frames([plain(bytes(Ether(src=mac) / ARP(op=2, hwsrc=mac, psrc="10.9.0.1")))])
        sim.run(0.2)

    claim(a)
    b.reconfigure(replace(sim.config, protect=replace(STRICT, bpdu_passes=False)))
    claim(b)
    assert b.drops(DropReason.SPOOFED_ADDRESS) == 1


def test_a_broadcast_storm_is_capped_at_its_node_and_told_when_it_begins_and_ends() -> None:
    limit = StormConfig(broadcast=StormLimit(100, 1e6, 1.0))
    sim = up(6, 2, ProtectConfig(storm=limit))
    a, b = sim.nodes
    before = sim.now
    numbers = [number for _ in range(10) for number in send_for(sim, a, 0.1, 500)]
    arrived = sum(b.copies[number] for number in numbers)
    assert len(numbers) == 5000
    assert 190 <= arrived <= 200 + 2 * QUIET_FRAMES
    assert a.drops(DropReason.STORM_BROADCAST) == 5000 - arrived
    assert b.total_drops() == {}
    assert told(a, StormStarted) == [StormStarted(None, "broadcast")]
    asked = a.say(b)
    sim.run(RELEASE_TIME + 1.0)
    assert b.copies[asked] == 1
    (ended,) = told(a, StormEnded)
    assert ended.dropped == 5000 - arrived  # type: ignore[attr-defined]
    assert 0.8 <= ended.seconds <= sim.now - before  # type: ignore[attr-defined]


def send_for(sim: LanSimulation, node: LanNode, seconds: float, count: int) -> list[int]:
    numbers = [node.say() for _ in range(count)]
    sim.run(seconds)
    return numbers


def test_a_storm_from_a_careless_peer_is_capped_where_it_arrives() -> None:
    sim = up(7, 2, ProtectConfig(storm=StormConfig(broadcast=StormLimit(100, 1e6, 1.0))))
    a, b = sim.nodes
    a.reconfigure(replace(sim.config, protect=ProtectConfig(storm=None)))
    numbers = send_for(sim, a, 1.0, 2000)
    arrived = sum(b.copies[number] for number in numbers)
    assert 100 * PEER_MARGIN <= arrived <= 100 * PEER_MARGIN + QUIET_FRAMES
    assert b.status(a).counters.drops == {DropReason.STORM_BROADCAST: 2000 - arrived}
    assert told(b, StormStarted) == [StormStarted(a.key, "broadcast")]


def test_known_unicast_is_never_capped() -> None:
    tiny = StormLimit(1, 1500, 0.001)
    sim = up(8, 2, ProtectConfig(storm=StormConfig(tiny, tiny, tiny)))
    a, b = sim.nodes
    first = b.say()
    sim.run(0.5)
    assert a.copies[first] == 1
    numbers = [a.say(b) for _ in range(500)]
    sim.run(0.5)
    assert sum(b.copies[number] for number in numbers) >= 499, (
        "the first one taught b nothing of its own station"
    )


def test_a_peer_with_learn_off_brings_only_its_own_stations() -> None:
    sim = up(9, 2, ProtectConfig())
    a, b = sim.nodes
    stranger = bytes.fromhex("52540000aaaa")
    peers = tuple(
        replace(p, learn=Learn.OFF, macs=(a.mac,)) if p.public_key == a.key else p for p in sim.config.peers
    )
    for node in sim.nodes:
        node.reconfigure(replace(sim.config, peers=peers))
    good, bad = a.say(), a.say(source=stranger)
    sim.run(0.5)
    assert (b.copies[good], b.copies[bad]) == (1, 0)
    assert a.drops(DropReason.UNKNOWN_STATION) == 1
    assert told(a, FrameRefused) == [FrameRefused(DropReason.UNKNOWN_STATION, None, stranger, "", 0)]  # type: ignore[arg-type]


def test_a_static_binding_of_the_file_is_held_on_every_node() -> None:
    sim = up(10, 2, ProtectConfig())
    a, b = sim.nodes
    protect = ProtectConfig(arp_spoof_guard=True, bindings={b.mac: (ip_address("10.9.0.2"),)})
    for node in sim.nodes:
        node.reconfigure(replace(sim.config, protect=protect))
    mac = format_mac(a.mac)
    a.receive_frames([plain(bytes(Ether(src=mac) / ARP(op=2, hwsrc=mac, psrc="10.9.0.2")))])
    assert a.drops(DropReason.SPOOFED_ADDRESS) == 1
