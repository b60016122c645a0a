"""Reads later figures of records in the order of their commits: those of settlements, and of requests given up.

    record 0 USD ── given_up 0.4 USD ──> +0.4 ── settlement 0.3 USD ──> -0.1        the sum is that of the last figures

So the counters are, at each moment, the sum of the records up to one cursor and of these differences up to another.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from decimal import Decimal

import msgspec

from tornado_proxy.budgets.counting.counters import make_keys
from tornado_proxy.budgets.counting.ledger_records import SPENDER_COLUMNS, make_spender
from tornado_proxy.budgets.counting.ledger_sums import CounterAmount, is_current
from tornado_proxy.domain.budgets.counter import Amount, CounterKind
from tornado_proxy.domain.budgets.spender import Spender
from tornado_proxy.domain.usage import Basis
from tornado_proxy.ledger.database import Database

#: Changes that are read at once, some 500 KB.
_PAGE_SIZE = 500

_LAST_OF_PAGE = "SELECT max(seq) FROM (SELECT seq FROM changes WHERE seq > ? AND seq <= ? ORDER BY seq LIMIT ?) c"
_SPENDER = ", ".join(f'r."{name}"' for name in SPENDER_COLUMNS)
# A request is given up once, and settled once.  To be given up after its settlement changes nothing.
_SELECT = (
    "SELECT c.seq, c.kind, r.seq, r.request_id, r.started_at, n.basis, n.total, n.subtotal, "  # noqa: S608  # names of ours
    "CASE WHEN e.seq IS NULL THEN r.total ELSE o.total END, "
    "CASE WHEN e.seq IS NULL THEN r.subtotal ELSE o.subtotal END, "
    f"{_SPENDER} "
    "FROM changes c JOIN records r ON r.request_id = c.request_id "
    "JOIN {table} n ON n.request_id = c.request_id "
    "LEFT JOIN {other} o ON o.request_id = c.request_id "
    "LEFT JOIN changes e ON e.request_id = c.request_id AND e.kind = '{other_kind}' AND e.seq < c.seq "
    "WHERE c.seq > ? AND c.seq <= ? AND c.kind = '{kind}'"
)
_SELECT_SETTLED = _SELECT.format(kind="settlement", table="settlements", other="given_up", other_kind="given_up")
_SELECT_GIVEN_UP = (
    _SELECT.format(kind="given_up", table="given_up", other="settlements", other_kind="settlement")
    + " AND e.seq IS NULL"
)


class Settlement(msgspec.Struct, frozen=True):
    """Later figures of a record, and those that they replace.

    Attributes:
        seq: The seq of the change; `record_seq` is that of the record.
        is_final: True if no others follow.
        basis: Why the figures are as they are.
    """

    seq: int
    record_seq: int
    request_id: str
    started_at: datetime
    is_final: bool
    basis: Basis
    figures: dict[Amount, Decimal]
    replaced: dict[Amount, Decimal]
    spender: Spender


def find_last(ledger: Database) -> int:
    """Return the seq of the last change that is visible now; others before it can still appear."""
    ((seq,),) = ledger.fetch_rows("SELECT coalesce(max(seq), 0) FROM changes")
    return int(str(seq))


def read_page(ledger: Database, after: int, last: int, limit: int) -> tuple[list[Settlement], int]:
    """Return up to `limit` settlements with after < seq <= last in the order of their seqs, and the seq up to which.

    It is `after` if another process has counted beyond `last` meanwhile.
    """
    ((end,),) = ledger.fetch_rows(_LAST_OF_PAGE, (after, last, limit))
    if end is None:
        return [], max(after, last)
    reached = int(str(end))
    rows = [row for sql in (_SELECT_SETTLED, _SELECT_GIVEN_UP) for row in ledger.fetch_rows(sql, (after, reached))]
    return sorted(map(_make, rows), key=lambda settlement: settlement.seq), reached


def list_corrections(
    ledger: Database, kinds: Sequence[CounterKind], now: datetime, seqs: tuple[int, int]
) -> Iterator[CounterAmount]:
    """Yield the amounts that settlements add to the counters of the current periods.

    Args:
        ledger: The ledger.
        kinds: The kinds of the counters.
        now: The time whose periods are the current ones.
        seqs: The seq of the last change before the first of them, and that of the last one.
    """
    after, last = seqs
    while after < last:
        settlements, after = read_page(ledger, after, last, _PAGE_SIZE)
        for settlement in settlements:
            for kind in kinds:
                if is_current(kind, settlement.started_at, now):
                    amount = settlement.figures[kind.amount] - settlement.replaced[kind.amount]
                    for key in make_keys(kind, settlement.spender, settlement.started_at):
                        yield key, amount


def _make(row: tuple[object, ...]) -> Settlement:
    seq, kind, record_seq, request_id, started_at, basis, *figures = row[:10]
    total, subtotal, old_total, old_subtotal = (Decimal(str(figure)) for figure in figures)
    return Settlement(
        int(str(seq)),
        int(str(record_seq)),
        str(request_id),
        datetime.fromisoformat(str(started_at)),
        kind == "settlement",
        Basis(str(basis)),
        {Amount.TOTAL: total, Amount.SUBTOTAL: subtotal},
        {Amount.TOTAL: old_total, Amount.SUBTOTAL: old_subtotal},
        make_spender(row[10:]),
    )
