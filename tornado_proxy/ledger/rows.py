"""Converts intents, records and settlements to rows of text, and back.

Times are RFC 3339 UTC with milliseconds, amounts are decimal strings.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Any

from tornado_proxy.domain.attribution import ATTRIBUTION_FIELDS, NO_ATTRIBUTION, Attribution
from tornado_proxy.domain.identity import KeyId
from tornado_proxy.domain.record import ObjectOwner, RequestIntent, RequestRecord, Settlement
from tornado_proxy.domain.request import DeferredRatingFacts
from tornado_proxy.domain.terms import Terms
from tornado_proxy.domain.text import format_decimal as format_decimal
from tornado_proxy.domain.text import format_time as format_time
from tornado_proxy.ledger.container_rows import format_container_time
from tornado_proxy.ledger.cost_rows import make_cost_members

#: The columns of an intent: everything that is known before the request is sent.
INTENT_COLUMNS = (
    "request_id",
    "project_id",
    "room",
    "participant",
    "user",
    "issuer",
    "session",
    "provider",
    "endpoint",
    "method",
    "model_requested",
    "started_at",
    "credential_id",
    "annotations",
    "provider_key",
    "provider_key_ids",
    "labels",
    "token_ids",
    "traceparent",
    *ATTRIBUTION_FIELDS,
    # Last: the intent log of an earlier version has rows without them.
    "idempotency_hash",
    "retry_count",
    "bound_total",
    "bound_subtotal",
)

#: The columns of the view `bills` that no table has: the first request with the same idempotency key, and when later
#: figures became known.
COMPUTED_COLUMNS = ("retry_of", "settled_at")

#: The columns of a record that reports show, in their order.
PRINTED_COLUMNS = (
    "request_id",
    "project_id",
    "room",
    "participant",
    "user",
    "issuer",
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
    "provider_key",
    "provider_key_ids",
    "labels",
    *ATTRIBUTION_FIELDS,
    "retry_count",
    "retry_of",
)

#: All columns of a record, in the order in which they are stored.
RECORD_COLUMNS = (
    *(name for name in PRINTED_COLUMNS if name not in COMPUTED_COLUMNS),
    "idempotency_hash",
    "object_id",
    "upstream_request_id",
    "credential_id",
    "token_ids",
    "traceparent",
    "annotations",
    "faults",
    "kept_facts",
)

#: The columns of a pending record that its settlement replaces.
SETTLED_COLUMNS = (
    "model",
    "basis",
    "estimate_method",
    "usage",
    "line_items",
    "subtotal",
    "surcharge",
    "total",
    "faults",
)

#: The columns of a provider's object.
OBJECT_COLUMNS = (
    "provider",
    "object_id",
    "project_id",
    "request_id",
    "provider_key",
    "key_fingerprint",
    "key_owner",
)

#: Values of the column `key_owner`.
_SERVER, _PROJECT = "server", "project"

Row = Mapping[str, object]

_attribution_values = attrgetter(*ATTRIBUTION_FIELDS)
_encode = json.JSONEncoder(separators=(",", ":")).encode


def make_intent_row(intent: RequestIntent) -> dict[str, object]:
    """Return the row of an intent."""
    caller, key = intent.caller, intent.key
    return {
        "request_id": intent.request_id,
        "project_id": caller.project_id,
        "room": caller.room,
        "participant": caller.participant,
        "user": caller.user,
        "issuer": caller.issuer,
        "session": intent.session,
        "provider": intent.provider,
        "endpoint": intent.endpoint,
        "method": intent.method,
        "model_requested": intent.model_requested,
        "started_at": format_time(intent.started_at),
        "credential_id": caller.credential_id,
        "annotations": _encode(dict(intent.annotations)) if intent.annotations else None,
        "provider_key": None if key is None else key.name,
        "provider_key_ids": _encode(dict(intent.provider_key_ids)) if intent.provider_key_ids else None,
        "labels": _encode(dict(intent.labels)) if intent.labels else None,
        "token_ids": " ".join(caller.token_ids) or None,
        "traceparent": intent.traceparent,
        **(_NO_ATTRIBUTION if intent.attribution is NO_ATTRIBUTION else _attribution_members(intent.attribution)),
        "idempotency_hash": intent.retry.idempotency_hash,
        "retry_count": intent.retry.count,
        "bound_total": None if intent.bound is None else f"{intent.bound.total:f}",
        "bound_subtotal": None if intent.bound is None else f"{intent.bound.subtotal:f}",
    }


def read_intent_row(values: Sequence[object]) -> dict[str, object]:
    """Return the row of an intent from the values of its columns.

    Raises:
        ValueError: they are not the values of the columns.
    """
    return dict(zip(INTENT_COLUMNS, values, strict=True))


#: The columns of a request whose client states nothing.
_NO_ATTRIBUTION: Row = dict.fromkeys(ATTRIBUTION_FIELDS)


def _attribution_members(attribution: Attribution) -> Row:
    return dict(zip(ATTRIBUTION_FIELDS, _attribution_values(attribution), strict=True))


def make_record_row(record: RequestRecord, intent_values: Sequence[object] | None = None) -> dict[str, object]:
    """Return the row of a record, with the members of its objects' rows.

    Those are no columns of records: `objects` has the ids of all created objects, `key_fingerprint` and `key_owner`
    identify the provider key.  `container_time` is none either: the containers whose time is added when it is stored;
    nor is the bound, which its intent has.

    Args:
        record: The record.
        intent_values: The values of its intent's columns, if they are known.
    """
    intent, key, first_byte_at = record.intent, record.intent.key, record.first_byte_at
    row = make_intent_row(intent) if intent_values is None else read_intent_row(intent_values)
    row |= {
        "model": record.model,
        "status": record.status,
        "outcome": str(record.outcome),
        "basis": str(record.basis),
        "estimate_method": record.estimate_method,
        "first_byte_at": None if first_byte_at is None else format_time(first_byte_at),
        "ended_at": format_time(record.ended_at),
        "usage": record.usage,
        "object_id": record.object_id,
        "objects": list(record.created_objects),
        "key_fingerprint": None if key is None else key.fingerprint,
        "key_owner": None if key is None else _PROJECT if key.own else _SERVER,
        "upstream_request_id": record.upstream_request_id,
        "faults": json.dumps(record.faults) if record.faults else None,
        "kept_facts": None if record.deferred_facts is None else _deferred_facts_text(record.deferred_facts),
    }
    row |= make_cost_members(record.cost)
    if record.container_time is not None:
        row["container_time"] = format_container_time(record.container_time)
    return row


def make_settlement_row(settlement: Settlement) -> dict[str, object]:
    """Return the row of a settlement.

    Two members are no columns: `final` is False if the request was given up, `container_time` is that of a record.
    """
    time = settlement.container_time
    return {
        "final": settlement.final,
        **({} if time is None else {"container_time": format_container_time(time)}),
        "request_id": settlement.request_id,
        "model": settlement.model,
        "basis": str(settlement.basis),
        "estimate_method": settlement.estimate_method,
        "usage": settlement.usage,
        **make_cost_members(settlement.cost),
        "faults": json.dumps(settlement.faults) if settlement.faults else None,
        "settled_at": format_time(settlement.settled_at),
    }


def make_object_rows(record: Row) -> list[Row]:
    """Return the rows of the objects that a request created, from the record's row."""
    objects = record.get("objects")
    if not isinstance(objects, list):
        return []  # a journal of an earlier version has no objects
    # A journal of an earlier version has no keys.
    owner = {name: record.get(name) for name in OBJECT_COLUMNS}
    return [{**owner, "object_id": object_id} for object_id in objects]


def read_object_owner(project_id: str, name: str | None, fingerprint: str | None, owner: str | None) -> ObjectOwner:
    """Return the owner of an object from its columns; a row of an earlier version names no key."""
    if fingerprint is None:
        return ObjectOwner(project_id)
    return ObjectOwner(project_id, KeyId(name or "", fingerprint, own=owner == _PROJECT))


def make_storable_row(row: Row) -> Row:
    """Return the row with question marks for text that a database cannot hold.

    UTF-8 has no form of half a surrogate pair, and PostgreSQL's text holds no NUL; JSON of a client may have both.
    """
    return {name: _make_storable(value) for name, value in row.items()}


def _make_storable(value: object) -> object:
    if isinstance(value, list):  # the ids of created objects
        return [_make_storable(item) for item in value]
    return make_storable_text(value) if isinstance(value, str) else value


def make_storable_text(text: str) -> str:
    """Return a text with question marks for characters that a database cannot hold."""
    return text.encode("utf-8", "replace").decode().replace("\0", "?")


#: The terms of a request that its later response does not repeat.
_DEFERRED_TERMS = ("service_tier", "cache_ttl", "completion_window")


def read_deferred_facts(text: str | None) -> DeferredRatingFacts:
    """Return the facts of a pending record's request; empty ones for a record of an earlier version."""
    if text is None:
        return DeferredRatingFacts()
    members = json.loads(text)
    terms = Terms(**{name: members.get(name) for name in _DEFERRED_TERMS})
    return DeferredRatingFacts(
        terms,
        members.get("image_model"),
        members.get("body_bytes", 0),
        members.get("output_bytes", 0),
        _read_key(members),
        members.get("charges_code_execution", False),
    )


def _read_key(members: Mapping[str, Any]) -> KeyId | None:
    fingerprint = members.get("key_id")
    if fingerprint is None:
        return None
    return KeyId(members.get("key_name", ""), fingerprint, own=members.get("key_owner") == _PROJECT)


def _deferred_facts_text(facts: DeferredRatingFacts) -> str:
    key = facts.made_with
    return json.dumps(
        {
            **{name: getattr(facts.terms, name) for name in _DEFERRED_TERMS},
            "image_model": facts.image_model,
            "body_bytes": facts.body_bytes,
            "output_bytes": facts.output_bytes,
            "key_id": None if key is None else key.fingerprint,
            "key_name": None if key is None else key.name,
            "key_owner": None if key is None else _PROJECT if key.own else _SERVER,
            "charges_code_execution": facts.charges_code_execution,
        }
    )
