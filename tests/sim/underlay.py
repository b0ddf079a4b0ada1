"""The network between the nodes, and all that it does to a datagram, decided by one seeded source of chance.

In this order: the sender's NAT, a cut, the path's largest datagram, loss, corruption, duplication, delay. What is cut, too
large or lost is gone without a word, as with a router that sends no ICMP. Datagrams of one direction keep their order
unless `reorder` says otherwise, however their delays vary.
"""

from dataclasses import dataclass, replace
from itertools import count
from random import Random
from typing import Any

from l2overlay.addresses import Address


@dataclass(frozen=True, slots=True)
class Conditions:
    """What happens to datagrams of one direction. Shares are between 0 and 1, times in seconds one way."""

    delay: float = 0.010
    jitter: float = 0.0
    """Added to `delay`: between 0 and this."""
    loss: float = 0.0
    duplicate: float = 0.0
    corrupt: float = 0.0
    """Share of datagrams in which one to three bits flip."""
    reorder: float = 0.0
    """Share of datagrams that take up to `late` longer, and are overtaken."""
    late: float = 0.1
    largest: int = 65_507
    """The largest datagram that passes."""

    @property
    def loses_nothing(self) -> bool:
        """Whether all that is sent arrives, once and as it was."""
        return not (self.loss or self.duplicate or self.corrupt) and self.largest >= 65_507

    @property
    def longest_delay(self) -> float:
        return self.delay + self.jitter + (self.late if self.reorder else 0.0)


class Nat:
    """A router that shows all behind it under its own address. Lets in only who was called before."""

    def __init__(self, host: str) -> None:
        self.host = host
        self._ports = count(40_000)
        self._outside: dict[Address, Address] = {}
        self._called: dict[Address, tuple[Address, set[Address]]] = {}

    def outward(self, inside: Address, remote: Address) -> Address:
        """The source address that `remote` sees."""
        if inside not in self._outside:
            outside = self._outside[inside] = Address(self.host, next(self._ports))
            self._called[outside] = (inside, set())
        outside = self._outside[inside]
        self._called[outside][1].add(remote)
        return outside

    def inward(self, outside: Address, remote: Address) -> Address | None:
        """Who behind it gets what `remote` sends to `outside`."""
        inside, called = self._called.get(outside, (None, set()))
        return inside if remote in called else None

    def rebind(self) -> None:
        """Forget every mapping, as a router does that was switched off and on; the next ones have other ports."""
        self._outside.clear()
        self._called.clear()


class Underlay:
    """What becomes of each datagram. Nodes are known by name."""

    def __init__(self, random: Random, conditions: Conditions) -> None:
        self.conditions = conditions
        """Wherever `between` says nothing else."""
        self.between: dict[tuple[str, str], Conditions] = {}
        self._random = random
        self._cuts: set[tuple[str, str]] = set()
        self._last_arrival: dict[tuple[str, str], float] = {}
        self.lost: dict[tuple[str, str], list[int]] = {}
        """The lengths of the datagrams that chance took from each direction."""
        self.lost_something = not conditions.loses_nothing
        self.kept_order = not conditions.reorder

    def impair(self, **changes: Any) -> None:
        """Change the conditions of every path."""
        self.conditions = replace(self.conditions, **changes)
        self._note(self.conditions)

    def impair_path(self, sender: str, receiver: str, **changes: Any) -> None:
        """Change the conditions of one direction between two nodes."""
        changed = replace(self.between.get((sender, receiver), self.conditions), **changes)
        self.between[sender, receiver] = changed
        self._note(changed)

    def cut(self, sender: str, receiver: str) -> None:
        """Nothing passes in this direction any more."""
        self._cuts.add((sender, receiver))
        self.lost_something = True

    def heal(self) -> None:
        """Take back every cut."""
        self._cuts.clear()

    def arrivals(self, sender: str, receiver: str, datagram: bytes, now: float) -> list[tuple[float, bytes]]:
        """When and as what the datagram arrives: usually once, sometimes never or twice."""
        conditions = self.between.get((sender, receiver), self.conditions)
        if (sender, receiver) in self._cuts or len(datagram) > conditions.largest:
            self.lost_something = True
            return []
        chance = self._random.random
        copies = 2 if conditions.duplicate and chance() < conditions.duplicate else 1
        arrived = []
        for _ in range(copies):
            if conditions.loss and chance() < conditions.loss:
                self.lost.setdefault((sender, receiver), []).append(len(datagram))
            else:
                time = self._arrival_time(sender, receiver, conditions, now)
                arrived.append((time, self._carry(datagram, conditions)))
        return arrived

    def _carry(self, datagram: bytes, conditions: Conditions) -> bytes:
        if not conditions.corrupt or self._random.random() >= conditions.corrupt:
            return datagram
        damaged = bytearray(datagram)
        for _ in range(self._random.randint(1, 3)):
            bit = self._random.randrange(len(damaged) * 8)
            damaged[bit // 8] ^= 1 << bit % 8
        return bytes(damaged)

    def _arrival_time(self, sender: str, receiver: str, conditions: Conditions, now: float) -> float:
        time = now + conditions.delay
        if conditions.jitter:
            time += self._random.uniform(0, conditions.jitter)
        if conditions.reorder and self._random.random() < conditions.reorder:
            return time + self._random.uniform(0, conditions.late)
        time = max(time, self._last_arrival.get((sender, receiver), 0.0))
        self._last_arrival[sender, receiver] = time
        return time

    def _note(self, conditions: Conditions) -> None:
        self.lost_something |= not conditions.loses_nothing
        self.kept_order &= not conditions.reorder
