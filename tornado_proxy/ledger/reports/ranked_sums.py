"""Ranks groups in the database: one statement adds up sums by hour and day, ranks the groups and adds up the others.

    sums of days, hours of the time ─────────────────┐
    sums of days, hours of the time before ──────────┼─> sum of each group ─> rank ─> the first ones, and all others
    records that the sums do not have, as JSON ──────┘

So a bill of 20,000 end users reads 21 rows.  Amounts are whole numbers, in micro-dollars and 1e-12 dollars, and groups
are compared by both after the second is carried to the first: the order is that of the exact amounts.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from tornado_proxy.ledger.database import Read
from tornado_proxy.ledger.dialect import BoundStatement, Dialect
from tornado_proxy.ledger.reports.ranking import Names, RankedGroup, RankedQuery, Ranking, add_rows
from tornado_proxy.ledger.reports.records_query import UsageFilter, fold_group, is_named_group
from tornado_proxy.ledger.reports.rollup_query import (
    ATTRIBUTE_JOIN,
    OF_BASIS,
    PartialSum,
    Question,
    build_sums_where,
    check_not_pruned,
    choose_span,
    find_attribute,
    is_alone,
    read_others,
    read_part_records,
)
from tornado_proxy.ledger.reports.sums_state import SumsState, read_state
from tornado_proxy.ledger.reports.time_parts import keep_days, split_time
from tornado_proxy.ledger.reports.usage import GroupRow
from tornado_proxy.ledger.sums.rollup_rows import ALL_PEOPLE, MICRO, SUMS, UNKNOWN_COSTS, join_amount, split_amount

#: The figures of a group: those of the time, then those of the time that is compared.
_NOW = (*SUMS, "unsettled", "pending")
_BEFORE = ("earlier_requests", "earlier_micro", "earlier_rest", "earlier_places")
_FIGURES = (*_NOW, *_BEFORE)

#: Each of _FIGURES with the function that adds it up.
_TOTALS = [(name, "max" if name.endswith("_places") else "sum") for name in _FIGURES]


def can_rank(read: Read, query: RankedQuery) -> bool:
    """Return True if rank_sums() can answer a query that the sums can answer (record_sums.can_use_sums)."""
    groups = query.query.group_by
    # The values of labels and annotations are in the text of all of them.
    if not groups or query.query.annotations or any(is_named_group(name) for name in groups):
        return False
    if find_attribute(query.query.which, groups) is None:
        return True
    state = read_state(read)
    return all(state.has_details(which.since) for which in (query.query.which, query.previous))


def rank_sums(read: Read, dialect: Dialect, query: RankedQuery) -> Ranking:
    """Return the ranking of the groups of a query over its whole time; `read` must be of a snapshot."""
    arms = _Arms(dialect, query.query.group_by)
    state = read_state(read)
    spans = [(query.query.which, False)]
    if query.query.interval is None:
        spans.append((query.previous, True))
    for which, is_earlier in spans:
        narrowed = replace(which, model=query.query.model)
        arms.add_time(read, state, narrowed, is_earlier=is_earlier)
    sql, values = arms.build(query)
    return _make_ranking(read(sql, values), query)


@dataclass(slots=True)
class _Arms:
    """The SELECTs whose rows are added up: the groups, then _FIGURES.

    attribute: the group that is an attribute of requests, if its values are told apart.
    stated: SELECTs of the requests that have the attribute, with their parameters.
    totals: all other SELECTs, with their parameters; of all requests as those without the attribute if there is one.
    records: rows of the requests that the sums do not have.
    """

    dialect: Dialect
    groups: tuple[str, ...]
    attribute: str | None = None
    stated: list[BoundStatement] = field(default_factory=list)
    totals: list[BoundStatement] = field(default_factory=list)
    records: list[list[object]] = field(default_factory=list)

    def add_time(self, read: Read, state: SumsState, which: UsageFilter, *, is_earlier: bool) -> None:
        """Add all requests of a filter."""
        attribute = find_attribute(which, self.groups)
        parts = split_time(which.since, which.until, by_hour=False)
        records: list[PartialSum] = []
        for part in keep_days(parts) if attribute is not None else parts:
            narrowed = Question(replace(which, since=part.since, until=part.until), self.groups, 0)
            if not part.span:
                check_not_pruned(read, narrowed.which)
                records += read_part_records(read, narrowed, "", ())
                continue
            if attribute is None:
                self._add_totals(narrowed, choose_span(part, narrowed, state), is_earlier=is_earlier)
            else:
                self._add_attribute(narrowed, attribute, is_earlier=is_earlier)
            records += read_others(read, narrowed, state.rolled)
        self.records += _sum_records(records, self.groups, is_earlier=is_earlier)

    def _add_totals(self, question: Question, span: str, *, is_earlier: bool) -> None:
        where, values = build_sums_where(question.which)
        names, _ = question.name_rolled_columns()
        columns = _replace(self.groups, names[1:-1], self.attribute)
        figures = _name_figures("basis = '{}'", is_earlier=is_earlier)
        sql = f"SELECT {', '.join((*columns, *figures))} FROM rollups s WHERE {where} AND span = ?"  # noqa: S608
        self.totals.append((sql, [*values, span]))

    def _add_attribute(self, question: Question, attribute: str, *, is_earlier: bool) -> None:
        """Add the sums by an attribute and of the requests without it, or the sums of one value of it."""
        value = getattr(question.which, attribute)
        selected = replace(question, which=replace(question.which, **{attribute: None}))
        statement = self._select_stated(selected, attribute, value, is_earlier=is_earlier)
        if value is not None:
            self.totals.append(statement)
            return
        self.stated.append(statement)
        self.attribute = attribute
        rest = replace(selected, groups=tuple(group for group in self.groups if group != attribute))
        self._add_totals(selected, "day" if rest.names_people else "day" + ALL_PEOPLE, is_earlier=is_earlier)

    def _select_stated(
        self, question: Question, attribute: str, value: str | None, *, is_earlier: bool
    ) -> BoundStatement:
        """Return the SELECT of the requests that have an attribute, or this value of it."""
        where, values = build_sums_where(question.which)
        names, _ = question.name_rolled_columns(attribute)
        needs_join = not is_alone(question, attribute)
        figures = _name_figures("basis = '{}'" if needs_join else OF_BASIS, is_earlier=is_earlier)
        condition = f"{where} AND s.name = ?{'' if value is None else ' AND s.value = ?'}"
        columns = ", ".join((*names[1:-1], *figures))
        sql = f"SELECT {columns} FROM attribute_sums s {ATTRIBUTE_JOIN if needs_join else ''} WHERE {condition}"  # noqa: S608
        return sql, [*values, attribute, *([] if value is None else [value])]

    def build(self, query: RankedQuery) -> BoundStatement:
        """Return the statement."""
        texts = [self.dialect.json_text.format(number) for number in range(len(self.groups))]
        numbers = [self.dialect.json_text.format(len(texts) + number) for number in range(len(_FIGURES))]
        columns = (*texts, *(f"CAST({text} AS BIGINT)" for text in numbers))
        records = (f"SELECT {', '.join(columns)} FROM {self.dialect.json_rows}", [json.dumps(self.records)])  # noqa: S608
        names = [f"g{number}" for number in range(len(self.groups))]
        parts = [*self.totals, records]
        tables = ""
        if self.stated:
            tables = _add_up("stated", [sql for sql, _ in self.stated], names) + ","
            without = ", ".join(_replace(self.groups, names, self.attribute))
            less = ", ".join(name if name.endswith("_places") else f"-{name}" for name in _FIGURES)
            # The requests without the attribute are all requests, less those that have it.
            parts += [("SELECT * FROM stated", []), (f"SELECT {without}, {less} FROM stated", [])]  # noqa: S608
        sql = _rank(tables + _add_up("sums", [sql for sql, _ in parts], names), names, query)
        return sql, [value for _, values in (*self.stated, *parts) for value in values]


def _replace(groups: Sequence[str], columns: Sequence[str], attribute: str | None) -> list[str]:
    """Return the columns of groups with NULL for an attribute."""
    pairs = zip(groups, columns, strict=True)
    return ["CAST(NULL AS TEXT)" if group == attribute else column for group, column in pairs]


def _add_up(name: str, selects: Sequence[str], groups: Sequence[str]) -> str:
    """Return SQL of a table of WITH that has the sum of each group of `selects`."""
    keys = ", ".join(groups)
    sums = ", ".join(f"CAST({total}({figure}) AS BIGINT) AS {figure}" for figure, total in _TOTALS)
    return f"""
        {name}_rows ({keys}, {", ".join(_FIGURES)}) AS ({" UNION ALL ".join(selects)}),
        {name} AS (SELECT {keys}, {sums} FROM {name}_rows GROUP BY {keys})
    """  # noqa: S608  # names of ours


def _name_figures(test: str, *, is_earlier: bool) -> list[str]:
    """Return SQL of _FIGURES of a row of sums.

    Args:
        test: SQL of the condition of a basis, with a place for it.
        is_earlier: True for the time that is compared.
    """
    if is_earlier:
        places = "CASE WHEN s.subtotal_places > s.surcharge_places THEN s.subtotal_places ELSE s.surcharge_places END"
        amounts = [f"s.subtotal_{unit} + s.surcharge_{unit}" for unit in ("micro", "rest")]
        return ["0"] * len(_NOW) + ["s.requests", *amounts, places]
    counts = [f"CASE WHEN {test.format(basis.value)} THEN s.requests ELSE 0 END" for basis in UNKNOWN_COSTS]
    return [*(f"s.{name}" for name in SUMS), *counts, *["0"] * len(_BEFORE)]


def _sum_records(records: Iterable[PartialSum], groups: Sequence[str], *, is_earlier: bool) -> list[list[object]]:
    """Return rows of the groups and _FIGURES of records."""
    found: defaultdict[Names, list[GroupRow]] = defaultdict(list)
    for each in records:
        counts = [each.requests * (each.basis == basis) for basis in UNKNOWN_COSTS]
        group = fold_group(each.columns, groups)
        found[group].append(GroupRow(None, None, group, each.requests, each.subtotal, each.surcharge, *counts))
    return [[*group, *_list_figures(add_rows(rows, group), is_earlier=is_earlier)] for group, rows in found.items()]


def _list_figures(row: GroupRow, *, is_earlier: bool) -> list[int]:
    if is_earlier:
        return [*[0] * len(_NOW), row.requests, *split_amount(row.total)]
    amounts = (*split_amount(row.subtotal), *split_amount(row.surcharge))
    return [row.requests, *amounts, row.unsettled, row.pending, *[0] * len(_BEFORE)]


def _rank(tables: str, names: Sequence[str], query: RankedQuery) -> str:
    """Return SQL of the ranking of the table `sums`: place, groups, _FIGURES, groups in it, those with requests now.

    The last place is that of all groups beyond the first ones.
    """
    micro, rest = (
        f"subtotal_{unit} + surcharge_{unit}" + (f" - earlier_{unit}" if query.by_change else "")
        for unit in ("micro", "rest")
    )
    # The rest as a number from 0 to 999,999: division rounds towards 0.
    whole = f"rest / {MICRO} * {MICRO}"
    remainder = f"rest - {whole} + CASE WHEN rest < {whole} THEN {MICRO} ELSE 0 END"
    weight = ["whole", "part"]
    if query.by_change:
        weight = [
            "CASE WHEN whole >= 0 THEN whole WHEN part > 0 THEN -whole - 1 ELSE -whole END",
            f"CASE WHEN whole >= 0 OR part = 0 THEN part ELSE {MICRO} - part END",
        ]
    order = ", ".join((*(f"{each} DESC" for each in weight), *(f"coalesce({name}, '')" for name in names)))
    shown = f"place <= {query.top}"
    return f"""
        WITH {tables},
        amounts AS (
            SELECT *, {micro} AS micro, {rest} AS rest FROM sums WHERE requests > 0 OR earlier_requests > 0
        ),
        weights AS (SELECT *, micro + (rest - ({remainder})) / {MICRO} AS whole, {remainder} AS part FROM amounts),
        places AS (SELECT *, row_number() OVER (ORDER BY {order}) AS place FROM weights)
        SELECT CASE WHEN {shown} THEN place ELSE {query.top + 1} END,
            {", ".join(f"CASE WHEN {shown} THEN {name} END" for name in names)},
            {", ".join(f"{total}({name})" for name, total in _TOTALS)},
            count(*), sum(CASE WHEN requests > 0 THEN 1 ELSE 0 END)
        FROM places GROUP BY {", ".join(str(number + 1) for number in range(len(names) + 1))} ORDER BY 1
    """  # noqa: S608  # names of ours


def _make_ranking(rows: Iterator[Sequence[object]], query: RankedQuery) -> Ranking:
    groups: list[RankedGroup] = []
    number = len(query.query.group_by)
    for place, *row in rows:
        names: Names = tuple(None if name is None else str(name) for name in row[:number])
        figures = [int(str(value)) for value in row[number:]]
        is_shown = int(str(place)) <= query.top
        each = _make_group(names if is_shown else (), figures)
        if not is_shown:
            return Ranking(tuple(groups), each, *figures[-2:])
        groups.append(each)
    return Ranking(tuple(groups))


def _make_group(group: Names, figures: Sequence[int]) -> RankedGroup:
    requests, micro, rest, places, micro_2, rest_2, places_2, unsettled, pending, _, *earlier = figures[: len(_FIGURES)]
    subtotal, surcharge = join_amount(micro, rest, places), join_amount(micro_2, rest_2, places_2)
    row = GroupRow(None, None, group, requests, subtotal, surcharge, unsettled, pending)
    return RankedGroup(row, join_amount(*earlier))
