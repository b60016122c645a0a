"""The list of requests, and the page of one request: what `explain` says of it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import ClassVar
from urllib.parse import quote

from tornado_proxy.dashboard.base_handler import DashboardHandler
from tornado_proxy.dashboard.filter_form import FilterForm
from tornado_proxy.dashboard.parameters import FORMATS, check_known, read_choice
from tornado_proxy.dashboard.requests.explained_request import ITEM_COLUMNS, explain, list_items
from tornado_proxy.dashboard.requests.request_list import (
    COLUMNS,
    DEFAULT_LIMIT,
    TRUSTED_COLUMNS,
    make_list_page,
    read_list_request,
    show_moment,
    show_totals,
)
from tornado_proxy.dashboard.viewer import Viewer
from tornado_proxy.domain.errors import NotFound
from tornado_proxy.ledger.reports.records_page import RecordsQuery
from tornado_proxy.ledger.reports.records_query import Record
from tornado_proxy.ledger.rows import format_time
from tornado_proxy.reports.explanation import EXPLAINED_COLUMNS

#: The age of the requests that are searched for a provider's id, which has no index.
_SEARCHED = timedelta(days=1)

#: Records of one provider's id: a WebSocket session has one for each response.
_MAX_RECORDS = 20

_MAX_ID_CHARACTERS = 200


class RequestListHandler(DashboardHandler):
    """The list of requests, newest first."""

    name: ClassVar[str] = "requests"

    async def get(self) -> None:
        """Show a page of the list, or send its rows."""
        viewer = await self.identify()
        given = dict(self.parameters)
        request_id = given.pop("request", None)
        if request_id is not None:
            self.redirect(self.make_page_url(f"/requests/{_quote(request_id)}", {}).change())
            return
        request = read_list_request(given, viewer, self.now)
        page = make_list_page(await self.services.ledger.list_records(request.query), request)
        if request.format != "html":
            self.send_rows("requests", COLUMNS, page.rows, TRUSTED_COLUMNS)
            return
        link = self.make_page_url("/requests", request.parameters)
        rows = [
            (row, show_moment(row["started_at"]), total, self._make_url(str(row["request_id"])))
            for row, total in zip(page.rows, show_totals(page.rows), strict=True)
        ]
        form = FilterForm(link, request.span, request.filters, is_open=request.limit != DEFAULT_LIMIT)
        before = given.get("before")
        self.show(
            "requests.html",
            "Requests",
            form=form,
            rows=rows,
            limit=request.limit,
            names=viewer.project_names,
            next_url=None if page.next_cursor is None else link.change(before=page.next_cursor),
            first_url=None if before is None else link.change(),
            bill_url=self.make_page_url("/", {**request.span.parameters, **request.filters}).change(),
            downloads={name: link.change(before=before, format=name) for name in ("csv", "json")},
        )

    def _make_url(self, request_id: str) -> str:
        return self.make_page_url(f"/requests/{_quote(request_id)}", {}).change()


class RequestHandler(DashboardHandler):
    """One request."""

    name: ClassVar[str] = "requests"

    async def get(self, request_id: str) -> None:
        """Show the bill of a request, or send its line items."""
        viewer = await self.identify()
        check_known(self.parameters, ("format",))
        output = read_choice(self.parameters, "format", FORMATS, FORMATS[0])
        records = await self._find(request_id.strip()[:_MAX_ID_CHARACTERS], viewer)
        prices = self.snapshot.prices
        explained = await asyncio.to_thread(lambda: [explain(record, prices) for record in records])
        if output == "csv":
            self.send_rows("line_items", ITEM_COLUMNS, [row for each in explained for row in list_items(each)], ())
            return
        if output == "json":
            self.send_document({"requests": [each.members for each in explained]})
            return
        link = self.make_page_url(f"/requests/{_quote(request_id)}", {})
        downloads = {name: link.change(format=name) for name in ("csv", "json")}
        self.show("request.html", "Request", explained=explained, names=viewer.project_names, downloads=downloads)

    async def _find(self, request_id: str, viewer: Viewer) -> Sequence[Record]:
        """Return the record with our id, else those with the provider's id, of the last day.

        Raises:
            NotFound: the viewer has no such request.
        """
        list_records, asker = self.services.ledger.list_records, viewer.asker
        if request_id.isprintable():
            own = viewer.select_request(request_id=request_id)
            records = await list_records(RecordsQuery(own, 1, columns=EXPLAINED_COLUMNS, asker=asker))
            if records:
                return records
            since = format_time(self.now - _SEARCHED)
            named = viewer.select_request(upstream_request_id=request_id, since=since)
            records = await list_records(RecordsQuery(named, _MAX_RECORDS, columns=EXPLAINED_COLUMNS, asker=asker))
            if records:
                return records
        raise NotFound(
            "you have no request with this id that has ended; state the response header Llm-Proxy-Request-Id, or the "
            "provider's own id of a request of the last day"
        )


def _quote(request_id: str) -> str:
    return quote(request_id[:_MAX_ID_CHARACTERS], safe="", errors="replace")
