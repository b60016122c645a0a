"""Intents and records as rows of text, and back.  Times are RFC 3339 UTC with milliseconds, amounts decimal strings."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal

from tornado_proxy.domain.call import CallIntent, CallRecord, Outcome
from tornado_proxy.domain.cost import LineItem
from tornado_proxy.domain.usage import Basis

#: A row's members, in the order in which they are stored and printed.
RECORD_COLUMNS = (
    "request_id",
    "project_id",
    "room",
    "participant",
    "user",
    "session",
    "provider",
    "endpoint",
    "method",
    "model_requested",
    "model",
    "status",
    "outcome",
    "basis",
    "estimate_method",
    "started_at",
    "first_byte_at",
    "ended_at",
    "usage",
    "line_items",
    "subtotal",
    "surcharge",
    "total",
    "object_id",
    "upstream_request_id",
    "credential_id",
    "faults",
)

Row = Mapping[str, object]


def intent_row(intent: CallIntent) -> dict[str, object]:
    """What is known before anything is sent."""
    caller = intent.caller
    return {
        "request_id": intent.request_id,
        "project_id": caller.project_id,
        "room": caller.room,
        "participant": caller.participant,
        "user": caller.user,
        "session": intent.session,
        "provider": intent.provider,
        "endpoint": intent.endpoint,
        "method": intent.method,
        "model_requested": intent.model_requested,
        "started_at": format_time(intent.started_at),
        "credential_id": caller.credential_id,
    }


def record_row(record: CallRecord) -> dict[str, object]:
    """A whole record."""
    cost = record.cost
    return {
        **intent_row(record.intent),
        "model": record.model,
        "status": record.status,
        "outcome": record.outcome.value,
        "basis": record.basis.value,
        "estimate_method": record.estimate_method,
        "first_byte_at": None if record.first_byte_at is None else format_time(record.first_byte_at),
        "ended_at": format_time(record.ended_at),
        "usage": record.usage,
        "line_items": json.dumps([_item(item) for item in cost.line_items], separators=(",", ":")),
        "subtotal": format_decimal(cost.subtotal),
        "surcharge": format_decimal(cost.surcharge),
        "total": format_decimal(cost.total),
        "object_id": record.object_id,
        "upstream_request_id": record.upstream_request_id,
        "faults": json.dumps(record.faults) if record.faults else None,
    }


def crashed_row(intent: Row, found_at: datetime) -> dict[str, object]:
    """The record of an intent whose process died: nothing is known, and every report shows it."""
    empty = dict.fromkeys(RECORD_COLUMNS)
    return {
        **empty,
        **intent,
        "outcome": Outcome.CRASHED.value,
        "basis": Basis.UNSETTLED.value,
        "ended_at": format_time(found_at),
        "line_items": "[]",
        "subtotal": "0",
        "surcharge": "0",
        "total": "0",
        "faults": json.dumps(["the server died while the request was under way"]),
    }


def format_time(moment: datetime) -> str:
    """RFC 3339 in UTC, with milliseconds and Z: text that sorts as time does."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def format_decimal(value: Decimal) -> str:
    """Plain digits, without an exponent."""
    return f"{value:f}"


def _item(item: LineItem) -> dict[str, str | None]:
    return {
        "type": item.type,
        "quantity": format_decimal(item.quantity),
        "unit": item.unit,
        "unit_price": None if item.unit_price is None else format_decimal(item.unit_price),
        "amount": None if item.amount is None else format_decimal(item.amount),
        "model": item.model,
        "price_hash": item.price_hash,
    }
