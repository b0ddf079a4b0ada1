"""Endpoints become addresses: numeric at once, names in the background, again when the peer is silent."""

from collections.abc import Sequence

import trio
from trio.testing import MockClock

from l2overlay.addresses import Address, PeerKey
from l2overlay.config.types import Config, Endpoint, PeerConfig, SegmentConfig
from l2overlay.node import resolver as resolver_module
from l2overlay.node.resolver import Resolver

OWN, A, B = (PeerKey(bytes([n]) * 32) for n in (1, 2, 3))
SEGMENT = SegmentConfig("lab", "br-lab", "tap-lab")
Found = list[tuple[float, PeerKey, Address | None]]


def config(**endpoints: Endpoint | None) -> Config:
    keys = {"own": OWN, "a": A, "b": B}
    return Config(
        SEGMENT, tuple(PeerConfig(name, keys[name], endpoint) for name, endpoint in endpoints.items())
    )


class Names:
    """A name service: what each look-up gives is taken from a list, the last entry stays."""

    def __init__(self, *answers: Sequence[Address] | OSError | float) -> None:
        self.answers = list(answers)
        self.times: list[float] = []

    async def __call__(self, host: str, port: int) -> Sequence[Address]:
        self.times.append(trio.current_time())
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, float):
            await trio.sleep(answer)
            return []
        if isinstance(answer, OSError):
            raise answer
        return answer


async def run_resolver(
    names: Names, configs: Sequence[Config], seconds: float, unanswered: Sequence[float] = ()
) -> Found:
    """Give the configurations one after the other, then be silent at the times given."""
    found: Found = []
    async with trio.open_nursery() as nursery:
        start = trio.current_time()
        resolver = Resolver(
            nursery, lambda peer, address: found.append((trio.current_time() - start, peer, address)), names
        )
        for one in configs:
            resolver.configure(one, OWN)
        for moment in unanswered:
            await trio.sleep_until(start + moment)
            resolver.unanswered(A)
        await trio.sleep_until(start + seconds)
        nursery.cancel_scope.cancel()
    names.times = [t - start for t in names.times]
    return found


async def test_numeric_endpoint_is_told_at_once_and_never_looked_up(autojump_clock: MockClock) -> None:
    names = Names([])
    found = await run_resolver(
        names, [config(own=None, a=Endpoint("192.0.2.1", 7), b=Endpoint("2001:DB8::1", 8))], 60
    )
    assert found == [(0.0, A, Address("192.0.2.1", 7)), (0.0, B, Address("2001:db8::1", 8))]
    assert names.times == []


async def test_ipv4_in_ipv6_is_the_ipv4_address_that_datagrams_come_from(autojump_clock: MockClock) -> None:
    found = await run_resolver(Names([]), [config(a=Endpoint("::ffff:192.0.2.1", 7))], 1)
    assert found == [(0.0, A, Address("192.0.2.1", 7))]


async def test_own_stanza_is_left_alone(autojump_clock: MockClock) -> None:
    assert await run_resolver(Names([]), [config(own=Endpoint("192.0.2.9", 7))], 1) == []


async def test_name_is_resolved_and_again_when_the_peer_is_silent(autojump_clock: MockClock) -> None:
    old, new = Address("192.0.2.1", 7), Address("192.0.2.2", 7)
    names = Names([old], [new])
    found = await run_resolver(names, [config(a=Endpoint("a.example", 7))], 100, unanswered=[20])
    assert found == [(0.0, A, old), (20.0, A, new)]


async def test_silence_that_is_reported_often_asks_the_name_service_seldom(autojump_clock: MockClock) -> None:
    names = Names([Address("192.0.2.1", 7)])
    await run_resolver(
        names, [config(a=Endpoint("a.example", 7))], 20, unanswered=[t / 10 for t in range(1, 101)]
    )
    assert len(names.times) <= 1 + 10 / resolver_module.LEAST_INTERVAL + 1


async def test_each_look_up_for_a_silent_peer_takes_the_next_address(autojump_clock: MockClock) -> None:
    both = [Address("2001:db8::1", 7), Address("192.0.2.1", 7)]
    found = await run_resolver(Names(both), [config(a=Endpoint("a.example", 7))], 40, unanswered=[10, 20])
    assert [address for _, _, address in found] == [both[0], both[1], both[0]]


async def test_unknown_name_is_tried_again_with_growing_pauses_until_it_is_known(
    autojump_clock: MockClock,
) -> None:
    address = Address("192.0.2.1", 7)
    names = Names(*[OSError(-2, "Name or service not known")] * 4, [address])
    found = await run_resolver(names, [config(a=Endpoint("a.example", 7))], 200)
    assert names.times == [0, 5, 15, 35, 75]
    assert found == [(75, A, address)]


async def test_name_service_that_hangs_is_given_up_and_asked_again(autojump_clock: MockClock) -> None:
    address = Address("192.0.2.1", 7)
    found = await run_resolver(Names(1e9, [address]), [config(a=Endpoint("a.example", 7))], 60)
    assert found == [(10.0, A, address)]


async def test_failure_says_why_and_when_the_name_is_looked_up_again(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        resolver = Resolver(nursery, lambda *_: None, Names(OSError(-2, "Name or service not known")))
        resolver.configure(config(a=Endpoint("a.example", 7), b=Endpoint("192.0.2.1", 7)), OWN)
        await trio.sleep(1)
        assert resolver.failure(A) == ("a.example does not resolve (Name or service not known)", 4.0)
        assert resolver.failure(B) is None
        nursery.cancel_scope.cancel()


async def test_reload_looks_at_changed_endpoints_only(autojump_clock: MockClock) -> None:
    names = Names([Address("192.0.2.1", 7)])
    name, other = Endpoint("a.example", 7), Endpoint("192.0.2.7", 7)
    found = await run_resolver(
        names, [config(a=name, b=other), config(a=name, b=None), config(a=name, b=other)], 60
    )
    assert [f for f in found if f[1] == B] == [
        (0.0, B, Address("192.0.2.7", 7)),
        (0.0, B, None),
        (0.0, B, Address("192.0.2.7", 7)),
    ]
    assert len(names.times) == 1


async def test_result_for_a_peer_that_was_removed_meanwhile_is_not_told(autojump_clock: MockClock) -> None:
    found = await run_resolver(
        Names([Address("192.0.2.1", 7)]), [config(a=Endpoint("a.example", 7)), config()], 60
    )
    assert found == []
