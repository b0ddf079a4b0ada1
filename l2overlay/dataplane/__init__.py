"""The frame's path: what happens to frames and sealed datagrams, and nothing that decides who a peer is.

In the order in which a frame meets them: `switch` (where does it go, over `fdb`), `outbox` (records packed into
plaintexts, with `offload` for super-frames), `session` (sealed, opened, replays refused), `inbox` (records unpacked,
runs joined, fragments put together), and `wire` for every byte layout. The control plane programs these rooms; they
never call it.
"""
