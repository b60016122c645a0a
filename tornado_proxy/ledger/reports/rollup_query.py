"""Answers questions about sums from the sums by hour and day, and from the few records that they do not have.

    since ── records ── hours ── days ── hours ── records ── until
                        └── with the records after the cursor, pending ones and lost requests ──┘

Every record is in one of these parts only, so that the answer is that of reading all records, to the last digit.

A question that names no people is answered from the sums without people, which are few.  One by an attribute is
answered from the sums of the attribute by day; the requests that do not have it are the difference to all requests.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal

from tornado_proxy.domain.errors import LedgerUnavailable
from tornado_proxy.domain.usage import Basis
from tornado_proxy.ledger.changes import Position
from tornado_proxy.ledger.database import Read
from tornado_proxy.ledger.reports.intervals import Interval
from tornado_proxy.ledger.reports.part_records import list_others, select_part
from tornado_proxy.ledger.reports.records_query import (
    ANNOTATION_PREFIX,
    LABEL_PREFIX,
    OTHERS,
    UsageFilter,
    build_where,
    group_column,
    is_named_group,
)
from tornado_proxy.ledger.reports.sums_state import SumsState, has_attribute, read_state
from tornado_proxy.ledger.reports.time_parts import TimePart, is_exact_time, keep_days, split_time
from tornado_proxy.ledger.sums.rollup_rows import (
    ALL_PEOPLE,
    ANNOTATIONS,
    ATTRIBUTES,
    DIMENSIONS,
    OF_UNKNOWN_COST,
    PEOPLE,
    SUMS,
    UNKNOWN_COSTS,
    join_amount,
)
from tornado_proxy.providers.endpoint_template import fold_ids

#: The groups that the sums have, beside labels.
_GROUPS = frozenset({"day", "project", "room", "participant", "user", "issuer", "provider", "model", "endpoint"}) | {
    "basis",
    "provider_key",
}

#: The members of UsageFilter that the sums can be selected by.
_FILTERS = frozenset({*DIMENSIONS, "since", "until", "callers"}) - {"labels"}

#: The characters of a start that name the interval; a week is made of days.
LENGTHS = {Interval.HOUR: 13, Interval.DAY: 10, Interval.WEEK: 10, Interval.MONTH: 7}

_AMOUNTS = ", ".join(f"{'max' if name.endswith('_places') else 'sum'}(s.{name})" for name in SUMS)

#: The dimensions of the sums `s` by an attribute.
ATTRIBUTE_JOIN = "JOIN rollups r ON r.span = 'day' AND r.start = s.start AND r.key = s.key"

#: The condition of a basis for sums by an attribute without this join, which takes as long as all the rest.  Few keys
#: are of requests without a known cost.
OF_BASIS = f"s.key IN (SELECT key FROM rollups WHERE {OF_UNKNOWN_COST} AND basis = '{{}}')"  # noqa: S608  # names of ours

_ZERO = Decimal(0)

#: The columns of the sums that have other names in records.
_MODEL = "coalesce(model, model_requested)"


@dataclass(frozen=True, slots=True)
class PartialSum:
    """The sum of some requests of one group.

    time: the start of their interval, or the beginning of its text; "" without an interval.
    columns: the values of the columns of the groups.
    basis: how their costs are known.
    """

    time: str
    columns: tuple[str | None, ...]
    basis: str
    requests: int
    subtotal: Decimal
    surcharge: Decimal


def list_given(which: UsageFilter) -> set[str]:
    """Return the names of the members of a filter that select."""
    return {name for name in UsageFilter.__slots__ if getattr(which, name) is not None}


def is_rolled(which: UsageFilter, groups: Sequence[str]) -> bool:
    """Return True if the sums can answer a question."""
    given, named, attributes = list_given(which), {_name_attribute(name) for name in groups}, {*ATTRIBUTES, ANNOTATIONS}
    times = (time for time in (which.since, which.until) if time is not None)
    return (
        given <= _FILTERS | set(ATTRIBUTES)
        and all(name in _GROUPS or name in attributes or name.startswith(LABEL_PREFIX) for name in named)
        and len((given | named) & attributes) <= 1
        # An endpoint in the sums has no ids.
        and (which.endpoint is None or (fold_ids(which.endpoint) == which.endpoint and "{" not in which.endpoint))
        and all(is_exact_time(time) for time in times)
    )


def find_attribute(which: UsageFilter, groups: Sequence[str]) -> str | None:
    """Return the attribute by which a question selects or groups; None for a question without one."""
    named = {_name_attribute(name) for name in groups} | list_given(which)
    return next((name for name in (*ATTRIBUTES, ANNOTATIONS) if name in named), None)


def _name_attribute(group: str) -> str:
    """Return the attribute that has the values of a group."""
    return ANNOTATIONS if group.startswith(ANNOTATION_PREFIX) else group


def check_not_pruned(read: Read, which: UsageFilter) -> None:
    """Raise LedgerUnavailable if records that a question needs were pruned, and the sums cannot answer it."""
    before = next((str(value) for (value,) in read("SELECT value FROM meta WHERE key = 'pruned_before'", ())), None)
    if before is not None and (which.since is None or which.since < before):
        raise LedgerUnavailable(
            f"records before {before} are in archives; ask from then on (--since {before}), or in whole hours by "
            f"{', '.join(sorted(_GROUPS))} and labels, or in whole days by one of {', '.join(ATTRIBUTES)}"
        )


def read_sums(
    read: Read,
    which: UsageFilter,
    groups: Sequence[str],
    interval: Interval | None = None,
    told_apart: tuple[str, ...] | None = None,
) -> Iterator[PartialSum]:
    """Yield sums of the requests that a question selects; several can be of one group, and some are to be subtracted.

    A group whose requests add up to 0 has none.

    The database may add up values of the first group that are not in `told_apart`, if that is not None, to OTHERS.
    `read` must be of a snapshot: between two queries of it the cursor must not move.
    """
    state = read_state(read)
    question = Question(which, tuple(groups), 0 if interval is None else LENGTHS[interval], told_apart)
    attribute = find_attribute(which, groups)
    if attribute is not None and (interval is Interval.HOUR or not has_attribute(read, state, attribute, which)):
        check_not_pruned(read, which)
        yield from read_part_records(read, question, "", ())
        return
    parts = split_time(which.since, which.until, by_hour=interval is Interval.HOUR)
    for part in keep_days(parts) if attribute is not None else parts:
        narrowed = replace(question, which=replace(which, since=part.since, until=part.until))
        if not part.span:
            check_not_pruned(read, narrowed.which)
            yield from read_part_records(read, narrowed, "", ())
            continue
        if attribute is None:
            yield from _read_rollups(read, narrowed, choose_span(part, narrowed, state))
        else:
            yield from _read_attribute(read, narrowed, attribute)
        yield from read_others(read, narrowed, state.rolled)


@dataclass(frozen=True, slots=True)
class Question:
    """Which requests are summed, by which groups, and the characters of a time that name the interval, 0 for none.

    told_apart: see read_sums().
    """

    which: UsageFilter
    groups: tuple[str, ...]
    length: int
    told_apart: tuple[str, ...] | None = None

    def name_rolled_columns(self, attribute: str | None = None) -> tuple[list[str], list[str]]:
        """Return SQL of the time, the groups and the basis in rows of sums, and its parameters."""
        columns = [
            "s.value" if _name_attribute(name) == attribute else _rolled_column(group_column(name))
            for name in self.groups
        ]
        values: list[str] = []
        # The values of labels are in the text of all labels.
        if self.told_apart is not None and columns and not is_named_group(self.groups[0]):
            first = columns[0]
            marks = _list_marks(self.told_apart)
            columns[0] = f"CASE WHEN {first} IS NULL OR {first} IN ({marks}) THEN {first} ELSE ? END"
            values = [*self.told_apart, OTHERS]
        return [f"substr(s.start, 1, {self.length})", *columns, "basis"], values

    @property
    def columns(self) -> list[str]:
        """SQL of the columns of the groups."""
        return [group_column(name) for name in self.groups]

    @property
    def names_people(self) -> bool:
        """True if the groups or the filter tell people apart."""
        return bool({*PEOPLE, "callers"} & {*self.groups, *list_given(self.which)})


def choose_span(part: TimePart, question: Question, state: SumsState) -> str:
    """Return the span of the sums that answer a question about a part of the time."""
    shared = not question.names_people and state.has_details(part.since)
    return part.span + ALL_PEOPLE if shared else part.span


def _read_rollups(read: Read, question: Question, span: str) -> Iterator[PartialSum]:
    where, values = build_sums_where(question.which)
    names, told_apart = question.name_rolled_columns()
    sql = f"SELECT {_name_sums(names)} FROM rollups s WHERE {where} AND span = ? {_group_by(names)}"  # noqa: S608
    for row in read(sql, [*told_apart, *values, span]):
        yield _make_sum(row)


def _read_attribute(read: Read, question: Question, attribute: str) -> Iterator[PartialSum]:
    """Yield the sums of whole days by an attribute, or of the requests with one value of it.

    The sum of the requests without the attribute is that of all requests, less those that have it.
    """
    value = None if attribute == ANNOTATIONS else getattr(question.which, attribute)
    selected = question if value is None else replace(question, which=replace(question.which, **{attribute: None}))
    if value is None and question.told_apart is not None and is_alone(selected, attribute):
        stated = list(_read_told_apart(read, selected, attribute))
    else:
        stated = list(_read_stated(read, selected, attribute, value))
    yield from stated
    if value is not None:
        return
    is_stated = [_name_attribute(name) == attribute for name in question.groups]
    for part in stated:
        pairs = zip(is_stated, part.columns, strict=True)
        yield _negate(part, tuple(None if is_one else column for is_one, column in pairs))
    groups = tuple(name for name in question.groups if _name_attribute(name) != attribute)
    others = replace(question, groups=groups, told_apart=None if is_stated[0] else question.told_apart)
    for total in _read_rollups(read, others, "day" if others.names_people else "day" + ALL_PEOPLE):
        rest = iter(total.columns)
        yield replace(total, columns=tuple(None if is_one else next(rest) for is_one in is_stated))


def _read_stated(read: Read, question: Question, attribute: str, value: str | None) -> Iterator[PartialSum]:
    """Yield the sums of the requests that have an attribute, or one value of it."""
    where, values = build_sums_where(question.which)
    names, told_apart = question.name_rolled_columns(attribute)
    sql = (
        f"SELECT {_name_sums(names)} FROM attribute_sums s "  # noqa: S608  # names of ours
        f"{ATTRIBUTE_JOIN} WHERE {where} AND s.name = ?{'' if value is None else ' AND s.value = ?'} {_group_by(names)}"
    )
    for row in read(sql, [*told_apart, *values, attribute, *([] if value is None else [value])]):
        yield _make_sum(row)


def is_alone(question: Question, attribute: str) -> bool:
    """Return True if a question names a time and groups by an attribute, and nothing else."""
    which = question.which
    return question.groups == (attribute,) and which == UsageFilter(since=which.since, until=which.until)


def _read_told_apart(read: Read, question: Question, attribute: str) -> Iterator[PartialSum]:
    """Yield the sums of the values that are told apart, and of all others: the sum of all values, less these.

    The first are found by the key of the table, and all are added up in its order, so that nothing is sorted.
    """
    where, values = build_sums_where(question.which)
    names = question.told_apart or ()
    bases = ", ".join(f"sum(CASE WHEN {OF_BASIS.format(basis)} THEN s.requests ELSE 0 END)" for basis in UNKNOWN_COSTS)
    start = f"FROM attribute_sums s WHERE s.name = ? AND {where}"
    told = f"SELECT s.start, s.value, {_AMOUNTS}, {bases} {start} AND s.value IN ({_list_marks(names)}) GROUP BY 1, 2"
    every = f"SELECT s.start, CAST(? AS TEXT), {_AMOUNTS}, {bases} {start} GROUP BY s.start"
    for row in read(told, [attribute, *values, *names]):
        for part in _split_bases(row, question.length):
            yield part
            yield _negate(part, (OTHERS,))
    for row in read(every, [OTHERS, attribute, *values]):
        yield from _split_bases(row, question.length)


def _split_bases(row: Sequence[object], length: int) -> Iterator[PartialSum]:
    """Yield the sums of a row of _read_told_apart(); the amounts are with the costs that are known."""
    time, value, *amounts, unsettled, pending = row
    for basis, count in zip(UNKNOWN_COSTS, (unsettled, pending), strict=True):
        if number := int(str(count)):
            yield PartialSum(str(time)[:length], (str(value),), basis, number, _ZERO, _ZERO)
    total = _make_sum([str(time)[:length], value, Basis.REPORTED.value, *amounts])
    yield replace(total, requests=total.requests - int(str(unsettled)) - int(str(pending)))


def _negate(part: PartialSum, columns: tuple[str | None, ...]) -> PartialSum:
    """Return a sum that takes another one from a group."""
    return replace(
        part,
        columns=columns,
        requests=-part.requests,
        subtotal=part.subtotal.copy_negate(),
        surcharge=part.surcharge.copy_negate(),
    )


def build_sums_where(which: UsageFilter) -> tuple[str, list[str]]:
    """Return the condition of rows of the sums `s`, which have other names of columns than records."""
    where, values = build_where(which)
    condition = where.removeprefix("WHERE ").replace("started_at", "s.start").replace(_MODEL, "model")
    return condition or "1 = 1", values


def _rolled_column(column: str) -> str:
    return column.replace("started_at", "s.start").replace(_MODEL, "model")


def _list_marks(values: Sequence[str]) -> str:
    return ", ".join("?" * len(values)) or "NULL"


def _name_sums(names: Sequence[str]) -> str:
    return f"{', '.join(names)}, {_AMOUNTS}"


def _group_by(names: Sequence[str]) -> str:
    return f"GROUP BY {', '.join(str(number + 1) for number in range(len(names)))}"


def _make_sum(row: Sequence[object]) -> PartialSum:
    """Return the sum of a row: the time, the groups, the basis, and _AMOUNTS."""
    time, *group, basis, requests, micro, rest, places, micro_2, rest_2, places_2 = row
    return PartialSum(
        str(time),
        tuple(None if value is None else str(value) for value in group),
        str(basis),
        int(str(requests)),
        join_amount(int(str(micro)), int(str(rest)), int(str(places))),
        join_amount(int(str(micro_2)), int(str(rest_2)), int(str(places_2))),
    )


def read_others(read: Read, question: Question, rolled: Position) -> Iterator[PartialSum]:
    """Yield the records that the sums do not have: later ones, pending ones, and requests without a record."""
    for clause, values in list_others(read, question.which, rolled):
        yield from read_part_records(read, question, clause, values)


def read_part_records(read: Read, question: Question, clause: str, extra: Sequence[object]) -> Iterator[PartialSum]:
    """Yield the records that a question selects, and that SQL `clause` with the parameters `extra` selects too."""
    time = f"substr(started_at, 1, {question.length})"
    columns = (time, *question.columns, "basis", "subtotal", "surcharge")
    for at, *group, basis, subtotal, surcharge in read(*select_part(columns, question.which, clause, extra)):
        yield PartialSum(str(at), tuple(group), str(basis), 1, Decimal(str(subtotal)), Decimal(str(surcharge)))
