"""Segments of the size that is allowed: many peers that do not answer, and many that do."""

import time
from dataclasses import replace

from l2overlay.controlplane.local import INIT_RATE
from l2overlay.controlplane.membership import INIT_TYPE

from .simulator import Node, Simulation

CONFIGURED = 1000
MINUTE = 60.0


def thousand(seed: int) -> tuple[Simulation, list[Node]]:
    """Node a has 1000 peers in its file, of which three run; those have a file with the four of them."""
    sim = Simulation(seed, CONFIGURED + 1, start=False, capture=True)
    four = sim.nodes[:4]
    four[0].start()
    for node in four[1:]:
        node.start(replace(sim.config, peers=sim.config.peers[:4]))
    return sim, four


def test_among_1000_configured_peers_the_three_that_answer_are_up_in_a_second() -> None:
    for seed in range(3):
        sim, _ = thousand(seed)
        sim.run_until_all_up(within=1.0)


def test_997_silent_peers_cost_40_inits_a_second_and_each_is_tried_again_within_the_minute() -> None:
    sim, (a, *_) = thousand(1)
    sim.run(2 * MINUTE)
    assert sim.captured is not None
    begin, cpu_begin = len(sim.captured), time.process_time()
    sim.run(MINUTE)
    cpu = time.process_time() - cpu_begin
    inits = [c for c in sim.captured[begin:] if c.kind == INIT_TYPE and c.sender is a]
    print(f"{len(inits) / MINUTE:.1f} INITs a second, {cpu / MINUTE:.2%} of a core, simulator included")
    assert len(inits) / MINUTE <= 1.1 * INIT_RATE
    receivers = {c.receiver.name for c in inits if c.receiver is not None}
    assert len(receivers) >= CONFIGURED - 4
    assert all(status.up for status in a.overlay.peers(sim.now)[:3])


def test_a_peer_that_starts_late_is_up_in_a_second_however_many_others_are_silent() -> None:
    sim, (a, *_) = thousand(2)
    late = sim.nodes[500]
    sim.run(MINUTE)
    late.start(replace(sim.config, peers=(sim.config.peers[0], sim.config.peers[500])))
    sim.run_until(lambda: a.up(late) and late.up(a), within=1.0)


def test_timer_and_status_of_a_node_with_1000_peers_take_milliseconds() -> None:
    sim, (a, *_) = thousand(3)
    sim.run(MINUTE)
    begin = time.process_time()
    for _ in range(20):
        a.overlay.handle_timer(sim.now)
        a.overlay.peers(sim.now)
    assert (time.process_time() - begin) / 20 < 0.05


def test_a_full_mesh_of_30_that_starts_at_once_is_up_in_3_s() -> None:
    """Every node gets 29 INITs at one moment, and sends as many."""
    sim = Simulation(4, 30)
    took = sim.run_until_all_up(within=3.0)
    frame = sim.nodes[0].send()
    sim.run(0.1)
    assert all(frame in node.delivered for node in sim.nodes[1:])
    print(f"{took:.2f} s")


def test_500_peers_that_call_one_node_at_the_same_moment_are_all_up_in_3_s() -> None:
    """More handshakes than it answers in a second: those that must wait get a cookie and come back."""
    sim = Simulation(5, 501, start=False)
    hub, *others = sim.nodes
    hub.start()
    for stanza, node in zip(sim.config.peers[1:], others, strict=True):
        node.start(replace(sim.config, peers=(sim.config.peers[0], stanza)))
    sim.run_until(lambda: len(hub.up_keys) == len(others), within=3.0)
    flood = hub.send()
    sim.run(0.1)
    assert all(flood in node.delivered for node in others)
