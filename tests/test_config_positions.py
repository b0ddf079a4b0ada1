"""Where keys and values of a TOML text stand."""

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from l2overlay.config.positions import MAX_DEPTH, NestingError, Path, positions

TEXT = """\
# [not.a.header]
title = "a # b"   # name = 1
  [segment]
text = \"\"\"
name = "inside"
[[peers]] \\\"\"\"
\"\"\"
literal = '''it''s'''''
a . "b c" . d = 1
"tr\\u0075e" = true
when = 1979-05-27 07:32:00 # a space inside
list = [ # comment
  "x", 'y]',
  [1, 2,],
  { k = "v", l.m = 3 },
]

[[peers]]
name = "one"
[[peers]]
name = "two"
[peers.extra]
deep = 1
"""


@pytest.mark.parametrize(
    ("path", "key", "value"),
    [
        (("title",), (2, 1), (2, 9)),
        (("segment",), (3, 3), (3, 3)),
        (("segment", "text"), (4, 1), (4, 8)),
        (("segment", "literal"), (8, 1), (8, 11)),
        (("segment", "a"), (9, 1), (9, 17)),
        (("segment", "a", "b c", "d"), (9, 13), (9, 17)),
        (("segment", "true"), (10, 1), (10, 15)),
        (("segment", "when"), (11, 1), (11, 8)),
        (("segment", "list"), (12, 1), (12, 8)),
        (("segment", "list", 0), (13, 3), (13, 3)),
        (("segment", "list", 1), (13, 8), (13, 8)),
        (("segment", "list", 2, 1), (14, 7), (14, 7)),
        (("segment", "list", 3, "k"), (15, 5), (15, 9)),
        (("segment", "list", 3, "l", "m"), (15, 16), (15, 20)),
        (("peers",), (18, 1), (18, 1)),
        (("peers", 1), (20, 1), (20, 1)),
        (("peers", 1, "name"), (21, 1), (21, 8)),
        (("peers", 1, "extra", "deep"), (23, 1), (23, 8)),
    ],
)
def test_key_and_value_are_where_they_stand(path: Path, key: tuple[int, int], value: tuple[int, int]) -> None:
    found = positions(TEXT)
    assert (found.key(path), found.value(path)) == (key, value)


def test_a_path_that_is_not_there_is_at_the_nearest_table_around_it() -> None:
    found = positions(TEXT)
    assert found.key(("peers", 0, "public_key")) == (18, 1)
    assert found.key(("nowhere",)) == (0, 0)


def test_a_stanza_ends_with_its_last_value() -> None:
    found = positions("[[a]]\nx = [\n1,\n] # tail\n\n# next\n[[a]]\ny = 1\n")
    assert found.line_and_column(found.places["a", 0].end) == (4, 2)


def test_windows_line_ends_do_not_shift_places() -> None:
    assert positions(TEXT.replace("\n", "\r\n")).value(("peers", 1, "name")) == (21, 8)


@pytest.mark.parametrize(
    "text",
    [
        ".".join("a" * (MAX_DEPTH + 1)) + " = 1",
        "a = " + "[" * 5000,
        "a = " + "{a=" * 5000,
        f"[{'a.' * MAX_DEPTH}b]",
    ],
)
def test_deep_nesting_is_refused_before_tomllib_sees_it(text: str) -> None:
    with pytest.raises(NestingError):
        positions(text)


def paths_in(value: object, path: Path = ()) -> set[Path]:
    """Every key and element below `value`."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return {path, *(deeper for key, part in pairs for deeper in paths_in(part, (*path, key)))}


def test_every_path_that_tomllib_reads_has_a_place() -> None:
    assert paths_in(tomllib.loads(TEXT)) - {()} == set(positions(TEXT).places)


TOKENS = st.sampled_from(
    [*"[]{}=,.\"'#\n ", "a", "b", "[[a]]", "[b]", "a = 1\n", '"""', "'''", "\\", "1", "x = [", "y={"]
)


@given(st.lists(TOKENS, max_size=30).map("".join) | st.text())
def test_any_text_is_scanned_and_all_that_is_toml_has_places(text: str) -> None:
    try:
        found = positions(text)
    except NestingError:
        return
    try:
        document = tomllib.loads(text)
    except ValueError:
        return
    assert paths_in(document) - {()} <= set(found.places)


@pytest.mark.parametrize(
    ("header", "key"), [("[a.b.c]", ("a",)), ("[a.b.c]", ("a", "b")), ("[[a.b]]", ("a",))]
)
def test_table_that_only_a_longer_header_makes_stands_at_that_header(
    header: str, key: tuple[str, ...]
) -> None:
    assert positions(f"x = 1\n{header}\ny = 1\n").key(key) == (2, 1)
