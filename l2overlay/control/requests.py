"""What a running node answers: plain data in, plain data out.

`Reading` changes nothing; `Changing` reloads the node or ends it. They are apart because a transport may allow the first to
a group and the second to the owner only. Nothing here knows how a request arrives: `control/server.py` is one way.

A request that cannot be answered raises L2OverlayError, and its text is for the client. An `Operation` describes a request
well enough to check its arguments and to write the OpenAPI document. `observe/status.py` describes the layout of the
answers.
"""

import os
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from l2overlay.addresses import PeerKey
from l2overlay.config.types import Config
from l2overlay.errors import L2OverlayError
from l2overlay.observe.status import (
    FDB_SCHEMA,
    PEERS_SCHEMA,
    STATUS_SCHEMA,
    NodeFacts,
    peers_data,
    stations_data,
    status_data,
)
from l2overlay.overlay import Overlay

LEAVE_SCHEMA = "l2overlay.leave/1"

Answer = dict[str, Any]
Request = Callable[[Answer], Awaitable[Answer | AsyncIterator[Answer]]]
"""Takes the arguments of a request. Returns one answer, or an iterator of answers after which the request ends."""
EVENT_STREAM = "text/event-stream"
JSON = "application/json"
Unresolved = Mapping[PeerKey, tuple[str, float | None]]
"""Why a peer does not answer, as this host knows it, and the seconds until the next try."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """One argument of an operation."""

    name: str
    kind: type[str] | type[bool]
    summary: str
    required: bool = False


@dataclass(frozen=True, slots=True)
class Operation:
    """A request: what answers it, and what it takes and gives."""

    answer: Request
    summary: str
    parameters: tuple[Parameter, ...] = ()
    changes: bool = False
    """Reloads the node or ends it."""
    schema: str = ""
    """The `schema` of the answer."""
    media: str = JSON


class EventLog(Protocol):
    """The events of a node."""

    def recent(self) -> list[Answer]: ...

    def follow(self) -> AbstractAsyncContextManager[AsyncIterable[Answer]]: ...


class FilterAnswers(Protocol):
    """What a node says about its filter."""

    async def show(self) -> Answer: ...

    def explain(self, frame: str, /) -> Answer: ...


@dataclass(frozen=True, slots=True)
class Reading:
    """The requests that change nothing."""

    overlay: Overlay
    clock: Callable[[], float]
    config: Callable[[], Config]
    """The configuration in force."""
    facts: Callable[[], NodeFacts]
    unresolved: Callable[[], Unresolved]
    filter: FilterAnswers
    events: EventLog

    def operations(self) -> dict[str, Operation]:
        """The requests by path."""
        frame = Parameter(
            "frame", str, "A frame in words, as 'tcp 10.9.0.1:1 > 10.9.0.2:80 from beta', or in hex.", True
        )
        follow = Parameter("follow", bool, "Go on with new events as they happen.")
        explain_schema = "l2overlay.filter_explain/1"
        return {
            "status": Operation(self._status, "What the node does", schema=f"l2overlay.{STATUS_SCHEMA}"),
            "peers": Operation(self._peers, "The peers", schema=f"l2overlay.{PEERS_SCHEMA}"),
            "fdb": Operation(
                self._fdb, "Which station is behind which peer", schema=f"l2overlay.{FDB_SCHEMA}"
            ),
            "events": Operation(self._tell_events, "Recent events", (follow,), media=EVENT_STREAM),
            "filter": Operation(
                self._filter, "The filter's rules and their counters", schema="l2overlay.filter/1"
            ),
            "filter/explain": Operation(
                self._filter_explain, "Which rule decides about a frame", (frame,), schema=explain_schema
            ),
        }

    async def _status(self, _: Answer) -> Answer:
        facts, overlay = self.facts(), self.overlay
        data = status_data(self.config(), facts, overlay.total_counters(), overlay.peers(self.clock()))
        return {"schema": f"l2overlay.{STATUS_SCHEMA}", **data}

    async def _peers(self, _: Answer) -> Answer:
        config = self.config()
        peers = peers_data(config, self.overlay.peers(self.clock()), self.unresolved())
        return {"schema": f"l2overlay.{PEERS_SCHEMA}", "segment": config.segment.name, "peers": peers}

    async def _fdb(self, _: Answer) -> Answer:
        config = self.config()
        stations = stations_data(config, self.overlay.stations(self.clock()))
        return {"schema": f"l2overlay.{FDB_SCHEMA}", "segment": config.segment.name, "stations": stations}

    async def _filter(self, _: Answer) -> Answer:
        return {"segment": self.config().segment.name, **await self.filter.show()}

    async def _filter_explain(self, arguments: Answer) -> Answer:
        return self.filter.explain(str(arguments.get("frame", "")))

    async def _tell_events(self, arguments: Answer) -> AsyncIterator[Answer]:
        return self._events(follow=bool(arguments.get("follow")))

    async def _events(self, *, follow: bool) -> AsyncIterator[Answer]:
        async with self.events.follow() as events:
            for event in self.events.recent():
                yield event
            if follow:
                async for event in events:
                    yield event
                raise L2OverlayError("events came faster than they were read; start again")


@dataclass(frozen=True, slots=True)
class Changing:
    """The requests that reload the node or end it."""

    config: Callable[[], Config]
    reload: Callable[[], Awaitable[Answer]]
    leave: Callable[[bool], tuple[str, ...]]
    """Ends the node soon; True also removes a bridge that others use. Returns the ports for which the bridge stays."""

    def operations(self) -> dict[str, Operation]:
        """The requests by path."""
        purge = Parameter("purge", bool, "Also remove a bridge that others have ports in.")
        return {
            "reload": Operation(
                self._reload, "Read peers.toml again", changes=True, schema="l2overlay.reload/1"
            ),
            "leave": Operation(
                self._leave, "Leave the segment and end", (purge,), changes=True, schema=LEAVE_SCHEMA
            ),
        }

    async def _reload(self, _: Answer) -> Answer:
        return await self.reload()

    async def _leave(self, arguments: Answer) -> Answer:
        segment = self.config().segment
        kept_for = self.leave(arguments.get("purge") is True)
        return {
            "schema": LEAVE_SCHEMA,
            "segment": segment.name,
            "pid": os.getpid(),
            "bridge": segment.bridge,
            "kept_for": list(kept_for),
        }
