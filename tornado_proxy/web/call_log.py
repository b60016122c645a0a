"""One canonical line for each request: who, what, how it ended, what it cost.  Never a prompt or a secret."""

from __future__ import annotations

from tornado_proxy import metrics
from tornado_proxy.domain.call import CallRecord
from tornado_proxy.domain.errors import AnswerableError, NotAuthenticated, ServiceError, UpstreamError
from tornado_proxy.logs import FrequentLog
from tornado_proxy.web.admission import Entry

_log = FrequentLog("tornado_proxy.call")

#: Errors whose words hold nothing that a caller has written, beyond the names of headers and claims.
_OUR_WORDS = (NotAuthenticated, ServiceError, UpstreamError)


def refused(request_id: str, error: AnswerableError, entry: Entry | None) -> None:
    """Log and count a request that was turned away.

    A path that is not served is not shown, nor what is said of a faulty body: both could hold anything.
    """
    metrics.REFUSALS.labels(error.code).inc()
    caller = entry.caller if entry is not None else None
    _log.info(
        "refused",
        {
            "request_id": request_id,
            "project_id": caller.project_id if caller is not None else None,
            "participant": caller.participant if caller is not None else None,
            "provider": entry.match.provider.name if entry is not None else None,
            "endpoint": entry.match.endpoint.path if entry is not None else None,
            "status": error.status,
            "code": error.code,
            "reason": error.message if isinstance(error, _OUR_WORDS) else None,
        },
    )


def write(record: CallRecord, generation: int) -> None:
    """Log and count `record`."""
    intent = record.intent
    total_s = (record.ended_at - intent.started_at).total_seconds()
    first_byte_s = None
    if record.first_byte_at is not None:
        first_byte_s = (record.first_byte_at - intent.started_at).total_seconds()
    metrics.call_ended(intent.provider, record.outcome.value, total_s, first_byte_s)
    _log.info(
        "call",
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


def session_ended(request_id: str, entry: Entry, close_code: int, seconds: float, records: int) -> None:
    """Log the end of a WebSocket session; what it cost is in the lines of its records, which name it."""
    caller = entry.caller
    _log.info(
        "session",
        {
            "request_id": request_id,
            "project_id": caller.project_id,
            "room": caller.room,
            "participant": caller.participant,
            "user": caller.user,
            "provider": entry.match.provider.name,
            "endpoint": entry.match.endpoint.path,
            "close_code": close_code,
            "records": records,
            "total_ms": round(seconds * 1000, 1),
            "config_generation": entry.snapshot.generation,
        },
    )
