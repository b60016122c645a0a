"""Sums the line items of records: the query, its result, and the arithmetic between them.

A reader selects `UsageQuery.columns` and passes the rows to sum_usage().  Amounts are decimals as text, which the SQL
of SQLite does not add exactly, so they are added here.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

import msgspec

from tornado_proxy.domain.attribution import ATTRIBUTION_FIELDS
from tornado_proxy.domain.cost import SURCHARGE
from tornado_proxy.domain.errors import BadRequest
from tornado_proxy.domain.usage import Basis
from tornado_proxy.ledger.reports.intervals import Interval, find_interval_end, find_interval_start
from tornado_proxy.ledger.reports.records_query import (
    EXACT,
    OTHERS,
    UsageFilter,
    add_exactly,
    fold_group,
    group_column,
)

#: The columns that rows can be grouped by, beside interval, provider, model and type.
GROUPS = ("participant", "user", "issuer", "room", "session", "endpoint", "basis", "provider_key", *ATTRIBUTION_FIELDS)

#: Further groups of GroupRow; a UsageRow has them anyway.
RECORD_GROUPS = ("provider", "model")

#: The columns that are selected of each record, in front of those of `UsageQuery.group_by`.
COLUMNS = ("started_at", "provider", "model", "model_requested", "basis", "annotations", "line_items")

#: Groups of one result: some 50 MB while it is computed.
_MAX_GROUPS = 100_000

#: Records between two checks of the deadline: some milliseconds of work.
_RECORDS_PER_CHECK = 500

_ZERO = Decimal(0)


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


def sum_usage(rows: Iterable[Sequence[str | None]], query: UsageQuery, bounds: Bounds) -> UsageResult:
    """Return the sums of rows of `query.columns`.

    Raises:
        BadRequest: `rows` exceed `bounds`.
    """
    sums = _Sums(query)
    for number, row in enumerate(rows):
        if number % _RECORDS_PER_CHECK == 0 and bounds.is_over():
            raise too_much_usage()
        if number >= bounds.records or len(sums.sums) + len(sums.group_sums) > _MAX_GROUPS:
            raise too_much_usage()
        sums.add(row)
    return sums.result()


class _Item(msgspec.Struct):
    type: str
    quantity: str
    amount: str | None = None
    model: str | None = None


_decode = msgspec.json.Decoder(list[_Item]).decode
_decode_annotations = msgspec.json.Decoder(dict[str, str]).decode

_Key = tuple[str | None, tuple[str | None, ...], str, str | None, str]


@dataclass(slots=True)
class _Sum:
    requests: int = 0
    last_request: int = 0  # the number of the request that was added last
    quantity: Decimal = _ZERO
    unpriced: Decimal = _ZERO
    total: Decimal = _ZERO

    def add(self, item: _Item, request: int) -> None:
        # A request may have several line items of one type, and counts once.
        if request != self.last_request:
            self.requests += 1
            self.last_request = request
        quantity = Decimal(item.quantity)
        self.quantity = EXACT.add(self.quantity, quantity)
        if item.amount is None:
            self.unpriced = EXACT.add(self.unpriced, quantity)
        else:
            self.total = EXACT.add(self.total, Decimal(item.amount))


@dataclass(slots=True)
class _GroupSum:
    requests: int = 0
    subtotal: Decimal = _ZERO
    surcharge: Decimal = _ZERO
    unsettled: int = 0
    pending: int = 0

    def add(self, items: Iterable[_Item], basis: str | None) -> None:
        self.requests += 1
        self.unsettled += basis == Basis.UNSETTLED
        self.pending += basis == Basis.PENDING
        for item in items:
            amount = _ZERO if item.amount is None else Decimal(item.amount)
            if item.type == SURCHARGE:
                self.surcharge = EXACT.add(self.surcharge, amount)
            else:
                self.subtotal = EXACT.add(self.subtotal, amount)


@dataclass(slots=True)
class _Sums:
    query: UsageQuery
    sums: dict[_Key, _Sum] = field(default_factory=dict)
    group_sums: dict[tuple[str | None, tuple[str | None, ...]], _GroupSum] = field(default_factory=dict)
    requests: int = 0
    unsettled: int = 0
    pending: int = 0

    def add(self, row: Sequence[str | None]) -> None:
        started_at, provider, model, requested, basis, annotations, line_items, *group = row
        assert started_at is not None
        assert provider is not None
        if not self._is_annotated(annotations):
            return
        items = [*_decode(line_items or "[]"), *_list_uncosted_items(basis)]
        if self.query.group_rows and self.query.model not in (None, model or requested):
            return
        matches_model = self.query.model in (None, model, requested)
        selected = self._select(items, model or requested, any_model=matches_model)
        # A request without line items is free, and is counted unless the query selects by other items.
        if not selected and (items or not matches_model or self.query.type is not None):
            return
        self.requests += 1
        self.unsettled += basis == Basis.UNSETTLED
        self.pending += basis == Basis.PENDING
        start = find_interval_start(self.query.interval, started_at)
        values = fold_group(group, self.query.column_groups)
        if self.query.group_rows:
            self._add_to_group(start, self._group_values(values, provider, model or requested), selected, basis)
            return
        for name, item in selected:
            key: _Key = (start, values, provider, name, item.type)
            total = self.sums.get(key)
            if total is None:
                total = self.sums[key] = _Sum()
            total.add(item, self.requests)

    def _group_values(
        self, columns: tuple[str | None, ...], provider: str, model: str | None
    ) -> tuple[str | None, ...]:
        found = {**dict(zip(self.query.column_groups, columns, strict=True)), "provider": provider, "model": model}
        return self.query.add_up_others(tuple(found[name] for name in self.query.group_by))

    def _add_to_group(
        self,
        start: str | None,
        values: tuple[str | None, ...],
        selected: Sequence[tuple[str | None, _Item]],
        basis: str | None,
    ) -> None:
        group_sum = self.group_sums.setdefault((start, values), _GroupSum())
        group_sum.add((item for _, item in selected), basis)

    def _is_annotated(self, annotations: str | None) -> bool:
        required = self.query.annotations
        return not required or (annotations is not None and set(required) <= _decode_annotations(annotations).items())

    def _select(self, items: Sequence[_Item], model: str | None, *, any_model: bool) -> list[tuple[str | None, _Item]]:
        """Return the line items that the query selects, each with its model.

        The surcharge names no model.  It has the model of the other items, or `model` if they have several.
        """
        models = {item.model for item in items if item.model is not None}
        default = models.pop() if len(models) == 1 else model
        named = [(item.model or default, item) for item in items]
        return [
            (name, item)
            for name, item in named
            if (any_model or name == self.query.model) and self.query.type in (None, item.type)
        ]

    def result(self) -> UsageResult:
        rows = self._group_rows() if self.query.group_rows else self._item_rows()
        return UsageResult(rows, self.requests, add_exactly([row.total for row in rows]), self.unsettled, self.pending)

    def _group_rows(self) -> list[GroupRow]:
        rows = [
            GroupRow(
                start=start,
                end=find_interval_end(self.query.interval, start),
                group=group,
                requests=group_sum.requests,
                subtotal=group_sum.subtotal,
                surcharge=group_sum.surcharge,
                unsettled=group_sum.unsettled,
                pending=group_sum.pending,
            )
            for (start, group), group_sum in self.group_sums.items()
        ]
        return sorted(rows, key=lambda row: row.key)

    def _item_rows(self) -> list[UsageRow]:
        rows = [
            UsageRow(
                start=start,
                end=find_interval_end(self.query.interval, start),
                group=group,
                provider=provider,
                model=model,
                type=item_type,
                requests=total.requests,
                quantity=total.quantity,
                unpriced=total.unpriced,
                total=total.total,
            )
            for (start, group, provider, model, item_type), total in self.sums.items()
        ]
        return sorted(rows, key=lambda row: row.key)


def _list_uncosted_items(basis: str | None) -> tuple[_Item, ...]:
    """Return a line item for a request whose cost is not known, so that every report shows it."""
    return (_Item(f"{basis}_requests", "1"),) if basis in (Basis.UNSETTLED, Basis.PENDING) else ()
