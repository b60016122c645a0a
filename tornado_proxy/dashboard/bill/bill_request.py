"""Parse the URL of the bill page: its time, groups and filters.  Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from tornado_proxy.api.usage_query import OPERATOR_PARAMETERS
from tornado_proxy.dashboard.parameters import FORMATS, check_known, read_choice, read_count
from tornado_proxy.dashboard.time_span import TimeSpan, read_span
from tornado_proxy.dashboard.viewer import Viewer
from tornado_proxy.domain.errors import BadRequest
from tornado_proxy.ledger.reports.intervals import Interval
from tornado_proxy.ledger.reports.ranking import RankedQuery
from tornado_proxy.ledger.reports.time_parts import is_exact_time
from tornado_proxy.ledger.reports.usage import UsageQuery
from tornado_proxy.ledger.rows import format_time

#: The groups that the form offers, with their titles; a URL can name every group of the usage API.
GROUP_TITLES: Mapping[str, str] = {
    "day": "Day",
    "hour": "Hour",
    "week": "Week",
    "month": "Month",
    "project": "Project",
    "participant": "Participant",
    "user": "User",
    "room": "Room",
    "provider": "Provider",
    "model": "Model",
    "endpoint": "Endpoint",
    "provider_key": "Provider key",
    "basis": "Basis",
    "client": "Client program",
    "agent_session": "Agent session",
    "repository": "Repository",
    "end_user": "End user",
}

SORTS = ("total", "change")

DEFAULT_TOP = 20
MAX_TOP = 500

#: Rows of a bill by time on one page; the rows of an interval are never on two.
MAX_ROWS = 500

#: The parameters of a page that are none of a query.
_PAGE_PARAMETERS = ("range", "group", "subgroup", "top", "sort", "before", "format")

#: The parameters of the usage API that select records, and that a page passes on.
FILTERS = tuple(
    name
    for name in OPERATOR_PARAMETERS
    if name not in ("start", "end", "interval", "group_by", "rows", "limit", "cursor", "format")
)


@dataclass(frozen=True, slots=True)
class BillRequest:
    """The bill that a URL asks for.

    Attributes:
        groups: The group and perhaps the subgroup: names of the usage API, of which at most one is an interval.
        top: The number of rows, or of series, beside that of all others.
        sort: `total` for the dearest rows first, `change` for those that have changed most.
        format: One of FORMATS.
        filters: The filters of the URL, by name.
        query: The query of the span, limited to the viewer's requests.
        before: The start of the interval whose earlier ones are shown; None shows the latest.
    """

    span: TimeSpan
    groups: tuple[str, ...]
    top: int
    sort: str
    format: str
    filters: Mapping[str, str]
    query: UsageQuery
    before: str | None = None

    @property
    def ranked_query(self) -> RankedQuery:
        """The query of the bill, compared with the span before."""
        previous = replace(
            self.query.which,
            since=format_time(self.span.previous_since),
            until=format_time(self.span.previous_until),
        )
        by_change = self.sort == "change" and self.query.interval is None
        return RankedQuery(self.query, previous, self.top, by_change, MAX_ROWS, self.before)

    @property
    def parameters(self) -> dict[str, str]:
        """The parameters of the URL of this bill's first page, in one order and without defaults of the form."""
        group, *sub = self.groups
        changed = {"top": str(self.top)} if self.top != DEFAULT_TOP else {}
        sort = {"sort": self.sort} if self.sort != SORTS[0] else {}
        subgroup = {"subgroup": sub[0]} if sub else {}
        return {**self.span.parameters, "group": group, **subgroup, **changed, **sort, **self.filters}


def read_bill_request(given: Mapping[str, str], viewer: Viewer, now: datetime) -> BillRequest:
    """Return the bill that a URL asks for.

    Raises:
        BadRequest: a parameter is unknown or malformed.
        NotAllowed: a filter names another caller.
    """
    span = read_span(given, now)
    groups = _read_groups(given, viewer)
    filters = {name: value for name, value in given.items() if name not in (*_PAGE_PARAMETERS, "start", "end")}
    check_known(filters, FILTERS)
    selected = {"start": format_time(span.since), "end": format_time(span.until), **filters}
    request = viewer.read_usage({**selected, "group_by": ",".join(groups), "rows": "groups"})
    return BillRequest(
        span=span,
        groups=groups,
        top=read_count(given, "top", DEFAULT_TOP, MAX_TOP),
        sort=read_choice(given, "sort", SORTS, SORTS[0]),
        format=read_choice(given, "format", FORMATS, FORMATS[0]),
        filters=filters,
        query=replace(request.query, asker=viewer.asker),
        before=_read_before(given.get("before")),
    )


def _read_before(text: str | None) -> str | None:
    if text is not None and not is_exact_time(text):
        raise BadRequest("before must be the start of an interval, such as 2026-11-01T00:00:00.000Z", param="before")
    return text


def _read_groups(given: Mapping[str, str], viewer: Viewer) -> tuple[str, ...]:
    default = "project" if viewer.is_operator else "model"
    groups = (given.get("group", default), given.get("subgroup"))
    named = tuple(dict.fromkeys(name for name in groups if name is not None))
    if any("," in name for name in named):
        raise BadRequest("group and subgroup each name one group", param="group")
    return named


def is_interval(group: str) -> bool:
    """Return True if a group is a length of time."""
    return group in set(Interval)
