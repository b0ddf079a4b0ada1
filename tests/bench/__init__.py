"""The benchmark: l2overlay and the tunnels that Debian packages, in one run on one machine.

`make bench` runs it; docs/performance.md explains every figure. Read in this order: `topology` (the namespaces),
`contestants` (the tunnels), `traffic` (senders and counters), `measures` (what is measured), `report` (tables, goals).
"""
