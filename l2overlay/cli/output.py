"""What verbs print: versioned JSON for programs; aligned tables, a little colour and readable units for people."""

import argparse
import json
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TextIO

_COLOURS = {"red": "31", "green": "32", "yellow": "33", "bold": "1", "dim": "2"}
_UNITS = (("day", 86400.0), ("hour", 3600.0), ("minute", 60.0), ("second", 1.0))
_ESCAPE = re.compile(r"\x1b\[[0-9;]*m")


def add_json_option(parser: argparse.ArgumentParser) -> None:
    """Add `--json`, with the same help on every verb."""
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")


def print_json(schema: str, data: Mapping[str, Any]) -> None:
    """Print one JSON object: `{"schema": "l2overlay.status/1", ...}` for the schema "status/1"."""
    print(json.dumps({"schema": f"l2overlay.{schema}", **data}, indent=2, allow_nan=False))


def print_error(text: str) -> None:
    """Print a line on stderr."""
    print(paint(text, "red", sys.stderr), file=sys.stderr)


def print_table(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print an aligned table, with bold headers on a terminal."""
    lines = table(headers, rows)
    print(paint(lines[0], "bold"), *lines[1:], sep="\n")


def table(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Lines of left-aligned columns, two spaces apart. Columns of numbers are right-aligned, and None becomes `-`."""
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
    """`text` in a colour (red, green, yellow, bold, dim) if `stream` (default: stdout) shows colours."""
    return f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m" if wants_colour(stream or sys.stdout) else text


def wants_colour(stream: TextIO) -> bool:
    """Whether `stream` is a terminal that shows colours, and NO_COLOR is not set (https://no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def print_answer(answer: dict[str, Any]) -> None:
    """Print the node's answer as indented JSON; it already has its schema."""
    print(json.dumps(answer, indent=2))


def duration(seconds: float) -> str:
    """`14 seconds`, `3 minutes`: a single unit, as in `wg show`."""
    for unit, size in _UNITS:
        if seconds >= size:
            count = int(seconds / size)
            return f"{count} {unit}{'s' * (count != 1)}"
    return "less than a second"


def ago(seconds: float | None) -> str:
    """`14 seconds ago`, `never`."""
    if seconds is None:
        return "never"
    return "now" if seconds < 1 else f"{duration(seconds)} ago"


def size(count: int) -> str:
    """Bytes as `12.3 MB`, in powers of 1000, as link speeds are given."""
    if count < 1000:
        return f"{count} B"
    value = float(count)
    for unit in ("kB", "MB", "GB", "TB"):
        value /= 1000
        if value < 999.95 or unit == "TB":
            break
    return f"{value:.1f} {unit}"


def short_time(seconds: float | None) -> str:
    """`0.31 ms`, `12.4 ms`, `1.2 s`."""
    if seconds is None:
        return "-"
    if seconds >= 1:
        return f"{seconds:.1f} s"
    return f"{seconds * 1000:.2f} ms" if seconds < 0.01 else f"{seconds * 1000:.1f} ms"


def peer_state(peer: dict[str, Any]) -> str:
    """`up`, or `down: no answer; next try in 3 s`."""
    if peer["up"]:
        return "up"
    if peer.get("left") is not None:
        return f"left {duration(peer['left'])} ago"
    reason = f"down: {peer['reason']}" if peer["reason"] else "down"
    return reason if peer["next_try"] is None else f"{reason}; next try in {peer['next_try']:.0f} s"
