"""Parse the URL of the list of requests, and turn its records into rows.  Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from tornado_proxy.dashboard.amounts import count_decimals, show_amount, show_exact
from tornado_proxy.dashboard.bill.bill_request import FILTERS
from tornado_proxy.dashboard.parameters import FORMATS, check_known, read_choice, read_count
from tornado_proxy.dashboard.time_span import TimeSpan, read_span
from tornado_proxy.dashboard.viewer import Viewer
from tornado_proxy.domain.errors import BadRequest
from tornado_proxy.domain.usage import Basis
from tornado_proxy.ledger.reports.records_page import RecordsQuery
from tornado_proxy.ledger.reports.records_query import Record
from tornado_proxy.ledger.rows import format_time

DEFAULT_LIMIT, MAX_LIMIT = 50, 500

#: The parameters of the page that select no requests.
_PAGE_PARAMETERS = ("range", "start", "end", "limit", "before", "format")

#: The columns of a record that the list needs.
RECORD_COLUMNS = (
    *("request_id", "project_id", "participant", "user", "provider", "endpoint", "model_requested", "model"),
    *("status", "outcome", "basis", "started_at", "total"),
)

#: The columns of the list, for programs too.
COLUMNS = (
    *("started_at", "request_id", "project", "caller", "provider", "model", "endpoint"),
    *("status", "outcome", "basis", "total"),
)

#: Those that hold no text of clients.
TRUSTED_COLUMNS = frozenset({"started_at", "status", "outcome", "basis", "total"})

#: Bases without a known cost: their total would be a zero that is none.
UNKNOWN_COSTS = frozenset({Basis.UNSETTLED, Basis.PENDING})


@dataclass(frozen=True, slots=True)
class ListRequest:
    """A page of the list that a URL asks for."""

    span: TimeSpan
    filters: Mapping[str, str]
    limit: int
    format: str
    query: RecordsQuery

    @property
    def parameters(self) -> dict[str, str]:
        """The parameters of the URL of the first page."""
        limit = {"limit": str(self.limit)} if self.limit != DEFAULT_LIMIT else {}
        return {**self.span.parameters, **limit, **self.filters}


def read_list_request(given: Mapping[str, str], viewer: Viewer, now: datetime) -> ListRequest:
    """Return the page that a URL asks for.

    Raises:
        BadRequest: a parameter is unknown or malformed.
        NotAllowed: a filter names another caller.
    """
    span = read_span(given, now)
    filters = {name: value for name, value in given.items() if name not in _PAGE_PARAMETERS}
    check_known(filters, FILTERS)
    which = viewer.select({"start": format_time(span.since), "end": format_time(span.until), **filters})
    limit = read_count(given, "limit", DEFAULT_LIMIT, MAX_LIMIT)
    # One more than the page has, to know whether another one follows.
    query = RecordsQuery(which, limit + 1, _read_place(given.get("before")), RECORD_COLUMNS, viewer.asker)
    return ListRequest(span, filters, limit, read_choice(given, "format", FORMATS, FORMATS[0]), query)


def _read_place(text: str | None) -> tuple[str, str] | None:
    if text is None:
        return None
    start, comma, request_id = text.partition(",")
    if not comma or not request_id or len(text) > 1000 or "\0" in text:
        raise BadRequest("before must be the cursor of a page, unchanged", param="before")
    return start, request_id


@dataclass(frozen=True, slots=True)
class ListPage:
    """The rows of a page, and the cursor of the next one, None for the last."""

    rows: tuple[Mapping[str, object], ...]
    next_cursor: str | None


def make_list_page(records: Sequence[Record], request: ListRequest) -> ListPage:
    """Return the page of the records of its query."""
    shown = records[: request.limit]
    last = shown[-1] if len(records) > request.limit else None
    cursor = None if last is None else f"{last['started_at']},{last['request_id']}"
    return ListPage(tuple(map(make_row, shown)), cursor)


def make_row(record: Record) -> dict[str, object]:
    """Return the members COLUMNS of a record; a cost that is not known is None."""
    return {
        **record,
        "project": record["project_id"],
        "caller": record["participant"] or record["user"],
        "model": record["model"] or record["model_requested"],
        "total": None if record["basis"] in UNKNOWN_COSTS else show_exact(Decimal(str(record["total"]))),
    }


def show_totals(rows: Sequence[Mapping[str, object]]) -> list[str]:
    """Return the total of each row for people, with equally many decimals."""
    amounts = [None if row["total"] is None else Decimal(str(row["total"])) for row in rows]
    decimals = count_decimals(amount for amount in amounts if amount is not None)
    return ["not known" if amount is None else show_amount(amount, decimals) for amount in amounts]


def show_moment(time: object) -> str:
    """Return a time of a record for people, to the second."""
    text = str(time)
    return f"{text[:10]} {text[11:19]}"
