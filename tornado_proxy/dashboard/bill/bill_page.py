"""The bill page: the cost of requests by one or two groups, compared with the time before."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal

from tornado_proxy.dashboard.amounts import count_decimals, show_amount, show_change, show_exact, show_percentage
from tornado_proxy.dashboard.base_handler import DashboardHandler
from tornado_proxy.dashboard.bill.bill import Bill, BillRow, list_values, make_bill
from tornado_proxy.dashboard.bill.bill_request import (
    DEFAULT_TOP,
    FILTERS,
    GROUP_TITLES,
    SORTS,
    BillRequest,
    is_interval,
    read_bill_request,
)
from tornado_proxy.dashboard.bill.chart import Chart, choose_series, make_chart, make_chart_query, make_series_query
from tornado_proxy.dashboard.filter_form import FilterForm
from tornado_proxy.dashboard.parameters import PageUrl
from tornado_proxy.dashboard.time_span import show_time
from tornado_proxy.domain.errors import BadRequest
from tornado_proxy.ledger.reports.intervals import Interval, find_interval_end
from tornado_proxy.ledger.reports.ranking import Ranking

#: The columns of a row that hold no text of clients.
_FIGURES = ("requests", "subtotal", "surcharge", "total", "previous", "change", "unsettled", "pending")


@dataclass(frozen=True, slots=True)
class Cell:
    """A value of a row.

    `url` leads to the bill of this value alone, None if no filter selects it; `name` is shown in front of an id.
    """

    text: str
    url: str | None
    name: str | None = None


@dataclass(frozen=True, slots=True)
class ShownRow:
    """A row as the page shows it; `share` is its part of the largest total, in percent."""

    cells: tuple[Cell, ...]
    requests: str
    total: str
    share: str
    previous: str | None
    change: str | None
    unsettled: int
    pending: int


@dataclass(frozen=True, slots=True)
class BillPage:
    """The values of the page's template.

    Attributes:
        link: The URL of the bill.
        requests: The URL of the list of the same requests.
        project_names: The names of projects by id.
    """

    bill: Bill
    link: PageUrl
    requests: str
    project_names: Mapping[str, str]
    chart: Chart | None = None

    @property
    def request(self) -> BillRequest:
        """The request of the bill."""
        return self.bill.request

    def url(self, **changes: str | None) -> str:
        """Return the URL of this bill with other parameters; None removes one."""
        return self.link.change(**changes)

    @property
    def form(self) -> FilterForm:
        """The time and the filters."""
        request = self.request
        return FilterForm(self.link, request.span, request.filters, is_open=request.top != DEFAULT_TOP)

    @property
    def group_titles(self) -> Mapping[str, str]:
        """The groups of the form, with those of the URL."""
        return {**GROUP_TITLES, **{group: GROUP_TITLES.get(group, group) for group in self.request.groups}}

    @property
    def sorts(self) -> list[tuple[str, str, bool]]:
        """The name and the URL of each order, and True for the one that is shown."""
        return [(sort, self.url(sort=sort), sort == self.request.sort) for sort in SORTS]

    @property
    def older_url(self) -> str | None:
        """The URL of the page with earlier intervals."""
        return None if self.bill.older is None else self.url(before=self.bill.older)

    @property
    def first_url(self) -> str | None:
        """The URL of the first page; None on it."""
        return None if self.request.before is None else self.url()

    @property
    def downloads(self) -> Mapping[str, str]:
        """The URL of these rows in each format."""
        return {name: self.url(before=self.request.before, format=name) for name in ("csv", "json")}

    @property
    def totals(self) -> dict[str, str]:
        """The figures above the table."""
        bill = self.bill
        decimals = count_decimals([bill.figures.total, bill.previous, bill.change])
        return {
            "total": show_amount(bill.figures.total, decimals),
            "previous": show_amount(bill.previous, decimals),
            "change": show_change(bill.change, decimals),
            "percentage": show_percentage(bill.change, bill.previous),
            "requests": f"{bill.figures.requests:,}",
        }

    @property
    def span_text(self) -> str:
        """The span, and the one that it is compared with."""
        span = self.request.span
        return (
            f"{show_time(span.since)} to {show_time(span.until)} UTC, compared with {show_time(span.previous_since)} "
            f"to {show_time(span.previous_until)}"
        )

    @property
    def rows(self) -> list[ShownRow]:
        """The rows of the table."""
        rows = self.bill.rows
        totals = count_decimals(row.figures.total for row in rows)
        before = count_decimals([*(row.previous or Decimal(0) for row in rows), *(row.change for row in rows)])
        largest = max((row.figures.total for row in rows), default=Decimal(0))
        return [self._show(row, (totals, before), largest) for row in rows]

    def _show(self, row: BillRow, decimals: tuple[int, int], largest: Decimal) -> ShownRow:
        figures = row.figures
        compared = row.previous is not None
        return ShownRow(
            cells=tuple(self._list_cells(row)),
            requests=f"{figures.requests:,}",
            total=show_amount(figures.total, decimals[0]),
            share=f"{figures.total / largest * 100:.2f}" if largest > 0 else "0",
            previous=show_amount(row.previous, decimals[1]) if row.previous is not None else None,
            change=show_change(row.change, decimals[1]) if compared else None,
            unsettled=figures.unsettled,
            pending=figures.pending,
        )

    def _list_cells(self, row: BillRow) -> list[Cell]:
        groups = self.request.groups
        values = dict(zip(groups, list_values(row, groups), strict=True))
        return [self._make_cell(group, value, row) for group, value in values.items()]

    def _make_cell(self, group: str, value: str | None, row: BillRow) -> Cell:
        if is_interval(group):
            assert value is not None, "a bill by time has a start in each row"
            end = find_interval_end(Interval(group), value)
            text = value[:10] if group != Interval.HOUR else f"{value[:10]} {value[11:16]}"
            return Cell(text, self.url(range=None, start=value, end=end, group=self._next_group(group), subgroup=None))
        if row.others and value is not None:
            return Cell(value, None)
        if value is None or group not in FILTERS or "{" in value:
            return Cell("(none)" if value is None and not row.others else value or "", None)
        url = self.url(**{group: value, "group": self._next_group(group), "subgroup": None})
        return Cell(value, url, self.project_names.get(value) if group == "project" else None)

    def _next_group(self, group: str) -> str:
        """Return the group of the bill of one value of `group`."""
        others = [name for name in self.request.groups if name != group]
        order = [*others, "model", "participant", "day"]
        return next((name for name in order if name != group and name not in self.request.filters), "hour")

    def list_members(self) -> list[dict[str, object]]:
        """Return the rows for programs, with exact amounts."""
        return [self._make_members(row) for row in self.bill.rows]

    def _make_members(self, row: BillRow) -> dict[str, object]:
        figures, groups = row.figures, self.request.groups
        return {
            **dict(zip(groups, list_values(row, groups), strict=True)),
            "requests": figures.requests,
            "subtotal": show_exact(figures.subtotal),
            "surcharge": show_exact(figures.surcharge),
            "total": show_exact(figures.total),
            "previous": None if row.previous is None else show_exact(row.previous),
            "change": None if row.previous is None else show_exact(row.change),
            "unsettled": figures.unsettled,
            "pending": figures.pending,
        }

    @property
    def columns(self) -> list[str]:
        """The columns of the rows for programs."""
        compared = ("previous", "change")
        return [*self.request.groups, *(name for name in _FIGURES if not self.bill.is_timed or name not in compared)]


class BillHandler(DashboardHandler):
    """The bill page."""

    name = "bill"

    async def get(self) -> None:
        """Show the bill, or send its rows."""
        viewer = await self.identify()
        request = read_bill_request(self.parameters, viewer, self.now)
        usage = await self.services.ledger.ranked_usage(request.ranked_query)
        bill = make_bill(usage, request)
        link = self.make_page_url("/", request.parameters)
        requests = self.make_page_url("/requests", {**request.span.parameters, **request.filters})
        page = BillPage(bill, link, requests.change(), viewer.project_names)
        if request.format != "html":
            self.send_rows("bill", page.columns, page.list_members(), _FIGURES)
            return
        with contextlib.suppress(BadRequest):  # too many groups and intervals for a chart; the bill has fewer
            page = replace(page, chart=await self._make_chart(request, usage.ranking))
        self.show("bill.html", "Bill", bill=page)

    async def _make_chart(self, request: BillRequest, ranking: Ranking) -> Chart | None:
        assert self.viewer is not None, "get() identifies the viewer"
        query = make_series_query(request)
        if query is not None:
            ranking = (await self.services.ledger.ranked_usage(query)).ranking
        chosen = choose_series(ranking)
        series = await self.services.ledger.usage(make_chart_query(request, chosen))
        return await asyncio.to_thread(make_chart, series, request, self.now, chosen, self.viewer.project_names)
