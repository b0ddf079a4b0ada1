"""What the node does outside the overlay when the overlay tells an event."""

from collections.abc import Callable

import trio

from l2overlay.addresses import MacAddress, PeerKey
from l2overlay.controlplane.events import (
    DatagramReturned,
    Event,
    LoopFound,
    LoopHealed,
    PeerDown,
    PeerMoved,
    PeerUnanswered,
    PeerUp,
    ProbeRepeated,
)
from l2overlay.errors import HostSetupError
from l2overlay.node.environment import Environment
from l2overlay.node.journal import Journal
from l2overlay.node.refused_port import RefusedPorts
from l2overlay.node.resolver import Resolver
from l2overlay.node.routes import Routes
from l2overlay.overlay import Overlay


class Reactions:
    """Of one node. `came_up` gets each peer that is up."""

    def __init__(
        self,
        environment: Environment,
        overlay: Overlay,
        routes: Routes,
        refused_ports: RefusedPorts,
        resolver: Resolver,
        journal: Journal,
        came_up: Callable[[PeerKey], None],
    ) -> None:
        self._environment = environment
        self._overlay = overlay
        self._routes = routes
        self._refused_ports = refused_ports
        self._resolver = resolver
        self._journal = journal
        self._came_up = came_up

    def to(self, event: Event) -> None:
        """Do what is to be done about `event`, and tell it."""
        if isinstance(event, PeerUp):
            self._routes.set_path_limit(event.peer, event.address)
            self._refused_ports.forget(event.peer)
            self._came_up(event.peer)
        elif isinstance(event, PeerMoved):
            self._routes.set_path_limit(event.peer, event.new)
        elif isinstance(event, DatagramReturned):
            self._routes.look()
        elif isinstance(event, PeerUnanswered):
            self._resolver.unanswered(event.peer)
            self._ask_why(event.peer)
        elif isinstance(event, PeerDown | LoopFound | LoopHealed):
            # Once, also when a thousand peers go at the same moment.
            trio.lowlevel.current_trio_token().run_sync_soon(self._forget_stations, idempotent=True)
        self._journal.tell_event(event)
        if isinstance(event, LoopFound | ProbeRepeated) and event.probe is not None:
            self._name_port(event.probe)

    def _name_port(self, probe: MacAddress) -> None:
        """Say by which port of the bridge a probe of ours came back, if the bridge knows."""
        port = self._environment.side.port_of(probe)
        if port:
            self._journal.say(
                f"loop: the probe came back by the port {port} of {self._environment.side.spec.bridge}"
            )

    def _ask_why(self, key: PeerKey) -> None:
        endpoint = next(
            (p.endpoint for p in self._overlay.peers(self._environment.clock()) if p.key == key), None
        )
        if endpoint is not None:
            self._refused_ports.ask(key, endpoint)

    def _forget_stations(self) -> None:
        """What the bridge has learned at the TAP may be gone, or behind another of its ports now, or the reverse."""
        try:
            self._environment.side.forget_stations()
        except HostSetupError as error:
            self._journal.say(str(error))
