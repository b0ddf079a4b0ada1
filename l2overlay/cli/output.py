"""What verbs print: versioned JSON for programs, aligned tables and sparing colour for people."""

import argparse
import json
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TextIO

_COLOURS = {"red": "31", "green": "32", "yellow": "33", "bold": "1", "dim": "2"}
_ESCAPE = re.compile(r"\x1b\[[0-9;]*m")


def add_json_option(parser: argparse.ArgumentParser) -> None:
    """`--json`, worded alike on every verb."""
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")


def print_json(schema: str, data: Mapping[str, Any]) -> None:
    """One JSON object on stdout, `{"schema": "l2overlay.status/1", ...}`; `schema` is given as "status/1"."""
    print(json.dumps({"schema": f"l2overlay.{schema}", **data}, indent=2, allow_nan=False))


def print_error(text: str) -> None:
    """A line on stderr."""
    print(paint(text, "red", sys.stderr), file=sys.stderr)


def print_table(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """An aligned table on stdout; headers bold on a terminal."""
    lines = table(headers, rows)
    print(paint(lines[0], "bold"), *lines[1:], sep="\n")


def table(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Left-aligned columns two spaces apart; columns of numbers only are right-aligned. None is `-`."""
    cells = [["-" if c is None else str(c) for c in row] for row in rows]
    columns = list(zip(headers, *cells, strict=True))
    widths = [max(_width(c) for c in column) for column in columns]
    right = [bool(cells) and all(_is_number(c) for c in column[1:]) for column in columns]
    return [_line(row, widths, right) for row in ([*headers], *cells)]


def _line(row: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> str:
    padded = []
    for cell, width, is_right in zip(row, widths, right, strict=True):
        space = " " * (width - _width(cell))
        padded.append(space + cell if is_right else cell + space)
    return "  ".join(padded).rstrip()


def _width(cell: str) -> int:
    return len(_ESCAPE.sub("", cell))


def _is_number(cell: str) -> bool:
    return cell.replace(".", "", 1).isdigit() or cell == "-"


def paint(text: str, colour: str, stream: TextIO | None = None) -> str:
    """`text` in a colour (red, green, yellow, bold, dim) if `stream` (stdout) is a terminal that wants it."""
    return f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m" if wants_colour(stream or sys.stdout) else text


def wants_colour(stream: TextIO) -> bool:
    """A terminal, not a dumb one, and no NO_COLOR (https://no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
