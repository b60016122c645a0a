"""Meters one request: response bytes in, the finished ledger record out.

It never raises into a stream: a usage reader that fails is dropped, counted and named in the record, and the bytes flow
on.  It knows no ledger and no HTTP; the caller takes the record to them.
"""

from __future__ import annotations

import copy
import logging
from dataclasses import replace
from datetime import datetime
from decimal import Decimal

import msgspec
from msgspec import structs

from tornado_proxy.domain.container import ContainerTime
from tornado_proxy.domain.cost import Cost
from tornado_proxy.domain.record import Outcome, RequestIntent, RequestRecord
from tornado_proxy.domain.request import DeferredRatingFacts, RequestFacts
from tornado_proxy.domain.usage import Basis, UsageReport
from tornado_proxy.metering.container_time import RequestSpan, make_container_time
from tornado_proxy.metering.passing_usage import PassingUsage
from tornado_proxy.metering.report_checks import cut_name, limit_names, note_unknown_counts
from tornado_proxy.observability import metrics
from tornado_proxy.pricing.book.calculator import bill
from tornado_proxy.pricing.book.price_book import Charge, Tariff
from tornado_proxy.providers.contract import HttpEndpoint, ResponseHead, UsageReader
from tornado_proxy.providers.shared.response_readers import make_usage_reader

_log = logging.getLogger(__name__)

# Names of their own: CPython 3.11 takes as long for an attribute of an enumeration as for a call.
_UNSETTLED, _PENDING = Basis.UNSETTLED, Basis.PENDING


class RequestEnd(msgspec.Struct, frozen=True):
    """How a request ended for the client.

    `status` is the status that the client saw: 499 if it left first, None if it saw none.  `broken_by` states the fault
    of the provider or the connection that broke the response off.
    """

    outcome: Outcome
    status: int | None
    at: datetime
    first_byte_at: datetime | None = None
    upstream_request_id: str | None = None
    reached_provider: bool = True
    broken_by: str | None = None


class RequestMeter:
    """Meters one request: response_started() once, feed() for each chunk, then close().

    All but close() are optional.
    """

    __slots__ = (
        "_complete",
        "_end",
        "_endpoint",
        "_facts",
        "_failed",
        "_provider_failed",
        "_reader",
        "_record",
        "_tariff",
        "_unread",
        "_watched",
        "intent",
        "object_id",
    )

    def __init__(  # one of them is set for a few endpoints only
        self,
        intent: RequestIntent,
        endpoint: HttpEndpoint,
        facts: RequestFacts,
        tariff: Tariff,
        *,
        watched: PassingUsage | None = None,
    ) -> None:
        """Meter a request.

        Args:
            intent: The intent of the request.
            endpoint: The endpoint that serves it.
            facts: The facts of its body.
            tariff: The prices.
            watched: Reads the usage of an earlier request in the same response.
        """
        self.intent = intent
        #: The id of the object that the request created, as soon as the response names it.
        self.object_id: str | None = None
        self._watched = watched
        self._endpoint = endpoint
        self._facts = facts
        self._tariff = tariff
        self._reader: UsageReader | None = None
        self._complete = False
        self._failed = False
        self._provider_failed = False
        self._record: RequestRecord | None = None
        #: The end that the record was made with.
        self._end: RequestEnd | None = None
        #: Why no reader reads the response.
        self._unread = "the provider sent no readable response"

    def response_started(self, head: ResponseHead) -> None:
        """Choose the usage reader by the response head."""
        try:
            self._reader = make_usage_reader(self._endpoint, self._facts, head)
        except Exception:  # noqa: BLE001  # a bug of an endpoint must not end a stream that is being paid for
            self._unread = "the usage reader failed"
            self._on_reader_failure()
        if self._watched is not None:
            self._watched.response_started(head)

    def unreadable(self, reason: str) -> None:
        """Stop reading: the body is in a form that no reader understands, so its usage is unknown."""
        self._reader = None
        self._unread = reason
        if self._watched is not None:
            self._watched.stop()

    def feed(self, data: bytes) -> None:
        """Read the next body bytes."""
        if self._watched is not None:
            self._watched.feed(data)
        if self._reader is None or self._failed:
            return
        try:
            self._reader.feed(data)
            self.object_id = self._reader.object_id
        except Exception:  # noqa: BLE001  # a bug of a reader must not end a stream that is being paid for
            self._on_reader_failure()

    def estimate(self) -> tuple[Cost, ...]:
        """Return the cost that a stream would have if it broke off now; nothing if that is not known.

        A copy of the usage reader reads the end, so that the stream's own goes on.
        """
        if self._record is not None:
            return (self._record.cost,)
        if self._reader is None or self._failed or not self._facts.stream:
            return ()
        try:
            reader = copy.deepcopy(self._reader, {id(self._facts): self._facts})
            reader.close(complete=False)
            charge = self._tariff.charge(reader.result(), self._facts.model, self.intent.started_at)
        except Exception:  # noqa: BLE001  # a look at a stream must never break it
            return ()
        return () if charge.report.basis is Basis.UNSETTLED else (charge.cost,)

    def body_complete(self) -> None:
        """Note that the provider's body ended properly."""
        self._complete = True

    def close(self, end: RequestEnd) -> RequestRecord:
        """Return the record of the request: the usage that the provider reported, and its price.

        A record is made before the last byte of a response leaves.  The second call returns the same one if `end` is
        the same object, else the same usage and price with the other end.
        """
        if self._record is not None:
            return self._record if end is self._end else _with_end(self._record, self._with_provider_failure(end))
        self._end = end
        if self._watched is not None:
            self._watched.close(complete=self._complete)
        report = self._report(end)
        if report.failed:
            self._provider_failed = True
            end = self._with_provider_failure(end)
        self._record = rated_record(self.intent, report, self._facts, self._tariff, end)
        return self._record

    def _with_provider_failure(self, end: RequestEnd) -> RequestEnd:
        """Return `end` with the outcome of a response that was delivered whole and ends with an error."""
        if not self._provider_failed or end.outcome is not Outcome.COMPLETED:
            return end
        return structs.replace(
            end, outcome=Outcome.UPSTREAM_ERROR, broken_by="the response ended with a provider error"
        )

    def _report(self, end: RequestEnd) -> UsageReport:
        if self._endpoint.reader is None or not end.reached_provider:
            return UsageReport(basis=Basis.FREE)
        if self._reader is None:
            return UsageReport(basis=Basis.UNSETTLED, faults=(self._unread,))
        try:
            self._reader.close(complete=self._complete)
            report = self._reader.result()
        except Exception:  # noqa: BLE001  # the record must be written whatever a reader does
            self._on_reader_failure()
            report = UsageReport(basis=Basis.UNSETTLED)
        if self._failed:
            report = structs.replace(report, basis=Basis.UNSETTLED, faults=(*report.faults, "the usage reader failed"))
        return report

    def _on_reader_failure(self) -> None:
        if not self._failed:
            self._failed = True
            metrics.READER_FAILURES.inc()
            _log.exception("usage reader failed", extra={"request_id": self.intent.request_id})


def rated_record(
    intent: RequestIntent, report: UsageReport, facts: RequestFacts, tariff: Tariff, end: RequestEnd
) -> RequestRecord:
    """Return the record of a request with the usage in `report`.  Never raises: usage without a price is kept."""
    end = _not_before(end, intent.started_at)
    charge = _charge(intent, limit_names(report), facts, tariff)
    report, cost = charge.report, charge.cost
    basis = _UNSETTLED if cost.faults else report.basis
    if basis is _UNSETTLED:
        metrics.UNPRICED.labels(intent.provider).inc()
    unknown = note_unknown_counts(intent.provider, report.raw)
    return RequestRecord(
        intent=intent,
        model=report.model or facts.model,
        status=end.status,
        outcome=end.outcome,
        basis=basis,
        cost=cost,
        first_byte_at=end.first_byte_at,
        ended_at=end.at,
        usage=report.raw,
        estimate_method=report.estimate_method,
        object_id=report.object_id,
        objects=report.objects,
        names_object=report.names_object,
        upstream_request_id=cut_name(end.upstream_request_id),
        faults=(*([end.broken_by] if end.broken_by else ()), *report.faults, *cost.faults, *cost.notes, *unknown),
        deferred_facts=_keep_facts(intent, report, facts, tariff) if basis is _PENDING else None,
        container_time=_time_containers(charge, tariff, intent, end) if charge.containers else None,
    )


def _keep_facts(intent: RequestIntent, report: UsageReport, facts: RequestFacts, tariff: Tariff) -> DeferredRatingFacts:
    """Return the facts that rate the usage which the provider reports later."""
    return replace(
        DeferredRatingFacts.of(facts, report.output_bytes),
        made_with=intent.key,
        rates=tariff.find_rates(intent.started_at),
        provider_region=tariff.provider_region,
    )


def _time_containers(charge: Charge, tariff: Tariff, intent: RequestIntent, end: RequestEnd) -> ContainerTime | None:
    account = "" if intent.key is None else intent.key.fingerprint
    span = RequestSpan(intent.provider, intent.caller.project_id, intent.started_at, end.at, account)
    return make_container_time(charge.containers, tariff, span)


def _with_end(record: RequestRecord, end: RequestEnd) -> RequestRecord:
    faults = record.faults
    if end.broken_by and end.broken_by not in faults:
        faults = (end.broken_by, *faults)
    end = _not_before(end, record.intent.started_at)
    return structs.replace(record, status=end.status, outcome=end.outcome, ended_at=end.at, faults=faults)


def _not_before(end: RequestEnd, started_at: datetime) -> RequestEnd:
    """Return `end` with times from `started_at` on: the machine's clock can be set back while a request runs."""
    if end.at >= started_at and (end.first_byte_at is None or end.first_byte_at >= started_at):
        return end
    first_byte_at = end.first_byte_at and max(end.first_byte_at, started_at)
    return structs.replace(end, at=max(end.at, started_at), first_byte_at=first_byte_at)


def _charge(intent: RequestIntent, report: UsageReport, facts: RequestFacts, tariff: Tariff) -> Charge:
    """Return `report` without free refusals, and its cost."""
    try:
        return tariff.charge(report, facts.model, intent.started_at)
    except Exception:  # noqa: BLE001  # usage without a price can be rated later; lost usage cannot
        _log.exception("rating failed", extra={"request_id": intent.request_id})
        return Charge(report, bill((), Decimal(0), ("rating failed; the usage is kept and can be rated again",)))
