"""What a WebSocket session uses, on the bill the moment it is known: one record for each response and transcription.

    client asks        ──> asks()          intent, before the frame is sent on
    provider begins    ──> frame()         the intent gets the work's id; work that nobody asked for gets one now
    provider is done   ──> frame()         record
    the session ends   ──> close()         records of what was left open, estimated or unsettled

It knows no client and no connection, so that a session is metered alike whoever listens to it.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime

from tornado_proxy.domain.errors import LedgerUnavailable
from tornado_proxy.domain.record import Outcome, RequestIntent
from tornado_proxy.domain.request import RequestFacts
from tornado_proxy.domain.usage import Basis, UsageReport
from tornado_proxy.gateway.admission import RequestContext, new_request_id
from tornado_proxy.gateway.services import Services
from tornado_proxy.metering.request_meter import RequestEnd, rated_record
from tornado_proxy.observability import access_log
from tornado_proxy.providers.contract import (
    Endpoint,
    SocketEvent,
    SocketReader,
    UsageReported,
    WorkRejected,
    WorkStarted,
)
from tornado_proxy.upstream.websocket.frame_sender import Wait
from tornado_proxy.wire.annotations import read_annotations

_SWITCHING_PROTOCOLS = 101


@dataclass(frozen=True, slots=True)
class _Work:
    """Something that is to be paid for, and that the ledger knows of."""

    intent: RequestIntent
    facts: RequestFacts


class UnbilledMeter:
    """In the place of a SocketMeter where another connection has the same session on the bill: it reads only."""

    records = 0
    working = False

    def __init__(self, reader: SocketReader) -> None:
        self._reader = reader

    async def asks(self, facts: RequestFacts) -> None:
        """The client asks for an answer, which the other connection will see."""

    def frame(self, frame: str | bytes) -> None:
        """Read a frame of the provider."""
        self._reader.feed_server_frame(frame)

    def close(self, outcome: Outcome, broken_by: str | None = None) -> None:
        """The session has ended."""
        self._reader.close()


class SocketMeter:
    """Meters one session, known as `session_id` in its records."""

    def __init__(
        self, entry: RequestContext[Endpoint], reader: SocketReader, session_id: str, services: Services
    ) -> None:
        self._entry = entry
        self._reader = reader
        self._session_id = session_id
        self._services = services
        self._asked: deque[_Work] = deque()
        self._begun: dict[str, _Work] = {}
        self._whole: _Work | None = None
        self.records = 0

    @property
    def working(self) -> bool:
        """Whether something runs that is still to be paid for."""
        return bool(self._asked) or self._reader.working

    async def begins(self) -> None:
        """The session goes on without us, whatever becomes of us: should this process die, its rest is unsettled.

        Raises:
            LedgerUnavailable: it must not begin.
        """
        self._whole = self._work(RequestFacts(model=self._reader.model))
        await self._services.ledger.begin(self._whole.intent)

    async def asks(self, facts: RequestFacts) -> None:
        """The client asks for an answer; its frame may be sent when this returns.

        Raises:
            LedgerUnavailable: it must not be sent.
        """
        work = self._work(facts)
        await self._services.ledger.begin(work.intent)
        self._asked.append(work)

    def frame(self, frame: str | bytes) -> Wait | None:
        """Read a frame of the provider; await the result, if any, before the next frame."""
        events = self._reader.feed_server_frame(frame)
        if any(isinstance(event, WorkStarted) for event in events):
            return self._apply_all(events)
        for event in events:
            self._apply(event)
        return None

    async def _apply_all(self, events: tuple[SocketEvent, ...]) -> None:
        for event in events:
            if isinstance(event, WorkStarted):
                await self._begin(event.work_id)
            else:
                self._apply(event)

    def _apply(self, event: SocketEvent) -> None:
        if isinstance(event, UsageReported):
            self._keep(self._work_of(event.report), event.report, Outcome.COMPLETED)
        elif isinstance(event, WorkRejected) and self._asked:
            free = UsageReport(basis=Basis.FREE, faults=("the provider answered with an error",))
            self._keep(self._asked.popleft(), free, Outcome.UPSTREAM_ERROR)

    def close(self, outcome: Outcome, broken_by: str | None = None) -> None:
        """The session has ended; `outcome` says how, and `broken_by` why, for what was under way."""
        for report in self._reader.close():
            self._keep(self._work_of(report), report, outcome, broken_by)
        unknown = UsageReport(basis=Basis.UNSETTLED, faults=("the session ended before the provider had answered",))
        for work in (*self._begun.values(), *self._asked):
            self._keep(work, unknown, outcome, broken_by)
        if self._whole is not None:
            self._keep(self._whole, UsageReport(basis=Basis.FREE), outcome)
            self._whole = None
        self._begun.clear()
        self._asked.clear()

    async def _begin(self, work_id: str) -> None:
        if self._asked:
            self._begun[work_id] = self._asked.popleft()
            return
        work = self._begun[work_id] = self._work(RequestFacts(model=self._reader.model))
        try:
            await self._services.ledger.begin(work.intent)
        except LedgerUnavailable:
            return  # it runs already, and will be paid for: its record waits for the ledger

    def _work_of(self, report: UsageReport) -> _Work:
        begun = self._begun.pop(report.object_id, None) if report.object_id is not None else None
        if begun is not None:
            return begun
        if self._asked and report.object_id is None:
            return self._asked.popleft()
        return self._work(RequestFacts(model=self._reader.model))

    def _work(self, facts: RequestFacts) -> _Work:
        match = self._entry.match
        intent = RequestIntent(
            request_id=new_request_id(),
            caller=self._entry.caller,
            provider=match.provider.name,
            endpoint=match.upstream_target.partition("?")[0],
            method=match.endpoint.method,
            model_requested=facts.model,
            started_at=datetime.now(UTC),
            session=self._session_id,
            annotations=read_annotations(self._entry.headers),
        )
        return _Work(intent, facts)

    def _keep(self, work: _Work, report: UsageReport, outcome: Outcome, broken_by: str | None = None) -> None:
        provider = self._entry.match.provider.name
        ending = RequestEnd(outcome, _SWITCHING_PROTOCOLS, datetime.now(UTC), broken_by=broken_by)
        record = rated_record(work.intent, report, work.facts, self._entry.snapshot.tariffs[provider], ending)
        self.records += 1
        for created in (record.object_id, *record.objects):
            if created is not None:
                self._services.ownership.remember(provider, created, self._entry.caller.project_id)
        self._services.ledger.finish(record)
        access_log.log_request(record, self._entry.snapshot.generation)


AnyMeter = SocketMeter | UnbilledMeter
