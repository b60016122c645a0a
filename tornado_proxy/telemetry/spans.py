"""Makes spans of a record: a server span of the request, and in it a client span of the call to the model.

    traceparent of the client ──> POST /v1/chat/completions (server) ──> chat gpt-5.4 (client)

The ids are derived from the request id, so that a span that is sent twice after a crash is the same span.
Attributes are ids, names, numbers and times: the ledger has no prompt, token or key.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum

from tornado_proxy.domain.record import Outcome
from tornado_proxy.domain.usage import (
    CACHE_READ_METERS,
    CACHE_WRITE_METERS,
    INPUT_METERS,
    OUTPUT_METERS,
    Basis,
)
from tornado_proxy.telemetry import names
from tornado_proxy.telemetry.names import Names, find_operation

#: Values of attributes.
Attributes = dict[str, str | int | float]

#: Columns of a record and the attributes of the server span that show them.
_CALLER_ATTRIBUTES = {
    "request_id": "llm_proxy.request.id",
    "project_id": "llm_proxy.project.id",
    "room": "llm_proxy.room",
    "participant": "llm_proxy.participant",
    "user": "llm_proxy.user",
    "agent": "llm_proxy.agent",
    "turn": "llm_proxy.turn",
    "client": "llm_proxy.client",
    "end_user": "llm_proxy.end_user",
}

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Kind(StrEnum):
    """The kinds of spans that a request has."""

    SERVER = "server"
    CLIENT = "client"


@dataclass(frozen=True, slots=True)
class Span:
    """A span.  Ids are integers, times are nanoseconds since 1970.

    Attributes:
        parent_id: The span that it is in, 0 for none.
        sampled: False if the client's trace is not sampled.
        error: The kind of error, "" for none.
    """

    name: str
    kind: Kind
    trace_id: int
    span_id: int
    parent_id: int
    sampled: bool
    start_ns: int
    end_ns: int
    error: str
    attributes: Attributes


def make_spans(row: Mapping[str, object], naming: Names) -> list[Span]:
    """Return the spans of a record, by the columns of ledger.changes.COLUMNS."""
    request_id, method, path = str(row["request_id"]), str(row["method"]), str(row["endpoint"])
    trace_id, parent_id, sampled = _read_context(row["traceparent"], request_id)
    start_ns, end_ns, error = _read_time(row["started_at"]), _read_time(row["ended_at"]), find_error(row)
    server_id = _make_id(f"server {request_id}", 8)
    template = make_path_template(path)
    server = Span(
        f"{method} {template}",
        Kind.SERVER,
        trace_id,
        server_id,
        parent_id,
        sampled,
        start_ns,
        end_ns,
        error,
        _server_attributes(row, method, template, error),
    )
    operation = find_operation(method, path)
    if not operation:
        return [server]
    client = Span(
        f"{operation} {row['model_requested'] or row['model'] or ''}".rstrip(),
        Kind.CLIENT,
        trace_id,
        _make_id(f"client {request_id}", 8),
        server_id,
        sampled,
        start_ns,
        end_ns,
        error,
        _client_attributes(row, operation, error, naming),
    )
    return [server, client]


def count_tokens(row: Mapping[str, object], naming: Names) -> dict[str, int]:
    """Return the tokens of a record by span attribute; kinds that it does not have are left out."""
    kinds = {
        names.INPUT_TOKENS: INPUT_METERS,
        names.OUTPUT_TOKENS: OUTPUT_METERS,
        names.CACHE_READ: CACHE_READ_METERS,
        naming.cache_write: CACHE_WRITE_METERS,
    }
    found: dict[str, int] = {}
    for item in json.loads(str(row["line_items"] or "[]")):
        for name, meters in kinds.items():
            if item["type"] in meters:
                found[name] = found.get(name, 0) + int(Decimal(item["quantity"]))
    reasoning = _find_reasoning_tokens(row["usage"])
    return found if not reasoning else {**found, names.REASONING: reasoning}


def find_error(row: Mapping[str, object]) -> str:
    """Return the kind of error with which a request ended, "" for none."""
    status = row["status"]
    if isinstance(status, int) and status >= 400 and row["outcome"] == Outcome.COMPLETED:
        return str(status)
    return "" if row["outcome"] == Outcome.COMPLETED else str(row["outcome"])


def make_path_template(path: str) -> str:
    """Return a path with `{id}` for each part that identifies an object: names of spans are a small set."""
    parts = path.split("/")
    return "/".join("{id}" if part != "v1" and any(map(str.isdigit, part)) else part for part in parts)


def read_seconds(row: Mapping[str, object], column: str) -> float | None:
    """Return the seconds from the start of a request to the time in a column, None if it has none."""
    at = row[column]
    return None if at is None else (_read_time(at) - _read_time(row["started_at"])) / 1e9


def _server_attributes(row: Mapping[str, object], method: str, template: str, error: str) -> Attributes:
    attributes: Attributes = {"http.request.method": method, "http.route": template}
    status = row["status"]
    if isinstance(status, int):
        attributes["http.response.status_code"] = status
    for column, name in _CALLER_ATTRIBUTES.items():
        if row[column] is not None:
            attributes[name] = str(row[column])
    # Amounts as text: a binary float would not be the amount.
    attributes["llm_proxy.outcome"], attributes["llm_proxy.cost.basis"] = str(row["outcome"]), str(row["basis"])
    if row["basis"] not in (Basis.PENDING, Basis.UNSETTLED):
        attributes["llm_proxy.cost.total"] = str(row["total"])
    if error:
        attributes[names.ERROR_TYPE] = error
    return attributes


def _client_attributes(row: Mapping[str, object], operation: str, error: str, naming: Names) -> Attributes:
    attributes: Attributes = {names.OPERATION: operation, naming.provider: str(row["provider"])}
    for column, name in (
        ("model_requested", names.REQUEST_MODEL),
        ("model", names.RESPONSE_MODEL),
        ("object_id", names.RESPONSE_ID),
        ("agent_session", names.CONVERSATION_ID),
    ):
        if row[column] is not None:
            attributes[name] = str(row[column])
    first_byte_s = read_seconds(row, "first_byte_at")
    if first_byte_s is not None:
        attributes[names.FIRST_CHUNK] = first_byte_s
    attributes.update(count_tokens(row, naming))
    if error:
        attributes[names.ERROR_TYPE] = error
    return attributes


def _read_context(traceparent: object, request_id: str) -> tuple[int, int, bool]:
    """Return the trace id, the parent's id and True if the trace is sampled; own ids without a traceparent."""
    if traceparent is None:
        return _make_id(f"trace {request_id}", 16), 0, True
    _, trace_id, parent_id, flags = str(traceparent).split("-")
    return int(trace_id, 16), int(parent_id, 16), bool(int(flags, 16) & 1)


def _make_id(text: str, size: int) -> int:
    """Return an id of `size` bytes that is never 0."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:size]) or 1


def _read_time(text: object) -> int:
    since = datetime.fromisoformat(str(text)) - _EPOCH
    return ((since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds) * 1000


def _find_reasoning_tokens(usage: object) -> int:
    """Return the reasoning tokens that the provider's usage states; they are part of the output tokens."""
    content = json.loads(str(usage)) if usage else {}
    for name in ("output_tokens_details", "completion_tokens_details"):
        details = content.get(name) if isinstance(content, dict) else None
        tokens = details.get("reasoning_tokens") if isinstance(details, dict) else None
        if isinstance(tokens, int) and tokens > 0:
            return tokens
    return 0
