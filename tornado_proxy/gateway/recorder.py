"""The one place where requests are recorded: their intent before they are sent, their record when they have ended.

begin(intent)  ──> ledger: durable before anything is sent
created(...)   ──> object ownership, before the record is written
write_ahead()  ──> ledger: the record survives the death of the process; before the last byte of a response leaves
follow(...)    ──> live views: the cost of a running request so far
finish(...)    ──> ledger, access log and metrics; deferred settlement, if the path named an object
reject(...)    ──> access log and metrics; nothing was sent, so the ledger gets nothing
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Protocol

import msgspec
from msgspec import structs

from tornado_proxy.domain.cost import Cost
from tornado_proxy.domain.errors import RequestError
from tornado_proxy.domain.identity import Caller, KeyId
from tornado_proxy.domain.record import RequestIntent, RequestRecord
from tornado_proxy.domain.usage import Basis
from tornado_proxy.gateway.context import RequestContext
from tornado_proxy.metering.request_meter import RequestEnd, RequestMeter
from tornado_proxy.observability import access_log
from tornado_proxy.observability.access_log import UNKNOWN_LINE, RequestLine
from tornado_proxy.observability.repeated_refusals import RepeatedRefusals
from tornado_proxy.providers.contract import Endpoint, HttpEndpoint
from tornado_proxy.upstream.http.messages import UpstreamResponseHead
from tornado_proxy.wire.redaction import Redaction

# A name of its own: CPython 3.11 takes as long for an attribute of an enumeration as for a call.
_PENDING = Basis.PENDING


class FinishedRequest(msgspec.Struct, frozen=True):
    """The end of a request.

    `redaction` masks secrets that a provider may have echoed into ids and names.  `requested_object` is the provider
    object that the request's path names, if any.  `has_limits` is False if no limit of requests, tokens or streams
    applies to the request.
    """

    record: RequestRecord
    config_generation: int
    redaction: Redaction
    requested_object: str | None = None
    has_limits: bool = True


class LiveMeter(Protocol):
    """The meter of a request or session that runs."""

    def estimate(self) -> tuple[Cost, ...]:
        """Return its cost if it broke off now; nothing if that is not known.  Never raises."""


class RunningRequest(msgspec.Struct, frozen=True):
    """A request or session that runs.

    `endpoint` is the provider's path, `model` the one that was requested, `started_at` is aware UTC.
    """

    caller: Caller
    request_id: str
    provider: str
    method: str
    endpoint: str
    model: str | None
    started_at: datetime
    meter: LiveMeter


class RecordLedger(Protocol):
    """The ledger, as far as recording needs it."""

    async def begin(self, intent: RequestIntent) -> None:
        """Store an intent durably; raise LedgerUnavailable if that fails."""

    def write_ahead(self, record: RequestRecord) -> None:
        """Make a record durable that finish() stores later; never block or raise."""

    def finish(self, record: RequestRecord) -> object:
        """Store a record soon; never block, never lose it."""


@dataclass(frozen=True, slots=True)
class RecordListeners:
    """Called in the event loop; must not block or raise.

    Attributes:
        object_created: (provider, object id, project id, provider key), when a response names an object that its
            request created.
        object_requested: (object id), when a request to the object's own path has ended.
        usage_pending: (record), when a request has ended whose usage the provider reports later.
        request_ended: (record), when a request has ended to which a limit of requests, tokens or streams can apply.
    """

    object_created: Callable[[str, str, str, KeyId | None], None]
    object_requested: Callable[[str], None]
    usage_pending: Callable[[RequestRecord], None] = lambda _: None
    request_ended: Callable[[RequestRecord], None] = lambda _: None


class Recorder:
    """Records requests in the ledger and the access log, and tells listeners about them."""

    def __init__(self, ledger: RecordLedger, listeners: RecordListeners) -> None:
        self._ledger = ledger
        self._listeners = listeners
        self._running: dict[str, RunningRequest] = {}
        #: The records that were written ahead, by request id: as they were passed, and without secrets.
        self._ahead: dict[str, tuple[RequestRecord, RequestRecord]] = {}
        #: Counts refusals that a caller gets again and again.
        self.refusals = RepeatedRefusals()

    def begin(self, intent: RequestIntent) -> Coroutine[Any, Any, None]:
        """Store the intent; the request may be sent when the result is done.

        Raises:
            LedgerUnavailable: the intent could not be stored, so the request must not be sent.
        """
        return self._ledger.begin(intent)

    def created(self, intent: RequestIntent, object_id: str) -> None:
        """Make a created object the project's own now: its next request may come before the record is written."""
        self._listeners.object_created(intent.provider, object_id, intent.caller.project_id, intent.key)

    def write_ahead(self, finished: FinishedRequest) -> None:
        """Make the record of a complete response durable, before the client has the last byte; finish() comes later."""
        record = _redact(finished)
        self._ahead[record.intent.request_id] = finished.record, record
        self._ledger.write_ahead(record)
        if record.basis is _PENDING:
            # With the last byte the client can delete the object.
            self._listeners.usage_pending(record)

    def follow(self, running: RunningRequest) -> None:
        """Called when a request or session runs, for live views."""
        self._running[running.request_id] = running

    def unfollow(self, request_id: str) -> None:
        """Called when that request or session has ended, before its last record."""
        self._running.pop(request_id, None)

    def list_running(self) -> tuple[RunningRequest, ...]:
        """Return the requests and sessions that run in this process, oldest first."""
        return tuple(self._running.values())

    def finish(self, finished: FinishedRequest) -> None:
        """Record the end of a request whose intent was begun."""
        ahead = self._ahead.pop(finished.record.intent.request_id, None)
        record = ahead[1] if ahead is not None and ahead[0] is finished.record else _redact(finished)
        if record.names_object or record.objects:
            for object_id in record.created_objects:
                self.created(record.intent, object_id)
        self._ledger.finish(record)
        if finished.has_limits:
            self._listeners.request_ended(record)
        if record.basis is _PENDING:
            self._listeners.usage_pending(record)  # no effect if write_ahead() has called it
        if finished.requested_object is not None:
            self._listeners.object_requested(finished.requested_object)
        access_log.log_request(record, finished.config_generation)

    def reject(
        self,
        request_id: str,
        error: RequestError,
        context: RequestContext[Endpoint] | None,
        line: RequestLine = UNKNOWN_LINE,
    ) -> None:
        """Log and count a rejected request, or only count it if it repeats another one.

        `context` is None if its route or credential was not accepted.
        """
        if context is None:
            access_log.log_rejection(request_id, error, line)
            return
        if self.refusals.count(request_id, error, context.caller):
            access_log.count_rejection(error)
            return
        # A caller can write anything into the model, its own token included.
        model = error.model and context.redaction.with_secret(context.token).text(error.model)
        access_log.log_rejection(
            request_id,
            error,
            replace(line, model=model),
            caller=context.caller,
            provider=context.provider.name,
            endpoint=context.endpoint.path,
        )


class WorkStreams(Protocol):
    """Knows which work of the provider is being streamed to its client."""

    def work_streams(self, provider: str, object_id: str, *, streaming: bool) -> None:
        """Called when the stream of work begins and ends; the work must not be deleted meanwhile."""


class RealtimeCall(Protocol):
    """A realtime call that a request makes."""

    @property
    def call_id(self) -> str | None:
        """The provider's id of the call, None if it was not made."""

    async def response_received(self, head: UpstreamResponseHead, /) -> None:
        """Start to meter the call before the client gets the response; may raise UpstreamError in its place."""


class RequestRecording:
    """Records one HTTP request: what live views see, ahead of the last byte of its response, and when it has ended.

    Args:
        recorder: Records it.
        context: Its route and caller.
        meter: Makes its record.
        background: Told of the stream, if its work goes on without this response; else None.
        call: The realtime call that it makes; None for any other request.
    """

    __slots__ = (
        "_ahead", "_background", "_call", "_context", "_meter", "_recorder", "_requested_object", "_streaming",
        "response_received",
    )  # fmt: skip

    def __init__(
        self,
        recorder: Recorder,
        context: RequestContext[HttpEndpoint],
        meter: RequestMeter,
        background: WorkStreams | None = None,
        call: RealtimeCall | None = None,
    ) -> None:
        self._recorder = recorder
        self._context = context
        self._meter = meter
        self._background = background
        self._call = call
        #: Called by the relay with the response head.
        self.response_received = None if call is None else call.response_received
        self._requested_object = None if context.path_id is None else context.endpoint.owned_object(context.path_id)
        self._streaming: str | None = None
        #: The record that was written ahead, and the end that it states.
        self._ahead: tuple[RequestEnd, FinishedRequest] | None = None

    def begin(self) -> None:
        """Show the request to live views."""
        intent = self._meter.intent
        self._recorder.follow(
            RunningRequest(
                intent.caller,
                intent.request_id,
                intent.provider,
                intent.method,
                intent.endpoint,
                intent.model_requested,
                intent.started_at,
                self._meter,
            )
        )

    def object_created(self, object_id: str) -> None:
        """Make the object the project's own; work that goes on without this response must not be deleted meanwhile."""
        object_id = self._context.redaction.text(object_id)
        self._recorder.created(self._meter.intent, object_id)
        if self._background is not None:
            self._streaming = object_id
            self._background.work_streams(self._meter.intent.provider, object_id, streaming=True)

    def before_last_byte(self, end: RequestEnd) -> None:
        """Make the record durable; the client gets the last byte next."""
        finished = self._close(end)
        self._ahead = end, finished
        self._recorder.write_ahead(finished)

    def finish(self, end: RequestEnd) -> None:
        """Record how the request ended for the client."""
        intent = self._meter.intent
        self._recorder.unfollow(intent.request_id)
        ahead = self._ahead
        self._recorder.finish(ahead[1] if ahead is not None and ahead[0] is end else self._close(end))
        if self._background is not None and self._streaming is not None:
            self._background.work_streams(intent.provider, self._streaming, streaming=False)

    def _close(self, end: RequestEnd) -> FinishedRequest:
        record, context = self._meter.close(end), self._context
        if self._call is not None:
            record = structs.replace(record, object_id=self._call.call_id)
        return FinishedRequest(
            record,
            context.snapshot.generation,
            context.redaction,
            self._requested_object,
            has_limits=context.has_limits,
        )


def _redact(finished: FinishedRequest) -> RequestRecord:
    """Return the record without secrets.

    The texts of the provider are searched at once: the walk through the whole record takes longer, and is needed
    rarely.
    """
    record = finished.record
    texts = (record.model, record.usage, record.object_id, *record.objects, record.upstream_request_id, *record.faults)
    may_hold = finished.redaction.may_hold("\n".join(filter(None, texts)))
    return finished.redaction.values(record) if may_hold else record
