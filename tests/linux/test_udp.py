"""Two hosts, one link, real sockets.

a: eth0 10.0.0.1 fd00::1 <--veth--> b: eth0 10.0.0.2 fd00::2
"""

import errno
import select
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import pytest

from l2overlay.addresses import Address
from l2overlay.counters import DropReason
from l2overlay.errors import HostSetupError
from l2overlay.linux import sendmmsg as sendmmsg_module
from l2overlay.linux.sendmmsg import MAX_MESSAGES
from l2overlay.linux.udp import BATCH_FROM, LinuxUdp
from l2overlay.linux.udp_addresses import CACHE_SIZE, canonical_address
from l2overlay.linux.udp_socket import RECEIVE_BUFFER_SIZE, SEND_BUFFER_SIZE
from l2overlay.seams import MAX_BURST_LEN, Burst, MarkedBurst
from l2overlay.testing.lab import Namespace

from .conftest import inside, wait_for_carrier

MACS = {1: "02:00:00:00:00:01", 2: "02:00:00:00:00:02"}
PEER4, PEER6 = "10.0.0.2", "fd00::2"
SO_NO_CHECK = 11


class Hosts:
    """The two namespaces, and sockets opened in them."""

    def __init__(self, a: Namespace, b: Namespace, stack: ExitStack) -> None:
        self.a, self.b, self._stack = a, b, stack

    def open(self, host: Namespace, *, gso: bool = True, gro: bool = True) -> LinuxUdp:
        with inside(host):
            udp = LinuxUdp.open(0, gso=gso, gro=gro)
        self._stack.callback(udp.close)
        return udp


@pytest.fixture
def hosts(namespace: Callable[[], Namespace]) -> Iterator[Hosts]:
    a, b = namespace(), namespace()
    a.ip(f"link add eth0 address {MACS[1]} type veth peer name eth0 address {MACS[2]} netns {b.name}")
    for host, number, other in ((a, 1, 2), (b, 2, 1)):
        networks = {"10.0.0.": 24, "fd00::": 64, "fe80::": 64}
        host.ip(
            "link set eth0 addrgenmode none up",
            *(f"addr add {net}{number}/{prefix_len} dev eth0" for net, prefix_len in networks.items()),
            *(f"neigh add {net}{other} lladdr {MACS[other]} dev eth0" for net in networks),
        )
    wait_for_carrier(a)
    wait_for_carrier(b)
    with ExitStack() as stack:
        yield Hosts(a, b, stack)


def receive(udp: LinuxUdp, datagrams: int, timeout: float = 2.0) -> list[Burst]:
    """Bursts until as many datagrams are there, or nothing more came in time."""
    bursts: list[Burst] = []
    while sum(len(b.datagrams()) for b in bursts) < datagrams and select.select([udp], [], [], timeout)[0]:
        bursts += udp.receive_bursts(32)
    return bursts


def datagrams_of(bursts: Sequence[Burst]) -> list[bytes]:
    return [datagram for burst in bursts for datagram in burst.datagrams()]


def numbered(count: int, size: int, last: int | None = None) -> list[bytes]:
    """Datagrams that differ, all of `size` bytes but the last."""
    datagrams = [n.to_bytes(2, "big").ljust(size, b"d") for n in range(count)]
    return [*datagrams[:-1], datagrams[-1][:last]]


@pytest.mark.parametrize("peer", [PEER4, PEER6])
def test_a_burst_of_40_datagrams_leaves_and_arrives_as_one(hosts: Hosts, peer: str) -> None:
    sender, receiver = hosts.open(hosts.a), hosts.open(hosts.b)
    assert sender.gso
    assert receiver.gro
    sent = numbered(40, 1400, last=300)
    assert sender.send_bursts([Burst(Address(peer, receiver.port), 1400, sent)]) == (1, {})
    (burst,) = receive(receiver, 40)
    assert burst.datagrams() == sent
    assert burst.address == Address("10.0.0.1" if peer == PEER4 else "fd00::1", sender.port)


@pytest.mark.parametrize("peer", [PEER4, PEER6])
def test_without_gso_and_gro_the_same_datagrams_come_one_by_one(hosts: Hosts, peer: str) -> None:
    sender, receiver = hosts.open(hosts.a, gso=False), hosts.open(hosts.b, gro=False)
    sent = numbered(40, 1400, last=300)
    pieces = [b"".join(sent)[i : i + 1000] for i in range(0, 39 * 1400 + 300, 1000)]  # not cut at datagrams
    assert sender.send_bursts([Burst(Address(peer, receiver.port), 1400, pieces)]) == (1, {})
    received = receive(receiver, 40)
    assert len(received) == 40
    assert datagrams_of(received) == sent


def test_ipv4_and_ipv6_peers_share_one_port_and_can_be_answered(hosts: Hosts) -> None:
    sender, receiver = hosts.open(hosts.a), hosts.open(hosts.b)
    for peer in (PEER4, PEER6):
        sender.send_bursts([Burst(Address(peer, receiver.port), 100, [b"question"])])
        (question,) = receive(receiver, 1)
        assert receiver.send_bursts([Burst(question.address, 100, [b"answer"])]) == (1, {})
        (answer,) = receive(sender, 1)
        assert (answer.address, answer.buffers) == (Address(peer, receiver.port), [b"answer"])


def test_a_link_local_peer_is_named_with_its_link_and_can_be_answered(hosts: Hosts) -> None:
    sender, receiver = hosts.open(hosts.a), hosts.open(hosts.b)
    peer = "fe80::2%eth0"
    with inside(hosts.a):
        assert sender.send_bursts([Burst(Address(peer, receiver.port), 100, [b"question"])]) == (1, {})
    with inside(hosts.b):
        (question,) = receive(receiver, 1)
        assert question.address.host.startswith("fe80::")
        assert question.address.host.endswith("%eth0")
        receiver.send_bursts([Burst(question.address, 100, [b"answer"])])
    assert [b.address.host for b in receive_inside(hosts.a, sender)] == [peer]


def receive_inside(host: Namespace, udp: LinuxUdp) -> list[Burst]:
    with inside(host):
        return receive(udp, 1)


@pytest.mark.parametrize("gso", [True, False])
def test_a_burst_beyond_64_datagrams_or_64_kib_is_split(hosts: Hosts, gso: bool) -> None:
    sender, receiver = hosts.open(hosts.a, gso=gso), hosts.open(hosts.b)
    address = Address(PEER4, receiver.port)
    many, large, pieces = numbered(200, 100), numbered(60, 1400), [b"p"] * 1300
    bursts = [Burst(address, 100, many), Burst(address, 1400, large), Burst(address, 1300, pieces)]
    assert sender.send_bursts(bursts) == (3, {})
    assert datagrams_of(receive(receiver, 261)) == [*many, *large, b"p" * 1300]
    assert sender.gso is gso


def test_an_empty_datagram_arrives_as_one_that_is_empty(hosts: Hosts) -> None:
    sender, receiver = hosts.open(hosts.a), hosts.open(hosts.b)
    sender.send_bursts(
        [Burst(Address(PEER4, receiver.port), 1, [b""]), Burst(Address(PEER4, receiver.port), 3, [b"end"])]
    )
    assert [b.buffers for b in receive(receiver, 1)] == [[b""], [b"end"]]


def test_a_read_takes_no_more_bursts_than_its_limit(hosts: Hosts) -> None:
    sender, receiver = hosts.open(hosts.a), hosts.open(hosts.b)
    sender.send_bursts([Burst(Address(PEER4, receiver.port), 9, [b"datagram%d" % n]) for n in range(5)])
    assert select.select([receiver], [], [], 2)[0]
    assert [b.buffers[0] for b in receiver.receive_bursts(3)] == [b"datagram0", b"datagram1", b"datagram2"]
    assert [b.buffers[0] for b in receiver.receive_bursts(3)] == [b"datagram3", b"datagram4"]
    assert receiver.receive_bursts(3) == []


def test_a_peer_behind_a_local_firewall_or_no_route_does_not_touch_the_others(hosts: Hosts) -> None:
    sender, receiver = hosts.open(hosts.a), hosts.open(hosts.b)
    hosts.a.run(["iptables", "-A", "OUTPUT", "-p", "udp", "--dport", "9", "-j", "DROP"])
    datagrams = numbered(3, 100)
    bursts = [
        Burst(Address(PEER4, 9), 100, datagrams),  # EPERM
        Burst(Address("192.0.2.1", 7), 100, datagrams),  # ENETUNREACH
        Burst(Address("2001:db8::1", 7), 100, datagrams),
        Burst(Address("fe80::1%nowhere", 7), 100, datagrams),
        Burst(Address("not.numeric", 7), 100, datagrams),
        Burst(Address(PEER4, receiver.port), 100, datagrams),
    ]
    done, refused = sender.send_bursts(bursts)
    assert done == 6
    assert refused == {
        DropReason.SEND_REFUSED: 3,
        DropReason.SEND_UNREACHABLE: 9,
        DropReason.SEND_FAILED: 3,
    }
    assert datagrams_of(receive(receiver, 3)) == datagrams
    assert sender.gso


@pytest.mark.parametrize(("peer", "limit"), [(PEER4, 1372), (PEER6, 1352)])
@pytest.mark.parametrize("gso", [True, False])
def test_what_the_link_cannot_take_is_counted_and_is_no_reason_to_give_gso_up(
    hosts: Hosts, peer: str, limit: int, gso: bool
) -> None:
    hosts.a.ip("link set eth0 mtu 1400")
    sender, receiver = hosts.open(hosts.a, gso=gso), hosts.open(hosts.b)
    address = Address(peer, receiver.port)
    with inside(hosts.a):
        assert sender.path_limit(address) == limit
    fitting = numbered(10, limit)
    bursts = [
        Burst(address, limit + 1, numbered(10, limit + 1, last=50)),
        Burst(address, limit + 1, [bytes(limit + 1)]),
        Burst(address, limit, fitting),
    ]
    assert sender.send_bursts(bursts) == (3, {DropReason.SEND_TOO_LONG: 10})
    assert datagrams_of(receive(receiver, 11))[1:] == fitting
    assert sender.gso is gso


def test_a_path_limit_follows_the_link_once_paths_are_forgotten(hosts: Hosts) -> None:
    udp = hosts.open(hosts.a)
    with inside(hosts.a):
        assert udp.path_limit(Address(PEER4, 1)) == 1472
        assert udp.path_limit(Address(PEER6, 1)) == 1452
        assert udp.path_limit(Address("127.0.0.1", 1)) == MAX_BURST_LEN
        hosts.a.ip("link set eth0 mtu 9000")
        assert udp.path_limit(Address(PEER4, 1)) == 1472
        udp.forget_paths()
        assert udp.path_limit(Address(PEER4, 1)) == 8972
        assert udp.path_limit(Address("192.0.2.1", 1)) == 1472  # no route: what Ethernet usually takes
        assert udp.path_limit(Address("2001:db8::1", 1)) == 1452


def test_a_kernel_that_refuses_gso_gets_the_datagrams_one_by_one_and_is_not_asked_again(hosts: Hosts) -> None:
    sender, receiver = hosts.open(hosts.a), hosts.open(hosts.b)
    with socket.socket(fileno=socket.dup(sender.fileno())) as same:
        same.setsockopt(socket.SOL_SOCKET, SO_NO_CHECK, 1)  # GSO without checksums: EINVAL
    sent = numbered(10, 1000)
    assert sender.send_bursts([Burst(Address(PEER4, receiver.port), 1000, list(sent))]) == (1, {})
    assert not sender.gso
    assert datagrams_of(receive(receiver, 10)) == sent
    assert sender.send_bursts([Burst(Address(PEER4, receiver.port), 1000, list(sent))]) == (1, {})
    assert datagrams_of(receive(receiver, 10)) == sent


def test_an_older_kernel_that_calls_too_long_invalid_keeps_gso(hosts: Hosts) -> None:
    class Linux5(socket.socket):
        def sendmsg(self, buffers: Any, ancillary: Any = (), *rest: Any) -> int:
            if ancillary:
                raise OSError(errno.EINVAL, "Invalid argument")
            return super().sendmsg(buffers, ancillary, *rest)

    with inside(hosts.a), Linux5(socket.AF_INET6, socket.SOCK_DGRAM) as kernel:
        sender, receiver = LinuxUdp(kernel), hosts.open(hosts.b)
        burst = Burst(Address(PEER4, receiver.port), 1473, numbered(10, 1473, last=50))
        assert sender.send_bursts([burst]) == (1, {DropReason.SEND_TOO_LONG: 9})
        assert sender.gso
        assert len(receive(receiver, 1)) == 1
        sender.close()


@pytest.mark.parametrize("gso", [True, False])
def test_a_full_socket_keeps_what_is_left_and_every_datagram_arrives_once(hosts: Hosts, gso: bool) -> None:
    """A neighbour that does not answer: the kernel holds the datagrams, and with them the socket's buffer."""
    sender, receiver = hosts.open(hosts.a, gso=gso), hosts.open(hosts.b)
    with socket.socket(fileno=socket.dup(sender.fileno())) as same:
        same.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 20_000)
    hosts.b.ip("addr add 10.0.0.9/32 dev lo", "link set eth0 arp off")
    sent = numbered(100, 1000)
    bursts = [Burst(Address("10.0.0.9", receiver.port), 1000, sent[i : i + 10]) for i in range(0, 100, 10)]
    done, refused = sender.send_bursts(bursts)
    assert refused == {}
    assert done < 10
    hosts.a.ip(f"neigh replace 10.0.0.9 lladdr {MACS[2]} dev eth0")
    received = receive(receiver, 1)
    while done < 10:
        assert select.select([], [sender], [], 2)[1]
        more, refused = sender.send_bursts(bursts[done:])
        assert refused == {}
        done += more
    received += receive(receiver, 100 - len(datagrams_of(received)))
    assert datagrams_of(received) == sent


@pytest.mark.parametrize("gso", [True, False])
def test_an_icmp_error_of_an_earlier_send_stops_neither_sending_nor_receiving(
    hosts: Hosts, gso: bool
) -> None:
    sender, receiver = hosts.open(hosts.a, gso=gso), hosts.open(hosts.b)
    with socket.socket(fileno=socket.dup(sender.fileno())) as same:
        same.setsockopt(socket.IPPROTO_IP, 11, 1)  # IP_RECVERR: unconnected sockets hear ICMP only then
    nobody, somebody = Address(PEER4, 9), Address(PEER4, receiver.port)
    for sent in (numbered(1, 100), numbered(10, 100)):
        sender.send_bursts([Burst(nobody, 100, [b"x"])])
        assert select.select([sender], [], [], 2)[0]
        assert sender.send_bursts([Burst(somebody, 100, list(sent))]) == (1, {})
        assert datagrams_of(receive(receiver, len(sent))) == sent
    sender.send_bursts([Burst(nobody, 100, [b"x"])])
    assert select.select([sender], [], [], 2)[0]
    assert sender.receive_bursts(10) == []


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many messages each sendmmsg was given, without the question whether there is one."""
    given: list[int] = []

    def spy(descriptor: int, headers: int | None, count: int, flags: int) -> int:
        if count:
            given.append(count)
        return int(real(descriptor, headers, count, flags))

    real = sendmmsg_module._sendmmsg
    monkeypatch.setattr(sendmmsg_module, "_sendmmsg", spy)
    return given


@pytest.fixture(params=["sendmmsg", "no sendmmsg"])
def libc(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What stands here happens the same in both."""
    if request.param == "no sendmmsg":
        monkeypatch.setattr(sendmmsg_module, "_sendmmsg", None)


def singles(addresses: Sequence[Address], datagrams: Sequence[bytes]) -> list[Burst]:
    """One burst a datagram, to the addresses in turn."""
    return [Burst(addresses[n % len(addresses)], len(d) or 1, [d]) for n, d in enumerate(datagrams)]


def test_many_datagrams_to_many_peers_take_few_calls(hosts: Hosts, calls: list[int]) -> None:
    sender, receiver = hosts.open(hosts.a), hosts.open(hosts.b)
    addresses = [Address(PEER4, receiver.port), Address(PEER6, receiver.port)]
    sent = numbered(MAX_MESSAGES * 2 + BATCH_FROM, 100)
    assert sender.send_bursts(singles(addresses, sent)) == (len(sent), {})
    assert calls == [MAX_MESSAGES, MAX_MESSAGES, BATCH_FROM]
    assert sender.send_bursts(singles(addresses, sent[: BATCH_FROM - 1])) == (BATCH_FROM - 1, {})
    assert len(calls) == 3
    assert datagrams_of(receive(receiver, len(sent) + BATCH_FROM - 1)) == sent + sent[: BATCH_FROM - 1]


@pytest.mark.usefixtures("libc")
def test_datagrams_of_every_length_and_kind_arrive_in_order(hosts: Hosts) -> None:
    sender, receiver = hosts.open(hosts.a), hosts.open(hosts.b, gro=False)
    addresses = [Address(PEER4, receiver.port), Address(PEER6, receiver.port)]
    sent = [bytes([n]) * (n * 37 % 1452) for n in range(250)]
    bursts = singles(addresses, sent)
    for number, burst in enumerate(bursts):
        data = sent[number]
        if number % 4 == 1:
            burst.buffers = [bytearray(data)]
        elif number % 4 == 2:
            burst.buffers = [data[:16], data[16:]]  # header and ciphertext
        elif number % 4 == 3:
            burst.datagram_size = 1472  # the only datagram is the last, and may be shorter
    assert sender.send_bursts(bursts) == (250, {})
    received = receive(receiver, 250)
    assert [burst.buffers for burst in received] == [[data] for data in sent]
    assert {burst.address.host for burst in received} == {"10.0.0.1", "fd00::1"}


@pytest.mark.usefixtures("libc")
def test_joined_bursts_between_single_datagrams_keep_their_place(hosts: Hosts) -> None:
    sender, receiver = hosts.open(hosts.a), hosts.open(hosts.b)
    address = Address(PEER4, receiver.port)
    alone, parts = numbered(90, 200), numbered(7, 300)
    headed = [piece for part in parts for piece in (part[:16], part[16:])]
    bursts = singles([address], alone)
    for place, buffers in ((90, [b"".join(parts)]), (60, headed), (50, parts[:2]), (20, parts), (0, headed)):
        bursts.insert(place, Burst(address, 300, list(buffers)))
    assert sender.send_bursts(bursts) == (95, {})
    expected = [*parts, *alone[:20], *parts, *alone[20:50]]
    expected += [*parts[:2], *alone[50:60], *parts, *alone[60:], *parts]
    assert datagrams_of(receive(receiver, len(expected))) == expected


@pytest.mark.usefixtures("libc")
def test_what_is_refused_among_many_is_counted_once_and_the_others_arrive(hosts: Hosts) -> None:
    sender, receiver = hosts.open(hosts.a), hosts.open(hosts.b)
    hosts.a.run(["iptables", "-A", "OUTPUT", "-p", "udp", "--dport", "9", "-j", "DROP"])
    good, sent = Address(PEER4, receiver.port), numbered(100, 100)
    bursts = singles([good, Address(PEER6, receiver.port)], sent)
    bad = {
        0: Address(PEER4, 9),  # EPERM
        30: Address("192.0.2.1", 7),  # ENETUNREACH
        31: Address("2001:db8::1", 7),
        32: Address("fe80::1%nowhere", 7),
        33: Address("not.numeric", 7),
        63: Address(PEER6, 0),  # EINVAL
        99: Address("192.0.2.1", 7),
    }
    for place, address in bad.items():
        bursts[place].address = address
    bursts[70].buffers = [bytes(1473)]  # EMSGSIZE
    bursts[70].datagram_size = 1473
    for _ in range(2):
        done, refused = sender.send_bursts(bursts)
        assert done == 100
        assert refused == {
            DropReason.SEND_REFUSED: 1,
            DropReason.SEND_UNREACHABLE: 4,
            DropReason.SEND_FAILED: 2,
            DropReason.SEND_TOO_LONG: 1,
        }
        expected = [datagram for number, datagram in enumerate(sent) if number not in {*bad, 70}]
        assert datagrams_of(receive(receiver, len(expected))) == expected
    assert sender.gso


@pytest.mark.usefixtures("libc")
def test_a_socket_that_fills_up_among_many_keeps_the_rest_and_each_arrives_once(hosts: Hosts) -> None:
    """As above, a neighbour that does not answer; and what was refused before is not counted twice."""
    sender, receiver = hosts.open(hosts.a), hosts.open(hosts.b)
    with socket.socket(fileno=socket.dup(sender.fileno())) as same:
        same.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 20_000)
    hosts.b.ip("addr add 10.0.0.9/32 dev lo", "link set eth0 arp off")
    sent = numbered(100, 1000)
    bursts = singles([Address("10.0.0.9", receiver.port)], sent)
    bursts[3].address = bursts[98].address = Address("192.0.2.1", 7)
    done, refused = sender.send_bursts(bursts)
    assert refused == {DropReason.SEND_UNREACHABLE: 1}
    assert 4 < done < 90
    hosts.a.ip(f"neigh replace 10.0.0.9 lladdr {MACS[2]} dev eth0")
    while done < 100:
        assert select.select([], [sender], [], 2)[1]
        more, again = sender.send_bursts(bursts[done:])
        done += more
        for reason, count in again.items():
            refused[reason] = refused.get(reason, 0) + count
    assert refused == {DropReason.SEND_UNREACHABLE: 2}
    assert datagrams_of(receive(receiver, 98)) == [*sent[:3], *sent[4:98], sent[99]]


@pytest.mark.usefixtures("libc")
def test_an_icmp_error_of_an_earlier_send_costs_none_of_many(hosts: Hosts) -> None:
    sender, receiver = hosts.open(hosts.a), hosts.open(hosts.b)
    with socket.socket(fileno=socket.dup(sender.fileno())) as same:
        same.setsockopt(socket.IPPROTO_IP, 11, 1)  # IP_RECVERR: unconnected sockets hear ICMP only then
    sent = numbered(100, 100)
    bursts = singles([Address(PEER4, receiver.port)], sent)
    bursts[50].address = Address(PEER4, 9)  # nobody: its answer comes while the others leave
    sender.send_bursts([Burst(Address(PEER4, 9), 100, [b"x"])])
    assert select.select([sender], [], [], 2)[0]
    assert sender.send_bursts(bursts) == (100, {})
    assert datagrams_of(receive(receiver, 99)) == sent[:50] + sent[51:]


def test_many_to_link_local_peers_follow_the_links_number(hosts: Hosts, calls: list[int]) -> None:
    sender, receiver = hosts.open(hosts.a), hosts.open(hosts.b)
    sent = numbered(BATCH_FROM, 100)
    bursts = singles([Address("fe80::2%eth0", receiver.port)], sent)
    with inside(hosts.a):
        assert sender.send_bursts(bursts) == (BATCH_FROM, {})
        assert datagrams_of(receive(receiver, BATCH_FROM)) == sent
        hosts.a.ip(
            "link set eth0 down",
            "link set eth0 name away up",
            "addr add fe80::1/64 dev away",
            f"neigh add fe80::2 lladdr {MACS[2]} dev away",
        )
        wait_for_carrier(hosts.a)
        sender.forget_paths()
        assert sender.send_bursts(bursts) == (BATCH_FROM, {DropReason.SEND_UNREACHABLE: BATCH_FROM})
        renamed = singles([Address("fe80::2%away", receiver.port)], sent)
        assert sender.send_bursts(renamed) == (BATCH_FROM, {})
    assert calls[0] == calls[-1] == BATCH_FROM


def open_without_ipv6(hosts: Hosts) -> LinuxUdp:
    """A sender on host a as where the kernel has no IPv6."""

    def no_ipv6(family: int, kind: int, protocol: int = 0) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
        return real_socket(family, kind, protocol)

    real_socket = socket.socket
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "socket", no_ipv6)
        return hosts.open(hosts.a)


def test_many_without_ipv6_in_the_kernel(hosts: Hosts, calls: list[int]) -> None:
    receiver, sender = hosts.open(hosts.b), open_without_ipv6(hosts)
    sent = numbered(BATCH_FROM + 1, 100)
    bursts = singles([Address(PEER4, receiver.port)], sent)
    bursts[1].address = Address(PEER6, receiver.port)
    assert sender.send_bursts(bursts) == (len(sent), {DropReason.SEND_UNREACHABLE: 1})
    assert datagrams_of(receive(receiver, BATCH_FROM)) == [sent[0], *sent[2:]]
    assert calls[0] == len(sent)


def test_what_the_socket_had_no_room_for_is_counted_with_the_next_burst(hosts: Hosts) -> None:
    a, b = hosts.open(hosts.a), hosts.open(hosts.b)
    b._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 20_000)
    sent = 200
    for number in range(sent):
        a.send_bursts([Burst(Address(PEER4, b.port), 400, [bytes([number]) * 400])])
    arrived = len(b.receive_bursts(1000))
    assert 0 < arrived < sent
    assert b.overflow_count == 0  # those that are here came before the overflow
    a.send_bursts([Burst(Address(PEER4, b.port), 400, [b"x" * 400])])
    assert len(receive(b, 1)) == 1
    assert b.overflow_count == sent - arrived


def test_the_socket_buffers_are_raised_beyond_the_sysctl(hosts: Hosts) -> None:
    udp = hosts.open(hosts.a)
    assert udp.buffer_sizes == (RECEIVE_BUFFER_SIZE, SEND_BUFFER_SIZE, True)


@pytest.mark.parametrize("count", [1, BATCH_FROM])
def test_nothing_is_sent_to_a_host_that_is_shut_until_it_is_open_again(hosts: Hosts, count: int) -> None:
    sender, receiver = hosts.open(hosts.a), hosts.open(hosts.b)
    sent = numbered(count, 100)
    to = Address(PEER4, receiver.port)
    assert sender.send_bursts(singles([to], sent)) == (count, {})
    assert len(receive(receiver, count)) == count
    sender.shut_hosts(frozenset({PEER4}))
    assert sender.send_bursts(singles([to], sent)) == (count, {DropReason.SEND_LOOP: count})
    assert sender.send_bursts([Burst(to, 100, list(sent))]) == (1, {DropReason.SEND_LOOP: count})
    sender.shut_hosts(frozenset())
    assert sender.send_bursts(singles([to], sent)) == (count, {})
    assert len(receive(receiver, count)) == count


def test_a_port_in_use_is_refused_with_the_command_that_names_its_holder(hosts: Hosts) -> None:
    udp = hosts.open(hosts.a)
    with inside(hosts.a), pytest.raises(HostSetupError, match=f"ss -ulpn sport = :{udp.port}"):
        LinuxUdp.open(udp.port)


def test_without_ipv6_in_the_kernel_ipv4_goes_on(hosts: Hosts) -> None:
    receiver, sender = hosts.open(hosts.b), open_without_ipv6(hosts)
    bursts = [Burst(Address(host, receiver.port), 100, numbered(3, 100)) for host in (PEER6, PEER4)]
    assert sender.send_bursts(bursts) == (2, {DropReason.SEND_UNREACHABLE: 3})
    (burst,) = receive(receiver, 3)
    receiver.send_bursts([Burst(burst.address, 100, [b"answer"])])
    assert [b.address for b in receive(sender, 1)] == [Address(PEER4, receiver.port)]


def test_a_flood_of_senders_leaves_the_address_caches_bounded(hosts: Hosts) -> None:
    udp = hosts.open(hosts.a)
    for number in range(CACHE_SIZE + 100):
        address = Address("127.0.0.1", 1 + number)
        udp.send_bursts([Burst(address, 1, [b""])])
        udp.receive_bursts(1)
    assert len(udp._targets) <= CACHE_SIZE
    addresses = [Address("127.0.0.2", 1 + number) for number in range(CACHE_SIZE + 100)]
    done, _ = udp.send_bursts(singles(addresses, [b""] * len(addresses)))
    assert done == len(addresses)
    assert len(udp._names) <= CACHE_SIZE


@pytest.mark.parametrize(
    ("sockaddr", "host"),
    [
        (("192.0.2.1", 5), "192.0.2.1"),
        (("::ffff:192.0.2.1", 5, 0, 0), "192.0.2.1"),
        (("2001:DB8:0:0::1", 5, 0, 0), "2001:db8::1"),
        (("fe80::1", 5, 0, 1), "fe80::1%lo"),
        (("fe80::1%lo", 5, 0, 1), "fe80::1%lo"),
        (("fe80::1", 5, 0, 123_456), "fe80::1%123456"),
    ],
)
def test_an_address_has_one_name_whatever_the_socket_calls_it(sockaddr: tuple[Any, ...], host: str) -> None:
    assert canonical_address(sockaddr) == Address(host, 5)


@pytest.mark.parametrize("peer", [PEER4, PEER6])
@pytest.mark.parametrize("gso", [True, False])
def test_each_burst_leaves_with_its_own_tos_byte_and_arrives_with_it(
    hosts: Hosts, peer: str, gso: bool
) -> None:
    a, b = hosts.open(hosts.a, gso=gso), hosts.open(hosts.b)
    for udp in (a, b):
        udp.copy_tos(on=True)
    address, marks = Address(peer, b.port), [0xB8, 0xB8, 0, 0x29, 0x03, *range(0, 256, 16)]
    bursts = [MarkedBurst(address, 500, [b"%03d" % n + bytes(997)], tos) for n, tos in enumerate(marks)]
    assert a.send_bursts([*bursts, Burst(address, 3, [b"end"])]) == (len(bursts) + 1, {})
    seen = [
        (burst.tos if isinstance(burst, MarkedBurst) else None, len(datagram))
        for burst in receive(b, 2 * len(marks) + 1)
        for datagram in burst.datagrams()
    ]
    assert seen == [(tos, 500) for tos in marks for _ in range(2)] + [(0, 3)]


def test_a_socket_that_copies_no_tos_any_longer_sends_and_tells_none(hosts: Hosts) -> None:
    a, b = hosts.open(hosts.a), hosts.open(hosts.b)
    burst = MarkedBurst(Address(PEER4, b.port), 3, [b"abc"], 0xB8)
    b.copy_tos(on=True)
    for on, tos in ((True, 0xB8), (False, 0)):
        a.copy_tos(on=on)
        a.send_bursts([burst])
        (arrived,) = receive(b, 1)
        assert isinstance(arrived, MarkedBurst)
        assert arrived.tos == tos
    b.copy_tos(on=False)
    a.send_bursts([burst])
    assert [type(each) for each in receive(b, 1)] == [Burst]
