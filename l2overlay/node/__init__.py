"""The node: the trio shell around one `Overlay`.

    start.py      from options to a running node: checks, files, lock; what may be refused is refused here
    node.py       the nursery: set up, run, leave, undo, in this order
    pump.py       frames and datagrams between the seams and the overlay
    latency/      what shortens the round trip of a lone frame
    timer.py      the overlay's clock and timer, and how late the loop runs
    refused_port.py  why a silent peer does not answer, as far as ICMP says it
    resolver.py   endpoints to addresses
    side.py       TAP and bridge: plan, note, apply, undo
    keeper.py     watches the host and repairs it; underlay.py tells which changes matter
    reload.py     a new peers.toml, or every mistake in it
    journal.py    log lines and events
    notify.py     systemd

All of it runs in one thread but for what must wait (pyroute2, files, name look-ups): the overlay has no locks.
"""
