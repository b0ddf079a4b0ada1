"""Finds the position of each key and value in a TOML 1.0 text, because `tomllib` keeps no positions.

A scanner for the outline of the grammar (https://toml.io/en/v1.0.0): it finds keys, headers and the extent of values, and
leaves their meaning to tomllib. It stops silently at the first thing that is not TOML, because tomllib reports that. It
refuses deep nesting, for which tomllib needs quadratic memory (dotted keys) or the C stack (arrays).
"""

import contextlib
import re
import tomllib
from bisect import bisect_right
from dataclasses import dataclass, field

Path = tuple[str | int, ...]
"""`("peers", 2, "endpoint")`: keys, and indexes into arrays, from 0."""

MAX_DEPTH = 16
"""For dotted keys and nested values; peers.toml needs 4. A key of 50 000 parts took tomllib 44 s and 5 GB."""

# Groups are repeated greedily, not possessively: with possessive groups, Python 3.11.2 (Debian 12) finds wrong positions
# (the tests of this file failed there). The first character of a group decides what it may hold, so nothing is tried twice.
_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_SPACE = re.compile(r"[ \t]*+")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]++")
_QUOTED_KEY = re.compile(r"""(?:"(?:[^"\\\n]|\\[^\n])*"|'[^'\n]*+')""")
_STRING = re.compile(
    r'''
      """(?: [^"\\] | \\. | "{1,2}(?!") )* "{3,5}    # the text may end in one or two quotes of its own
    | '{3}(?: [^'] | '{1,2}(?!') )* '{3,5}
    | "(?: [^"\\\n] | \\[^\n] )*"
    | '[^'\n]*+'
    ''',
    re.VERBOSE | re.DOTALL,
)
_SCALAR = re.compile(r"\d{4}-\d\d-\d\d \d\d:[^\s,\]}#]*+|[^\s,\]}#=\[{\"']++")


class NestingError(ValueError):
    """Raised for nesting deeper than `MAX_DEPTH`."""

    def __init__(self, line: int, column: int) -> None:
        self.line = line
        self.column = column
        super().__init__(f"nested deeper than {MAX_DEPTH} levels")


class _NotTomlError(Exception):
    """Raised where the text stops being TOML."""


@dataclass(slots=True)
class Place:
    """Offsets into the text: of the key (of a header's `[`), of the value, and of the end of all that belongs to it."""

    key: int
    value: int
    end: int


@dataclass(slots=True)
class Positions:
    """The result of `positions(text)`. Lines and columns count from 1, and columns count characters, as in tomllib."""

    text: str
    places: dict[Path, Place] = field(default_factory=dict)
    repeated: list[tuple[Path, Place]] = field(default_factory=list)
    """Keys and tables that appear a second time, which TOML forbids."""
    _line_starts: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._line_starts = [0, *(m.end() for m in re.finditer("\n", self.text))]

    def line_and_column(self, offset: int) -> tuple[int, int]:
        """The line and column of an offset into the text."""
        line = bisect_right(self._line_starts, offset)
        return line, offset - self._line_starts[line - 1] + 1

    def key(self, path: Path) -> tuple[int, int]:
        """The position of the key, or of the nearest table or array around it; (0, 0) if there is none."""
        place = self._nearest(path)
        return self.line_and_column(place.key) if place else (0, 0)

    def value(self, path: Path) -> tuple[int, int]:
        """The position of the value, or of the nearest table or array around it; (0, 0) if there is none."""
        place = self._nearest(path)
        return self.line_and_column(place.value) if place else (0, 0)

    def _nearest(self, path: Path) -> Place | None:
        while path and path not in self.places:
            path = path[:-1]
        return self.places.get(path)


def positions(text: str) -> Positions:
    """Find every key and value of `text`, up to the first thing that is not TOML. Raises only NestingError."""
    scanner = _Scanner(text)
    with contextlib.suppress(_NotTomlError):
        scanner.scan_document()
    return scanner.found


class _Scanner:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.found = Positions(text)
        self._table: Path = ()
        self._explicit: set[Path] = set()
        self._array_sizes: dict[Path, int] = {}
        """The number of elements of each array that `[[headers]]` have made so far."""

    def scan_document(self) -> None:
        while True:
            self._skip(_BLANK)
            if self.at == len(self.text):
                return
            if self.text.startswith("[[", self.at):
                self._scan_array_header()
            elif self.text[self.at] == "[":
                self._scan_table_header()
            else:
                self._scan_pair(self._table, 0)

    def _scan_table_header(self) -> None:
        start = self.at
        self.at += 1
        parts = self._scan_key()
        self._expect("]")
        self._table = self._resolve(tuple(name for name, _ in parts))
        self._record_implied(self._table, start)
        self._record_new(self._table, Place(start, start, self.at))

    def _scan_array_header(self) -> None:
        start = self.at
        self.at += 2
        names = tuple(name for name, _ in self._scan_key())
        self._expect("]")
        self._expect("]")
        array = (*self._resolve(names[:-1]), names[-1])
        index = self._array_sizes.get(array, 0)
        self._array_sizes[array] = index + 1
        self._table = (*array, index)
        self._record_implied(self._table, start)
        self._record_new(self._table, Place(start, start, self.at))

    def _record_implied(self, table: Path, start: int) -> None:
        """`[a.b]` also makes the table a, unless it has a header of its own."""
        for size in range(1, len(table)):
            self.found.places.setdefault(table[:size], Place(start, start, self.at))

    def _resolve(self, names: tuple[str, ...]) -> Path:
        """`[a.b]` below `[[a]]` belongs to the latest element of a."""
        path: Path = ()
        for name in names:
            path = (*path, name)
            if path in self._array_sizes:
                path = (*path, self._array_sizes[path] - 1)
        return path

    def _scan_pair(self, table: Path, depth: int) -> None:
        parts = self._scan_key()
        self._expect("=")
        self._skip(_SPACE)
        path, start = table, self.at
        for name, offset in parts:
            path = (*path, name)
            self.found.places.setdefault(path, Place(offset, start, start))
        self._record_new(path, Place(parts[-1][1], start, start))
        place = self.found.places[path]
        self._scan_value(path, depth + len(parts))
        place.end = self.at
        self._extend(table)

    def _extend(self, table: Path) -> None:
        """A table ends where its last value ends."""
        for size in range(1, len(table) + 1):
            if place := self.found.places.get(table[:size]):
                place.end = self.at

    def _record_new(self, path: Path, place: Place) -> None:
        if path in self._explicit:
            self.found.repeated.append((path, place))
            return
        self._explicit.add(path)
        self.found.places[path] = place

    def _scan_value(self, path: Path, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise NestingError(*self.found.line_and_column(self.at))
        first = self.text[self.at : self.at + 1]
        if first == "[":
            self._scan_array(path, depth)
        elif first == "{":
            self._scan_inline_table(path, depth)
        else:
            self._match(_STRING if first in ('"', "'") else _SCALAR)

    def _scan_array(self, path: Path, depth: int) -> None:
        self.at += 1
        index = 0
        while not self._closes("]"):
            element = (*path, index)
            self.found.places[element] = place = Place(self.at, self.at, self.at)
            self._scan_value(element, depth + 1)
            place.end = self.at
            self._skip(_BLANK)
            index += 1
            if not self._accept(","):
                self._expect("]")
                return

    def _scan_inline_table(self, path: Path, depth: int) -> None:
        self.at += 1
        while not self._closes("}"):
            self._scan_pair(path, depth)
            self._skip(_BLANK)
            if not self._accept(","):
                self._expect("}")
                return

    def _closes(self, bracket: str) -> bool:
        self._skip(_BLANK)
        return self._accept(bracket)

    def _scan_key(self) -> list[tuple[str, int]]:
        """The parts of a dotted key, each with its offset."""
        parts: list[tuple[str, int]] = []
        while not parts or self._accept("."):
            self._skip(_SPACE)
            if len(parts) == MAX_DEPTH:
                raise NestingError(*self.found.line_and_column(self.at))
            start = self.at
            parts.append((self._scan_key_part(), start))
            self._skip(_SPACE)
        return parts

    def _scan_key_part(self) -> str:
        quoted = self.text[self.at : self.at + 1] in ('"', "'")
        raw = self._match(_QUOTED_KEY if quoted else _BARE_KEY)
        if "\\" not in raw:
            return raw[1:-1] if quoted else raw
        try:
            return str(tomllib.loads(f"key = {raw}")["key"])
        except ValueError:
            raise _NotTomlError from None

    def _skip(self, pattern: re.Pattern[str]) -> None:
        if found := pattern.match(self.text, self.at):
            self.at = found.end()

    def _match(self, pattern: re.Pattern[str]) -> str:
        found = pattern.match(self.text, self.at)
        if not found:
            raise _NotTomlError
        self.at = found.end()
        return found.group()

    def _accept(self, character: str) -> bool:
        if not self.text.startswith(character, self.at):
            return False
        self.at += 1
        return True

    def _expect(self, character: str) -> None:
        self._skip(_SPACE)
        if not self._accept(character):
            raise _NotTomlError
