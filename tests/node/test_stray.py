"""What libraries say: one line each, through the node's own writer, and never a wait."""

import logging
import os
import threading
import warnings
from contextlib import suppress

import pytest

from l2overlay.node.journal import LineWriter
from l2overlay.node.stray import MAX_KNOWN, REPEAT_INTERVAL, StrayLines, stray_lines


def test_a_library_s_log_with_its_exception_is_one_line() -> None:
    told: list[str] = []
    with stray_lines(told.append):
        try:
            os.open("/nowhere/at all", os.O_RDONLY)
        except OSError:
            logging.getLogger("trio.serve_listeners").exception("accept returned %s\nlater", 24)
    (line,) = told
    assert line.startswith("trio.serve_listeners: accept returned 24 later (FileNotFoundError: ")
    assert "test_stray.py:" in line


def test_a_line_that_repeats_is_told_once_a_minute_with_how_often_it_came() -> None:
    now, told = [0.0], list[str]()
    lines = StrayLines(told.append, lambda: now[0])
    for _ in range(100):
        lines.tell("trio", "again")
        now[0] += 0.1
    assert told == ["trio: again"]
    now[0] += REPEAT_INTERVAL
    lines.tell("trio", "again")
    assert told[1:] == ["trio: again (and 99 times before)"]


def test_lines_that_are_all_new_are_bounded_too() -> None:
    told: list[str] = []
    lines = StrayLines(told.append, lambda: 0.0)
    for number in range(10_000):
        lines.tell("chatty", str(number))
    assert len(told) == MAX_KNOWN


def test_warnings_threads_and_exceptions_that_nobody_catches_are_told(
    capfd: pytest.CaptureFixture[str],
) -> None:
    class Sour:
        def __del__(self) -> None:
            raise ValueError("sour")

    told: list[str] = []
    with stray_lines(told.append) as lines:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn("old thing", stacklevel=1)
        Sour()
        thread = threading.Thread(target=lambda: dict[int, int]()[1], name="helper")
        thread.start()
        thread.join()
        lines.handle(logging.LogRecord("odd", logging.ERROR, "", 0, "%d", ("no number",), None))
    assert [line.split(":")[0] for line in told] == ["py.warnings", "python", "helper", "odd"]
    assert capfd.readouterr().err == ""


def test_a_log_that_is_full_holds_no_library_up() -> None:
    read, write = os.pipe()
    os.set_blocking(write, False)
    with suppress(BlockingIOError):
        while True:
            os.write(write, b"x" * 4096)
    os.set_blocking(write, True)
    writer = LineWriter(write)
    with stray_lines(writer.write):
        for number in range(100):
            logging.getLogger("trio").error("said %d", number)
    assert writer.lost_count == MAX_KNOWN
    os.close(read)
    os.close(write)
