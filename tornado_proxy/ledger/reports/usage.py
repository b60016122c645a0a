"""What usage comes to, line item by line item: the question, the answer, and the arithmetic between them.

A store selects `UsageQuery.columns` and hands the rows to sum_usage().  Amounts are decimals in text, which no SQL
adds exactly; so they are added here.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from decimal import Context, Decimal

import msgspec

from tornado_proxy.domain.errors import BadRequest
from tornado_proxy.domain.usage import Basis
from tornado_proxy.ledger.reports.intervals import Interval, interval_end, interval_start
from tornado_proxy.ledger.reports.records_query import UsageFilter, add_exactly

#: What rows can be grouped by beside interval, provider, model and type.
GROUPS = ("participant", "user", "room", "session", "endpoint", "basis")

#: What a store selects for each record, before the columns of `UsageQuery.group_by`.
COLUMNS = ("started_at", "provider", "model", "model_requested", "basis", "annotations", "line_items")

#: Groups of one answer: some 50 MB while it is made.
_MOST_GROUPS = 100_000

#: Records between two looks at the clock: some milliseconds of work.
_LOOK_EVERY = 500

#: Adds without rounding: amounts have 12 decimals, and no sum of them has 88 digits before the point.
_EXACT = Context(prec=100)

_ZERO = Decimal(0)


@dataclass(frozen=True, slots=True)
class UsageQuery:
    """Which records, summed how.  `model` and `type` choose line items; `group_by` are names of GROUPS.

    A record must hold all of `annotations`.

    `model` is the name that the registry has a line's price under, or the one that the answer or the request has.
    """

    which: UsageFilter
    interval: Interval | None = None
    group_by: tuple[str, ...] = ()
    model: str | None = None
    type: str | None = None
    annotations: tuple[tuple[str, str], ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """What to select, as SQL."""
        return (*COLUMNS, *(f'"{name}"' for name in self.group_by))


@dataclass(frozen=True, slots=True)
class UsageRow:
    """All of one kind of line item in one group.  Decimals: `quantity` in the meter's own unit, `total` in USD.

    `unpriced` is how much of the quantity has no price, and so no part in the total.  The types `unsettled_requests`
    and `pending_requests` count requests whose cost is not known, or not yet.
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
        """What tells this row from all others, in the order of rows."""
        parts = (self.start, *self.group, self.provider, self.model, self.type)
        return tuple("" if part is None else part for part in parts)


@dataclass(frozen=True, slots=True)
class UsageResult:
    """Rows in the order of their keys, and what they come to.

    The cost of `unsettled` of the requests is not known; the provider reports that of `pending` ones later.
    """

    rows: Sequence[UsageRow]
    requests: int
    total: Decimal
    unsettled: int
    pending: int


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one question may cost: records that are looked at, and the moment (monotonic seconds) it must be done by."""

    records: int
    until: float

    def check_time(self) -> None:
        """Raise BadRequest when time is over."""
        if time.monotonic() > self.until:
            raise too_much_usage()


def too_much_usage() -> BadRequest:
    """The refusal of a question that takes too long or too many records."""
    return BadRequest(
        "there is too much usage for one answer; ask for a shorter time with start and end, for fewer groups, or for "
        "one participant, room or model",
        code="too_much_usage",
    )


def sum_usage(rows: Iterable[Sequence[str | None]], question: UsageQuery, bounds: Bounds) -> UsageResult:
    """Sum rows of `question.columns`.

    Raises:
        BadRequest: more records, or more time, than `bounds` allow.
    """
    sums = _Sums(question)
    for number, row in enumerate(rows):
        if number % _LOOK_EVERY == 0:
            bounds.check_time()
        if number >= bounds.records or len(sums.sums) > _MOST_GROUPS:
            raise too_much_usage()
        sums.add(row)
    return sums.answer()


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
    last: int = 0  # the number of the request that was added last
    quantity: Decimal = _ZERO
    unpriced: Decimal = _ZERO
    total: Decimal = _ZERO

    def add(self, item: _Item, request: int) -> None:
        if request != self.last:
            self.requests += 1
            self.last = request
        quantity = Decimal(item.quantity)
        self.quantity = _EXACT.add(self.quantity, quantity)
        if item.amount is None:
            self.unpriced = _EXACT.add(self.unpriced, quantity)
        else:
            self.total = _EXACT.add(self.total, Decimal(item.amount))


@dataclass(slots=True)
class _Sums:
    question: UsageQuery
    sums: dict[_Key, _Sum] = field(default_factory=dict)
    requests: int = 0
    unsettled: int = 0
    pending: int = 0

    def add(self, row: Sequence[str | None]) -> None:
        started_at, provider, model, requested, basis, annotations, line_items, *group = row
        assert started_at is not None
        assert provider is not None
        if not self._is_annotated(annotations):
            return
        items = [*_decode(line_items or "[]"), *_unknown(basis)]
        whole = self.question.model in (None, model, requested)
        chosen = self._choose(items, model or requested, whole=whole)
        # A request without any line is free: it is counted with its model.
        if not chosen and (items or not whole or self.question.type is not None):
            return
        self.requests += 1
        self.unsettled += basis == Basis.UNSETTLED
        self.pending += basis == Basis.PENDING
        start = interval_start(self.question.interval, started_at)
        who = tuple(group)
        for name, item in chosen:
            key: _Key = (start, who, provider, name, item.type)
            one = self.sums.get(key)
            if one is None:
                one = self.sums[key] = _Sum()
            one.add(item, self.requests)

    def _is_annotated(self, annotations: str | None) -> bool:
        wanted = self.question.annotations
        return not wanted or (annotations is not None and set(wanted) <= _decode_annotations(annotations).items())

    def _choose(self, items: Sequence[_Item], model: str | None, *, whole: bool) -> list[tuple[str | None, _Item]]:
        """The line items that were asked for, each with its model; the surcharge goes with the model of all others."""
        models = {item.model for item in items if item.model is not None}
        shared = models.pop() if len(models) == 1 else model
        named = [(item.model or shared, item) for item in items]
        return [
            (name, item)
            for name, item in named
            if (whole or name == self.question.model) and self.question.type in (None, item.type)
        ]

    def answer(self) -> UsageResult:
        rows = [
            UsageRow(
                start=start,
                end=interval_end(self.question.interval, start),
                group=group,
                provider=provider,
                model=model,
                type=item_type,
                requests=one.requests,
                quantity=one.quantity,
                unpriced=one.unpriced,
                total=one.total,
            )
            for (start, group, provider, model, item_type), one in self.sums.items()
        ]
        rows.sort(key=lambda row: row.key)
        return UsageResult(rows, self.requests, add_exactly([row.total for row in rows]), self.unsettled, self.pending)


def _unknown(basis: str | None) -> tuple[_Item, ...]:
    """A line for a request whose cost is not known, so that no report leaves it out in silence."""
    return (_Item(f"{basis}_requests", "1"),) if basis in (Basis.UNSETTLED, Basis.PENDING) else ()
