"""The end of the start: wait a moment for the peers, name those that are silent, say READY."""

from collections.abc import Callable

import trio

from l2overlay.addresses import PeerKey
from l2overlay.controlplane.overview import PeerStatus
from l2overlay.node.environment import Current, Environment
from l2overlay.node.journal import Journal
from l2overlay.node.notify import notify
from l2overlay.overlay import Overlay

PEERS_WAIT = 1.0
"""Seconds that READY waits for peers: handshakes start within 0.5 s, and one that is off must not hold up a host's boot."""
NAMED_PEERS = 8
"""Silent peers that are named at start-up."""


class Arrival:
    """Of one node; `run` once."""

    def __init__(
        self,
        current: Current,
        environment: Environment,
        overlay: Overlay,
        journal: Journal,
        why_down: Callable[[PeerStatus], tuple[str, float | None] | None],
    ) -> None:
        self._current = current
        self._environment = environment
        self._overlay = overlay
        self._journal = journal
        self._why_down = why_down
        self._awaited = {p.public_key for p in current.config.peers if p.endpoint is not None} - {current.key}
        self._all_up = trio.Event()

    def came_up(self, peer: PeerKey) -> None:
        """One peer less to wait for."""
        self._awaited.discard(peer)
        if not self._awaited:
            self._all_up.set()

    async def run(self) -> None:
        """Wait for the peers, and say who is there."""
        await self._wait_for_peers()
        self._say_ready()

    async def _wait_for_peers(self) -> None:
        if self._awaited:
            with trio.move_on_after(PEERS_WAIT):
                await self._all_up.wait()
        peers = self._overlay.peers(self._environment.clock())
        self._environment.progress.phase("peers", f"{sum(p.up for p in peers)}/{len(peers)} up")
        missing = [p for p in peers if self._is_missing(p)]
        for peer in missing[:NAMED_PEERS]:
            self._journal.say(f"peer {peer.name} {self._silence_of(peer)}")
        if len(missing) > NAMED_PEERS:
            self._journal.say(
                f"{len(missing) - NAMED_PEERS} more peers do not answer (l2overlay status names them)"
            )

    def _is_missing(self, peer: PeerStatus) -> bool:
        config = self._current.config.peer(peer.key)
        return not peer.up and config is not None and config.endpoint is not None

    def _silence_of(self, peer: PeerStatus) -> str:
        config = self._current.config.peer(peer.key)
        reason, next_try = self._why_down(peer) or (peer.reason or "no answer yet", peer.next_try)
        where = peer.endpoint or (config.endpoint if config is not None else None)
        again = "" if next_try is None else f"; next try in {next_try:.1f} s"
        return f"({where}) is not up: {reason}{again}"

    def _say_ready(self) -> None:
        peers = self._overlay.peers(self._environment.clock())
        up = f"{sum(p.up for p in peers)}/{len(peers)}"
        own = self._current.config.peer(self._current.key)
        assert own is not None  # checked at start
        self._journal.say(
            f"READY segment {self._current.config.segment.name} node {own.name} peers {up}"
            f" in {self._environment.progress.elapsed:.2f} s"
        )
        notify("READY=1", f"STATUS=peers {up} up")
