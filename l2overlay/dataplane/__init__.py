"""The path of a frame: what happens to frames and sealed datagrams. Who a peer is, is decided elsewhere.

In the order in which a frame meets them: `forwarder` and `switch` (where it goes, by `fdb`), `outbox` (records packed into
plaintexts, with `offload` for super-frames), `session` (seals, opens, refuses replays), `demultiplexer` (which session a
datagram is for), `inbox` (unpacks records, joins runs, puts fragments together). `wire` has every byte layout. The control
plane programs these modules. They import nothing of it; what they need of it are interfaces that it implements
(`link.Owner`, `demultiplexer.ControlPlane`).
"""
