"""What a node answers at its control socket: each request by name, as plain data.

The layout of the answers is in `observe/status.py`; the socket itself in `control.py`.
"""

import os
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import trio

from l2overlay.addresses import PeerKey
from l2overlay.control.client import ERROR_SCHEMA
from l2overlay.control.server import Answer, BadRequest, Request
from l2overlay.errors import UsageError
from l2overlay.observe.refusals import refused_data
from l2overlay.observe.status import (
    FDB_SCHEMA,
    PEERS_SCHEMA,
    STATUS_SCHEMA,
    NodeFacts,
    peers_data,
    stations_data,
    status_data,
)

if TYPE_CHECKING:
    from l2overlay.node.node import Node

LEAVE_SCHEMA = "l2overlay.leave/1"


class Answers:
    """Speaks for one node."""

    def __init__(self, node: "Node") -> None:
        self._node = node

    def requests(self) -> dict[str, Request]:
        """For `ControlSocket`."""
        return {
            "status": self._status,
            "peers": self._peers,
            "fdb": self._fdb,
            "events": self._tell_events,
            "filter": self._filter,
            "filter_explain": self._filter_explain,
            "reload": self._reload,
            "leave": self._leave,
        }

    async def _status(self, _: Answer) -> Answer:
        node = self._node
        overlay = node.overlay
        node.look_at_losses()
        data = status_data(node.config, self._facts(), overlay.total_counters(), overlay.peers(node.clock()))
        return {"schema": f"l2overlay.{STATUS_SCHEMA}", **data}

    async def _peers(self, _: Answer) -> Answer:
        node = self._node
        peers = peers_data(node.config, node.overlay.peers(node.clock()), self._unresolved())
        return {"schema": f"l2overlay.{PEERS_SCHEMA}", "segment": node.config.segment.name, "peers": peers}

    async def _fdb(self, _: Answer) -> Answer:
        node = self._node
        stations = stations_data(node.config, node.overlay.stations(node.clock()))
        return {
            "schema": f"l2overlay.{FDB_SCHEMA}",
            "segment": node.config.segment.name,
            "stations": stations,
        }

    async def _filter(self, _: Answer) -> Answer:
        return {"segment": self._node.config.segment.name, **await self._node.filter.show()}

    async def _filter_explain(self, arguments: Answer) -> Answer:
        try:
            return self._node.filter.explain(str(arguments.get("frame", "")))
        except UsageError as error:
            raise BadRequest(str(error)) from None

    async def _reload(self, _: Answer) -> Answer:
        return await self._node.reload_and_tell()

    async def _leave(self, arguments: Answer) -> Answer:
        node, site = self._node, self._node.around.site
        site.purge = arguments.get("purge") is True
        node.journal.say("asked to leave")
        trio.lowlevel.current_trio_token().run_sync_soon(node.leave)
        return {
            "schema": LEAVE_SCHEMA,
            "segment": node.config.segment.name,
            "pid": os.getpid(),
            "bridge": site.spec.bridge,
            "kept_for": list(site.kept_for),
        }

    async def _tell_events(self, arguments: Answer) -> AsyncIterator[Answer]:
        return self._events(follow=bool(arguments.get("follow")))

    async def _events(self, *, follow: bool) -> AsyncIterator[Answer]:
        async with self._node.journal.follow() as events:
            for event in self._node.journal.recent():
                yield event
            if follow:
                async for event in events:
                    yield event
                yield {
                    "schema": ERROR_SCHEMA,
                    "error": "events came faster than they were read; start again",
                }

    def _unresolved(self) -> dict[PeerKey, tuple[str, float | None]]:
        node = self._node
        failures = ((p.key, node.why_down(p)) for p in node.overlay.peers(node.clock()))
        return {key: failure for key, failure in failures if failure is not None}

    def _facts(self) -> NodeFacts:
        node = self._node
        site, pump = node.around.site, node.pump
        return NodeFacts(
            name=node.own.name,
            key=node.key,
            pid=os.getpid(),
            uptime=node.clock() - node.start_time,
            port=node.udp.port,
            gso=node.udp.gso,
            gro=node.udp.gro,
            tap=site.spec.tap,
            tap_mac=site.spec.tap_mac,
            tap_present=pump.tap is not None,
            offload=bool(pump.tap is not None and site.tap.offloads),
            bridge=site.spec.bridge,
            bridge_ports=site.ports,
            bridge_adopted=site.adopted,
            lag_p50=node.lag.percentile(0.5),
            lag_p99=node.lag.percentile(0.99),
            blocked_count=pump.blocked_count,
            stamp_lead=node.stamp_lead(),
            refused=tuple(refused_data(node.config, node.overlay.refusals(node.clock()), node.clock())),
            linger=pump.linger,
            kernel_losses=dict(site.losses.counts),
            rehearsal_count=pump.rehearsal_count,
            log_lines_lost=node.journal.lines_lost,
            troubles=(
                *node.keeper.troubles,
                *site.troubles,
                *node.way_troubles,
                *node.filter.troubles,
                *node.floods.troubles,
            ),
            loops=tuple(node.overlay.loops(node.clock())),
            storms=tuple(node.overlay.storms(node.clock())),
            filter=node.filter.status(),
            unresolved=self._unresolved(),
        )
