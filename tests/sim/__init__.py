"""Many nodes in virtual time: everything that happens between nodes is tested here, seeded and without a socket.

`simulator` is the way in; `underlay` is the network and its faults, `frames` what the stations send, `invariants` what
must hold in every run, `snapshot` what a node consists of, to show that something did not change it.
"""
