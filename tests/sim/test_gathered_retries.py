"""The silent peers of a large segment are tried several at a time: it is the waking up that costs an idle node most."""

from .test_large_segment import thousand


def test_silent_peers_of_a_large_segment_share_their_wake_ups() -> None:
    sim, (node, *_) = thousand(4)
    sim.run(60.0)
    overlay, wakeups, datagrams = node.overlay, set(), 0
    end = sim.now + 30.0
    while (due := overlay.next_timer()) < end:
        overlay.handle_timer(due)
        sent = len(overlay.bursts_to_send())
        datagrams += sent
        if sent:
            wakeups.add(due)
    assert datagrams > 800
    assert len(wakeups) < datagrams / 5
