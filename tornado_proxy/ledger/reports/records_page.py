"""Lists records page by page, newest first.

The cursor of a page is the start and the id of its last request, so that a page begins where the one before ended also
if requests have been added since.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tornado_proxy.ledger.columns import PRINTED_COLUMNS
from tornado_proxy.ledger.database import Read
from tornado_proxy.ledger.dialect import quote_names
from tornado_proxy.ledger.reports.part_records import add_clause, select_seqs
from tornado_proxy.ledger.reports.record_spans import Span, find_spans
from tornado_proxy.ledger.reports.records_query import Record, UsageFilter, build_where
from tornado_proxy.ledger.schema import LOST_BILLS, RECORDED_BILLS


@dataclass(frozen=True, slots=True)
class RecordsQuery:
    """Selects one page of records.

    Attributes:
        limit: The most records of the page.
        before: The start and the id of the last request of the page before; None for the first page.
        columns: The columns of each record, of RECORD_COLUMNS.
        asker: The caller who asks; each has a share of the reader.
    """

    which: UsageFilter
    limit: int
    before: tuple[str, str] | None = None
    columns: Sequence[str] = PRINTED_COLUMNS
    asker: str = ""


def read_page(read: Read, query: RecordsQuery) -> list[Record]:
    """Return the records of a page."""
    which = query.which
    if query.before is not None:
        # The last moment that the page can begin with; times of records have milliseconds.
        which = replace(which, until=min(which.until or "~", f"{query.before[0]}~"))
    page: list[Record] = []
    for span in find_spans(read, which) if which.request_id is None else [Span(which.since, which.until)]:
        page += _read_span(read, replace(query, which=which), span, len(page))
        if len(page) == query.limit:
            break
    return page


def _read_span(read: Read, query: RecordsQuery, span: Span, found: int) -> list[Record]:
    """Return the records of a span of time, as far as the page, which has `found` already, has room for them.

    Both parts of the view `bills` are read in the order of an index.  PostgreSQL would sort all records of the view.
    """
    where, values = _build_where(query.which, span)
    if query.before is not None:
        start, request_id = query.before
        # The first comparison is one that an index on started_at serves.
        where += f" {'AND' if where else 'WHERE'} started_at <= ? AND (started_at < ? OR request_id < ?)"
        values = [*values, start, start, request_id]
    names = dict.fromkeys((*query.columns, "started_at", "request_id"))
    room = query.limit - found
    records: list[Record] = []
    for part in (RECORDED_BILLS, LOST_BILLS):
        sql = (
            f"SELECT {quote_names(tuple(names))} FROM ({part}) bills {where} "  # noqa: S608  # names of ours
            f"ORDER BY started_at DESC, request_id DESC LIMIT {room}"
        )
        records += [dict(zip(names, row, strict=True)) for row in read(sql, values)]
    return sorted(records, key=lambda record: (str(record["started_at"]), str(record["request_id"])), reverse=True)[
        :room
    ]


def _build_where(which: UsageFilter, span: Span) -> tuple[str, list[object]]:
    where, values = build_where(replace(which, since=span.since, until=span.until))
    if span.seqs is None:
        return where, [*values]
    return add_clause(where, select_seqs(span.seqs)), [*values, *span.seqs]
