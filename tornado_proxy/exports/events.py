"""Makes CloudEvents of the changes of a ledger.  Pure.

Source: CloudEvents 1.0.2, https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md and its JSON format.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from tornado_proxy.ledger.changes import Change, ChangeKind
from tornado_proxy.ledger.columns import PRINTED_COLUMNS
from tornado_proxy.ledger.rows import format_decimal
from tornado_proxy.reports.usage_members import record_members

#: The media type of an event in structured mode.
CONTENT_TYPE = "application/cloudevents+json"

#: The default of the attribute `source`, which with `id` identifies an event.
DEFAULT_SOURCE = "urn:tornado-proxy"

_TYPES: Mapping[ChangeKind, str] = {
    ChangeKind.RECORD: "tornado-proxy.request.recorded",
    ChangeKind.SETTLEMENT: "tornado-proxy.request.settled",
    ChangeKind.GIVEN_UP: "tornado-proxy.request.given_up",
    ChangeKind.LOST: "tornado-proxy.request.lost",
}

_AMOUNTS = ("subtotal", "surcharge", "total")


@dataclass(frozen=True, slots=True)
class Event:
    """An event with its id, as JSON text in one line."""

    id: str
    text: str


def make_event(change: Change, source: str = DEFAULT_SOURCE) -> Event:
    """Return the event of a change.

    Its id is the same each time: that of the request, and for a later change the same with the kind after a slash.
    `data.difference` has the amounts that the event adds: their sums over all events are those of all bills.
    """
    request_id = str(change.row["request_id"])
    event_id = request_id if change.kind is ChangeKind.RECORD else f"{request_id}/{change.kind}"
    attributes: dict[str, object] = {
        "specversion": "1.0",
        "id": event_id,
        "source": source,
        "type": _TYPES[change.kind],
        "time": change.at,
        "subject": change.row["project_id"],
        "datacontenttype": "application/json",
    }
    if change.replaced is not None:
        # An extension attribute: its name has lower case letters and digits only.
        attributes["corrects"] = request_id
    record = record_members({name: change.row[name] for name in PRINTED_COLUMNS})
    attributes["data"] = {"record": record, "difference": _find_difference(change)}
    return Event(event_id, json.dumps(attributes, separators=(",", ":")))


def _find_difference(change: Change) -> dict[str, str]:
    replaced = change.replaced or dict.fromkeys(_AMOUNTS, "0")
    amounts = {name: Decimal(str(change.row[name])) - Decimal(str(replaced[name])) for name in _AMOUNTS}
    return {name: format_decimal(amount) for name, amount in amounts.items()}
