"""Sums the line items of records, and sums of line items.

A reader selects `UsageQuery.columns` and passes the rows to sum_usage().  Amounts are decimals as text, which the SQL
of SQLite does not add exactly, so they are added here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TypeVar

from tornado_proxy.domain.cost import SURCHARGE
from tornado_proxy.domain.usage import Basis
from tornado_proxy.ledger.reports.intervals import find_interval_end, find_interval_start
from tornado_proxy.ledger.reports.records_query import EXACT, add_exactly, fold_group, has_annotations
from tornado_proxy.ledger.reports.usage import (
    Bounds,
    GroupRow,
    UsageQuery,
    UsageResult,
    UsageRow,
    too_much_usage,
)
from tornado_proxy.ledger.sums.item_rows import Item, decode_items

#: Groups of one result: some 50 MB while it is computed.
_MAX_GROUPS = 100_000

#: Records between two checks of the deadline: some milliseconds of work.
_RECORDS_PER_CHECK = 500

_ZERO = Decimal(0)


def sum_usage(rows: Iterable[Sequence[str | None]], query: UsageQuery, bounds: Bounds) -> UsageResult:
    """Return the sums of rows of `query.columns`.

    Raises:
        BadRequest: `rows` exceed `bounds`.
    """
    sums = UsageSums(query, bounds)
    sums.add_all(rows)
    return sums.result()


_Key = tuple[str | None, tuple[str | None, ...], str, str | None, str]


@dataclass(slots=True)
class _Sum:
    requests: int = 0
    last_request: int = 0  # the number of the request that was added last
    quantity: Decimal = _ZERO
    unpriced: Decimal = _ZERO
    total: Decimal = _ZERO

    def add(self, item: Item, request: int) -> None:
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

    def add_summed(self, item: SummedItem, requests: int) -> None:
        self.requests += requests
        self.quantity = EXACT.add(self.quantity, item.quantity)
        if item.is_priced:
            self.total = EXACT.add(self.total, item.amount)
        else:
            self.unpriced = EXACT.add(self.unpriced, item.quantity)


@dataclass(slots=True)
class _GroupSum:
    requests: int = 0
    subtotal: Decimal = _ZERO
    surcharge: Decimal = _ZERO
    unsettled: int = 0
    pending: int = 0

    def add(self, items: Iterable[Item], basis: str | None) -> None:
        self.requests += 1
        self.unsettled += basis == Basis.UNSETTLED
        self.pending += basis == Basis.PENDING
        for item in items:
            amount = _ZERO if item.amount is None else Decimal(item.amount)
            if item.type == SURCHARGE:
                self.surcharge = EXACT.add(self.surcharge, amount)
            else:
                self.subtotal = EXACT.add(self.subtotal, amount)


@dataclass(frozen=True, slots=True)
class SummedItem:
    """The sum of the line items of one kind.

    is_here: False for a kind that another row with the same kinds has.
    """

    type: str
    model: str | None
    is_priced: bool
    quantity: Decimal
    amount: Decimal
    is_here: bool = True


@dataclass(frozen=True, slots=True)
class SummedRow:
    """The sum of requests that have the same kinds of line items.

    started_at: the start of their time, or its first characters.
    model: that of the response, or of the request.
    group: the values of `UsageQuery.column_groups`.
    is_first: False if another row counts the requests.
    """

    started_at: str
    provider: str
    model: str | None
    basis: str
    group: Sequence[str | None]
    requests: int
    items: Sequence[SummedItem]
    is_first: bool


@dataclass(slots=True)
class UsageSums:
    """Adds up records, and sums of records, up to the limits of a query."""

    query: UsageQuery
    bounds: Bounds
    rows: int = 0
    sums: dict[_Key, _Sum] = field(default_factory=dict)
    group_sums: dict[tuple[str | None, tuple[str | None, ...]], _GroupSum] = field(default_factory=dict)
    requests: int = 0
    unsettled: int = 0
    pending: int = 0

    def add_all(self, rows: Iterable[Sequence[str | None]]) -> None:
        """Add records: rows of `query.columns`.

        Raises:
            BadRequest: they exceed the limits.
        """
        for row in rows:
            self._count()
            self._add(row)

    def _count(self) -> None:
        if self.rows % _RECORDS_PER_CHECK == 0 and self.bounds.is_over():
            raise too_much_usage()
        if self.rows >= self.bounds.records or len(self.sums) + len(self.group_sums) > _MAX_GROUPS:
            raise too_much_usage()
        self.rows += 1

    def add_summed(self, row: SummedRow) -> None:
        """Add a sum of records of a query for line items that names no model and no annotations.

        Raises:
            BadRequest: it exceeds the limits.
        """
        self._count()
        uncosted = [
            SummedItem(
                item.type, None, is_priced=False, quantity=Decimal(row.requests), amount=_ZERO, is_here=row.is_first
            )
            for item in _list_uncosted_items(row.basis)
        ]
        items = [*row.items, *uncosted]
        selected = _select(items, row.model, self.query.type)
        if not selected and (items or self.query.type is not None):
            return
        if row.is_first:
            self._count_requests(row.basis, row.requests)
        start = find_interval_start(self.query.interval, row.started_at)
        values = fold_group(row.group, self.query.column_groups)
        counted: set[tuple[str | None, str]] = set()
        for name, item in selected:
            # A request may have several kinds of one type and model, and counts once.
            is_counted = (name, item.type) in counted or not item.is_here
            counted.add((name, item.type))
            if item.is_here:
                total = self._find_sum((start, values, row.provider, name, item.type))
                total.add_summed(item, 0 if is_counted else row.requests)

    def _count_requests(self, basis: str | None, requests: int = 1) -> None:
        self.requests += requests
        self.unsettled += requests * (basis == Basis.UNSETTLED)
        self.pending += requests * (basis == Basis.PENDING)

    def _find_sum(self, key: _Key) -> _Sum:
        total = self.sums.get(key)
        if total is None:
            total = self.sums[key] = _Sum()
        return total

    def _add(self, row: Sequence[str | None]) -> None:
        started_at, provider, model, requested, basis, annotations, line_items, *group = row
        assert started_at is not None
        assert provider is not None
        if self.query.annotations and not has_annotations(annotations, self.query.annotations):
            return
        items = [*decode_items(line_items or "[]"), *_list_uncosted_items(basis)]
        if self.query.group_rows and self.query.model not in (None, model or requested):
            return
        matches_model = self.query.model in (None, model, requested)
        selected = _select(items, model or requested, self.query.type, None if matches_model else self.query.model)
        # A request without line items is free, and is counted unless the query selects by other items.
        if not selected and (items or not matches_model or self.query.type is not None):
            return
        self._count_requests(basis)
        start = find_interval_start(self.query.interval, started_at)
        values = fold_group(group, self.query.column_groups)
        if self.query.group_rows:
            self._add_to_group(start, self._group_values(values, provider, model or requested), selected, basis)
            return
        for name, item in selected:
            self._find_sum((start, values, provider, name, item.type)).add(item, self.requests)

    def _group_values(
        self, columns: tuple[str | None, ...], provider: str, model: str | None
    ) -> tuple[str | None, ...]:
        found = {**dict(zip(self.query.column_groups, columns, strict=True)), "provider": provider, "model": model}
        return self.query.add_up_others(tuple(found[name] for name in self.query.group_by))

    def _add_to_group(
        self,
        start: str | None,
        values: tuple[str | None, ...],
        selected: Sequence[tuple[str | None, Item]],
        basis: str | None,
    ) -> None:
        group_sum = self.group_sums.setdefault((start, values), _GroupSum())
        group_sum.add((item for _, item in selected), basis)

    def result(self) -> UsageResult:
        """Return the rows, and their sum."""
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


_AnyItem = TypeVar("_AnyItem", Item, SummedItem)


def _select(
    items: Sequence[_AnyItem], model: str | None, item_type: str | None, item_model: str | None = None
) -> list[tuple[str | None, _AnyItem]]:
    """Return the line items of a type and a model, each with its model; None is any.

    The surcharge names no model.  It has the model of the other items, or `model` if they have several.
    """
    models = {item.model for item in items if item.model is not None}
    default = models.pop() if len(models) == 1 else model
    named = [(item.model or default, item) for item in items]
    return [(name, item) for name, item in named if item_model in (None, name) and item_type in (None, item.type)]


def _list_uncosted_items(basis: str | None) -> tuple[Item, ...]:
    """Return a line item for a request whose cost is not known, so that every report shows it."""
    return (Item(f"{basis}_requests", "1"),) if basis in (Basis.UNSETTLED, Basis.PENDING) else ()
