"""The routes to the peers: what leaves this host for them, by which link, and how large it may be.

`underlay.py` says which link and source address the kernel chooses, `way.py` whether that leads into our own bridge. Here
both become what the overlay and the socket are told: path limits, hosts that get nothing, and troubles for `status`.
"""

from collections.abc import Callable
from math import inf

import trio

from l2overlay.addresses import Address, PeerKey
from l2overlay.controlplane.overview import PeerStatus
from l2overlay.dataplane.own_datagrams import OwnDatagrams
from l2overlay.node.attachment import HostSide
from l2overlay.node.journal import Journal
from l2overlay.node.underlay import LOOKED_AT, Paths
from l2overlay.node.way import LOOK_INTERVAL, OwnBridge, Ways
from l2overlay.overlay import Overlay
from l2overlay.seams import Underlay

WAYS_INTERVAL = 0.25
"""Seconds between two looks at the ways to the peers, about 60 us each, when routes change again and again."""
SIZE_LOOK_INTERVAL = 1.0
"""Seconds between two looks at what the links take: a link that is too small for a node refuses datagrams for ever."""


class Routes:
    """The routes of one node. `udp` returns the socket in use; `look_soon` asks for a call of `follow` with any link."""

    def __init__(
        self,
        overlay: Overlay,
        udp: Callable[[], Underlay],
        side: HostSide,
        journal: Journal,
        clock: Callable[[], float],
        look_soon: Callable[[], None],
    ) -> None:
        self._overlay = overlay
        self._udp = udp
        self._side = side
        self._journal = journal
        self._clock = clock
        self._look_soon = look_soon
        self._paths = Paths()
        self._ways = Ways(OwnBridge(side.spec.bridge, side.spec.tap, lambda: side.ports))
        self._by_bridge: frozenset[tuple[str, Address]] = frozenset()
        self._ways_time = -inf
        self._size_look_time = -SIZE_LOOK_INTERVAL
        self.troubles: tuple[str, ...] = ()
        """Peers whose datagrams would come back by our own TAP."""

    def _peers(self) -> list[PeerStatus]:
        """Those that are up first."""
        return sorted(self._overlay.peers(self._clock()), key=lambda peer: not peer.up)

    def follow(self, links: frozenset[str]) -> bool:
        """Look at all paths again. Returns True if one has changed or goes over one of `links` ("" is any link)."""
        udp, peers = self._udp(), self._peers()
        udp.forget_addresses()
        is_changed = self._paths.changed((p.endpoint for p in peers if p.endpoint is not None), links)
        self.look()
        if not is_changed:
            return False
        udp.forget_paths()
        for peer in peers:
            if peer.up and peer.endpoint is not None:  # the others are asked about when they come up
                self.set_path_limit(peer.key, peer.endpoint)
        return True

    def link_refused_size(self) -> None:
        """The MTU of an outgoing link has become smaller, or that of a route, which nobody tells: ask again."""
        now = self._clock()
        if now - self._size_look_time < SIZE_LOOK_INTERVAL:
            return
        self._size_look_time = now
        hosts = [p.endpoint for p in self._overlay.peers(now) if p.up and p.endpoint is not None]
        before = [self._udp().path_limit(host) for host in hosts]
        self._udp().forget_paths()
        if before != [self._udp().path_limit(host) for host in hosts]:
            self._look_soon()

    def learn(self, address: Address) -> None:
        """A peer is, or may be, at this address. Nothing is sent there if it would come back by our own TAP."""
        self._ways.learn(address, self._paths.learn(address), self._clock())
        self._follow_ways()

    def look(self) -> None:
        """Where the paths to the peers lead that are in use or to be tried; of many peers, as `Paths` does, the first."""
        now = self._ways_time = self._clock()
        looked_at = [peer.endpoint for peer in self._peers() if peer.endpoint is not None][:LOOKED_AT]
        for endpoint in looked_at:
            self._ways.learn(endpoint, self._paths.look(endpoint), now)
        self._ways.keep(frozenset(endpoint.host for endpoint in looked_at))
        self._follow_ways()

    def changed(self) -> None:
        """At once: a route into the own bridge feeds on itself, 1800 datagrams in the 50 ms in which news are gathered."""
        if self._clock() - self._ways_time >= WAYS_INTERVAL:
            self.look()

    def _follow_ways(self) -> None:
        by_bridge, back = self._ways.by_bridge(), self._ways.back()
        self._udp().shut_hosts(back)
        if by_bridge != self._by_bridge:
            self._by_bridge = by_bridge
            self._overlay.look_for_own(OwnDatagrams(self._udp().port, by_bridge) if by_bridge else None)
        troubles = (
            *(self._way_back(host) for host in sorted(back)),
            *(self._way_unheard(host) for host in sorted(self._ways.unheard(self._clock()))),
        )
        if troubles == self.troubles:
            return
        for trouble in (trouble for trouble in troubles if trouble not in self.troubles):
            self._journal.tell("degraded", f"degraded: {trouble}")
        if not troubles:
            self._journal.tell("repaired", "repaired: the routes to all peers lead out of the bridge again")
        self.troubles = troubles

    def _way_unheard(self, host: str) -> str:
        bridge = self._side.spec.bridge
        return (
            f"the route to {host} leads into {bridge}, and its next hop is not heard there; if it is no host of this LAN, "
            f"give {host} a route by the underlay (ip route add {host} via GATEWAY)"
        )

    def _way_back(self, host: str) -> str:
        spec = self._side.spec
        return (
            f"nothing is sent to {host}: its route leads into {spec.bridge} and back by {spec.tap}, into the segment "
            f"that the datagrams carry; give it a route by the underlay (ip route add {host} via GATEWAY)"
        )

    async def run(self) -> None:
        """A next hop may be heard behind another port of the bridge, which nobody tells."""
        while True:
            await trio.sleep(LOOK_INTERVAL)
            for address in self._ways.doubtful():
                self.learn(address)

    def set_path_limit(self, peer: PeerKey, address: Address) -> None:
        """A peer is at this address: tell the overlay how large a datagram the link there takes."""
        self.learn(address)
        self._overlay.set_path_limit(peer, self._udp().path_limit(address), self._clock())
