"""Micro-benchmarks run once and untimed in an ordinary test run, so that they cannot rot; --benchmark-only times them."""

from typing import Any

import pytest


@pytest.fixture(autouse=True)
def _time_only_when_asked(request: pytest.FixtureRequest) -> None:
    """`pytest tests/bench/test_micro.py --benchmark-only` asks."""
    if "benchmark" in request.fixturenames and not request.config.getoption("benchmark_only"):
        benchmark: Any = request.getfixturevalue("benchmark")
        benchmark.disabled = True
