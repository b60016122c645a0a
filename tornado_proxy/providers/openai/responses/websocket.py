"""/v1/responses as a WebSocket: `response.create` frames in, the events of response streams out, one at a time.

Each frame that creates a response is a request of its own, with a reader of its own.  The provider processes them in
order.

Source: OpenAI guide, "WebSocket mode" of the Responses API.
"""

from __future__ import annotations

import json
import re
from collections import deque
from dataclasses import replace

from tornado_proxy.domain.errors import InvalidBody, RequestError
from tornado_proxy.domain.request import Spend
from tornado_proxy.domain.usage import UsageReport
from tornado_proxy.providers.contract import (
    ClientFrame,
    RequestView,
    SocketEvent,
    UsageReported,
    WebSocketEndpoint,
    WorkRejected,
    WorkStarted,
)
from tornado_proxy.providers.openai.responses.endpoint import parse
from tornado_proxy.providers.openai.responses.reader import TERMINAL_EVENTS, ResponseStreamReader
from tornado_proxy.providers.shared.json_body import read_members, read_raw, read_text
from tornado_proxy.providers.shared.json_values import decode_object

_CREATE = "response.create"

#: `type` where the provider writes it: first.  An event that starts differently is decoded.
_TYPE = re.compile(rb'\s*\{\s*"type"\s*:\s*"([a-z_.]+)"')
#: Bytes in which the pattern can match; longer than any type with spaces around it.
_PREFIX_BYTES = 200


class ResponsesSocketReader:
    """A SocketReader of one connection."""

    references: tuple[str, ...] = ()
    model: str | None = None

    def __init__(self) -> None:
        self._unfinished: deque[ResponseStreamReader] = deque()  # in the order of the client's frames

    @property
    def working(self) -> bool:
        """True if a requested response has not ended."""
        return bool(self._unfinished)

    @property
    def spends(self) -> tuple[Spend, ...]:
        """Empty: each frame is admitted alone."""
        return ()

    def read_client_frame(self, frame: str | bytes) -> ClientFrame:
        """Read a client's frame; the request is the frame itself, or its `response`.

        Raises:
            InvalidBody: the frame is not a JSON object with a `type`, or its request is ambiguous.
        """
        body = frame.encode() if isinstance(frame, str) else frame
        members = read_members(body, ("type", "event_id", "response", "model"))
        kind, event_id = read_text(members, "type"), read_text(members, "event_id")
        if kind is None:
            raise InvalidBody('"type" is missing; send the event type, such as response.create', param="type")
        if kind != _CREATE:
            return ClientFrame(event_id)
        if "response" in members and "model" in members:
            raise InvalidBody('the request is in the frame and in its "response"; send it once')
        facts = parse(RequestView(read_raw(body, "response") or body, "application/json")).facts
        self._unfinished.append(ResponseStreamReader(facts))
        return ClientFrame(event_id, facts.spends, facts.references, facts)

    def refusal(self, error: RequestError, frame: ClientFrame, event_id: str) -> str:
        """Return the provider's `error` event, and stop waiting for the response of `frame`."""
        if frame.facts is not None:
            self._unfinished.pop()
        shown = {"type": error.kind, "code": error.code, "message": error.message, "param": error.param}
        return json.dumps(
            {"type": "error", "event_id": event_id, "status": error.status, "error": shown}, separators=(",", ":")
        )

    def feed_server_frame(self, frame: str | bytes) -> tuple[SocketEvent, ...]:
        """Read a provider's frame; return its events in order."""
        data = frame.encode("utf-8", "replace") if isinstance(frame, str) else frame
        kind = _event_type(data)
        if not self._unfinished:
            return ()
        reader = self._unfinished[0]
        if kind == "error":
            self._unfinished.popleft()
            return (WorkRejected(),)
        known_id = reader.object_id
        # The reader expects SSE, in which a line end would cut the event.  Between JSON tokens a space is equal, and
        # inside strings JSON does not allow a raw line end (RFC 8259, section 7).
        reader.feed(b"data: " + data.replace(b"\n", b" ").replace(b"\r", b" ") + b"\n\n")
        started = (WorkStarted(reader.object_id),) if known_id is None and reader.object_id is not None else ()
        if kind not in TERMINAL_EVENTS:
            return started
        return (*started, UsageReported(self._end(self._unfinished.popleft(), complete=True)))

    def close(self) -> tuple[UsageReport, ...]:
        """End the connection; return reports of unfinished responses."""
        reports = tuple(self._end(reader, complete=False) for reader in self._unfinished)
        self._unfinished.clear()
        return reports

    def _end(self, reader: ResponseStreamReader, *, complete: bool) -> UsageReport:
        reader.close(complete=complete)
        report = reader.result()
        return report if report.object_id is not None else replace(report, object_id=reader.object_id)


def _event_type(data: bytes) -> str:
    match = _TYPE.match(data[:_PREFIX_BYTES])
    if match is not None:
        return match[1].decode()
    return str((decode_object(data) or {}).get("type"))


def open_responses(query: str, subprotocols: tuple[str, ...]) -> ResponsesSocketReader:
    """Return the reader of a connection; nothing in the query costs."""
    return ResponsesSocketReader()


RESPONSES_SOCKET = WebSocketEndpoint("/v1/responses", open_responses)
