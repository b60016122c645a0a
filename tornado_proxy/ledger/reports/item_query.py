"""Sums line items by kind from the sums by hour and day, and from the few records that they do not have.

    since ── records ── hours ── days ── hours ── records ── until

The parts of the time are those of rollup_query.py; a question that names people has the records of hours in place of
their sums, which are kept by day.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal

from tornado_proxy.ledger.database import Read
from tornado_proxy.ledger.reports.intervals import Interval
from tornado_proxy.ledger.reports.part_records import list_others, select_part
from tornado_proxy.ledger.reports.records_query import UsageFilter
from tornado_proxy.ledger.reports.rollup_query import (
    LENGTHS,
    Question,
    build_sums_where,
    check_not_pruned,
    find_attribute,
    is_rolled,
)
from tornado_proxy.ledger.reports.sums_state import read_state
from tornado_proxy.ledger.reports.time_parts import TimePart, keep_days, split_time
from tornado_proxy.ledger.reports.usage import Bounds, UsageQuery, UsageResult
from tornado_proxy.ledger.reports.usage_sums import SummedItem, SummedRow, UsageSums
from tornado_proxy.ledger.sums.item_rows import FIGURES, ITEMS, MILLI, SUMS, UNKNOWN_SHAPE, Kind, read_kinds
from tornado_proxy.ledger.sums.rollup_rows import ALL_PEOPLE, MICRO, REST_PLACES

_PER_ITEM = len(FIGURES) // ITEMS


def can_sum_items(read: Read, query: UsageQuery) -> bool:
    """Return True if sum_items() can answer a query."""
    which = query.which
    if query.group_rows or query.model is not None or query.annotations:
        return False  # a record is selected by the model that it names, too
    if not is_rolled(which, query.group_by) or find_attribute(which, query.group_by) is not None:
        return False
    return read_state(read).has_items(which.since) and not _has_unknown(read, query)


def _has_unknown(read: Read, query: UsageQuery) -> bool:
    """Return True if the time has records whose line items cannot be added."""
    since, until = query.which.since, query.which.until
    first = "" if since is None else f"{since[:10]}T00:00:00.000Z"
    sql = "SELECT 1 FROM item_sums WHERE span = ? AND shape = ? AND start >= ? AND start < ? LIMIT 1"
    return any(read(sql, ("day" + ALL_PEOPLE, UNKNOWN_SHAPE.ids[0], first, until or "~")))


def sum_items(read: Read, query: UsageQuery, bounds: Bounds) -> UsageResult:
    """Return the sums of line items; `read` must be of a snapshot.

    Raises:
        BadRequest: it takes longer than `bounds`, or there are too many groups.
    """
    sums = UsageSums(query, bounds)
    rolled = read_state(read).rolled
    shapes = {str(shape): read_kinds(str(kinds)) for shape, kinds in read("SELECT shape, kinds FROM item_shapes", ())}
    question = Question(query.which, query.column_groups, 0 if query.interval is None else LENGTHS[query.interval])
    parts = split_time(query.which.since, query.which.until, by_hour=query.interval is Interval.HOUR)
    for part in keep_days(parts) if question.names_people else parts:
        which = replace(query.which, since=part.since, until=part.until)
        if not part.span:
            check_not_pruned(read, which)
            sums.add_all(read(*select_part(query.columns, which, "", ())))
            continue
        for row in _read_part(read, replace(question, which=which), part):
            sums.add_summed(_make_row(row, shapes))
        for clause, values in list_others(read, which, rolled):
            sums.add_all(read(*select_part(query.columns, which, clause, values)))
    return sums.result()


def _read_part(read: Read, question: Question, part: TimePart) -> Iterator[Sequence[object]]:
    """Yield rows of the time, the groups, the basis, provider, model, shape, and SUMS.

    Sums are added by key first: all rows of a key have the same dimensions, so that one of them is looked up.
    """
    times, values = build_sums_where(UsageFilter(since=part.since, until=part.until))
    where, named = build_sums_where(replace(question.which, since=None, until=None))
    columns = ", ".join(("i.time", *question.name_rolled_columns()[0][1:], "provider", "model", "i.shape"))
    numbers = ", ".join(str(number + 1) for number in range(len(question.groups) + 5))
    sql = f"""
        WITH added AS (
            SELECT substr(s.start, 1, {question.length}) AS time, s.key, s.shape, s.span, max(s.start) AS start,
                {", ".join(f"sum(s.{name}) AS {name}" for name in SUMS)}
            FROM item_sums s WHERE {times} AND s.span = ? GROUP BY 1, 2, 3, 4
        )
        SELECT {columns}, {", ".join(f"sum(i.{name})" for name in SUMS)}
        FROM added i JOIN rollups s ON s.span = i.span AND s.start = i.start AND s.key = i.key
        WHERE {where} GROUP BY {numbers}
    """  # noqa: S608  # names of ours
    yield from read(sql, [*values, part.span if question.names_people else part.span + ALL_PEOPLE, *named])


#: The kinds of a shape, and the index of the first one that a row has.
_Shapes = Mapping[str, tuple[int, tuple[Kind, ...]]]


def _make_row(row: Sequence[object], shapes: _Shapes) -> SummedRow:
    values, (requests, *figures) = row[: -len(SUMS)], row[-len(SUMS) :]
    time, *group, basis, provider, model, shape = (None if value is None else str(value) for value in values)
    first, kinds = shapes[str(shape)]
    return SummedRow(
        started_at=str(time),
        provider=str(provider),
        model=model,
        basis=str(basis),
        group=group,
        requests=int(str(requests)),
        items=[_make_item(kind, number - first, figures) for number, kind in enumerate(kinds)],
        is_first=first == 0,
    )


def _make_item(kind: Kind, number: int, figures: Sequence[object]) -> SummedItem:
    """Return the sum of a kind, the `number`th of a row."""
    is_here = 0 <= number < ITEMS
    quantity = amount = Decimal(0)
    if is_here:
        some = figures[number * _PER_ITEM : (number + 1) * _PER_ITEM]
        milli, rest, micro, rest_2 = (int(str(figure)) for figure in some)
        quantity, amount = _join(milli * MILLI + rest), _join(micro * MICRO + rest_2)
    return SummedItem(kind.type, kind.model, kind.is_priced, quantity, amount, is_here)


def _join(digits: int) -> Decimal:
    """Return a number of 1e-12 as a decimal without zeros at its end."""
    places = REST_PLACES
    while places and digits % 10 == 0:
        digits, places = digits // 10, places - 1
    return Decimal(digits).scaleb(-places)
