"""Writes one log line for each request and session: caller, endpoint, outcome and cost.

A line never holds a prompt, a body or a credential.  docs/metrics.md lists the fields.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from tornado_proxy.domain.errors import NotAuthenticated, RequestError, ServiceError, UpstreamError
from tornado_proxy.domain.identity import Caller
from tornado_proxy.domain.record import RequestRecord
from tornado_proxy.domain.text import format_decimal
from tornado_proxy.observability import metrics
from tornado_proxy.observability.logs import FrequentLog

_log = FrequentLog("tornado_proxy.access")

#: Errors whose messages hold no text of the caller beyond names of headers and claims.
_LOGGABLE_ERRORS = (NotAuthenticated, ServiceError, UpstreamError)


#: Characters of a method and of a model that are logged; longer ones are no real ones.
_MAX_METHOD_CHARACTERS, _MAX_MODEL_CHARACTERS = 20, 200


@dataclass(frozen=True, slots=True)
class RequestLine:
    """The method of a request, the template of its path, and the model that it names, if known.

    `path` is "unknown" if it is not served: such a path is not logged, because it could hold a secret.
    """

    method: str = ""
    path: str = "unknown"
    model: str | None = None


UNKNOWN_LINE = RequestLine()


def log_rejection(
    request_id: str,
    error: RequestError,
    line: RequestLine = UNKNOWN_LINE,
    *,
    caller: Caller | None = None,
    provider: str | None = None,
    endpoint: str | None = None,
) -> None:
    """Log and count a request that was rejected before anything was sent to a provider.

    Args:
        request_id: The id that the response carries.
        error: The error that the caller gets.  Its message is logged only for errors that repeat no text of the caller.
        line: The method, the path and the model.
        caller: The caller, or None if the credential was not accepted.
        provider: The provider, or None if the path is not served.
        endpoint: The provider's path, or None if the path is not served: an unknown path could hold a secret.
    """
    count_rejection(error)
    _log.info(
        "request rejected",
        {
            "request_id": request_id,
            **_caller_members(caller),
            "provider": provider,
            "method": line.method[:_MAX_METHOD_CHARACTERS],
            "path": line.path,
            "endpoint": endpoint,
            "model": None if line.model is None else _make_printable(line.model),
            "status": error.status,
            "code": error.code,
            "reason": error.message if isinstance(error, _LOGGABLE_ERRORS) else None,
        },
    )


def count_rejection(error: RequestError) -> None:
    """Count a rejected request that has no line of its own."""
    metrics.REFUSALS.labels(error.code).inc()


def log_repeated_rejections(caller: Caller, error: RequestError, count: int, last_request_id: str) -> None:
    """Log `count` further rejections of a caller with the code of `error`, which count_rejection() has counted."""
    _log.info(
        "requests rejected",
        {
            **_caller_members(caller),
            "status": error.status,
            "code": error.code,
            "count": count,
            "last_request_id": last_request_id,
        },
    )


def log_account_request(request_id: str, status: int, line: RequestLine, caller: Caller | None) -> None:
    """Log a request to the REST API that was served; `caller` is None if its path needs no credential."""
    _log.info(
        "account request",
        {
            "request_id": request_id,
            **_caller_members(caller),
            "method": line.method[:_MAX_METHOD_CHARACTERS],
            "path": line.path,
            "status": status,
        },
    )


def _caller_members(caller: Caller | None) -> dict[str, str | None]:
    """Return the members that name a caller; all are None without one, and so is the project before it is known."""
    if caller is None:
        return dict.fromkeys(("project_id", "participant", "user", "issuer"))
    return {
        "project_id": caller.project_id or None,
        "participant": caller.participant,
        "user": caller.user,
        "issuer": caller.issuer,
    }


def _make_printable(text: str) -> str:
    """Return the start of a caller's text, with a question mark for each character that cannot be printed."""
    return "".join(char if char.isprintable() else "?" for char in text[:_MAX_MODEL_CHARACTERS])


class _RequestFields(msgspec.Struct):
    """The fields of a request's line, in their order."""

    request_id: str
    session: str | None
    project_id: str
    room: str | None
    participant: str | None
    user: str | None
    issuer: str | None
    agent_session: str | None
    agent: str | None
    turn: str | None
    client: str | None
    end_user: str | None
    provider: str
    method: str
    endpoint: str
    model: str | None
    status: int | None
    outcome: str
    basis: str
    subtotal_usd: str
    total_usd: str
    first_byte_ms: float | None
    total_ms: float
    upstream_request_id: str | None
    faults: tuple[str, ...]
    config_generation: int


def log_request(record: RequestRecord, generation: int) -> None:
    """Log and count a request that was sent; `generation` is that of its configuration snapshot."""
    intent, cost = record.intent, record.cost
    caller, attribution = intent.caller, intent.attribution
    total_s = (record.ended_at - intent.started_at).total_seconds()
    first_byte_s = None
    if record.first_byte_at is not None:
        first_byte_s = (record.first_byte_at - intent.started_at).total_seconds()
    metrics.count_request(intent.request_id, intent.provider, record.outcome, total_s, first_byte_s)
    _log.info(
        "request",
        _RequestFields(
            intent.request_id,
            intent.session,
            caller.project_id,
            caller.room,
            caller.participant,
            caller.user,
            caller.issuer,
            attribution.agent_session,
            attribution.agent,
            attribution.turn,
            attribution.client,
            attribution.end_user,
            intent.provider,
            intent.method,
            intent.endpoint,
            record.model,
            record.status,
            record.outcome,
            record.basis,
            format_decimal(cost.subtotal),
            format_decimal(cost.total),
            None if first_byte_s is None else _to_ms(first_byte_s),
            _to_ms(total_s),
            record.upstream_request_id,
            record.faults,
            generation,
        ),
    )


def _to_ms(seconds: float) -> float:
    """Return milliseconds with one decimal, rounded up from half; round() takes several times as long."""
    return int(seconds * 10_000 + 0.5) / 10


@dataclass(frozen=True, slots=True)
class SessionEnd:
    """The end of a WebSocket session.  `records` is the number of its ledger records."""

    request_id: str
    caller: Caller
    provider: str
    endpoint: str
    close_code: int
    duration_s: float
    records: int
    config_generation: int


def log_session_end(end: SessionEnd) -> None:
    """Log the end of a WebSocket session.  The lines of its records carry its cost, and its request id as `session`."""
    _log.info(
        "session ended",
        {
            "request_id": end.request_id,
            "project_id": end.caller.project_id,
            "room": end.caller.room,
            "participant": end.caller.participant,
            "user": end.caller.user,
            "issuer": end.caller.issuer,
            "provider": end.provider,
            "endpoint": end.endpoint,
            "close_code": end.close_code,
            "records": end.records,
            "total_ms": round(end.duration_s * 1000, 1),
            "config_generation": end.config_generation,
        },
    )
