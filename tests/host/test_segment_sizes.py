"""Large frames and the kernels' offloads: every size and every mix of what two hosts can do, over a 1500-byte underlay.

    g1 (MTU 1500) --[br-lab h1]--tap--(node)==1500==(node)--tap--[br-lab h2]-- g2 (MTU 1500)
    g3 (MTU 9000) --'                                                    `---- g4 (MTU 9000)

The segment's MTU is 9000. One lab for each pair of `--offload` settings. A guest "without offloads" gets whole checksums and
frames of its own MTU only: its stack then verifies each checksum that, with offloads, nobody would look at.
"""

import os
from collections.abc import Iterator

import pytest

from l2overlay.testing.lab import Guest, Lab
from tests.host.stations import (
    carry_tcp,
    carry_udp,
    carry_udp_super_frame,
    checksum_errors,
    random_file,
    set_offloads,
    tell_nodes,
)

FILE_SIZE = 3 << 20


@pytest.fixture(
    scope="module",
    params=[("auto", "auto"), ("off", "auto"), ("auto", "off"), ("off", "off")],
    ids=lambda pair: f"offload {pair[0]}-{pair[1]}",
)
def net(request: pytest.FixtureRequest) -> Iterator[Lab]:
    with Lab() as lab:
        h1, h2 = lab.add_underlay(hosts=2)
        for mtu in (1500, 9000):
            lab.add_guest(h1, mtu=mtu)
            lab.add_guest(h2, mtu=mtu)
        lab.write_peers_toml(segment="mtu = 9000")
        for host, offload in zip((h1, h2), request.param, strict=True):
            lab.start_node(host, "--offload", offload)
        lab.wait_ready()
        yield lab


@pytest.fixture(autouse=True)
def _what_the_nodes_say(net: Lab) -> Iterator[None]:
    yield
    tell_nodes(net)


@pytest.fixture(params=["with offloads", "without offloads"])
def pairs(net: Lab, request: pytest.FixtureRequest) -> Iterator[list[tuple[Guest, Guest]]]:
    g1, g2, g3, g4 = net.guests
    for guest in net.guests:
        set_offloads(guest, "on" if request.param == "with offloads" else "off")
    yield [(g1, g2), (g3, g4)]
    for guest in net.guests:
        set_offloads(guest, "on")


@pytest.mark.parametrize("family", [4, 6], ids=["IPv4", "IPv6"])
def test_a_file_arrives_whole_both_ways_and_no_checksum_is_wrong(
    net: Lab, pairs: list[tuple[Guest, Guest]], family: int
) -> None:
    for left, right in pairs:
        for sender, receiver in ((left, right), (right, left)):
            seconds = carry_tcp(sender, receiver, random_file(FILE_SIZE), family=family)
            print(
                f"{sender.label} -> {receiver.label}: {FILE_SIZE * 8e-6 / seconds:.0f} Mbit/s (the test's own pace)"
            )
    assert [checksum_errors(guest) for guest in net.guests] == [0, 0, 0, 0]


def test_guests_of_different_mtu_exchange_a_file(net: Lab) -> None:
    g1, g2, g3, g4 = net.guests
    for sender, receiver in ((g1, g4), (g4, g1), (g3, g2), (g2, g3)):
        carry_tcp(sender, receiver, random_file(FILE_SIZE))
    assert [checksum_errors(guest) for guest in net.guests] == [0, 0, 0, 0]


@pytest.mark.parametrize("family", [4, 6], ids=["IPv4", "IPv6"])
def test_udp_of_every_size_up_to_the_mtu_arrives_whole(
    net: Lab, pairs: list[tuple[Guest, Guest]], family: int
) -> None:
    overhead = 28 if family == 4 else 48
    for left, right in pairs:
        largest = left.mtu - overhead
        sizes = [*range(0, largest, 97), *range(largest - 40, largest + 1)]
        sent = [os.urandom(size) for size in sizes]
        for sender, receiver in ((left, right), (right, left)):
            assert net.ping(sender, receiver.ipv4, count=1).received == 1
            assert carry_udp(sender, receiver, sent, family=family, pause=0.0005) == sent
    assert [checksum_errors(guest) for guest in net.guests] == [0, 0, 0, 0]


@pytest.mark.parametrize("unit", [100, 1000, 1472])
def test_udp_super_frames_arrive_as_the_datagrams_that_they_are(net: Lab, unit: int) -> None:
    g1, g2, *_ = net.guests
    for sender, receiver in ((g1, g2), (g2, g1)):
        assert net.ping(sender, receiver.ipv4, count=1).received == 1
        payload = os.urandom(unit * 30 + 7)
        received = carry_udp_super_frame(sender, receiver, payload, unit)
        assert [len(part) for part in received] == [unit] * 30 + [7]
        assert b"".join(received) == payload
    assert [checksum_errors(guest) for guest in (g1, g2)] == [0, 0]


@pytest.mark.parametrize("family", [4, 6], ids=["IPv4", "IPv6"])
def test_pings_that_fill_the_mtu_pass_unfragmented(net: Lab, family: int) -> None:
    g1, g2, g3, g4 = net.guests
    for sender, receiver in ((g1, g2), (g3, g4), (g4, g3)):
        size = sender.mtu - (28 if family == 4 else 48)
        address = receiver.ipv4 if family == 4 else receiver.ipv6
        done = sender.run(
            [
                *("ping", "-n", "-q", "-M", "do", "-s", str(size)),
                *("-c", "20", "-i", "0.01", "-W", "1", address),
            ],
            check=False,
        )
        assert " 20 received" in done.stdout
