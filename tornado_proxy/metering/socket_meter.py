"""Meters one WebSocket session: events of its reader in, intents and records out.  Sans-I/O.

    expect()          an admitted request for work is about to be sent
    WorkStarted       the oldest expected request of its lane gets the work's id; other work yields a new intent
    WorkRejected      the expected request that it names, else the oldest of its lane, ends free
    UsageReported     a record
    close()           records of the work that is left open, estimated or unsettled

Within a lane, requests and work are matched in order: providers start work in the order in which it was requested.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from tornado_proxy.domain.cost import Cost
from tornado_proxy.domain.record import Outcome, RequestIntent, RequestRecord
from tornado_proxy.domain.request import RequestFacts
from tornado_proxy.domain.usage import Basis, UsageReport
from tornado_proxy.metering.request_meter import RequestEnd, rated_record
from tornado_proxy.pricing.book.price_book import Tariff
from tornado_proxy.providers.contract import (
    ClientFrame,
    SocketEvent,
    SocketReader,
    UsageReported,
    WorkRejected,
    WorkStarted,
)

#: The status of every record of a session: the one that opened the WebSocket.
SWITCHING_PROTOCOLS = 101


@dataclass(frozen=True, slots=True)
class _Work:
    """Work that will be charged, its intent and its prices.  `frame` requested it, None for work without a request."""

    intent: RequestIntent
    facts: RequestFacts
    tariff: Tariff
    frame: ClientFrame | None = None


class SocketMeter:
    """Meters one session.  `new_intent` returns the intent of work that no request asked for."""

    def __init__(
        self, reader: SocketReader, tariff: Tariff, new_intent: Callable[[RequestFacts], RequestIntent]
    ) -> None:
        self._reader = reader
        self._tariff = tariff
        self._new_intent = new_intent
        self._expected: list[_Work] = []
        self._running: dict[str, _Work] = {}

    def renew(self, tariff: Tariff, new_intent: Callable[[RequestFacts], RequestIntent]) -> None:
        """Charge work that begins from now on at other prices."""
        self._tariff = tariff
        self._new_intent = new_intent

    @property
    def working(self) -> bool:
        """True while work is expected or runs."""
        return bool(self._expected) or self._reader.working

    def expect(self, intent: RequestIntent, frame: ClientFrame, tariff: Tariff) -> None:
        """Note a frame that requests work, was admitted at the prices of `tariff`, and is about to be sent."""
        assert frame.facts is not None, "only frames that request work have an intent"
        self._expected.append(_Work(intent, frame.facts, tariff, frame))

    def apply(self, event: SocketEvent) -> RequestIntent | RequestRecord | None:
        """Return the intent to begin or the record to finish because of `event`, None if there is neither."""
        if isinstance(event, WorkStarted):
            return self._start(event)
        if isinstance(event, UsageReported):
            outcome = Outcome.UPSTREAM_ERROR if event.failed else Outcome.COMPLETED
            return self._record(self._take(event.report), event.report, outcome)
        if isinstance(event, WorkRejected):
            work = self._pop_expected(event.lane, event.event_id)
            free = UsageReport(basis=Basis.FREE, faults=("the provider responded with an error",))
            return None if work is None else self._record(work, free, Outcome.UPSTREAM_ERROR)
        return None

    def estimate(self, at: datetime) -> tuple[Cost, ...]:
        """Return the costs of the running work if the session broke off at `at`; nothing if they are not known.

        A copy of the reader is closed, so that the session's own goes on.
        """
        if not self.working:
            return ()
        try:
            reports = copy.deepcopy(self._reader).close()
            known = (report for report in reports if report.basis is not Basis.UNSETTLED)
            return tuple(self._charge(report, at) for report in known)
        except Exception:  # noqa: BLE001  # a look at a session must never break it
            return ()

    def close(self, outcome: Outcome, reason: str | None = None) -> list[RequestRecord]:
        """End the session; return the records of unfinished work, which ended with `outcome` for `reason`."""
        records = [self._record(self._take(report), report, outcome, reason) for report in self._reader.close()]
        unknown = UsageReport(basis=Basis.UNSETTLED, faults=("the session ended before the provider responded",))
        for work in (*self._running.values(), *self._expected):
            records.append(self._record(work, unknown, outcome, reason))
        self._running.clear()
        self._expected.clear()
        return records

    def _start(self, event: WorkStarted) -> RequestIntent | None:
        requested = self._pop_expected(event.lane)
        work = self._running[event.work_id] = requested or self._unrequested(event.facts)
        return None if requested is not None else work.intent

    def _pop_expected(self, lane: str, event_id: str | None = None) -> _Work | None:
        """Remove and return the expected work of the frame with `event_id`, or the oldest of `lane` if it is None."""
        for number, work in enumerate(self._expected):
            frame = work.frame
            if frame is not None and frame.lane == lane and event_id in (None, frame.event_id):
                return self._expected.pop(number)
        return None

    def _take(self, report: UsageReport) -> _Work:
        """Return the work that `report` is about, and forget it."""
        running = self._running.pop(report.object_id, None) if report.object_id is not None else None
        if running is not None:
            return running
        if self._expected and report.object_id is None:
            return self._expected.pop(0)
        return self._unrequested()

    def _charge(self, report: UsageReport, at: datetime) -> Cost:
        """Return the cost of running work; that of work without an intent is at the model of the session."""
        work = None if report.object_id is None else self._running.get(report.object_id)
        model, tariff = (self._reader.model, self._tariff) if work is None else (work.facts.model, work.tariff)
        return tariff.charge(report, model, at).cost

    def _unrequested(self, facts: RequestFacts | None = None) -> _Work:
        facts = facts or RequestFacts(model=self._reader.model)
        return _Work(self._new_intent(facts), facts, self._tariff)

    def _record(self, work: _Work, report: UsageReport, outcome: Outcome, reason: str | None = None) -> RequestRecord:
        end = RequestEnd(outcome, SWITCHING_PROTOCOLS, datetime.now(UTC), broken_by=reason)
        return rated_record(work.intent, report, work.facts, work.tariff, end)
