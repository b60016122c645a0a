"""One call's meter: bytes of the answer in, the finished ledger record out.

It never raises into a stream: a reader that fails is dropped, counted and named in the record, and the bytes flow on.
It knows no ledger and no HTTP; the record goes where the caller takes it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal

from tornado_proxy.domain.cost import Cost, bill
from tornado_proxy.domain.record import Outcome, RequestIntent, RequestRecord
from tornado_proxy.domain.request import DeferredRatingFacts, RequestFacts
from tornado_proxy.domain.usage import Basis, UsageReport
from tornado_proxy.observability import metrics
from tornado_proxy.pricing.book.tariff import Tariff
from tornado_proxy.providers.contract import HttpEndpoint, ResponseHead, UsageReader

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RequestEnd:
    """How the call ended for the client: `status` is what it saw, 499 when it left first, None when it saw nothing.

    `broken_by` says in words what the provider or the way to it did, where its answer did not come to its end.
    """

    outcome: Outcome
    status: int | None
    at: datetime
    first_byte_at: datetime | None = None
    upstream_request_id: str | None = None
    reached_provider: bool = True
    broken_by: str | None = None


class RequestMeter:
    """Meters one call.  answered() once, feed() for each chunk, close() once; all optional before close()."""

    __slots__ = ("_complete", "_endpoint", "_facts", "_failed", "_head", "_no_reader", "_reader", "_tariff", "intent")

    def __init__(self, intent: RequestIntent, endpoint: HttpEndpoint, facts: RequestFacts, tariff: Tariff) -> None:
        self.intent = intent
        self._endpoint = endpoint
        self._facts = facts
        self._tariff = tariff
        self._reader: UsageReader | None = None
        self._head: ResponseHead | None = None
        self._complete = False
        self._failed = False
        self._no_reader = "the provider gave no answer that could be read"

    def answered(self, head: ResponseHead) -> None:
        """The provider's head is there."""
        self._head = head
        self._reader = self._endpoint.usage_reader(self._facts, head)

    def unreadable(self, why: str) -> None:
        """The body is in a form that no reader reads: its bytes flow on, its usage is not known."""
        self._reader = None
        self._no_reader = why

    def feed(self, data: bytes) -> None:
        """Take the next body bytes."""
        if self._reader is None or self._failed:
            return
        try:
            self._reader.feed(data)
        except Exception:  # noqa: BLE001  # a reader's bug must not end a stream that is being paid for
            self._on_reader_failure()

    @property
    def object_id(self) -> str | None:
        """What the call has created, as soon as the answer names it; None for most endpoints until the end."""
        return None if self._reader is None else self._reader.object_id

    def body_complete(self) -> None:
        """The provider's body has come to its proper end."""
        self._complete = True

    def close(self, ending: RequestEnd) -> RequestRecord:
        """The record of the call: usage as the provider stated it, and its price."""
        return rated_record(self.intent, self._report(ending), self._facts, self._tariff, ending)

    def _report(self, ending: RequestEnd) -> UsageReport:
        if self._endpoint.reader is None or not ending.reached_provider:
            return UsageReport(basis=Basis.FREE)
        if self._reader is None:
            return UsageReport(basis=Basis.UNSETTLED, faults=(self._no_reader,))
        try:
            self._reader.close(complete=self._complete)
            report = self._reader.result()
        except Exception:  # noqa: BLE001  # the record must be written, whatever a reader does
            self._on_reader_failure()
            report = UsageReport(basis=Basis.UNSETTLED)
        if self._failed:
            report = replace(report, basis=Basis.UNSETTLED, faults=(*report.faults, "the usage reader failed"))
        return report

    def _on_reader_failure(self) -> None:
        if not self._failed:
            self._failed = True
            metrics.READER_FAILURES.inc()
            _log.exception("usage reader failed", extra={"request_id": self.intent.request_id})


def rated_record(
    intent: RequestIntent, report: UsageReport, facts: RequestFacts, tariff: Tariff, ending: RequestEnd
) -> RequestRecord:
    """The record of a call that used what `report` says.  Never raises: usage without a price is kept all the same."""
    cost = _price(intent, report, facts, tariff)
    basis = Basis.UNSETTLED if cost.faults else report.basis
    if basis is Basis.UNSETTLED:
        metrics.UNPRICED.labels(intent.provider).inc()
    return RequestRecord(
        intent=intent,
        model=report.model or facts.model,
        status=ending.status,
        outcome=ending.outcome,
        basis=basis,
        cost=cost,
        first_byte_at=ending.first_byte_at,
        ended_at=ending.at,
        usage=report.raw,
        estimate_method=report.estimate_method,
        object_id=report.object_id,
        objects=report.objects,
        upstream_request_id=ending.upstream_request_id,
        faults=(*([ending.broken_by] if ending.broken_by else ()), *report.faults, *cost.faults),
        deferred_facts=DeferredRatingFacts.of(facts) if basis is Basis.PENDING else None,
    )


def _price(intent: RequestIntent, report: UsageReport, facts: RequestFacts, tariff: Tariff) -> Cost:
    try:
        return tariff.rate(report, facts, intent.started_at)
    except Exception:  # noqa: BLE001  # usage is kept without a price rather than lost with one
        _log.exception("rating failed", extra={"request_id": intent.request_id})
        return _unrated(("rating failed; the usage is kept and can be rated again",))


def _unrated(faults: Iterable[str]) -> Cost:
    return bill((), Decimal(0), faults)
