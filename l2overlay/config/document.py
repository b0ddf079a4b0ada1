"""The document that tomllib makes of peers.toml, before anything about its shape is certain, and a mistake in it.

The functions here skip what is malformed: `config.tables` reports that, and one run reports everything.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from l2overlay.config.positions import Path

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Fault:
    """One mistake, by its path into the document."""

    path: Path
    message: str
    at_key: bool = False
    """The key is wrong, not its value."""
    first: Path | None = None
    """Where the same thing is written correctly; its line is added to the message."""


def table(document: Document, key: str) -> Document:
    """The table under `key`; empty if there is none."""
    value = document.get(key)
    return value if isinstance(value, dict) else {}


def tables(value: object) -> Iterator[tuple[int, Document]]:
    """The tables in a list of tables, each with its index."""
    for i, entry in enumerate(value if isinstance(value, list) else ()):
        if isinstance(entry, dict):
            yield i, entry


def texts(value: object) -> Iterator[tuple[int, str]]:
    """The texts in a list, each with its index."""
    for i, text in enumerate(value if isinstance(value, list) else ()):
        if isinstance(text, str):
            yield i, text


def peer_names(document: Document) -> list[str]:
    """The names of all peers, in the order of the file."""
    return [peer["name"] for _, peer in tables(document.get("peers")) if isinstance(peer.get("name"), str)]
