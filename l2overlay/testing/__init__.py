"""Hosts as network namespaces, and what one looks at in them: shared by the demo, the tests and the benchmark."""
