"""Endpoints: from `host:port` in peers.toml to a numeric address for the overlay.

A numeric endpoint is told at once. A name is looked up in the background and again when its peer does not answer,
because the usual reason is that the address behind the name has changed. Of several addresses the system's order counts
(RFC 6724: a family without a route comes last), and each new look-up for a silent peer tries the one after the last.
"""

import ipaddress
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import trio

from l2overlay.addresses import Address, PeerKey
from l2overlay.config.types import Config, Endpoint

LOOKUP_TIME = 5.0
"""Seconds for one look-up; a resolver that is not reachable takes the C library 5 s a server."""
LOOKUPS_AT_ONCE = 8
"""Each is a thread; a thousand peers with names must not be a thousand threads."""
LEAST_INTERVAL = 5.0
"""Seconds between two look-ups of a name whose peer does not answer: INITs are retried about as often."""
LONGEST_INTERVAL = 60.0
"""Failing look-ups slow down to this."""

Lookup = Callable[[str, int], Awaitable[Sequence[Address]]]


@dataclass(slots=True)
class _Name:
    """A peer whose endpoint is a name."""

    endpoint: Endpoint
    address: Address | None = None
    failure: str = ""
    failed_count: int = 0
    looking: bool = False
    again_time: float = 0.0


async def system_lookup(host: str, port: int) -> Sequence[Address]:
    """Ask the C library, in a thread that is left behind when it takes too long. Raises OSError."""
    found = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM, proto=socket.IPPROTO_UDP)
    return list(dict.fromkeys(Address(str(sockaddr[0]), port) for *_, sockaddr in found))


def numeric_address(endpoint: Endpoint) -> Address | None:
    """The endpoint as it stands, when it is an address and not a name."""
    try:
        address = ipaddress.ip_address(endpoint.host)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return Address(str(mapped or address), endpoint.port)


class Resolver:
    """Tells `found(peer, address)` whenever an endpoint is known, anew or for the first time."""

    def __init__(
        self,
        nursery: trio.Nursery,
        found: Callable[[PeerKey, Address | None], None],
        lookup: Lookup = system_lookup,
    ) -> None:
        self._nursery = nursery
        self._found = found
        self._lookup = lookup
        self._limit = trio.CapacityLimiter(LOOKUPS_AT_ONCE)
        self._endpoints: dict[PeerKey, Endpoint | None] = {}
        self._names: dict[PeerKey, _Name] = {}

    def configure(self, config: Config, own: PeerKey) -> None:
        """Take a new peers.toml; only endpoints that are new or differ are looked at."""
        wanted = {peer.public_key: peer.endpoint for peer in config.peers if peer.public_key != own}
        before, self._endpoints = self._endpoints, wanted
        for peer in before.keys() - wanted.keys():
            self._names.pop(peer, None)
        for peer, endpoint in wanted.items():
            if peer not in before or before[peer] != endpoint:
                self._start(peer, endpoint, known_before=peer in before)

    def unanswered(self, peer: PeerKey) -> None:
        """The peer does not answer where we last thought it was."""
        if peer in self._names:
            self._look_up(peer)

    def look_up_all(self) -> None:
        """The underlay changed: every name may stand for another address now."""
        for peer in self._names:
            self._look_up(peer)

    def failure(self, peer: PeerKey) -> tuple[str, float] | None:
        """Why the peer's endpoint is not known, and in how many seconds it is looked up again."""
        name = self._names.get(peer)
        if name is None or not name.failure:
            return None
        return name.failure, max(0.0, name.again_time - trio.current_time())

    def _start(self, peer: PeerKey, endpoint: Endpoint | None, *, known_before: bool) -> None:
        self._names.pop(peer, None)
        if endpoint is None:
            if known_before:
                self._found(peer, None)
            return
        address = numeric_address(endpoint)
        if address is not None:
            self._found(peer, address)
            return
        self._names[peer] = _Name(endpoint)
        self._look_up(peer)

    def _look_up(self, peer: PeerKey) -> None:
        name = self._names[peer]
        if not name.looking:
            name.looking = True
            self._nursery.start_soon(self._run, peer, name)

    async def _run(self, peer: PeerKey, name: _Name) -> None:
        """Look up until it succeeds once; a name that is still unknown has no peer that could be silent."""
        await trio.sleep_until(name.again_time)
        while self._names.get(peer) is name:
            found = await self._ask(name)
            if self._names.get(peer) is not name:
                return
            if found:
                name.address = _next_after(name.address, found)
                name.looking = False
                self._found(peer, name.address)
                return
            await trio.sleep_until(name.again_time)

    async def _ask(self, name: _Name) -> Sequence[Address]:
        host = name.endpoint.host
        found: Sequence[Address] = ()
        failure = f"{host} was not resolved within {LOOKUP_TIME:.0f} s"
        async with self._limit:
            with trio.move_on_after(LOOKUP_TIME):
                try:
                    found = await self._lookup(host, name.endpoint.port)
                    failure = "" if found else f"{host} has no address"
                except (OSError, UnicodeError) as error:
                    failure = f"{host} does not resolve ({getattr(error, 'strerror', None) or error})"
        name.failure = failure
        name.failed_count = 0 if found else name.failed_count + 1
        pause = min(LEAST_INTERVAL * 2 ** min(max(name.failed_count - 1, 0), 8), LONGEST_INTERVAL)
        name.again_time = trio.current_time() + pause
        return found


def _next_after(last: Address | None, found: Sequence[Address]) -> Address:
    if last not in found:
        return found[0]
    return found[(found.index(last) + 1) % len(found)]
