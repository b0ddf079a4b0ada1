"""Hypothesis runs the same examples every time; `HYPOTHESIS_PROFILE=explore pytest tests/dataplane` looks further."""

import os

from hypothesis import HealthCheck, settings

settings.register_profile(
    "repeatable",
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    print_blob=True,
)
settings.register_profile(
    "explore", settings.get_profile("repeatable"), derandomize=False, max_examples=2000, database=None
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))
