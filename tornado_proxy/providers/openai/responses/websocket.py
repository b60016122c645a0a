"""/v1/responses as a WebSocket: `response.create` frames in, the events of response streams out.

Each response is a request of its own, with a reader of its own.  Responses are told apart by their id, and by the lane
(`stream_id`) in which a frame requested them: up to 16 lanes run at once, and events repeat the lane.

    response.create            -> requested, in its lane
    first event of a response  -> WorkStarted: the oldest request of the lane, or a successor that no frame requested
    other events               -> the response with that id, else the one that runs in the lane
    terminal event             -> UsageReported, once per response id
    error                      -> rejects a request, or ends the running response (_read_error)
    codex.rate_limits          -> QuotaStated; also an error whose headers state a quota

A steered response ends early, and the provider starts a successor on its own, with the settings of its predecessor.

Source: OpenAI guide, "WebSocket mode" of the Responses API; openai-python 3.57, types ResponsesClientEvent and
ResponseSteerEvent.
"""

from __future__ import annotations

import json
import re
from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import msgspec
from msgspec import structs

from tornado_proxy.domain.errors import InvalidBody, RequestError
from tornado_proxy.domain.request import RequestFacts, Spend
from tornado_proxy.domain.usage import UsageReport
from tornado_proxy.providers.contract import (
    ClientFrame,
    QuotaStated,
    RequestView,
    SocketEvent,
    UsageReported,
    WebSocketEndpoint,
    WorkRejected,
    WorkStarted,
)
from tornado_proxy.providers.openai.errors import show_error
from tornado_proxy.providers.openai.request_members import RULES
from tornado_proxy.providers.openai.responses.endpoint import input_tool_spends, parse
from tornado_proxy.providers.openai.responses.stream_reader import FIRST_EVENTS, TERMINAL_EVENTS, ResponseStreamReader
from tornado_proxy.providers.openai.shared.quota import QUOTA_EVENTS, strip_quota
from tornado_proxy.providers.shared.body_walk import Findings, add_findings, check_models, walk_body
from tornado_proxy.providers.shared.json_body import may_need_walk, read_members, read_raw, read_text
from tornado_proxy.providers.shared.json_values import as_object, as_text, decode_object

_CREATE = "response.create"
_STEER = "response.steer"
#: Every event that a client may send.  Another one could start work that nothing here sees.
_CLIENT_EVENTS = (_CREATE, _STEER)
#: Members of a frame whose request is under `response`; the provider would read others beside it.
_WRAPPER_MEMBERS = frozenset({"type", "event_id", "stream_id", "response"})

#: Events that carry the response object with its id.
_RESPONSE_EVENTS = frozenset(FIRST_EVENTS) | frozenset(TERMINAL_EVENTS)

#: `type` where the provider writes it: first.  An event that starts differently is decoded.
_TYPE = re.compile(rb'\s*\{\s*"type"\s*:\s*"([a-z_.]+)"')
#: Bytes in which the pattern can match; longer than any type with spaces around it.
_PREFIX_BYTES = 200

#: Ended responses whose ids and settings are kept, the oldest dropped first.  A successor starts right after its
#: predecessor's end, and at most 16 lanes run at once.
MAX_KEPT_RESPONSES = 256

_FRAME = msgspec.json.Decoder(dict[str, msgspec.Raw])


class _Lane(msgspec.Struct):
    stream_id: Any = None


_LANE = msgspec.json.Decoder(_Lane)


@dataclass(frozen=True, slots=True)
class _Response:
    """A response that is requested or runs: its lane, its reader, and the facts that a successor inherits."""

    lane: str
    facts: RequestFacts
    reader: ResponseStreamReader


class ResponsesSocketReader:
    """A SocketReader of one connection."""

    references: tuple[str, ...] = ()
    model: str | None = None

    def __init__(self) -> None:
        self._requested: dict[str, deque[_Response]] = {}  # by lane, in the order of the client's frames
        self._running: dict[str, _Response] = {}  # by response id
        self._ended: OrderedDict[str, _Response] = OrderedDict()  # by response id, for successors and late events

    @property
    def working(self) -> bool:
        """True if a response is requested or runs."""
        return bool(self._running or self._requested)

    @property
    def spends(self) -> tuple[Spend, ...]:
        """Empty: each frame is admitted alone."""
        return ()

    def accept_frame(self, frame: ClientFrame) -> ClientFrame:
        """Expect the response that a frame requests; return a frame that steers one with what it can cost.

        Raises:
            InvalidBody: the response to steer does not run on this connection.
        """
        if frame.facts is not None:
            response = _Response(frame.lane, frame.facts, ResponseStreamReader(frame.facts))
            self._requested.setdefault(frame.lane, deque()).append(response)
            return frame
        steered = frame.steers or ""
        running = self._running.get(steered) or self._ended.get(steered)
        if running is None:
            raise InvalidBody(
                f"response {steered[:60]!r} does not run on this connection", param="previous_response_id"
            )
        check_models(frame.named_models, running.facts)
        # Its successor may cost what its predecessor may.
        model = running.facts.model or ""
        own = tuple(structs.replace(spend, model=spend.model or model) for spend in frame.spends)
        return replace(frame, spends=(*running.facts.spends, *own), steers=None)

    def refusal(self, error: RequestError, frame: ClientFrame, event_id: str) -> str:
        """Return the provider's `error` event, and forget the response that `frame` requested."""
        if frame.facts is not None:
            self._forget_request(frame.lane, newest=True)
        event = {"type": "error", "event_id": event_id, "status": error.status, "error": show_error(error)}
        if error.client_wait_s is not None:
            # Codex reads the headers of the event, OpenAI's SDKs those of its `error`.
            event["headers"] = {"retry-after": str(error.client_wait_s)}
            event["error"] = {**show_error(error), "headers": event["headers"]}
        if frame.lane:
            event["stream_id"] = frame.lane
        return json.dumps(event, separators=(",", ":"))

    def feed_server_frame(self, frame: str | bytes) -> tuple[SocketEvent, ...]:
        """Read a provider's frame; return its events in order."""
        data = frame.encode("utf-8", "replace") if isinstance(frame, str) else frame
        kind = _event_type(data)
        if kind in _RESPONSE_EVENTS:
            return self._read_response_event(kind, data)
        if kind == "error":
            return self._read_error(data)
        if kind in QUOTA_EVENTS:
            return (QuotaStated(),)
        response = self._find_running(data)
        if response is not None:
            response.reader.feed(_as_sse(data))
        return ()

    def close(self) -> tuple[UsageReport, ...]:
        """End the connection; return reports of unfinished responses."""
        reports = [
            self._close_reader(response_id, response, complete=False) for response_id, response in self._running.items()
        ]
        reports += [
            self._close_reader(None, response, complete=False)
            for responses in self._requested.values()
            for response in responses
        ]
        self._running.clear()
        self._requested.clear()
        return tuple(reports)

    def _read_response_event(self, kind: str, data: bytes) -> tuple[SocketEvent, ...]:
        event = decode_object(data) or {}
        lane = as_text(event.get("stream_id")) or ""
        response_id = as_text(as_object(event.get("response")).get("id")) or self._running_in(lane)
        if response_id is None or response_id in self._ended:
            return ()
        response = self._running.get(response_id)
        started: tuple[SocketEvent, ...] = ()
        if response is None:
            requested = self._forget_request(lane)
            response = requested or self._succeed(event, lane)
            self._running[response_id] = response
            started = (WorkStarted(response_id, lane, None if requested is not None else response.facts),)
        response.reader.feed(_as_sse(data))
        if kind not in TERMINAL_EVENTS:
            return started
        return (*started, self._end(response_id, failed=kind == "response.failed", complete=True))

    def _read_error(self, data: bytes) -> tuple[SocketEvent, ...]:
        """Return the events of an `error`, which names neither a response nor a request.

        An error with a 4xx status is about a frame of the client: the oldest request of the lane, if one has not
        started, else a frame that requested no work.  Any other error, or one that names the lane of a response that
        runs, ends that response.
        """
        event = decode_object(data) or {}
        rest = strip_quota(event)
        quota: tuple[SocketEvent, ...] = () if rest is None else (QuotaStated(rest),)
        stream_id, status = as_text(event.get("stream_id")), event.get("status")
        lane = stream_id or ""
        running = self._running_in(lane)
        is_client_error = isinstance(status, int) and 400 <= status < 500
        about_frame = is_client_error and (stream_id is None or lane in self._requested)
        if running is not None and not about_frame:
            self._running[running].reader.feed(_as_sse(data))
            return (*quota, self._end(running, failed=True, complete=True))
        return quota if self._forget_request(lane) is None else (*quota, WorkRejected(lane))

    def _succeed(self, event: Mapping[str, object], lane: str) -> _Response:
        """Return a response that no frame requested: it inherits the settings of its predecessor."""
        previous_id = as_text(as_object(event.get("response")).get("previous_response_id")) or ""
        predecessor = self._running.get(previous_id) or self._ended.get(previous_id) or self._newest_in(lane)
        facts = predecessor.facts if predecessor is not None else RequestFacts()
        return _Response(lane, facts, ResponseStreamReader(facts))

    def _end(self, response_id: str, *, failed: bool, complete: bool) -> UsageReported:
        response = self._running.pop(response_id)
        self._ended[response_id] = response
        if len(self._ended) > MAX_KEPT_RESPONSES:
            self._ended.popitem(last=False)
        return UsageReported(self._close_reader(response_id, response, complete=complete), failed=failed)

    def _close_reader(self, response_id: str | None, response: _Response, *, complete: bool) -> UsageReport:
        response.reader.close(complete=complete)
        report = response.reader.result()
        return report if report.object_id is not None else structs.replace(report, object_id=response_id)

    def _forget_request(self, lane: str, *, newest: bool = False) -> _Response | None:
        """Remove and return the oldest or newest request of `lane`, None if it has none."""
        requested = self._requested.get(lane)
        if not requested:
            return None
        response = requested.pop() if newest else requested.popleft()
        if not requested:
            del self._requested[lane]
        return response

    def _find_running(self, data: bytes) -> _Response | None:
        """Return the response that an event without a response id belongs to."""
        if len(self._running) == 1:
            return next(iter(self._running.values()))  # nearly always; spares a decode per delta
        try:
            stream_id = _LANE.decode(data).stream_id
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            stream_id = (decode_object(data) or {}).get("stream_id")  # not strictly valid JSON
        lane = as_text(stream_id) or ""
        response_id = self._running_in(lane)
        return None if response_id is None else self._running[response_id]

    def _running_in(self, lane: str) -> str | None:
        return next((response_id for response_id, response in self._running.items() if response.lane == lane), None)

    def _newest_in(self, lane: str) -> _Response | None:
        return next((response for response in self._newest_first() if response.lane == lane), None)

    def _newest_first(self) -> Iterator[_Response]:
        yield from reversed(self._running.values())
        yield from reversed(self._ended.values())


def parse_responses_frame(frame: bytes, model: str | None) -> ClientFrame:
    """Read a client's frame; a request is the frame itself, or its `response`.

    Raises:
        InvalidBody: the frame is not a JSON object with a known `type`, or its request is ambiguous.
    """
    members = read_members(frame, ("type", "event_id", "stream_id", "response"))
    kind = read_text(members, "type")
    if kind is None:
        raise InvalidBody('"type" is missing; send the event type, such as response.create', param="type")
    if kind not in _CLIENT_EVENTS:
        raise InvalidBody(f"unknown event type {kind[:60]!r}; send {' or '.join(_CLIENT_EVENTS)}", param="type")
    return _parse_create(frame, members) if kind == _CREATE else _parse_steer(frame, members)


def _parse_create(frame: bytes, members: Mapping[str, Any]) -> ClientFrame:
    if "response" in members:
        extra = sorted(_FRAME.decode(frame).keys() - _WRAPPER_MEMBERS)
        if extra:
            raise InvalidBody(f'"{extra[0][:60]}" is beside "response"; send the request in the frame or in "response"')
    request = read_raw(frame, "response") or frame
    facts = _with_findings(parse(RequestView(request, "application/json")).facts, request)
    lane = read_text(members, "stream_id") or ""
    return ClientFrame(read_text(members, "event_id"), facts.spends, facts.references, facts, lane)


def _parse_steer(frame: bytes, members: Mapping[str, Any]) -> ClientFrame:
    """Read a frame that adds input to a running response, whose model its spends are at if they name none."""
    steered = read_text(read_members(frame, ("previous_response_id",)), "previous_response_id")
    if steered is None:
        raise InvalidBody('"previous_response_id" is missing; name the response to steer', param="previous_response_id")
    found = walk_body(frame, RULES) if may_need_walk(frame, RULES) else Findings()
    return ClientFrame(
        read_text(members, "event_id"),
        input_tool_spends("", frame),
        tuple(dict.fromkeys((steered, *found.references))),
        steers=steered,
        named_models=tuple(found.models),
    )


def _with_findings(facts: RequestFacts, body: bytes) -> RequestFacts:
    return add_findings(facts, walk_body(body, RULES)) if may_need_walk(body, RULES) else facts


def _as_sse(data: bytes) -> bytes:
    """Return a frame as the SSE event that ResponseStreamReader expects.

    A line end would cut the event.  Between JSON tokens a space is equal, and inside strings JSON does not allow a raw
    line end (RFC 8259, section 7).
    """
    return b"data: " + data.replace(b"\n", b" ").replace(b"\r", b" ") + b"\n\n"


def _event_type(data: bytes) -> str:
    match = _TYPE.match(data[:_PREFIX_BYTES])
    if match is not None:
        return match[1].decode()
    return str((decode_object(data) or {}).get("type"))


def open_responses(query: str, subprotocols: tuple[str, ...]) -> ResponsesSocketReader:
    """Return the reader of a connection; nothing in the query costs."""
    return ResponsesSocketReader()


RESPONSES_SOCKET = WebSocketEndpoint("/v1/responses", open_responses, parse_responses_frame, resumes=True)
