"""Fuzz targets, one a module: see `tests/fuzz/runner.py`."""
