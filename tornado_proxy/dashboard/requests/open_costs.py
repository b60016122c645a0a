"""The page of costs that are not known, not known yet, or estimated: their number, their requests, and advice."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from itertools import accumulate
from typing import ClassVar

from tornado_proxy.dashboard.amounts import show_amount, show_exact
from tornado_proxy.dashboard.base_handler import DashboardHandler
from tornado_proxy.dashboard.bill.bill_request import read_bill_request
from tornado_proxy.dashboard.filter_form import FilterForm
from tornado_proxy.dashboard.parameters import check_known
from tornado_proxy.dashboard.requests.request_list import RECORD_COLUMNS, UNKNOWN_COSTS, make_row, show_moment
from tornado_proxy.dashboard.viewer import Viewer
from tornado_proxy.domain.errors import BadRequest
from tornado_proxy.domain.usage import Basis
from tornado_proxy.ledger.reports.intervals import Interval
from tornado_proxy.ledger.reports.ranked_usage import list_group_rows
from tornado_proxy.ledger.reports.records_page import RecordsQuery
from tornado_proxy.ledger.reports.records_query import Record, UsageFilter, add_exactly
from tornado_proxy.ledger.reports.usage import GroupRow

#: The parameters of the page.
_PARAMETERS = ("range", "start", "end", "format")

#: Requests that each box lists.
_LISTED = 10

#: The meaning of each basis, the advice for the operator and admins of projects, and that for a member.
_TEXTS: Mapping[Basis, tuple[str, str, str]] = {
    Basis.UNSETTLED: (
        "The request reached the provider, and its cost is not known: no response came, or it stated no usage that can "
        "be true.",
        "Compare each with the provider's usage page by its time, model and key. The faults on the page of a request "
        "say what happened.",
        "Ask the operator, who can compare it with the provider's usage page.",
    ),
    Basis.PENDING: (
        "The provider reports the usage later: background responses and batches.",
        "Wait: the proxy polls the provider, and settles the request when it has ended. If one stays for more than a "
        "day, look for its id in the log.",
        "Wait: the proxy polls the provider until the request has ended.",
    ),
    Basis.ESTIMATED: (
        "The provider did not state all usage, such as that of a stream that broke; what arrived was counted.",
        "Nothing has to be done. Many of them mean that clients leave early or connections break: "
        "streams.on_client_disconnect: drain reads responses to their end.",
        "Nothing has to be done. Reading a stream to its end makes its cost exact.",
    ),
}

_COLUMNS = ("basis", "requests", "total")


@dataclass(frozen=True, slots=True)
class Box:
    """The requests of one basis; `total` is None if it is not known."""

    basis: Basis
    requests: int
    total: Decimal | None
    text: str
    advice: str
    rows: tuple[tuple[str, str, str, str], ...]
    url: str

    @property
    def shown_total(self) -> str | None:
        """The total for people."""
        return None if self.total is None else show_amount(self.total)

    @property
    def members(self) -> dict[str, object]:
        """The box for programs."""
        return {
            "basis": self.basis.value,
            "requests": self.requests,
            "total": None if self.total is None else show_exact(self.total),
        }


class OpenCostsHandler(DashboardHandler):
    """The page of open costs."""

    name: ClassVar[str] = "open"

    async def get(self) -> None:
        """Show the boxes, or send their figures."""
        viewer = await self.identify()
        check_known(self.parameters, _PARAMETERS)
        given = {"range": "30d", **self.parameters, "group": "basis"}
        if "start" in given:
            given.pop("range")
        request = read_bill_request(given, viewer, self.now)
        # By day: only days that have such requests are searched for them.
        query = replace(request.query, interval=Interval.DAY)
        rows = list_group_rows(await self.services.ledger.usage(query))
        boxes = [
            await self._make_box(basis, [row for row in rows if row.group[0] == basis], query.which, viewer)
            for basis in _TEXTS
        ]
        if request.format != "html":
            self.send_rows("open_costs", _COLUMNS, [box.members for box in boxes], _COLUMNS)
            return
        link = self.make_page_url("/open", request.span.parameters)
        downloads = {name: link.change(format=name) for name in ("csv", "json")}
        form = FilterForm(link, request.span, {})
        self.show("open.html", "Open costs", boxes=boxes, form=form, downloads=downloads)

    async def _make_box(self, basis: Basis, days: Sequence[GroupRow], which: UsageFilter, viewer: Viewer) -> Box:
        text, advice, member_advice = _TEXTS[basis]
        url = self.make_page_url("/requests", {"start": str(which.since), "end": str(which.until)})
        records: Sequence[Record] = ()
        if days and basis in UNKNOWN_COSTS:
            query = RecordsQuery(
                narrow(replace(which, basis=basis.value), days),
                min(_LISTED, sum(day.requests for day in days)),
                columns=RECORD_COLUMNS,
                asker=viewer.asker,
            )
            with contextlib.suppress(BadRequest):  # the search takes too long; the link asks for the list alone
                records = await self.services.ledger.list_records(query)
        return Box(
            basis,
            sum(day.requests for day in days),
            None if basis in UNKNOWN_COSTS else add_exactly([day.total for day in days]),
            text,
            advice if viewer.sees_project else member_advice,
            tuple(map(self._show_request, records)),
            url.change(basis=basis.value),
        )

    def _show_request(self, record: Record) -> tuple[str, str, str, str]:
        row = make_row(record)
        started_at = datetime.fromisoformat(str(row["started_at"]))
        age_h = (self.now - started_at).total_seconds() / 3600
        url = self.make_page_url(f"/requests/{row['request_id']}", {}).change()
        age = f"{age_h:.0f} h ago" if age_h >= 1 else f"{age_h * 60:.0f} min ago"
        return f"{show_moment(row['started_at'])}, {age}", str(row["request_id"]), url, str(row["model"] or "")


def narrow(which: UsageFilter, days: Sequence[GroupRow]) -> UsageFilter:
    """Return the filter, narrowed to the last days that have _LISTED requests together."""
    latest = sorted(days, key=lambda day: day.start or "", reverse=True)
    counts = accumulate(day.requests for day in latest)
    needed = next((number for number, count in enumerate(counts, start=1) if count >= _LISTED), len(latest))
    since, until = latest[needed - 1].start, latest[0].end
    return replace(which, since=max(since or "", which.since or ""), until=min(until or "~", which.until or "~"))
