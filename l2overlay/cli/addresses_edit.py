"""Edits the entry of one host in `[segment] addresses`, in the text of a peers.toml.

The table may be written in four ways, and each is kept: a table of its own (`[segment.addresses]`), one value
(`addresses = {...}`), dotted keys (`addresses.alpha = [...]`), or not at all yet. The caller parses the result and compares
it, so a mistake of this module never reaches the file.
"""

import re
from collections.abc import Sequence

from l2overlay.config.positions import Place, positions

_TABLE = ("segment", "addresses")


def with_addresses(text: str, name: str, addresses: Sequence[str]) -> str:
    """`text` with an entry for `name`, or unchanged if there are no addresses."""
    if not addresses:
        return text
    entry = f"{toml_key(name)} = {address_list(addresses)}"
    places = positions(text).places
    table = places.get(_TABLE)
    if table is None:
        return _after_line(text, places.get(("segment", "name")), f"addresses = {{ {entry} }}")
    if table.key == table.value:  # a header
        return _after_line(text, table, entry)
    if text[table.value] != "{":
        return _after_line(text, places.get(("segment", "name")), f"addresses.{entry}")
    inside = text[table.value + 1 : table.end - 1].strip()
    listed = f"{inside}, {entry}" if inside else entry
    return f"{text[: table.value]}{{ {listed} }}{text[table.end :]}"


def without_addresses(text: str, name: str) -> str:
    """`text` without the entry of `name`, if it has one."""
    places = positions(text).places
    table, entry = places.get(_TABLE), places.get((*_TABLE, name))
    if table is None or entry is None:
        return text
    if text[table.value] != "{":
        return _without_lines(text, entry)
    before = text[table.value + 1 : entry.key].rstrip().removesuffix(",").strip()
    after = text[entry.end : table.end - 1].strip().removeprefix(",").strip()
    kept = ", ".join(part for part in (before, after) if part)
    if not kept:
        return _without_lines(text, table)
    return f"{text[: table.value]}{{ {kept} }}{text[table.end :]}"


def toml_key(name: str) -> str:
    """A peer's name as a TOML key, quoted if it has to be."""
    return name if re.fullmatch("[A-Za-z0-9_-]+", name) else f'"{name}"'


def address_list(addresses: Sequence[str]) -> str:
    """Addresses as a TOML array. They contain nothing that needs an escape."""
    quoted = ", ".join(f'"{address}"' for address in addresses)
    return f"[{quoted}]"


def _after_line(text: str, place: Place | None, line: str) -> str:
    """`line` below the line on which `place` ends."""
    end = len(text) if place is None else text.find("\n", place.end)
    end = len(text) if end < 0 else end
    return f"{text[:end]}\n{line}{text[end:]}"


def _without_lines(text: str, place: Place) -> str:
    """`text` without the lines of `place`."""
    start = text.rfind("\n", 0, place.key) + 1
    return text[:start] + text[text.find("\n", place.end) + 1 or len(text) :]
