`examples/` has two hosts, three hosts, an IPv6 underlay, and a diskless VM that boots by PXE across the overlay; `make test` runs them all.
