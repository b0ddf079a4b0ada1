"""Driving one `Overlay` by hand: datagrams go in, and what it sends and tells is fetched.

It is in `tests` because only tests use it. Who joins several overlays (`sim.simulator`, `bench.inmemory`) moves bursts, not
datagrams, and does so in its own way.
"""

from collections.abc import Iterable

from l2overlay.addresses import Address
from l2overlay.controlplane.events import Event
from l2overlay.overlay import Overlay
from l2overlay.seams import Burst


def bursts_of(datagrams: Iterable[bytes], source: Address) -> list[Burst]:
    """Each datagram as a burst of its own."""
    return [Burst(source, max(1, len(datagram)), [datagram]) for datagram in datagrams]


def receive_each(overlay: Overlay, datagrams: Iterable[bytes], source: Address, now: float) -> None:
    """Give the overlay each datagram by a call of its own."""
    for burst in bursts_of(datagrams, source):
        overlay.receive_datagrams([burst], now)


def sent(overlay: Overlay) -> list[tuple[Address, bytes]]:
    """What it has sent since the last call: each datagram, and where it goes."""
    return [(burst.address, datagram) for burst in overlay.bursts_to_send() for datagram in burst.datagrams()]


def events(overlay: Overlay) -> list[Event]:
    """What it has told since the last call."""
    return list(iter(overlay.next_event, None))
