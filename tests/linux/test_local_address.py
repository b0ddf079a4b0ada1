"""A host with several addresses answers from the one that was called, so that a stateful firewall on the way lets it pass.

caller: eth0 10.0.0.1 fd00::1 <--veth--> host: eth0 10.0.0.2 fd00::2, and the address that is called

The caller's firewall takes in only what answers what it has sent.
"""

import select
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from l2overlay.addresses import Address
from l2overlay.counters import DropReason
from l2overlay.errors import HostSetupError
from l2overlay.linux.sendmmsg import MAX_MESSAGES
from l2overlay.linux.udp import BATCH_FROM, LinuxUdp
from l2overlay.seams import Burst
from l2overlay.testing.lab import Namespace

from .conftest import inside, wait_for_carrier

FIREWALL = """
table inet stateful {
  chain input {
    type filter hook input priority 0; policy drop;
    ct state established,related accept
    meta l4proto ipv6-icmp accept
  }
}
"""


class Hosts:
    """The caller behind its firewall, and the host with several addresses."""

    def __init__(self, caller: Namespace, host: Namespace, stack: ExitStack) -> None:
        self.caller, self.host, self._stack = caller, host, stack

    def open(self, namespace: Namespace, host: str = "", port: int = 0) -> LinuxUdp:
        with inside(namespace):
            udp = LinuxUdp.open(port, host)
        self._stack.callback(udp.close)
        return udp

    def call(self, source: LinuxUdp, where: str, target: LinuxUdp) -> Burst:
        """One datagram to an address of the host, as it arrives there."""
        source.send_bursts([Burst(Address(where, target.port), 100, [b"call"])])
        (burst,) = receive(target)
        return burst


@pytest.fixture
def hosts(namespace: Callable[[], Namespace]) -> Iterator[Hosts]:
    caller, host = namespace(), namespace()
    caller.ip(f"link add eth0 type veth peer name eth0 netns {host.name}")
    caller.ip(f"link add eth1 type veth peer name eth1 netns {host.name}")
    for side, number in ((caller, 1), (host, 2)):
        side.ip(
            "link set lo up",
            "link set eth0 up",
            "link set eth1 up",
            f"addr add 10.0.0.{number}/24 dev eth0",
            f"addr add fd00::{number}/64 dev eth0 nodad",
        )
    wait_for_carrier(caller)
    wait_for_carrier(host)
    host.run(["sysctl", "-qw", "net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.eth1.rp_filter=0"])
    caller.ip("route add 10.9.0.0/16 via 10.0.0.2", "route add fd09::/64 via fd00::2")
    caller.run(["nft", "-f", "-"], stdin=FIREWALL)
    with ExitStack() as stack:
        yield Hosts(caller, host, stack)


def receive(udp: LinuxUdp, count: int = 1) -> list[Burst]:
    bursts: list[Burst] = []
    while len(bursts) < count and select.select([udp], [], [], 1.0)[0]:
        bursts += udp.receive_bursts(32)
    return bursts


SECOND = ("10.0.0.22", "addr add 10.0.0.22/24 dev eth0")
SECOND6 = ("fd00::22", "addr add fd00::22/64 dev eth0 nodad preferred_lft 0")
VIRTUAL = ("10.9.0.1", "addr add 10.9.0.1/32 dev lo")
VIRTUAL6 = ("fd09::1", "addr add fd09::1/128 dev lo nodad")
OTHER_LINK = ("10.9.1.1", "addr add 10.9.1.1/24 dev eth1")


@pytest.mark.parametrize(
    ("called", "add"),
    [SECOND, SECOND6, VIRTUAL, VIRTUAL6, OTHER_LINK],
    ids=["second", "second-v6", "lo", "lo-v6", "other-link"],
)
def test_the_answer_leaves_from_the_address_that_was_called(hosts: Hosts, called: str, add: str) -> None:
    hosts.host.ip(add)
    caller, host = hosts.open(hosts.caller), hosts.open(hosts.host)
    burst = hosts.call(caller, called, host)
    assert burst.address.local == called
    for size, buffers, count in ((100, [b"a"], 1), (500, [b"a" * 1800], 4)):
        assert host.send_bursts([Burst(burst.address, size, list(buffers))]) == (1, {})
        answers = receive(caller, 1)
        assert sum(len(answer.datagrams()) for answer in answers) == count
        assert {answer.address for answer in answers} == {Address(called, host.port)}


def test_the_preferred_address_needs_no_mention(hosts: Hosts) -> None:
    caller, host = hosts.open(hosts.caller), hosts.open(hosts.host)
    for where, source in (("10.0.0.2", "10.0.0.1"), ("fd00::2", "fd00::1")):
        assert hosts.call(caller, where, host).address == Address(source, caller.port)


def test_many_datagrams_that_leave_together_keep_their_addresses(hosts: Hosts) -> None:
    hosts.host.ip(VIRTUAL[1])
    caller, host = hosts.open(hosts.caller), hosts.open(hosts.host)
    called = hosts.call(caller, VIRTUAL[0], host).address
    plain = hosts.call(caller, "10.0.0.2", host).address
    count = 2 * MAX_MESSAGES
    sent = [
        Burst((plain, called)[number // BATCH_FROM % 2], 100, [b"%d" % number]) for number in range(count)
    ]
    assert host.send_bursts(sent) == (count, {})
    answers = receive(caller, count)
    assert [answer.buffers[0] for answer in answers] == [burst.buffers[0] for burst in sent]
    assert [answer.address.host for answer in answers] == [
        VIRTUAL[0] if burst.address is called else "10.0.0.2" for burst in sent
    ]


@pytest.mark.parametrize(("called", "add"), [VIRTUAL, VIRTUAL6], ids=["v4", "v6"])
def test_when_the_address_is_removed_the_kernel_chooses_until_it_is_back(
    hosts: Hosts, called: str, add: str
) -> None:
    hosts.host.ip(add)
    hosts.caller.run(["nft", "flush", "ruleset"])
    caller, host = hosts.open(hosts.caller), hosts.open(hosts.host)
    address = hosts.call(caller, called, host).address
    hosts.host.ip(add.replace("addr add", "addr del").replace(" nodad", ""))
    preferred = "fd00::2" if ":" in called else "10.0.0.2"
    for size, buffers in ((100, [b"a"]), (500, [b"a" * 1800])):
        assert host.send_bursts([Burst(address, size, list(buffers))]) == (1, {})
        assert {answer.address.host for answer in receive(caller)} == {preferred}
    assert host.gso
    hosts.host.ip(add)
    host.forget_addresses()
    assert host.send_bursts([Burst(address, 100, [b"a"])]) == (1, {})
    assert [answer.address.host for answer in receive(caller)] == [called]


def test_an_address_that_became_the_preferred_one_needs_no_mention_any_more(hosts: Hosts) -> None:
    hosts.host.ip(VIRTUAL[1])
    caller, host = hosts.open(hosts.caller), hosts.open(hosts.host)
    assert hosts.call(caller, VIRTUAL[0], host).address.local == VIRTUAL[0]
    hosts.host.ip("route replace 10.0.0.0/24 dev eth0 src 10.9.0.1")
    host.forget_addresses()
    assert hosts.call(caller, VIRTUAL[0], host).address.local == ""
    assert hosts.call(caller, "10.0.0.2", host).address.local == "10.0.0.2"


def test_policy_routing_by_source_takes_the_link_of_the_address_that_was_called(hosts: Hosts) -> None:
    hosts.caller.ip("addr add 10.9.1.2/24 dev eth1")
    hosts.host.ip(
        "addr add 10.9.1.1/24 dev eth1",
        "rule add from 10.9.1.1 lookup 100",
        "route add 10.0.0.0/24 via 10.9.1.2 dev eth1 table 100",
    )
    hosts.caller.run(["sysctl", "-qw", "net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.eth1.rp_filter=0"])
    caller, host = hosts.open(hosts.caller, "10.0.0.1"), hosts.open(hosts.host)
    address = hosts.call(caller, "10.9.1.1", host).address
    before = _received(hosts.caller, "eth1")
    assert host.send_bursts([Burst(address, 100, [b"answer"])]) == (1, {})
    assert [answer.address.host for answer in receive(caller)] == ["10.9.1.1"]
    assert _received(hosts.caller, "eth1") > before


def _received(namespace: Namespace, link: str) -> int:
    lines = namespace.run(["ip", "-s", "link", "show", link]).stdout.splitlines()
    (number,) = [n for n, line in enumerate(lines) if line.strip().startswith("RX:")]
    return int(lines[number + 1].split()[1])


def test_a_socket_of_one_address_hears_and_answers_there_alone(hosts: Hosts) -> None:
    hosts.host.ip(SECOND[1])
    caller, host = hosts.open(hosts.caller), hosts.open(hosts.host, SECOND[0])
    other = hosts.open(hosts.host, "10.0.0.2", host.port)
    burst = hosts.call(caller, SECOND[0], host)
    assert burst.address == Address("10.0.0.1", caller.port)
    assert other.receive_bursts(1) == []
    host.send_bursts([Burst(burst.address, 100, [b"answer"])])
    assert [answer.address.host for answer in receive(caller)] == [SECOND[0]]
    assert host.send_bursts([Burst(Address("fd00::1", 1), 100, [b"x"])])[1] == {
        DropReason.SEND_UNREACHABLE: 1
    }


def test_an_address_that_the_host_has_not_is_refused_by_name(hosts: Hosts) -> None:
    with pytest.raises(HostSetupError, match=r"this host has no address 10\.0\.0\.77, which listen names"):
        hosts.open(hosts.host, "10.0.0.77")
