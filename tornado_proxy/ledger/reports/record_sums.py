"""Sums records by group, from the sums by hour and day as far as they can answer."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from decimal import Decimal

from tornado_proxy.domain.usage import Basis
from tornado_proxy.ledger.database import Backend, Read
from tornado_proxy.ledger.reports.intervals import find_interval_end, find_interval_start
from tornado_proxy.ledger.reports.records_query import (
    ANNOTATION_PREFIX,
    EXACT,
    UsageFilter,
    UsageSum,
    add_exactly,
    build_where,
    fold_group,
    group_column,
    has_annotations,
)
from tornado_proxy.ledger.reports.rollup_query import PartialSum, check_not_pruned, is_rolled, read_sums
from tornado_proxy.ledger.reports.usage import Bounds, GroupRow, UsageQuery, UsageResult, too_much_usage

#: Sums between two checks of the deadline.
_SUMS_PER_CHECK = 500


def sum_records(
    backend: Backend, which: UsageFilter, group_by: Sequence[str], *, use_sums: bool = True
) -> list[UsageSum]:
    """Return exact sums by group (names of records_query.GROUPS), in the order of the groups.

    Args:
        backend: the database.
        which: selects the records.
        group_by: the names of the groups.
        use_sums: False reads every record.

    Raises:
        LedgerUnavailable: the ledger does not exist, cannot be read, is another program's database, or does not have
            the records any more that the question needs.
    """
    running: defaultdict[tuple[str | None, ...], _RunningSum] = defaultdict(_RunningSum)
    with backend.read(snapshot=True) as read:
        rolled = use_sums and is_rolled(which, group_by)
        for part in read_sums(read, which, group_by) if rolled else _read_each(read, which, group_by):
            running[fold_group(part.columns, group_by)].add(part)
    ordered = sorted(running.items(), key=lambda item: tuple("" if part is None else part for part in item[0]))
    return [total.result(group) for group, total in ordered if total.requests]


def can_use_sums(query: UsageQuery) -> bool:
    """Return True if sum_groups() can answer a query."""
    is_plain = query.group_rows and query.type is None and query.which.model is None
    return is_plain and is_rolled(query.which, _list_groups(query))


def _list_groups(query: UsageQuery) -> tuple[str, ...]:
    """Return the groups of the sums; if requests are selected by annotations, the last one has all of these."""
    return (*query.group_by, f"{ANNOTATION_PREFIX}*") if query.annotations else query.group_by


def sum_groups(read: Read, query: UsageQuery, bounds: Bounds) -> UsageResult:
    """Return the sums of a query from the sums by hour and day; `read` must be of a snapshot.

    Raises:
        BadRequest: it takes longer than `bounds`.
    """
    sums: defaultdict[tuple[str | None, tuple[str | None, ...]], _RunningSum] = defaultdict(_RunningSum)
    which = replace(query.which, model=query.model)
    for number, part in enumerate(read_sums(read, which, _list_groups(query), query.interval, query.told_apart)):
        if number % _SUMS_PER_CHECK == 0 and bounds.is_over():
            raise too_much_usage()
        if query.annotations and not has_annotations(part.columns[-1], query.annotations):
            continue
        start = find_interval_start(query.interval, part.time)
        group = fold_group(part.columns[: len(query.group_by)], query.group_by)
        sums[start, query.add_up_others(group)].add(part)
    rows = [
        GroupRow(
            start=start,
            end=find_interval_end(query.interval, start),
            group=group,
            requests=total.requests,
            subtotal=total.subtotal,
            surcharge=total.surcharge,
            unsettled=total.unsettled,
            pending=total.pending,
        )
        for (start, group), total in sums.items()
        if total.requests
    ]
    return UsageResult(
        sorted(rows, key=lambda row: row.key),
        sum(row.requests for row in rows),
        add_exactly([row.total for row in rows]),
        sum(row.unsettled for row in rows),
        sum(row.pending for row in rows),
    )


def _read_each(read: Read, which: UsageFilter, group_by: Sequence[str]) -> Iterator[PartialSum]:
    check_not_pruned(read, which)
    where, values = build_where(which)
    # Amounts are decimals as text.  SUM() of SQL would convert them to binary floating point in SQLite.
    columns = ", ".join((*map(group_column, group_by), "subtotal", "surcharge", "basis"))
    for *group, subtotal, surcharge, basis in read(f"SELECT {columns} FROM bills {where}", values):  # noqa: S608
        yield PartialSum("", tuple(group), basis, 1, Decimal(subtotal), Decimal(surcharge))


class _RunningSum:
    __slots__ = ("pending", "requests", "subtotal", "surcharge", "unsettled")

    def __init__(self) -> None:
        self.requests = self.unsettled = self.pending = 0
        self.subtotal = self.surcharge = Decimal(0)

    def add(self, part: PartialSum) -> None:
        self.requests += part.requests
        self.subtotal = EXACT.add(self.subtotal, part.subtotal)
        self.surcharge = EXACT.add(self.surcharge, part.surcharge)
        self.unsettled += part.requests * (part.basis == Basis.UNSETTLED)
        self.pending += part.requests * (part.basis == Basis.PENDING)

    def result(self, group: tuple[str | None, ...]) -> UsageSum:
        total = EXACT.add(self.subtotal, self.surcharge)
        return UsageSum(group, self.requests, self.subtotal, self.surcharge, total, self.unsettled, self.pending)
