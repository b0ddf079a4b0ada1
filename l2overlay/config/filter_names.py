"""The names that rules of `[filter]` may use, peers and groups, and the subjects that they stand for."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network

from l2overlay.addresses import MacAddress
from l2overlay.config.filter_values import Subject, parse_subject
from l2overlay.config.limits import MAX_FILTER_LINES
from l2overlay.filter.model import Network, Subjects
from l2overlay.suggestion import Hints


@dataclass(slots=True)
class Names:
    """What a word in a rule may refer to. Each word is parsed once."""

    peers: dict[str, None]
    groups: dict[str, list[str]]
    """Named groups, and the stations of security groups."""
    crowded: int | None = None
    """Index of the security group at which the total of stations exceeds the limit. It and the groups after it are
    not in `groups`."""
    hints: Hints = field(default_factory=Hints)
    _parsed: dict[tuple[str, ...], Subjects] = field(default_factory=dict)
    _meanings: dict[str, Subject] = field(default_factory=dict)
    _multicast: dict[str, list[str]] = field(default_factory=dict)

    def expand(self, words: Iterable[str]) -> list[str]:
        """The words, with each group replaced by its entries."""
        return [entry for word in words for entry in (self.groups[word[1:]] if word[:1] == "@" else [word])]

    def size(self, word: object) -> int:
        """How many subjects a word means."""
        is_group = isinstance(word, str) and word[:1] == "@"
        return len(self.groups.get(str(word)[1:], ())) if is_group else 1

    def subjects(self, value: object) -> Subjects | None:
        """What a text or a list of texts means; None if it is absent. Raises ValueError.

        Equal values give the same object.
        """
        words = tuple(word for word in listed(value) if isinstance(word, str))
        if not words:
            return None
        known = self._parsed.get(words)
        if known is None:
            known = self._parsed[words] = _grouped(map(self.meaning, self.expand(words)), words)
        return known

    def meaning(self, text: str) -> Subject:
        """What a word that is not a group means. Raises ValueError."""
        known = self._meanings.get(text)
        if known is None:
            known = self._meanings[text] = parse_subject(text)
        return known

    def multicast(self, word: str) -> list[str]:
        """The multicast addresses that a word means."""
        known = self._multicast.get(word)
        if known is None:
            known = [entry for entry in self.expand([word]) if _is_multicast(self.meaning(entry))]
            self._multicast[word] = known
        return known


def names_of(
    peers: Iterable[str],
    groups: Mapping[str, list[str]],
    security_groups: Iterable[tuple[int, str, list[str]]],
) -> Names:
    """The names of a file; each security group is its index, its name and the words in `stations`."""
    names = Names(dict.fromkeys(peers), dict(groups))
    secured: dict[str, list[str]] = {}
    total = 0
    for i, name, words in security_groups:
        total += sum(map(names.size, words))
        if total > MAX_FILTER_LINES:
            names.crowded = i
            break
        secured[name] = [
            entry
            for word in words
            for entry in (names.groups.get(word[1:], []) if word[:1] == "@" else [word])
        ]
    names.groups |= secured
    return names


def listed(value: object) -> list[object]:
    """A list as it is, a single value as a list of one, None as an empty list."""
    return list(value) if isinstance(value, list) else [] if value is None else [value]


def _grouped(meanings: Iterable[Subject], words: tuple[str, ...]) -> Subjects:
    networks: dict[Network, None] = {}
    macs: dict[MacAddress, None] = {}
    peers: dict[str, None] = {}
    for meaning in meanings:
        if isinstance(meaning, bytes):
            macs[MacAddress(meaning)] = None
        elif isinstance(meaning, str):
            peers[meaning] = None
        else:
            networks[meaning] = None
    return Subjects(tuple(networks), tuple(macs), tuple(peers), words)


def _is_multicast(meaning: Subject) -> bool:
    return isinstance(meaning, IPv4Network | IPv6Network) and meaning.is_multicast
