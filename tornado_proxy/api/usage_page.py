"""One page of usage as JSON or CSV.  Quantities and amounts are decimals in text, so that no reader rounds them."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass

from tornado_proxy.api.usage_query import MOST_ROWS, UsageRequest
from tornado_proxy.domain.errors import BadRequest
from tornado_proxy.ledger.reports.usage import UsageQuery, UsageResult, UsageRow
from tornado_proxy.ledger.rows import format_decimal
from tornado_proxy.wire.csv_cells import TrustedText, write_rows

#: Members that are numbers or times of ours, and text of nobody else.
_PLAIN = frozenset({"start", "end", "quantity", "unpriced_quantity", "total"})


@dataclass(frozen=True, slots=True)
class Page:
    """A page as it is sent; `next_cursor` asks for the one after it."""

    body: bytes
    next_cursor: str | None


def make_page(answer: UsageResult, request: UsageRequest) -> Page:
    """The page that was asked for.  Takes some ten milliseconds for thousands of rows: call it in a thread.

    Raises:
        BadRequest: no page was asked for, and there are too many rows for one answer.  They are never cut in silence.
    """
    rows = [row for row in answer.rows if request.after is None or row.key > request.after]
    if request.limit is None and len(rows) > MOST_ROWS:
        raise BadRequest(
            f"{len(rows)} rows are too many for one answer; ask for pages with limit (up to {MOST_ROWS}) and cursor, a "
            "shorter time, or fewer groups",
            code="too_much_usage",
            param="limit",
        )
    shown = rows[: request.limit]
    cursor = request.cursor(shown[-1].key) if len(rows) > len(shown) else None
    body = _csv(shown, request.question) if request.csv else _json(answer, shown, cursor, request.question)
    return Page(body, cursor)


def _json(answer: UsageResult, rows: Sequence[UsageRow], cursor: str | None, question: UsageQuery) -> bytes:
    """`{"usage": [...], "next_cursor": ..., "summary": {...}}`; the summary is of all pages together."""
    content = {
        "usage": [_members(row, question) for row in rows],
        "next_cursor": cursor,
        "summary": {
            "requests": answer.requests,
            "total": format_decimal(answer.total),
            "currency": "USD",
            "unsettled_requests": answer.unsettled,
            "pending_requests": answer.pending,
        },
    }
    return json.dumps(content).encode()


def _csv(rows: Sequence[UsageRow], question: UsageQuery) -> bytes:
    """The same rows, a line each, under a line of names."""
    out = io.StringIO(newline="")
    columns = _columns(question)
    members = (_members(row, question) for row in rows)
    write_rows(out, columns, ([_plain(name, one[name]) for name in columns] for one in members))
    return out.getvalue().encode("utf-8", "replace")


def _plain(name: str, value: object) -> object:
    return TrustedText(value) if name in _PLAIN and isinstance(value, str) else value


def _columns(question: UsageQuery) -> tuple[str, ...]:
    span = ("start", "end") if question.interval is not None else ()
    figures = ("provider", "model", "type", "requests", "quantity", "unpriced_quantity", "total")
    return (*span, *question.group_by, *figures)


def _members(row: UsageRow, question: UsageQuery) -> dict[str, object]:
    span = {"start": row.start, "end": row.end} if question.interval is not None else {}
    return {
        **span,
        **dict(zip(question.group_by, row.group, strict=True)),
        "provider": row.provider,
        "model": row.model,
        "type": row.type,
        "requests": row.requests,
        "quantity": format_decimal(row.quantity),
        "unpriced_quantity": format_decimal(row.unpriced),
        "total": format_decimal(row.total),
    }
