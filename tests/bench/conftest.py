"""Keep the micro-benchmarks out of a run that did not ask for them: `pytest tests/bench/test_micro.py --benchmark-only`."""

from pathlib import Path

import pytest


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """True for test_micro.py unless benchmarks were asked for."""
    if collection_path.name == "test_micro.py" and not config.getoption("benchmark_only", default=False):
        return True
    return None
