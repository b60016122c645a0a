"""/v1/responses as a WebSocket: `response.create` frames in, the events of the streams out, one response at a time.

Each frame that asks for a response is a request of its own, with a reader of its own; the provider answers them in
their order.

Source: OpenAI guides, "WebSocket mode" of the Responses API.
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
from tornado_proxy.providers.openai.shared.usage_report import decode_object
from tornado_proxy.providers.shared.json_body import member_bytes, read_members, text_member

_ASKS = "response.create"

#: `type` where the provider writes it, first; anything else is parsed whole.
_TYPE = re.compile(rb'\s*\{\s*"type"\s*:\s*"([a-z_.]+)"')


class ResponsesSocketReader:
    """A SocketReader of one connection."""

    references: tuple[str, ...] = ()
    model: str | None = None

    def __init__(self) -> None:
        self._asked: deque[ResponseStreamReader] = deque()

    @property
    def working(self) -> bool:
        """Whether a response has been asked for and not ended."""
        return bool(self._asked)

    @property
    def spends(self) -> tuple[Spend, ...]:
        """Nothing: each frame is admitted alone."""
        return ()

    def read_client_frame(self, frame: str | bytes) -> ClientFrame:
        """Look at a frame; the request stands in it, or under its `response`.

        Raises:
            InvalidBody: not a JSON object with a `type`, or what it asks for could be read in two ways.
        """
        body = frame.encode() if isinstance(frame, str) else frame
        members = read_members(body, ("type", "event_id", "response", "model"))
        kind, event_id = text_member(members, "type"), text_member(members, "event_id")
        if kind is None:
            raise InvalidBody("a frame needs a type", param="type")
        if kind != _ASKS:
            return ClientFrame(event_id)
        if "response" in members and "model" in members:
            raise InvalidBody("the request stands both in the frame and under response; send it once")
        facts = parse(RequestView(member_bytes(body, "response") or body, "application/json")).facts
        self._asked.append(ResponseStreamReader(facts))
        return ClientFrame(event_id, facts.spends, facts.references, facts)

    def refusal(self, error: RequestError, frame: ClientFrame, own_id: str) -> str:
        """The provider's `error` frame; what was refused is not waited for."""
        if frame.facts is not None:
            self._asked.pop()
        shown = {"type": error.kind, "code": error.code, "message": error.message, "param": error.param}
        return json.dumps(
            {"type": "error", "event_id": own_id, "status": error.status, "error": shown}, separators=(",", ":")
        )

    def feed_server_frame(self, frame: str | bytes) -> tuple[SocketEvent, ...]:
        """Read an event of the provider."""
        data = frame.encode("utf-8", "replace") if isinstance(frame, str) else frame
        kind = _kind(data)
        if not self._asked:
            return ()
        reader = self._asked[0]
        if kind == "error":
            self._asked.popleft()
            return (WorkRejected(),)
        known = reader.object_id
        # A line end can stand between JSON's tokens only, where a space says the same.
        reader.feed(b"data: " + data.replace(b"\n", b" ").replace(b"\r", b" ") + b"\n\n")
        started = (WorkStarted(reader.object_id),) if known is None and reader.object_id is not None else ()
        if kind not in TERMINAL_EVENTS:
            return started
        return (*started, UsageReported(self._end(self._asked.popleft(), complete=True)))

    def close(self) -> tuple[UsageReport, ...]:
        """What the connection leaves open."""
        reports = tuple(self._end(reader, complete=False) for reader in self._asked)
        self._asked.clear()
        return reports

    def _end(self, reader: ResponseStreamReader, *, complete: bool) -> UsageReport:
        reader.close(complete=complete)
        report = reader.result()
        return report if report.object_id is not None else replace(report, object_id=reader.object_id)


def _kind(data: bytes) -> str:
    match = _TYPE.match(data[:200])
    if match is not None:
        return match[1].decode()
    return str((decode_object(data) or {}).get("type"))


def open_responses(query: str, subprotocols: tuple[str, ...]) -> ResponsesSocketReader:
    """The reader of a connection; the query says nothing that costs."""
    return ResponsesSocketReader()


RESPONSES_SOCKET = WebSocketEndpoint("/v1/responses", open_responses)
