"""What the log says of protection: who, where and what, in one line."""

import pytest

from l2overlay.addresses import PeerKey, parse_mac
from l2overlay.controlplane.events import (
    Event,
    FrameRefused,
    LoopFound,
    LoopHealed,
    ProbeRepeated,
    StationFrozen,
    StormEnded,
    StormStarted,
)
from l2overlay.counters import DropReason
from l2overlay.node.journal import Journal, LineWriter

BETA, GAMMA = PeerKey(b"b" * 32), PeerKey(b"g" * 32)
MAC = parse_mac("52:54:00:00:00:01")


class Lines(LineWriter):
    """A writer that keeps what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def write(self, line: str) -> None:
        self.lines.append(line)


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (
            FrameRefused(DropReason.ROGUE_DHCP, None, MAC, "from 10.9.0.66", 0),
            (
                "refused: station 52:54:00:00:00:01 at this host answers as a DHCP server and is none of dhcp_servers "
                "(from 10.9.0.66)"
            ),
        ),
        (
            FrameRefused(DropReason.SPOOFED_ADDRESS, BETA, MAC, "10.9.0.1", 7),
            "refused: station 52:54:00:00:00:01 at beta claims an address that is not its own (10.9.0.1), 7 more before",
        ),
        (
            StationFrozen(MAC, 5, BETA, None),
            "station 52:54:00:00:00:01 (VLAN 5) moves to and fro between beta and this host: for 60 s it stays at beta",
        ),
        (
            StormStarted(BETA, "unknown unicast"),
            "storm: unknown unicast from beta is more than may be flooded; the rest is dropped",
        ),
        (
            StormEnded(None, "broadcast", 5, 1.25),
            "storm: broadcast from this host is over after 1.2 s; 5 frames were dropped",
        ),
        (
            LoopFound(BETA, GAMMA),
            (
                "loop: the LANs of this host and of beta are joined by a second path; nothing passes between them here, "
                "and gamma carries for both"
            ),
        ),
        (
            LoopFound(None, None),
            "loop: the LAN of this host is a ring; nothing is flooded between it and the overlay",
        ),
        (
            LoopHealed(BETA, 12.34),
            "loop healed: the second path to the LAN of beta is gone after 12.3 s",
        ),
        (
            ProbeRepeated(MAC),
            (
                "loop: a station of this host's LAN repeats the loop guard's probes; it is no second path, "
                "and nothing is blocked"
            ),
        ),
        (LoopHealed(None, 1.0), "loop healed: the LAN of this host is a ring no more"),
    ],
)
def test_an_event_of_protection_is_one_line_that_names_who_and_where(event: Event, line: str) -> None:
    lines = Lines()
    journal = Journal(lines, lambda key: {BETA: "beta", GAMMA: "gamma"}[key])
    journal.tell_event(event)
    assert lines.lines == [line]
    assert journal.recent()[0]["text"] == line
