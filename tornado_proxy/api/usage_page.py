"""Write one page of usage as JSON or CSV.

Quantities and amounts are decimal strings, so that no parser rounds them.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

from tornado_proxy.api.usage_query import MAX_ROWS, UsageRequest
from tornado_proxy.domain.errors import BadRequest
from tornado_proxy.domain.text import format_sum
from tornado_proxy.ledger.reports.usage import GroupRow, UsageQuery, UsageResult, UsageRow
from tornado_proxy.wire.csv_cells import write_members

#: Members that the proxy itself writes; the text of all others can come from a client.
_TRUSTED_MEMBERS = frozenset({"start", "end", "quantity", "unpriced_quantity", "subtotal", "surcharge", "total"})


@dataclass(frozen=True, slots=True)
class Page:
    """A response body, and the cursor of the next page, None for the last one."""

    body: bytes
    next_cursor: str | None


def make_page(result: UsageResult, request: UsageRequest) -> Page:
    """Return the requested page.  Takes tens of milliseconds for thousands of rows, so call it in a thread.

    Raises:
        BadRequest: the request sets no limit and the result has more than MAX_ROWS rows; it is never cut silently.
    """
    rows = [row for row in result.rows if request.after is None or row.key > request.after]
    if request.limit is None and len(rows) > MAX_ROWS:
        raise BadRequest(
            f"{len(rows)} rows are too many for one response; use limit (up to {MAX_ROWS}) and cursor, a shorter time "
            "range, or fewer groups",
            code="too_much_usage",
            param="limit",
        )
    page = rows[: request.limit]
    cursor = request.cursor(page[-1].key) if len(rows) > len(page) else None
    body = _csv(page, request.query) if request.csv else _json(result, page, cursor, request.query)
    return Page(body, cursor)


def list_page_headers(request: UsageRequest, next_target: str | None) -> list[tuple[str, str]]:
    """Return the headers of a page; `next_target` is the target of the next one, None for the last page."""
    headers = [("Cache-Control", "no-store"), ("Content-Type", "application/json")]
    if request.csv:
        headers[1] = ("Content-Type", "text/csv; charset=utf-8; header=present")
        headers.append(("Content-Disposition", 'attachment; filename="usage.csv"'))
    if next_target is not None:
        headers.append(("Link", f'<{next_target}>; rel="next"'))  # RFC 8288
    return headers


def find_next_target(path: str, arguments: Mapping[str, list[bytes]], cursor: str | None) -> str | None:
    """Return the target of the next page: this query with another cursor.  None if there is no cursor."""
    if cursor is None:
        return None
    query = [(name, values[-1]) for name, values in arguments.items() if name != "cursor"]
    return f"{path}?{urlencode([*query, ('cursor', cursor.encode())])}"


def _json(result: UsageResult, rows: Sequence[UsageRow | GroupRow], cursor: str | None, query: UsageQuery) -> bytes:
    """Return `{"usage": [...], "next_cursor": ..., "summary": {...}}`; the summary covers all pages."""
    content = {
        "usage": [_row_members(row, query) for row in rows],
        "next_cursor": cursor,
        "summary": {
            "requests": result.requests,
            "total": format_sum(result.total),
            "currency": "USD",
            "unsettled_requests": result.unsettled,
            "pending_requests": result.pending,
        },
    }
    return json.dumps(content).encode()


def _csv(rows: Sequence[UsageRow | GroupRow], query: UsageQuery) -> bytes:
    """Return a header line and one line per row."""
    out = io.StringIO(newline="")
    write_members(out, _columns(query), (_row_members(row, query) for row in rows), trusted=_TRUSTED_MEMBERS)
    return out.getvalue().encode("utf-8", "replace")


def _columns(query: UsageQuery) -> tuple[str, ...]:
    interval = ("start", "end") if query.interval is not None else ()
    items = ("provider", "model", "type", "requests", "quantity", "unpriced_quantity", "total")
    groups = ("requests", "subtotal", "surcharge", "total", "unsettled", "pending")
    return (*interval, *query.group_by, *(groups if query.group_rows else items))


def _row_members(row: UsageRow | GroupRow, query: UsageQuery) -> dict[str, object]:
    interval = {"start": row.start, "end": row.end} if query.interval is not None else {}
    figures = _group_members(row) if isinstance(row, GroupRow) else _item_members(row)
    return {**interval, **dict(zip(query.group_by, row.group, strict=True)), **figures}


def _group_members(row: GroupRow) -> dict[str, object]:
    return {
        "requests": row.requests,
        "subtotal": format_sum(row.subtotal),
        "surcharge": format_sum(row.surcharge),
        "total": format_sum(row.total),
        "unsettled": row.unsettled,
        "pending": row.pending,
    }


def _item_members(row: UsageRow) -> dict[str, object]:
    return {
        "provider": row.provider,
        "model": row.model,
        "type": row.type,
        "requests": row.requests,
        "quantity": format_sum(row.quantity),
        "unpriced_quantity": format_sum(row.unpriced),
        "total": format_sum(row.total),
    }
