"""What ICMP says of an endpoint is asked for beside the frames' socket, within bounds, and forgotten in time."""

import errno
import socket

import pytest
import trio
import trio.testing

from l2overlay.addresses import Address, PeerKey
from l2overlay.node import refused_port
from l2overlay.node.refused_port import KEEP_TIME, MAX_QUESTIONS, RefusedPorts, icmp_error

KEY = PeerKey(bytes(32))
CLOSED = Address("192.0.2.2", 7470)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_a_closed_port_says_so(host: str) -> None:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as bound:
        bound.bind((host, 0))
        port = bound.getsockname()[1]
    assert await icmp_error(Address(host, port)) == errno.ECONNREFUSED


async def test_an_open_port_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refused_port, "ANSWER_TIME", 0.05)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as bound:
        bound.bind(("127.0.0.1", 0))
        assert await icmp_error(Address(*bound.getsockname())) == 0


async def test_an_answer_counts_for_its_endpoint_and_for_a_while_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def refused(address: Address) -> int:
        return errno.ECONNREFUSED

    monkeypatch.setattr(refused_port, "icmp_error", refused)
    now = 0.0
    async with trio.open_nursery() as nursery:
        ports = RefusedPorts(nursery, lambda: now)
        ports.ask(KEY, CLOSED)
        await trio.testing.wait_all_tasks_blocked()
        assert ports.reason(KEY, CLOSED) == "port closed at 192.0.2.2:7470 (ICMP): is the node running there?"
        assert ports.reason(KEY, CLOSED._replace(port=7471)) is None
        now = KEEP_TIME
        assert ports.reason(KEY, CLOSED) is None
        now = 0.0
        ports.forget(KEY)
        assert ports.reason(KEY, CLOSED) is None


async def test_a_thousand_silent_peers_are_asked_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = list[Address]()

    async def silent(address: Address) -> int:
        asked.append(address)
        await trio.sleep_forever()
        return 0

    monkeypatch.setattr(refused_port, "icmp_error", silent)
    async with trio.open_nursery() as nursery:
        ports = RefusedPorts(nursery, lambda: 0.0)
        for number in range(1000):
            ports.ask(PeerKey(number.to_bytes(32, "big")), CLOSED)
            ports.ask(PeerKey(number.to_bytes(32, "big")), CLOSED)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert len(asked) == MAX_QUESTIONS
