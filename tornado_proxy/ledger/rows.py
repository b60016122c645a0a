"""Converts intents, records and settlements to rows of text (columns.py), and line items to the text of one column.

Amounts are decimal strings without exponents.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any, TypeVar

import msgspec
from msgspec.structs import astuple

from tornado_proxy.domain.cost import LineItem
from tornado_proxy.domain.identity import KeyId
from tornado_proxy.domain.record import ObjectOwner, RequestIntent, RequestRecord, Settlement
from tornado_proxy.domain.text import format_decimal as format_decimal
from tornado_proxy.domain.text import format_time as format_time
from tornado_proxy.ledger.columns import IntentRow, RecordRow, SettlementRow
from tornado_proxy.ledger.container_rows import format_container_time
from tornado_proxy.ledger.deferred_facts import PROJECT, SERVER, format_deferred_facts


class _ItemMembers(msgspec.Struct, omit_defaults=True):
    """The JSON object of a line item.  msgspec writes a Decimal as str() does, in quotation marks."""

    type: str
    quantity: Decimal | str
    unit: str
    unit_price: Decimal | str | None
    amount: str | None
    model: str | None
    price_hash: str | None
    terms: dict[str, str] = {}  # msgspec copies it
    context_tokens: int = 0


RowT = TypeVar("RowT", bound=msgspec.Struct)

_encode = json.JSONEncoder(separators=(",", ":")).encode
_encode_json = msgspec.json.Encoder().encode


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
        None if bound is None else bound.total,
        None if bound is None else bound.subtotal,
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
        return _encode_json(row)
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


def read_line_items(text: str | None) -> tuple[LineItem, ...]:
    """Return the line items of a record from its column `line_items`."""
    return tuple(_read_item(item) for item in json.loads(text or "[]"))


def _read_item(item: dict[str, Any]) -> LineItem:
    return LineItem(
        type=item["type"],
        quantity=Decimal(item["quantity"]),
        unit=item["unit"],
        unit_price=None if item["unit_price"] is None else Decimal(item["unit_price"]),
        amount=None if item["amount"] is None else Decimal(item["amount"]),
        model=item["model"],
        price_hash=item["price_hash"],
        terms=tuple(item.get("terms", {}).items()),
        context_tokens=item.get("context_tokens", 0),
    )


def format_items(items: Iterable[LineItem]) -> str:
    """Return line items as text of the column `line_items`."""
    rows = [
        _ItemMembers(
            item.type,
            item.quantity,
            item.unit,
            item.unit_price,
            # Amounts of small requests have an exponent, quantities and prices almost never.
            None if item.amount is None else format_decimal(item.amount),
            item.model,
            item.price_hash,
            dict(item.terms) if item.terms else {},
            item.context_tokens,
        )
        for item in items
    ]
    text = _encode_items(rows)
    if "E" not in text:
        return text
    for row in rows:
        row.quantity = f"{row.quantity:f}"
        row.unit_price = None if row.unit_price is None else f"{row.unit_price:f}"
    return _encode_items(rows)


def _encode_items(rows: Sequence[_ItemMembers]) -> str:
    try:
        return _encode_json(rows).decode()  # line items are a third of the work on a record
    except UnicodeEncodeError:
        # A model's name has half of a surrogate pair, which msgspec refuses.
        return json.dumps(msgspec.to_builtins(rows), separators=(",", ":"))
