"""DSCP and ECN on the underlay, as tcpdump sees them: guest - bridge - TAP - node - under0 - node - TAP - bridge - guest."""

from collections.abc import Iterator

import pytest

from l2overlay.testing.capture import Capture
from l2overlay.testing.lab import Lab
from tests.host.stations import tell_nodes
from tests.host.test_faults_node import reload

EF = 46 << 2
MARKED_BY_GUEST = EF | 2


@pytest.fixture
def net() -> Iterator[Lab]:
    with Lab() as lab:
        for host in lab.add_underlay(hosts=2):
            lab.add_guest(host)
        lab.write_peers_toml(segment='tos = "copy"')
        yield lab
        tell_nodes(lab)


def outer_marks(capture: Capture) -> list[int]:
    return [frame[15] for frame in capture.frames()]


def test_the_outer_header_has_the_guests_mark_while_tos_is_copied_and_a_reload_ends_that(net: Lab) -> None:
    net.start_nodes()
    one, other = net.guests
    net.ping(one, other.ipv4)
    for tos, seen in (("copy", {MARKED_BY_GUEST}), ("dscp", {EF}), ("off", set())):
        net.write_peers_toml(segment=f'tos = "{tos}"')
        for host in net.hosts:
            assert reload(net, host).returncode == 0
        with Capture(net.hosts[0], "under0", "udp", net.folder / f"{tos}.pcap") as capture:
            ping = one.run(["ping", "-c", "5", "-i", "0.05", "-Q", str(MARKED_BY_GUEST), other.ipv4])
        assert " 0% packet loss" in ping.stdout
        marks = outer_marks(capture)
        assert {mark for mark in marks if mark} == seen
        assert sum(mark > 0 for mark in marks) >= (10 if seen else 0)  # echoes and answers
