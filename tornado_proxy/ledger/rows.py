"""Converts intents, records and settlements to rows of text, and back.

Times are RFC 3339 UTC with milliseconds, amounts are decimal strings.
"""

from __future__ import annotations

import json
from typing import TypeVar

import msgspec
from msgspec.structs import astuple

from tornado_proxy.domain.attribution import ATTRIBUTION_FIELDS
from tornado_proxy.domain.identity import KeyId
from tornado_proxy.domain.record import ObjectOwner, RequestIntent, RequestRecord, Settlement
from tornado_proxy.domain.text import format_decimal as format_decimal
from tornado_proxy.domain.text import format_time as format_time
from tornado_proxy.ledger.container_rows import format_container_time
from tornado_proxy.ledger.cost_rows import format_items
from tornado_proxy.ledger.deferred_facts import PROJECT, SERVER, format_deferred_facts


class IntentRow(msgspec.Struct, array_like=True, gc=False):
    """The columns of an intent: everything that is known before the request is sent.

    The intent log has it as a list, in this order.
    """

    request_id: str
    project_id: str | None = None
    room: str | None = None
    participant: str | None = None
    user: str | None = None
    issuer: str | None = None
    session: str | None = None
    provider: str | None = None
    endpoint: str | None = None
    method: str | None = None
    model_requested: str | None = None
    started_at: str | None = None
    credential_id: str | None = None
    annotations: str | None = None
    provider_key: str | None = None
    provider_key_ids: str | None = None
    labels: str | None = None
    token_ids: str | None = None
    traceparent: str | None = None
    agent_session: str | None = None
    agent: str | None = None
    parent_agent: str | None = None
    turn: str | None = None
    request_kind: str | None = None
    client: str | None = None
    repository: str | None = None
    commit: str | None = None
    end_user: str | None = None
    end_user_source: str | None = None
    # Last: the intent log of an earlier version has rows without them.
    idempotency_hash: str | None = None
    retry_count: str | None = None
    bound_total: str | None = None
    bound_subtotal: str | None = None


class RecordRow(IntentRow, array_like=False, omit_defaults=True, gc=False):
    """The columns of a record, and of its objects; the intent log and the journal have it as an object.

    These are no columns of records: the bound, which the intent has; `objects`, the ids of all created objects;
    `key_fingerprint` and `key_owner`, which identify the provider key; `container_time`, the containers whose time is
    added when the record is stored.
    """

    model: str | None = None
    status: int | None = None
    outcome: str | None = None
    basis: str | None = None
    estimate_method: str | None = None
    first_byte_at: str | None = None
    ended_at: str | None = None
    usage: str | None = None
    line_items: str | None = None
    subtotal: str | None = None
    surcharge: str | None = None
    total: str | None = None
    object_id: str | None = None
    upstream_request_id: str | None = None
    faults: str | None = None
    kept_facts: str | None = None
    objects: tuple[str, ...] = ()
    key_fingerprint: str | None = None
    key_owner: str | None = None
    container_time: str | None = None


class SettlementRow(msgspec.Struct, gc=False):
    """The columns of a settlement.

    These are none: `final` is False if the request was given up; `container_time` is that of a record.
    """

    request_id: str
    model: str | None = None
    basis: str | None = None
    estimate_method: str | None = None
    usage: str | None = None
    line_items: str | None = None
    subtotal: str | None = None
    surcharge: str | None = None
    total: str | None = None
    faults: str | None = None
    settled_at: str | None = None
    final: bool = True
    container_time: str | None = None


RowT = TypeVar("RowT", bound=msgspec.Struct)

#: The columns of an intent.
INTENT_COLUMNS = IntentRow.__struct_fields__

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

_encode = json.JSONEncoder(separators=(",", ":")).encode
_encode_row = msgspec.json.Encoder().encode


def make_intent_row(intent: RequestIntent) -> IntentRow:
    """Return the row of an intent."""
    caller, key, bound, attribution = intent.caller, intent.key, intent.bound, intent.attribution
    return IntentRow(
        intent.request_id,
        caller.project_id,
        caller.room,
        caller.participant,
        caller.user,
        caller.issuer,
        intent.session,
        intent.provider,
        intent.endpoint,
        intent.method,
        intent.model_requested,
        format_time(intent.started_at),
        caller.credential_id,
        _encode(dict(intent.annotations)) if intent.annotations else None,
        None if key is None else key.name,
        _encode(dict(intent.provider_key_ids)) if intent.provider_key_ids else None,
        _encode(dict(intent.labels)) if intent.labels else None,
        " ".join(caller.token_ids) or None,
        intent.traceparent,
        attribution.agent_session,
        attribution.agent,
        attribution.parent_agent,
        attribution.turn,
        attribution.request_kind,
        attribution.client,
        attribution.repository,
        attribution.commit,
        attribution.end_user,
        attribution.end_user_source,
        intent.retry.idempotency_hash,
        intent.retry.count,
        None if bound is None else format_decimal(bound.total),
        None if bound is None else format_decimal(bound.subtotal),
    )


def make_record_row(record: RequestRecord, intent_row: IntentRow | None = None) -> RecordRow:
    """Return the row of a record; `intent_row` is that of its intent, if it is known."""
    key, cost, first_byte_at = record.intent.key, record.cost, record.first_byte_at
    values = (
        *astuple(make_intent_row(record.intent) if intent_row is None else intent_row),
        record.model,
        record.status,
        str(record.outcome),
        str(record.basis),
        record.estimate_method,
        None if first_byte_at is None else format_time(first_byte_at),
        format_time(record.ended_at),
        record.usage,
        format_items(cost.line_items),
        format_decimal(cost.subtotal),
        format_decimal(cost.surcharge),
        format_decimal(cost.total),
        record.object_id,
        record.upstream_request_id,
        json.dumps(record.faults) if record.faults else None,
        None if record.deferred_facts is None else format_deferred_facts(record.deferred_facts),
        record.created_objects if record.names_object or record.objects else (),
        None if key is None else key.fingerprint,
        None if key is None else PROJECT if key.own else SERVER,
        None if record.container_time is None else format_container_time(record.container_time),
    )
    return RecordRow(*values)


def encode_row(row: msgspec.Struct) -> bytes:
    """Return a row as JSON."""
    try:
        return _encode_row(row)
    except UnicodeEncodeError:
        # msgspec refuses half of a surrogate pair, which JSON of a client may hold; json escapes it.
        return json.dumps(msgspec.to_builtins(row)).encode()


def decode_row(text: bytes, kind: type[RowT]) -> RowT:
    """Return a row of a file; columns that an earlier version of the program did not write are None.

    Raises:
        ValueError: the text is truncated, or no row.
    """
    try:
        return msgspec.json.decode(text, type=kind)
    except msgspec.DecodeError:
        try:
            return msgspec.convert(json.loads(text), kind)
        except msgspec.ValidationError as error:
            raise ValueError(str(error)) from error


def make_settlement_row(settlement: Settlement) -> SettlementRow:
    """Return the row of a settlement."""
    time, cost = settlement.container_time, settlement.cost
    return SettlementRow(
        settlement.request_id,
        settlement.model,
        str(settlement.basis),
        settlement.estimate_method,
        settlement.usage,
        format_items(cost.line_items),
        format_decimal(cost.subtotal),
        format_decimal(cost.surcharge),
        format_decimal(cost.total),
        json.dumps(settlement.faults) if settlement.faults else None,
        format_time(settlement.settled_at),
        settlement.final,
        None if time is None else format_container_time(time),
    )


def list_objects(row: RecordRow) -> list[tuple[str | None, ...]]:
    """Return the values of OBJECT_COLUMNS for each object that a request created."""
    return [
        (
            row.provider,
            object_id,
            row.project_id,
            row.request_id,
            row.provider_key,
            row.key_fingerprint,
            row.key_owner,
        )
        for object_id in row.objects
    ]


def read_object_owner(project_id: str, name: str | None, fingerprint: str | None, owner: str | None) -> ObjectOwner:
    """Return the owner of an object from its columns; a row of an earlier version names no key."""
    if fingerprint is None:
        return ObjectOwner(project_id)
    return ObjectOwner(project_id, KeyId(name or "", fingerprint, own=owner == PROJECT))


def make_storable_row(row: RowT) -> RowT:
    """Return the row with question marks for text that a database cannot hold.

    UTF-8 has no form of half a surrogate pair, and PostgreSQL's text holds no NUL; JSON of a client may have both.
    """
    return type(row)(*map(_make_storable, astuple(row)))


def _make_storable(value: object) -> object:
    if isinstance(value, tuple):  # the ids of created objects
        return tuple(map(_make_storable, value))
    return make_storable_text(value) if isinstance(value, str) else value


def make_storable_text(text: str) -> str:
    """Return a text with question marks for characters that a database cannot hold."""
    return text.encode("utf-8", "replace").decode().replace("\0", "?")
