"""What every test may use: `lab` for hosts and guests in namespaces; the mark `host` skips where they cannot be.

A session that leaves a namespace of its own behind has failed, whatever its tests say.
"""

import functools
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from l2overlay.testing.lab import Lab, LabError, Namespace, existing_namespaces

os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
"""Tests start some hundreds of nodes: the first one compiles for all, which saves each of them 0.3 s of a processor."""

HOST_PROGRAMS = ("ip", "bridge", "ping", "tcpdump")


@functools.cache
def missing_for_host_tests() -> str | None:
    """Why this machine cannot run tests with real TAPs, or None."""
    if os.geteuid() != 0:
        return "needs root for namespaces, TAPs and bridges"
    absent = [program for program in HOST_PROGRAMS if shutil.which(program) is None]
    if absent:
        return f"{', '.join(absent)} not installed (`make test` does it)"
    if not Path("/dev/net/tun").exists():
        return "/dev/net/tun is missing (modprobe tun)"
    probe = Namespace(f"l2o-{os.getpid()}-0-probe")
    try:
        probe.create()
        probe.ip("link add probe type bridge")
    except LabError as error:
        return f"this machine has no namespaces or bridges: {error}"
    finally:
        probe.delete()
    return None


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("host") and (reason := missing_for_host_tests()):
        pytest.skip(reason)


@pytest.fixture
def lab() -> Iterator[Callable[..., Lab]]:
    """A factory: `lab()` is an open `Lab`, closed after the test; a failure shows what its nodes printed."""
    labs: list[Lab] = []

    def open_lab(segment: str = "lab") -> Lab:
        labs.append(stack.enter_context(Lab(segment)))
        return labs[-1]

    with ExitStack() as stack:
        yield open_lab
        for node in (node for opened in labs for node in opened.nodes):
            print(
                f"--- {node.host.label} ({node.log.name}), exit code {node.process.poll()}\n{node.output()}"
            )


def pytest_sessionfinish(session: pytest.Session) -> None:
    left = (
        [name for name in existing_namespaces() if name.startswith(f"l2o-{os.getpid()}-")]
        if _has_ip()
        else []
    )
    for name in left:
        Namespace(name).delete()
    if left:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        print(f"\nFAILED: namespaces left behind (removed now): {', '.join(left)}")


def _has_ip() -> bool:
    return shutil.which("ip") is not None
