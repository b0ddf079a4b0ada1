"""TCP whose segments are signed (BGP with a password): each must arrive as it was sent, or its signature is wrong.

    g1 --[br-lab h1]--(node)-- 10.77.0.1 -- relay 10.77.0.3 -- 10.77.0.2 --(node)--[br-lab h2]-- g2

The relay has a slow uplink, loses and reorders: so the datagrams of a segment are read one by one, or not all of them come.
"""

import socket
import struct
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from l2overlay.testing.lab import Guest, Lab
from tests.host.relay import Relay, Weather
from tests.host.stations import random_file, receive_all, tell_nodes
from tests.linux.conftest import inside

SEED = 20261128
TCP_MD5SIG, TCP_AO_ADD_KEY = 14, 38  # <linux/tcp.h>
KEY = b"a password of BGP"
SLOW = Weather(rate=2e6)
WEATHERS = {
    "slow uplink": SLOW,
    "slow uplink that reorders": Weather(rate=2e6, reordering=0.05),
    "slow uplink that loses and reorders": Weather(rate=2e6, loss=0.01, reordering=0.05),
    "loss and reordering": Weather(loss=0.02, reordering=0.1),
}


@pytest.fixture(scope="module", params=[1500, 9000], ids=["MTU 1500", "MTU 9000"])
def net(request: pytest.FixtureRequest) -> Iterator[tuple[Lab, Relay]]:
    with Lab() as lab:
        h1, h2, between = lab.add_underlay(hosts=3)
        for host in (h1, h2):
            lab.add_guest(host, mtu=request.param)
        both = lab.write_peers_toml([h1, h2], segment=f"mtu = {request.param}", name="both.toml").read_text()
        near, far = lab.folder / "near.toml", lab.folder / "far.toml"
        near.write_text(both.replace(f"{h2.ipv4}:7470", f"{between.ipv4}:7471"))
        far.write_text(both.replace(f'endpoint = "{h1.ipv4}:7470"', ""))
        with Relay(between, between.ipv4, (h1.ipv4, 7470), (h2.ipv4, 7470), SEED) as relay:
            for host, file in ((h1, near), (h2, far)):
                lab.start_node(host, peers_file=file)
            lab.wait_ready()
            assert lab.ping(lab.guests[0], lab.guests[1].ipv4, count=3).received
            yield lab, relay


def sign_md5(one: socket.socket, peer: str) -> None:
    """struct tcp_md5sig."""
    address = struct.pack("=HH4s", socket.AF_INET, 0, socket.inet_aton(peer)).ljust(128, b"\0")
    one.setsockopt(socket.IPPROTO_TCP, TCP_MD5SIG, address + struct.pack("=BBHi80s", 0, 0, len(KEY), 0, KEY))


def sign_ao(one: socket.socket, peer: str) -> None:
    """struct tcp_ao_add."""
    address = struct.pack("=HH4s", socket.AF_INET, 0, socket.inet_aton(peer)).ljust(128, b"\0")
    key = struct.pack("=64siIHBBBBBB80s", b"hmac(sha1)", 0, 0, 0, 32, 100, 100, 12, 0, len(KEY), KEY)
    one.setsockopt(socket.IPPROTO_TCP, TCP_AO_ADD_KEY, address + key)


SIGNERS = {"MD5": sign_md5, "AO": sign_ao}


def carry_signed(
    sender: Guest, receiver: Guest, data: bytes, sign: Callable[[socket.socket, str], None]
) -> tuple[str, int]:
    """Digest and length of what arrived."""
    with inside(receiver):
        server = socket.socket()
    with inside(sender):
        client = socket.socket()
    with server, client, ThreadPoolExecutor(1) as thread:
        try:
            sign(server, sender.ipv4)
            sign(client, receiver.ipv4)
        except OSError as error:
            pytest.skip(f"this kernel has no such signatures: {error.strerror}")
        server.bind((receiver.ipv4, 0))
        server.listen()
        server.settimeout(20.0)
        client.settimeout(20.0)
        received = thread.submit(receive_all, server, 20.0)
        client.connect(server.getsockname())
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        return received.result()


def failures(guest: Guest) -> int:
    """Segments whose signature was wrong, missing or unexpected."""
    names, values = (
        line.split()
        for line in guest.run(["cat", "/proc/net/netstat"]).stdout.splitlines()
        if line.startswith("TcpExt:")
    )
    said = dict(zip(names[1:], map(int, values[1:]), strict=True))
    return sum(
        count for name, count in said.items() if name.startswith(("TCPMD5", "TCPAOBad", "TCPAOKeyNot"))
    )


@pytest.mark.parametrize("weather", WEATHERS.values(), ids=WEATHERS.keys())
@pytest.mark.parametrize("signature", SIGNERS)
def test_no_signature_fails_whatever_the_path_does(
    net: tuple[Lab, Relay], weather: Weather, signature: str
) -> None:
    lab, relay = net
    g1, g2 = lab.guests
    data = random_file(150_000)
    relay.weather = weather
    try:
        _, length = carry_signed(g1, g2, data, SIGNERS[signature])
    finally:
        relay.weather = Weather()
        print(f"seed {SEED}: {relay.fates}")
        tell_nodes(lab)
    assert length == len(data)
    assert [failures(guest) for guest in lab.guests] == [0, 0]
