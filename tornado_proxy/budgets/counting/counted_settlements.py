"""The amounts that settlements have added to counters, beside the figures that their records had at first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from decimal import Decimal

from tornado_proxy.budgets.counting import ledger_records
from tornado_proxy.budgets.counting.counters import make_keys
from tornado_proxy.budgets.counting.ledger_records import CountedRecord
from tornado_proxy.budgets.counting.ledger_sums import CounterAmount, is_current
from tornado_proxy.domain.budgets.counter import Amount, CounterKind
from tornado_proxy.ledger.database import Database

_SELECT_COUNTED = "SELECT counted_total, counted_subtotal FROM budget_reservations WHERE request_id = ?"


def list_corrections(
    databases: tuple[Database, Database], kinds: Sequence[CounterKind], now: datetime, last_seq: int
) -> Iterator[CounterAmount]:
    """Yield the amounts of current counters from settlements that are counted, of records up to `last_seq`.

    Args:
        databases: The budgets' database, and the ledger.
        kinds: The kinds of the counters.
        now: The time whose periods are the current ones.
        last_seq: The seq of the last record.
    """
    for counted, original in _list_counted(*databases, last_seq):
        for kind in kinds:
            if is_current(kind, original.started_at, now):
                amount = counted[kind.amount] - original.amount(kind.amount)
                for key in make_keys(kind, original.spender, original.started_at):
                    yield key, amount


def _list_counted(
    budgets: Database, ledger: Database, last_seq: int
) -> Iterator[tuple[dict[Amount, Decimal], CountedRecord]]:
    """Yield the counted figures of each record that was counted with others first, and the record."""
    ids = sorted({*ledger_records.list_ids(ledger, "settlements"), *ledger_records.list_ids(ledger, "given_up")})
    bills = {bill.request_id: bill for bill in ledger_records.read_bills(ledger, ids)}
    for original in ledger_records.read_originals(ledger, ids):
        if original.seq > last_seq:
            continue
        bill = bills[original.request_id]
        counted = {Amount.TOTAL: bill.total, Amount.SUBTOTAL: bill.subtotal}
        for total, subtotal in budgets.fetch_rows(_SELECT_COUNTED, (original.request_id,)):
            counted = {Amount.TOTAL: Decimal(str(total)), Amount.SUBTOTAL: Decimal(str(subtotal))}
        yield counted, original
