"""Finds rules of `[filter]` that can never match, because an earlier rule decides about every frame that they would match.

Each element of a rule's source or destination (a network, a station, a peer) gets a bit mask that says which rules cover
it. The rules that cover a whole list are the AND of its elements' masks, so the work grows with the size of the file and
not with its square. Ports are masks of 65 536 bits for the same reason.
"""

from collections.abc import Iterable, Iterator, Sequence
from ipaddress import IPv4Network, IPv6Network

from l2overlay.filter.model import Action, FilterRule, PortRange, Subjects

_Element = tuple[object, ...]
"""`(version, prefix length, first bits)` of a network, `(MAC,)` of a station, `(name,)` of a peer."""


def decided_earlier(rules: Sequence[FilterRule]) -> Iterator[tuple[int, int]]:
    """For each rule that can never match: its position, and that of the first rule that covers it."""
    sources = _Coverage([rule.source for rule in rules])
    destinations = _Coverage([rule.destination for rule in rules])
    ports = [_port_mask(rule.ports) for rule in rules]
    source_ports = [_port_mask(rule.source_ports) for rule in rules]
    deciding = 0
    for position, rule in enumerate(rules):
        candidates = deciding & sources.covering(rule.source) & destinations.covering(rule.destination)
        for earlier in _bits(candidates):
            if (
                _fits(rules[earlier], rule)
                and _ports_cover(ports[earlier], ports[position])
                and _ports_cover(source_ports[earlier], source_ports[position])
            ):
                yield position, earlier
                break
        if rule.action is not Action.LOG and rule.rate is None:
            deciding |= 1 << position


def _fits(earlier: FilterRule, later: FilterRule) -> bool:
    """Whether the earlier rule is no stricter than the later one, leaving subjects and ports aside."""
    return (
        earlier.direction == later.direction
        and earlier.protocol in (None, later.protocol)
        and (not earlier.icmp_types or _within(later.icmp_types, earlier.icmp_types))
        and (not earlier.states or _within(later.states, earlier.states))
    )


def _within(inner: tuple[str, ...], outer: tuple[str, ...]) -> bool:
    return bool(inner) and set(inner) <= set(outer)


class _Coverage:
    """Which of the rules cover a list of subjects, as bit masks over the rules' positions."""

    def __init__(self, sides: Sequence[Subjects | None]) -> None:
        self._anybody = 0
        self._exact: dict[_Element, int] = {}
        self._prefixes: set[tuple[int, int]] = set()
        self._known: dict[int, int] = {}
        """By the identity of a `Subjects`, because rules with the same words share one."""
        for subjects, mask in _positions_of(sides):
            if subjects is None:
                self._anybody = mask
                continue
            for element in _elements(subjects):
                self._exact[element] = self._exact.get(element, 0) | mask
            self._prefixes |= {(network.version, network.prefixlen) for network in subjects.networks}

    def covering(self, subjects: Subjects | None) -> int:
        """The rules that match everyone in `subjects`."""
        if subjects is None:
            return self._anybody
        known = self._known.get(id(subjects))
        if known is None:
            known = -1
            for mask in self._masks(subjects):
                known &= mask
                if not known:
                    break
            self._known[id(subjects)] = known
        return known | self._anybody

    def _masks(self, subjects: Subjects) -> Iterator[int]:
        for network in subjects.networks:
            yield self._of_network(network)
        for element in (*subjects.macs, *subjects.peers):
            yield self._exact.get((element,), 0)

    def _of_network(self, network: IPv4Network | IPv6Network) -> int:
        version, first, mask = network.version, int(network.network_address), 0
        for other, prefix_len in self._prefixes:
            if other == version and prefix_len <= network.prefixlen:
                mask |= self._exact.get((version, prefix_len, first >> network.max_prefixlen - prefix_len), 0)
        return mask


def _positions_of(sides: Sequence[Subjects | None]) -> Iterable[tuple[Subjects | None, int]]:
    """Each distinct side, with the mask of the rules that have it."""
    found: dict[int, tuple[Subjects | None, int]] = {}
    for position, subjects in enumerate(sides):
        _, mask = found.get(id(subjects), (subjects, 0))
        found[id(subjects)] = (subjects, mask | 1 << position)
    return found.values()


def _elements(subjects: Subjects) -> Iterator[_Element]:
    for network in subjects.networks:
        first = int(network.network_address) >> network.max_prefixlen - network.prefixlen
        yield network.version, network.prefixlen, first
    for element in (*subjects.macs, *subjects.peers):
        yield (element,)


def _port_mask(ranges: tuple[PortRange, ...]) -> int:
    mask = 0
    for first, last in ranges:
        mask |= ((1 << last - first + 1) - 1) << first
    return mask


def _ports_cover(outer: int, inner: int) -> bool:
    """Whether the mask `outer` contains the mask `inner`; 0 means any port."""
    if not outer or not inner:
        return not outer
    return outer | inner == outer


def _bits(mask: int) -> Iterator[int]:
    """The positions of the set bits, lowest first."""
    while mask:
        lowest = mask & -mask
        yield lowest.bit_length() - 1
        mask ^= lowest
