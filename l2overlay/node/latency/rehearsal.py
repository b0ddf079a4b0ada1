"""Rehearsals: a made-up frame goes the whole way, so that the code and tables of the way stay in the processor's caches.

On a machine that others use too, 5 ms without a frame are enough to empty the caches: what takes 15 us when it is repeated
then takes 75 to 107 (`python -m tests.bench.cold`). So for a while after a lone frame the pump calls `once` whenever
it has waited `pump.REHEARSAL_INTERVAL` in vain.

    guest -> TAP | pump, overlay | UDP -> UDP | pump, overlay | TAP -> guest

Nothing of the node takes part but its code. There are two pumps and two overlays that know only each other, with keys of
their own; sockets of 127.0.0.1; and socket pairs for the TAPs. Time stands still, so nothing is ever due.
"""

import contextlib
import secrets
import socket

from l2overlay import keys
from l2overlay.addresses import Address, MacAddress, PeerKey
from l2overlay.config.types import Config, Endpoint, PeerConfig, SegmentConfig, Suite
from l2overlay.dataplane.ethernet import plain
from l2overlay.linux.tap import LinuxTap
from l2overlay.linux.udp import LinuxUdp
from l2overlay.linux.udp_socket import LOOPBACK
from l2overlay.node.pump import Pump
from l2overlay.overlay import Overlay
from l2overlay.seams import Burst, TapFrame

_NOW = 0.0
_BODY = b"\x08\x00" + bytes(84)
"""As long as an echo request."""


class Rehearsal:
    """A segment of two nodes inside this process, which uses the cipher of the real one."""

    def __init__(self, suite: Suite) -> None:
        """Raises OSError or HostSetupError when the host has no sockets to spare."""
        self._resources = contextlib.ExitStack()
        with self._resources:
            self._here, self._there = _Node(self._resources), _Node(self._resources)
            stanzas = tuple(
                PeerConfig(name, keys.public_key(node.private_key), Endpoint(node.at.host, node.at.port))
                for name, node in (("here", self._here), ("there", self._there))
            )
            segment = SegmentConfig(name="rehearsal", bridge="-", tap="-", suite=suite)
            for node in (self._here, self._there):
                node.start(Config(segment, stanzas), self._resources)
            self._meet(stanzas[1].public_key)
            self._resources = self._resources.pop_all()

    def _meet(self, there: PeerKey) -> None:
        """In memory: a handshake, and a frame in each direction, so that both ends know both stations."""
        self._here.overlay.set_endpoint(there, self._there.at, _NOW)
        self._here.overlay.handle_timer(_NOW)
        for source, target in ((self._here, self._there), (self._there, self._here)) * 3:
            source.tell(target)
        for source, target in ((self._there, self._here), (self._here, self._there)):
            source.overlay.receive_frames([source.frame_to(target)], _NOW)
            source.tell(target)
            target.overlay.frames_to_deliver()
        self._frame = self._here.frame_to(self._there)

    def once(self) -> bool:
        """One frame goes its way. Returns whether it arrived: not without a loopback."""
        self._here.guest.send(self._frame)
        self._here.pump.move_alone()
        self._there.pump.move_alone()
        try:
            return bool(self._there.guest.recv(len(self._frame)))
        except BlockingIOError:
            return False

    def close(self) -> None:
        """Give the sockets back."""
        self._resources.close()


class _Node:
    """One of the two. `guest` is the other end of its TAP."""

    overlay: Overlay
    pump: Pump

    def __init__(self, resources: contextlib.ExitStack) -> None:
        self.private_key = keys.generate()
        self.mac = MacAddress(b"\x02" + secrets.token_bytes(5))
        self._udp = LinuxUdp.open_loopback()
        resources.callback(self._udp.close)
        self.at = Address(LOOPBACK, self._udp.port)
        self.guest, tap = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        resources.callback(self.guest.close)
        self._tap = LinuxTap(tap.detach(), "rehearsal", ())
        resources.callback(self._tap.close)

    def start(self, config: Config, resources: contextlib.ExitStack) -> None:
        """With the segment that both know now."""
        self.overlay = Overlay(
            config, self.private_key, now=_NOW, wall_clock=_NOW, random=secrets.token_bytes
        )
        self.pump = Pump(
            self.overlay, self._udp, lambda: _NOW, tell=lambda _event: None, tap_lost=lambda _error: None
        )
        resources.callback(self.pump.close)
        self.pump.attach_tap(self._tap)

    def frame_to(self, other: "_Node") -> TapFrame:
        """From this one's station to that one's."""
        return plain(other.mac + self.mac + _BODY)

    def tell(self, other: "_Node") -> None:
        """Carry what this overlay has to send to the other."""
        bursts = self.overlay.bursts_to_send()
        data = [Burst(self.at, burst.datagram_size, [b"".join(burst.buffers)]) for burst in bursts]
        other.overlay.receive_datagrams(data, _NOW)
