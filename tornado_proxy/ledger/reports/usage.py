"""A query for usage, its result, and its limits; usage_sums.py computes the one from the other."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from tornado_proxy.domain.attribution import ATTRIBUTION_FIELDS
from tornado_proxy.domain.errors import BadRequest
from tornado_proxy.ledger.reports.intervals import Interval
from tornado_proxy.ledger.reports.records_query import (
    EXACT,
    OTHERS,
    UsageFilter,
    group_column,
)

#: The columns that rows can be grouped by, beside interval, provider, model and type.
GROUPS = ("participant", "user", "issuer", "room", "session", "endpoint", "basis", "provider_key", *ATTRIBUTION_FIELDS)

#: Further groups of GroupRow; a UsageRow has them anyway.
RECORD_GROUPS = ("provider", "model")

#: The columns that are selected of each record, in front of those of `UsageQuery.group_by`.
COLUMNS = ("started_at", "provider", "model", "model_requested", "basis", "annotations", "line_items")


@dataclass(frozen=True, slots=True)
class UsageQuery:
    """Selects records and line items, and says how to sum them.

    which: selects records.
    interval: the length of time of a row; None sums all times.
    group_by: names of GROUPS, `label.NAME` and `annotation.NAME`.
    model: selects line items of a model: the name of its price, of the response or of the request.
    type: selects line items of a type.
    annotations: selects records that have all of them.
    group_rows: True for a GroupRow for each group, else a UsageRow for each type of line item; `group_by` may then name
        RECORD_GROUPS too.
    told_apart: with group_rows, the values of the first group that have rows of their own, beside none at all; all
        others are one group, OTHERS.  None tells every value apart.
    asker: the caller who asks; each has a share of the reader.
    """

    which: UsageFilter
    interval: Interval | None = None
    group_by: tuple[str, ...] = ()
    model: str | None = None
    type: str | None = None
    annotations: tuple[tuple[str, str], ...] = ()
    group_rows: bool = False
    told_apart: tuple[str, ...] | None = None
    asker: str = ""

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns to select, as SQL."""
        return (*COLUMNS, *map(group_column, self.column_groups))

    @property
    def column_groups(self) -> tuple[str, ...]:
        """The groups that are columns of their own."""
        return tuple(name for name in self.group_by if name not in RECORD_GROUPS)

    def add_up_others(self, group: tuple[str | None, ...]) -> tuple[str | None, ...]:
        """Return the group of a row, which is OTHERS for a value that is not told apart."""
        if self.told_apart is None or not group or group[0] is None or group[0] in self.told_apart:
            return group
        return (OTHERS, *group[1:])


@dataclass(frozen=True, slots=True)
class UsageRow:
    """The sum of one type of line item in one group.

    The types `unsettled_requests` and `pending_requests` count requests whose cost is not known, or not known yet.

    start, end: the interval, RFC 3339 UTC text; `end` is exclusive.
    group: the values of `UsageQuery.group_by`.
    quantity: in the unit of the usage items, such as tokens.
    unpriced: the part of `quantity` that has no price, and is not in `total`.
    total: USD.
    """

    start: str | None
    end: str | None
    group: tuple[str | None, ...]
    provider: str
    model: str | None
    type: str
    requests: int
    quantity: Decimal
    unpriced: Decimal
    total: Decimal

    @property
    def key(self) -> tuple[str, ...]:
        """The identity of the row, which rows are sorted by."""
        parts = (self.start, *self.group, self.provider, self.model, self.type)
        return tuple("" if part is None else part for part in parts)


@dataclass(frozen=True, slots=True)
class GroupRow:
    """The sum of all requests of one group, in USD; the figures are those of records_query.UsageSum.

    start, end: the interval, RFC 3339 UTC text; `end` is exclusive.
    group: the values of `UsageQuery.group_by`.
    """

    start: str | None
    end: str | None
    group: tuple[str | None, ...]
    requests: int
    subtotal: Decimal
    surcharge: Decimal
    unsettled: int
    pending: int

    @property
    def total(self) -> Decimal:
        """The subtotal and the surcharge."""
        return EXACT.add(self.subtotal, self.surcharge)

    @property
    def key(self) -> tuple[str, ...]:
        """The identity of the row, which rows are sorted by."""
        return tuple("" if part is None else part for part in (self.start, *self.group))


@dataclass(frozen=True, slots=True)
class UsageResult:
    """Rows in the order of their keys, and their sum.

    unsettled: the number of requests whose cost is not known.
    pending: the number of requests whose cost the provider reports later.
    """

    rows: Sequence[UsageRow] | Sequence[GroupRow]
    requests: int
    total: Decimal
    unsettled: int
    pending: int


@dataclass
class Bounds:
    """The limits of one query: the number of records, and the deadline `until` (monotonic seconds)."""

    records: int
    until: float

    def is_over(self) -> bool:
        """Return True after the deadline."""
        return time.monotonic() > self.until


def too_much_usage() -> BadRequest:
    """Return the error of a query that takes too long or selects too many records."""
    return BadRequest(
        "too much usage for one response; request a shorter time with start and end, fewer groups, or one participant, "
        "room or model",
        code="too_much_usage",
    )
