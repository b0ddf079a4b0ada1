"""Hosts as network namespaces, and tools that examine them. The demo, the tests and the benchmark use them."""
