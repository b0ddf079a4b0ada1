"""Faults of the underlay that only a kernel has: loss, a path that shrinks silently, sends that are refused.

    g1 (MTU 1500) --[br-lab h1]--(node)-- under0 ==(switch)== under0 --(node)--[br-lab h2]-- g2 (MTU 1500)
    g3 (MTU 9000) --'                                                                    `-- g4 (MTU 9000)

The hosts' links cut bursts themselves (tx-udp-segmentation off), so that iptables at the receiver decides on each
datagram alone, as a wire does; otherwise a burst of 64 would be one packet to it.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from l2overlay.testing.lab import Host, Lab
from tests.host.stations import (
    Flow,
    carry_tcp,
    carry_udp,
    checksum_errors,
    eventually,
    random_file,
    status,
    tell_nodes,
)

SHRUNK_MTU = {4: 1400, 6: 1380}


@pytest.fixture(scope="module", params=[4, 6], ids=["IPv4 underlay", "IPv6 underlay"])
def family(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture(scope="module")
def net(family: int) -> Iterator[Lab]:
    with Lab() as lab:
        h1, h2 = lab.add_underlay(hosts=2)
        for mtu in (1500, 9000):
            lab.add_guest(h1, mtu=mtu)
            lab.add_guest(h2, mtu=mtu)
        for host in lab.hosts:
            host.run(["ethtool", "-K", "under0", "tx-udp-segmentation", "off"])
        lab.write_peers_toml(family=4 if family == 4 else 6, segment="mtu = 9000")
        lab.start_nodes()
        yield lab


@pytest.fixture(autouse=True)
def _what_the_nodes_say(net: Lab) -> Iterator[None]:
    yield
    tell_nodes(net)


@contextmanager
def rule(host: Host, family: int, table: str, chain: str, *match: str) -> Iterator[None]:
    """A rule of iptables or ip6tables in the host, for the length of the block: what it matches is dropped.

    Name the link: where br_netfilter is loaded, the guests' own frames pass these chains as well.
    """
    program = "iptables" if family == 4 else "ip6tables"
    host.run([program, "-w", "5", "-t", table, "-A", chain, *match, "-j", "DROP"])
    try:
        yield
    finally:
        host.run([program, "-w", "5", "-t", table, "-D", chain, *match, "-j", "DROP"])


@contextmanager
def on_both(net: Lab, family: int, table: str, chain: str, *match: str) -> Iterator[None]:
    h1, h2 = net.hosts
    with rule(h1, family, table, chain, *match), rule(h2, family, table, chain, *match):
        yield


# Random loss


@pytest.fixture(params=["on", "off"], ids=["offloads on", "offloads off"])
def offloads(net: Lab, request: pytest.FixtureRequest) -> Iterator[None]:
    """Of the receivers' ends only: the senders go on making super-frames, or there would be nothing to take apart."""

    def switch(state: str) -> None:
        for guest in net.guests:
            guest.host.run(["ethtool", "-K", guest.label, "tx", state])

    switch(request.param)
    yield
    switch("on")


@pytest.mark.parametrize("family", [4], indirect=True, ids=["IPv4 underlay"])
@pytest.mark.parametrize(("percent", "size"), [(1, 4 << 20), (10, 1 << 19)], ids=["1 %", "10 %"])
@pytest.mark.usefixtures("offloads")
def test_files_arrive_whole_over_a_lossy_underlay(net: Lab, family: int, percent: int, size: int) -> None:
    """A loss makes runs of a super-frame's parts, whose headers we correct: without offloads the guests verify that."""
    g1, g2, g3, g4 = net.guests
    chance = (
        "-i",
        "under0",
        "-p",
        "udp",
        "-m",
        "statistic",
        "--mode",
        "random",
        "--probability",
        f"{percent / 100}",
    )
    with on_both(net, family, "filter", "INPUT", *chance):
        for sender, receiver, inner in ((g1, g2, 4), (g2, g1, 6), (g3, g4, 4), (g4, g3, 6)):
            seconds = carry_tcp(sender, receiver, random_file(size), family=inner)
            print(f"{percent} %, MTU {sender.mtu}, IPv{inner}: {size * 8e-6 / seconds:.0f} Mbit/s")
    assert [checksum_errors(guest) for guest in net.guests] == [0, 0, 0, 0]


@pytest.mark.parametrize("family", [4], indirect=True, ids=["IPv4 underlay"])
@pytest.mark.parametrize("percent", [1, 10])
def test_no_more_frames_are_lost_than_datagrams(net: Lab, family: int, percent: int) -> None:
    """Small frames one at a time, so that each is one datagram; four standard deviations of chance are allowed for."""
    g1, g2, *_ = net.guests
    chance = (
        "-i",
        "under0",
        "-p",
        "udp",
        "-m",
        "statistic",
        "--mode",
        "random",
        "--probability",
        f"{percent / 100}",
    )
    assert net.ping(g1, g2.ipv4, count=2).received
    count = 4000
    with rule(net.hosts[1], family, "filter", "INPUT", *chance):
        sent = [n.to_bytes(4) for n in range(count)]
        received = carry_udp(g1, g2, sent, pause=0.0001)
    loss = 100 * (1 - len(received) / count)
    spread = 100 * (percent / 100 * (1 - percent / 100) / count) ** 0.5
    print(f"{loss:.2f} % of the frames lost at {percent} % of the datagrams")
    assert loss <= percent + 0.1 + 4 * spread
    assert loss >= percent - 4 * spread  # the rule was there
    assert len(set(received)) == len(received)


# A path that shrinks without a word


def test_a_path_that_shrinks_without_icmp_is_found_within_five_seconds(net: Lab, family: int) -> None:
    g1, g2, g3, g4 = net.guests
    eventually(lambda: min(_path_sizes(net)) > 1400, 4.0)
    too_long = ("-i", "under0", "-p", "udp", "-m", "length", "--length", f"{SHRUNK_MTU[family] + 1}:65535")
    with Flow(g1, g2) as small, Flow(g1, g2, 0.02, 1514) as out, Flow(g2, g1, 0.02, 1514) as back:
        time.sleep(0.1)
        with on_both(net, family, "raw", "PREROUTING", *too_long):
            eventually(lambda: max(_path_sizes(net)) <= SHRUNK_MTU[family] - (28 if family == 4 else 48), 5.0)
            for flow in (out, back):
                flow.flows_again(1.0)
            for sender, receiver, inner in ((g1, g2, 4), (g4, g3, 6)):
                carry_tcp(sender, receiver, random_file(2 << 20), family=inner)
            assert net.ping(g3, g4.ipv4, count=5, size=8972).lost == 0
            sent = [os.urandom(1472) for _ in range(100)]
            assert carry_udp(g2, g1, sent, pause=0.0005) == sent
    print(f"full-size frames pass after {out.outage():.1f} s out, {back.outage():.1f} s back")
    assert min(out.outage(), back.outage()) > 1.0  # the rule was there
    assert max(out.outage(), back.outage()) < 5.0
    # A small frame may share a datagram with a large one until then, and a lone one never suffers.
    print(f"{len(small.lost)} of {len(small.sent_times)} small frames lost")
    assert len(small.lost) < 30
    assert small.outage() < 0.1


# Sends that are refused


def test_a_firewall_that_refuses_our_sends_is_counted_and_survived(net: Lab, family: int) -> None:
    g1, g2, *_ = net.guests
    h1 = net.hosts[0]
    before = status(net.nodes[0])["drops"]["send_refused"]
    with Flow(g1, g2) as flow:
        time.sleep(0.1)
        with rule(h1, family, "filter", "OUTPUT", "-p", "udp", "--dport", "7470"):
            time.sleep(0.5)
        print(f"back after {flow.flows_again(1.0):.3f} s")
    refused = status(net.nodes[0])["drops"]["send_refused"] - before
    print(f"{refused} refused, {len(flow.lost)} lost")
    assert refused >= len(flow.lost) > 20
    assert net.nodes[0].process.poll() is None


def test_an_underlay_without_a_route_is_counted_and_survived(net: Lab, family: int) -> None:
    g1, g2, *_ = net.guests
    h1, h2 = net.hosts
    before = status(net.nodes[0])["drops"]["send_unreachable"]
    target = h2.ipv4 + "/32" if family == 4 else h2.ipv6 + "/128"
    with Flow(g1, g2) as flow:
        time.sleep(0.1)
        h1.ip(f"route add unreachable {target}")
        time.sleep(0.5)
        h1.ip(f"route del unreachable {target}")
        print(f"back after {flow.flows_again(2.0):.3f} s")
    unreachable = status(net.nodes[0])["drops"]["send_unreachable"] - before
    print(f"{unreachable} unreachable, {len(flow.lost)} lost")
    assert unreachable >= len(flow.lost) > 20


def test_a_link_that_is_down_for_a_moment_is_counted_and_survived(net: Lab, family: int) -> None:
    g1, g2, *_ = net.guests
    h1 = net.hosts[0]
    address = f"{h1.ipv4}/24" if family == 4 else f"{h1.ipv6}/64"
    with Flow(g1, g2) as out, Flow(g2, g1) as back:
        time.sleep(0.1)
        h1.ip("link set under0 down")
        time.sleep(0.5)
        h1.ip("link set under0 up")
        if family == 6:  # the kernel takes IPv6 addresses away with the link
            h1.ip(f"addr replace {address} dev under0 nodad")
        print(f"back after {max(out.flows_again(2.0), back.flows_again(2.0)):.3f} s")
    assert out.repeated == back.repeated == []
    assert net.nodes[0].process.poll() is None


def test_a_link_mtu_lowered_on_our_own_host_is_obeyed_at_once(net: Lab, family: int) -> None:
    """What the host itself knows needs no probes; the other end finds out as for any silent path."""
    g1, g2, *_ = net.guests
    h1 = net.hosts[0]
    limit = 1300 - (28 if family == 4 else 48)
    with Flow(g1, g2) as small:
        h1.ip("link set under0 mtu 1300")
        print(f"obeyed after {eventually(lambda: _path_sizes(net)[0] <= limit, 1.5):.3f} s")
        sent = [n.to_bytes(4) + os.urandom(1468) for n in range(50)]
        assert carry_udp(g1, g2, sent, pause=0.001) == sent
        h1.ip("link set under0 mtu 1500")
        print(f"raised after {eventually(lambda: _path_sizes(net)[0] > 1400, 3.0):.3f} s")
    assert small.lost == []


def _path_sizes(net: Lab) -> list[int]:
    """What each node sends the other in one datagram."""
    return [int(status(node)["peers"][0]["datagram_size"]) for node in net.nodes]
