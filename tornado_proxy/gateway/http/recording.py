"""The records of one HTTP request: what live views see while it runs, and its record when it has ended."""

from __future__ import annotations

from msgspec.structs import replace

from tornado_proxy.gateway.admission import AdmittedRequest
from tornado_proxy.gateway.realtime.sideband import CallSideband
from tornado_proxy.gateway.recorder import FinishedRequest, RunningRequest
from tornado_proxy.gateway.services import Services
from tornado_proxy.metering.request_meter import RequestEnd, RequestMeter


class RequestRecording:
    """Records one request: ahead of the last byte of its response, and when it has ended."""

    __slots__ = ("_admitted", "_recorder", "_requested_object", "_settlement", "_sideband", "_streaming", "meter")

    def __init__(self, admitted: AdmittedRequest, services: Services, sideband: CallSideband | None) -> None:
        self._admitted = admitted
        self._recorder = services.recorder
        path_id = admitted.context.path_id
        self._requested_object = None if path_id is None else admitted.context.endpoint.owned_object(path_id)
        self._settlement = services.settlement
        self._streaming: str | None = None
        self._sideband = sideband
        self.meter = _make_meter(admitted, services)

    def begin(self) -> None:
        """Show the request to live views."""
        intent = self._admitted.intent
        self._recorder.follow(
            RunningRequest(
                intent.caller,
                intent.request_id,
                intent.provider,
                intent.method,
                intent.endpoint,
                intent.model_requested,
                intent.started_at,
                self.meter,
            )
        )

    def object_created(self, object_id: str) -> None:
        """Make the object the project's own; work that goes on without this response must not be deleted meanwhile."""
        object_id = self._admitted.context.redaction.text(object_id)
        self._recorder.created(self._admitted.intent, object_id)
        if self._admitted.facts.background:
            self._streaming = object_id
            self._settlement.work_streams(self._admitted.intent.provider, object_id, streaming=True)

    def write_ahead(self, end: RequestEnd) -> None:
        """Make the record durable; the client gets the last byte next."""
        self._recorder.write_ahead(self._close(end))

    def finish(self, end: RequestEnd) -> None:
        """Record how the request ended for the client."""
        self._recorder.unfollow(self._admitted.intent.request_id)
        self._recorder.finish(self._close(end))
        if self._streaming is not None:
            self._settlement.work_streams(self._admitted.intent.provider, self._streaming, streaming=False)

    def _close(self, end: RequestEnd) -> FinishedRequest:
        record, context = self.meter.close(end), self._admitted.context
        if self._sideband is not None:
            record = replace(record, object_id=self._sideband.call_id)
        return FinishedRequest(
            record,
            context.snapshot.generation,
            context.redaction,
            self._requested_object,
            is_limited=context.is_limited,
        )


def _make_meter(admitted: AdmittedRequest, services: Services) -> RequestMeter:
    """Return the meter of a request, which also reads the usage of an earlier one if the response can state it."""
    context, endpoint = admitted.context, admitted.context.endpoint
    watched, object_id = None, context.path_id
    if endpoint.shows_usage is not None and object_id is not None:
        project_id = context.caller.project_id
        watched = services.settlement.watch(context.provider.name, object_id, endpoint.shows_usage, project_id)
    return RequestMeter(admitted.intent, endpoint, admitted.facts, admitted.access.tariff, watched=watched)
