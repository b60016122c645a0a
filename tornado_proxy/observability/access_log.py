"""One canonical line for each request: who, what, how it ended, what it cost.  Never a prompt or a secret."""

from __future__ import annotations

from dataclasses import dataclass

from tornado_proxy.domain.errors import NotAuthenticated, RequestError, ServiceError, UpstreamError
from tornado_proxy.domain.identity import Caller
from tornado_proxy.domain.record import RequestRecord
from tornado_proxy.observability import metrics
from tornado_proxy.observability.logs import FrequentLog

_log = FrequentLog("tornado_proxy.access")

#: Errors whose words hold nothing that a caller has written, beyond the names of headers and claims.
_OUR_WORDS = (NotAuthenticated, ServiceError, UpstreamError)


def log_rejection(
    request_id: str,
    error: RequestError,
    *,
    caller: Caller | None = None,
    provider: str | None = None,
    endpoint: str | None = None,
) -> None:
    """Log and count a request that was turned away.

    A path that is not served is not shown, nor what is said of a faulty body: both could hold anything.
    """
    metrics.REFUSALS.labels(error.code).inc()
    _log.info(
        "request rejected",
        {
            "request_id": request_id,
            "project_id": caller.project_id if caller is not None else None,
            "participant": caller.participant if caller is not None else None,
            "provider": provider,
            "endpoint": endpoint,
            "status": error.status,
            "code": error.code,
            "reason": error.message if isinstance(error, _OUR_WORDS) else None,
        },
    )


def log_request(record: RequestRecord, generation: int) -> None:
    """Log and count `record`."""
    intent = record.intent
    total_s = (record.ended_at - intent.started_at).total_seconds()
    first_byte_s = None
    if record.first_byte_at is not None:
        first_byte_s = (record.first_byte_at - intent.started_at).total_seconds()
    metrics.count_request(intent.provider, record.outcome.value, total_s, first_byte_s)
    _log.info(
        "request",
        {
            "request_id": intent.request_id,
            "session": intent.session,
            "project_id": intent.caller.project_id,
            "room": intent.caller.room,
            "participant": intent.caller.participant,
            "user": intent.caller.user,
            "provider": intent.provider,
            "method": intent.method,
            "endpoint": intent.endpoint,
            "model": record.model,
            "status": record.status,
            "outcome": record.outcome.value,
            "basis": record.basis.value,
            "subtotal_usd": f"{record.cost.subtotal:f}",
            "total_usd": f"{record.cost.total:f}",
            "first_byte_ms": None if first_byte_s is None else round(first_byte_s * 1000, 1),
            "total_ms": round(total_s * 1000, 1),
            "upstream_request_id": record.upstream_request_id,
            "faults": list(record.faults),
            "config_generation": generation,
        },
    )


@dataclass(frozen=True, slots=True)
class SessionEnd:
    """The end of one WebSocket session.  `records` is the number of ledger records it produced."""

    request_id: str
    caller: Caller
    provider: str
    endpoint: str
    close_code: int
    duration_s: float
    records: int
    config_generation: int


def log_session_end(end: SessionEnd) -> None:
    """Log the end of a WebSocket session.  Its cost is in the lines of its records, which carry its request id."""
    _log.info(
        "session ended",
        {
            "request_id": end.request_id,
            "project_id": end.caller.project_id,
            "room": end.caller.room,
            "participant": end.caller.participant,
            "user": end.caller.user,
            "provider": end.provider,
            "endpoint": end.endpoint,
            "close_code": end.close_code,
            "records": end.records,
            "total_ms": round(end.duration_s * 1000, 1),
            "config_generation": end.config_generation,
        },
    )
