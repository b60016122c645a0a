"""Ledger records and sums as the JSON members that `tornado-proxy usage` prints.  Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping

from tornado_proxy.domain.text import format_sum
from tornado_proxy.ledger.reports.records_query import UsageSum

#: Members that the ledger stores as JSON text.
_JSON_MEMBERS = ("usage", "line_items", "provider_key_ids", "labels")

#: Members of a line item that are printed.  Terms and hashes are for `explain`.
_ITEM_MEMBERS = ("type", "quantity", "unit", "unit_price", "amount", "model")

#: Members of a sum after those that it is grouped by.
SUM_COLUMNS = ("requests", "subtotal", "surcharge", "total", "unsettled", "pending")


def record_members(record: Mapping[str, object]) -> dict[str, object]:
    """Return a record with its JSON text parsed and its line items reduced to the printed members."""
    members = dict(record)
    for name in _JSON_MEMBERS:
        text = members[name]
        members[name] = json.loads(text) if isinstance(text, str) else None
    # Programs that read this output must not depend on members that only explain a price.
    items = members["line_items"]
    if isinstance(items, list):
        members["line_items"] = [{name: item[name] for name in _ITEM_MEMBERS} for item in items]
    return members


def sum_members(usage_sum: UsageSum) -> dict[str, object]:
    """Return the values of SUM_COLUMNS; amounts are decimals as text."""
    return {
        "requests": usage_sum.requests,
        "subtotal": format_sum(usage_sum.subtotal),
        "surcharge": format_sum(usage_sum.surcharge),
        "total": format_sum(usage_sum.total),
        "unsettled": usage_sum.unsettled,
        "pending": usage_sum.pending,
    }
