"""Nodes joined in memory: real overlays with real sessions and no sockets, for what needs no kernel.

Time is an argument of an overlay and stands still here but for the handshakes; so no rekey falls into a measurement.
"""

import os

from l2overlay import keys
from l2overlay.addresses import Address, PeerKey
from l2overlay.config.types import Config, Endpoint, PeerConfig, ProtectConfig, SegmentConfig
from l2overlay.overlay import Overlay
from l2overlay.seams import Burst

WALL_CLOCK = 1_700_000_000.0
PATH_LIMIT = 1472
"""UDP payload of a 1500-byte underlay."""
STEP = 0.05
MAX_STEPS = 400


def segment() -> SegmentConfig:
    """With defaults."""
    return SegmentConfig(name="bench", bridge="br-bench", tap="tap-bench")


class Mesh:
    """One hub and `spokes` peers of it, which know only the hub. `now` moves while they shake hands."""

    def __init__(self, spokes: int, protect: ProtectConfig | None = None) -> None:
        self.now = 0.0
        self._protect = protect
        private = [keys.generate() for _ in range(spokes + 1)]
        public = [keys.public_key(key) for key in private]
        self.addresses = [Address(f"192.0.2.{n // 250}.{n % 250}", 7470) for n in range(spokes + 1)]
        stanzas = [PeerConfig(f"n{n}", key, Endpoint("192.0.2.1", 7470)) for n, key in enumerate(public)]
        self.hub = self._overlay(private[0], stanzas)
        self.spokes = [self._overlay(private[n], [stanzas[0], stanzas[n]]) for n in range(1, spokes + 1)]
        self._by_address = dict(zip(self.addresses, [self.hub, *self.spokes], strict=True))
        for n, spoke in enumerate(self.spokes, 1):
            self.hub.set_endpoint(public[n], self.addresses[n], self.now)
            self._limit_path(self.hub, public[n])
            self._limit_path(spoke, public[0])
        self._shake_hands()

    def _overlay(self, private: bytes, stanzas: list[PeerConfig]) -> Overlay:
        config = Config(segment(), tuple(stanzas), protect=self._protect)
        return Overlay(config, private, now=self.now, wall_clock=WALL_CLOCK, random=os.urandom)

    def _limit_path(self, overlay: Overlay, peer: PeerKey) -> None:
        overlay.set_path_limit(peer, PATH_LIMIT, self.now)

    def _shake_hands(self) -> None:
        for _ in range(MAX_STEPS):
            self.now += STEP
            for overlay in (self.hub, *self.spokes):
                overlay.handle_timer(self.now)
            while self.exchange():
                pass
            if all(peer.up and peer.datagram_size == PATH_LIMIT for peer in self.hub.peers(self.now)):
                return
        raise AssertionError("the nodes in memory did not find each other")

    def exchange(self) -> bool:
        """Carry what waits, once; whether anything did."""
        carried = False
        for address, overlay in self._by_address.items():
            for burst in overlay.bursts_to_send():
                carried = True
                arriving = Burst(address, burst.datagram_size, [b"".join(burst.buffers)])
                self._by_address[burst.address].receive_datagrams([arriving], self.now)
        return carried
