"""The columns of intents, records, settlements and objects, in the order in which they are stored.

Times are RFC 3339 UTC with milliseconds, amounts are decimal strings.
rows.py converts values to rows, schema.py creates the tables.
"""

from __future__ import annotations

import msgspec

from tornado_proxy.domain.attribution import ATTRIBUTION_FIELDS


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

#: The columns of a bound that the budgets do not hold yet.
UNHELD_COLUMNS = ("request_id", "writer", "bound_total", "bound_subtotal")

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
