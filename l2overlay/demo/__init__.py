"""Segments in namespaces on one machine: the toolkit that demo, tests and benchmark share, and the demo."""
