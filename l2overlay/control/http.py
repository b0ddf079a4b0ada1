"""HTTP/1.1 on one connection (RFC 9112), by h11: a request in, an answer or a stream of events out.

Bounded in size and time: the head of a request, its body, the time to send one and the time to take an answer. What is no
request is answered with the status of RFC 9110 and an error as JSON, and the connection ends.
"""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import h11
import trio

from l2overlay.control.client import ERROR_SCHEMA

MAX_HEAD_LEN = 16_384
MAX_BODY_LEN = 65_536
ASK_TIMEOUT = 30.0
"""Seconds that a connection may be silent before it is closed."""
TAKE_TIMEOUT = 10.0
"""Seconds that a client has to take an answer, or a part of one."""
_CHUNK = 65_536
_DISCARD_TIME = 0.2
_DISCARD_LEN = 1 << 20

Answer = dict[str, Any]


class HttpError(Exception):
    """What a client did wrong, or what failed: an HTTP status and a text for the client."""

    def __init__(self, status: int, text: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(text)
        self.status = status
        self.headers = dict(headers or {})

    def answer(self) -> Answer:
        """The error as JSON."""
        return {"schema": ERROR_SCHEMA, "error": str(self), "status": self.status}


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """One request. `query` holds the last value of each name."""

    method: str
    path: str
    query: dict[str, str]
    body: bytes


class HttpConnection:
    """One client. Raises HttpError for what it does wrong, and trio's resource errors and TooSlowError when it is gone."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD_LEN)

    @property
    def goes_on(self) -> bool:
        """Whether another request may come."""
        return self._h11.our_state is h11.DONE and self._h11.their_state is h11.DONE

    async def next_request(self) -> HttpRequest | None:
        """The next request, or None if the client has gone."""
        if self.goes_on:
            self._h11.start_next_cycle()
        with trio.move_on_after(ASK_TIMEOUT):
            return await self._read_request()
        raise HttpError(HTTPStatus.REQUEST_TIMEOUT, f"nothing was asked for {ASK_TIMEOUT:.0f} s")

    async def _read_request(self) -> HttpRequest | None:
        head = await self._next_event()
        if not isinstance(head, h11.Request):
            return None
        body = bytearray()
        while isinstance(event := await self._next_event(), h11.Data):
            body += event.data
            if len(body) > MAX_BODY_LEN:
                raise HttpError(
                    HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"a body has at most {MAX_BODY_LEN} bytes"
                )
        return _request(head, bytes(body))

    async def _next_event(self) -> Any:
        while True:
            try:
                event = self._h11.next_event()
            except h11.RemoteProtocolError as error:
                raise HttpError(error.error_status_hint, f"this is not HTTP/1.1: {error}") from None
            if event is not h11.NEED_DATA:
                return event
            if self._h11.they_are_waiting_for_100_continue:
                await self._send(h11.InformationalResponse(status_code=100, headers=[]))
            self._h11.receive_data(bytes(await self._stream.receive_some(_CHUNK)))

    async def answer(
        self, status: int, content: bytes, media: str, headers: Mapping[str, str] | None = None
    ) -> None:
        """Send a whole answer, by one call: a node that leaves after it is not interrupted half-way."""
        fields = {"content-type": media, "content-length": str(len(content)), "cache-control": "no-store"}
        await self._send(
            _response(status, fields | dict(headers or {})), h11.Data(data=content), h11.EndOfMessage()
        )

    async def refuse(self, error: HttpError) -> None:
        """Send an error if an answer is still possible, after which the connection ends."""
        if self._h11.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            content = json.dumps(error.answer()).encode() + b"\n"
            headers = {"connection": "close", **error.headers}
            await self.answer(error.status, content, "application/json", headers)
            await self._discard()

    async def _discard(self) -> None:
        """Read what the client still sends, within bounds: it gets a reset instead of the error if this is left unread."""
        with trio.move_on_after(_DISCARD_TIME), suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            for _ in range(_DISCARD_LEN // _CHUNK):
                if not await self._stream.receive_some(_CHUNK):
                    return

    async def begin_events(self) -> None:
        """Begin a stream of server-sent events."""
        fields = {"content-type": "text/event-stream", "cache-control": "no-store"}
        await self._send(_response(HTTPStatus.OK, fields))

    async def send_event(self, data: Answer, *, name: str = "") -> None:
        """One event of the stream."""
        text = "\n".join(
            [*[f"event: {name}"] * bool(name), f"data: {json.dumps(data, allow_nan=False)}", "", ""]
        )
        await self._send(h11.Data(data=text.encode()))

    async def end_events(self) -> None:
        """The stream is complete."""
        await self._send(h11.EndOfMessage())

    async def _send(self, *events: Any) -> None:
        data = b"".join(self._h11.send(event) or b"" for event in events)
        if data:
            with trio.fail_after(TAKE_TIMEOUT):
                await self._stream.send_all(data)


def _response(status: int, fields: Mapping[str, str]) -> h11.Response:
    return h11.Response(status_code=status, reason=HTTPStatus(status).phrase, headers=list(fields.items()))


def _request(head: h11.Request, body: bytes) -> HttpRequest:
    try:
        parts = urlsplit(head.target.decode("ascii"))
        path = unquote(parts.path, errors="strict")
        query = parse_qsl(parts.query, keep_blank_values=True, errors="strict", max_num_fields=100)
    except ValueError:
        raise HttpError(HTTPStatus.BAD_REQUEST, "the target of the request cannot be read") from None
    return HttpRequest(head.method.decode("ascii"), path, dict(query), body)
