"""Mutations of bytes and of JSON-like data, for the targets."""

import random
from collections.abc import Sequence
from typing import Any

INTERESTING = (
    b"",
    b"\x00",
    b"\xff",
    b"\n",
    b'"',
    b"[",
    b"]",
    b"{",
    b"}",
    b"\\",
    b"\xf0\x9f\x90\x8d",
    b"\xef\xbb\xbf",
)
SCALARS: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2**31, 2**64, -(2**63), 10**400, 0.0, -0.5, 1e308, float("nan"), float("inf"),
    "", " ", "x", "..", "../../etc/passwd", "\0", "\ud800", "lo", "a" * 300, [], {}, [[]], {"": None},
)  # fmt: skip


def mutate_bytes(chance: random.Random, data: bytes, others: Sequence[bytes] = ()) -> bytes:
    """One to four small changes: bits, bytes, slices taken out, repeated, or brought in from another input."""
    result = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 4))):
        at = chance.randint(0, len(result))
        end = min(len(result), at + chance.choice((0, 1, 2, 8, 64)))
        match chance.randrange(6):
            case 0 if at < len(result):
                result[at] ^= 1 << chance.randrange(8)
            case 1:
                result[at:end] = chance.choice(INTERESTING)
            case 2:
                result[at:at] = result[at:end] * chance.choice((1, 2, 30))
            case 3:
                del result[at:end]
            case 4 if others:
                other = chance.choice(others)
                start = chance.randint(0, len(other))
                result[at:end] = other[start : start + chance.choice((1, 8, 64, 256))]
            case _:
                result[at:end] = chance.randbytes(end - at)
    if chance.random() < 0.05:
        del result[chance.randint(0, len(result)) :]
    return bytes(result)


def mutate_tree(chance: random.Random, value: Any) -> Any:
    """A copy of JSON-like data in which one place is another value, is gone, stands twice, or is nested."""
    if chance.random() < 0.2 or not isinstance(value, dict | list) or not value:
        return _replaced(chance, value)
    if isinstance(value, list):
        at = chance.randrange(len(value))
        chosen = chance.choice(([], [value[at]] * 2, [mutate_tree(chance, value[at])]))
        return [*value[:at], *chosen, *value[at + 1 :]]
    name = chance.choice(list(value))
    match chance.randrange(6):
        case 0:
            return {key: part for key, part in value.items() if key != name}
        case 1:
            return {(f"{key}x" if key == name else key): part for key, part in value.items()}
        case _:
            return value | {name: mutate_tree(chance, value[name])}


def _replaced(chance: random.Random, value: Any) -> Any:
    match chance.randrange(4):
        case 0:
            return [value]
        case 1:
            return {"change": value}
        case _:
            return chance.choice(SCALARS)
