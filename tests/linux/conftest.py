"""Real kernel, no nodes: each test runs our code in namespaces of its own.

    with inside(namespace): ...   the calling thread is in that namespace; sockets and TAPs opened there stay there

Only the thread changes namespace, so files below /sys still show the host's: the code under test reads none.
"""

import contextlib
import ctypes
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from l2overlay.testing.lab import Namespace

CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents and "namespace" in getattr(item, "fixturenames", ()):
            item.add_marker("host")


@pytest.fixture(name="namespace")
def namespaces() -> Iterator[Callable[[], Namespace]]:
    """A factory: every call makes one more namespace, removed after the test."""
    made: list[Namespace] = []

    def make() -> Namespace:
        fresh = Namespace(f"l2o-{os.getpid()}-linux-{len(made)}")
        made.append(fresh)
        stack.callback(fresh.delete)
        fresh.create()
        return fresh

    with ExitStack() as stack:
        yield make


def wait_for_carrier(namespace: Namespace) -> None:
    """Until every link that is up has told its carrier on, up to a second later: before that it drops what it is to send."""
    deadline = time.monotonic() + 5
    while "NO-CARRIER" in namespace.run(["ip", "link"]).stdout:
        assert time.monotonic() < deadline, f"no carrier in {namespace}"


@contextlib.contextmanager
def inside(namespace: Namespace) -> Iterator[None]:
    """Put the calling thread into the namespace for the length of the block."""
    with (
        Path("/proc/thread-self/ns/net").open("rb") as home,
        Path("/run/netns", namespace.name).open("rb") as there,
    ):
        _setns(there.fileno())
        try:
            yield
        finally:
            _setns(home.fileno())


def _setns(fd: int) -> None:
    if _libc.setns(fd, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")
