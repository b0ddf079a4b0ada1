"""All that a node consists of, as plain values by their place: to show that something changed nothing.

Counters are left out, what is told of refused handshakes, and how much handshake work is still allowed: a refused
datagram may do nothing but be counted and told.
"""

from collections import deque
from collections.abc import Iterator
from enum import Enum
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any

from l2overlay.controlplane.refusals import Refusals
from l2overlay.controlplane.token_bucket import TokenBucket
from l2overlay.counters import Counters

_PLAIN = (int, float, str, bytes, bool, type(None), Enum)
_CONTAINERS = (dict, list, tuple, deque, set, frozenset)
_CODE = (FunctionType, MethodType, BuiltinFunctionType, type)


def snapshot(root: object) -> dict[str, object]:
    """Every plain value that can be reached from `root`, by the way to it."""
    found: dict[str, object] = {}
    _collect(root, "", found, set())
    return found


def changes(before: dict[str, object], after: dict[str, object]) -> list[str]:
    """What differs, one line each."""
    places = sorted(before.keys() | after.keys())
    return [
        f"{place}: {before.get(place, 'absent')!r} -> {after.get(place, 'absent')!r}"
        for place in places
        if before.get(place, "absent") != after.get(place, "absent")
    ]


def _collect(value: Any, place: str, found: dict[str, object], seen: set[int]) -> None:
    if isinstance(value, _PLAIN):
        found[place] = value
    elif isinstance(value, list) and value and all(type(each) is int for each in value):
        found[place] = tuple(value)
    elif not isinstance(value, (*_CODE, Counters, TokenBucket, Refusals)) and id(value) not in seen:
        seen.add(id(value))
        parts = list(_parts(value))
        found[place] = (
            f"{type(value).__name__} of {len(parts)}" if parts else f"{type(value).__name__} {id(value):x}"
        )
        for name, part in parts:
            _collect(part, f"{place}{name}", found, seen)


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, _CONTAINERS) and not value:
        yield ".items", ()
    elif isinstance(value, dict):
        for i, (key, part) in enumerate(value.items()):
            yield f"[key {i}]", key
            yield f"[{key!r}]", part
    elif isinstance(value, list | tuple | deque):
        yield from ((f"[{i}]", part) for i, part in enumerate(value))
    elif isinstance(value, set | frozenset):
        yield ".items", tuple(sorted(map(repr, value)))
    else:
        names = {name for kind in type(value).__mro__ for name in getattr(kind, "__slots__", ())}
        names |= set(getattr(value, "__dict__", ()))
        yield from ((f".{name}", getattr(value, name)) for name in sorted(names) if hasattr(value, name))
