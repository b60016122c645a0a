"""Reads from the ledger the requests whose bounds no process may hold yet, and forgets those that are held.

intents         requests of a process that has died which have no record
unheld_bounds   the bounds of records without a known cost; the transaction that stores such a record adds its bound

A process holds the bounds of its own requests when their records are counted.  If it dies before, another one does.  To
hold a bound a second time has no effect, so the bounds in the ledger are forgotten once a minute.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from tornado_proxy.budgets.counting.ledger_records import SPENDER_COLUMNS, make_spender
from tornado_proxy.domain.budgets.spender import Spender
from tornado_proxy.domain.cost import CostBound
from tornado_proxy.domain.usage import Basis
from tornado_proxy.ledger.database import Database, StoreError
from tornado_proxy.ledger.dialect import quote_names

_SPENDER = quote_names(SPENDER_COLUMNS)
_SELECT_LOST = (
    f"SELECT request_id, 'unsettled', started_at, bound_total, bound_subtotal, {_SPENDER} "  # noqa: S608
    "FROM intents WHERE writer = ? AND bound_total IS NOT NULL"
)
_SELECT_UNHELD = (
    f"SELECT r.request_id, basis, started_at, u.bound_total, u.bound_subtotal, {_SPENDER} "  # noqa: S608
    "FROM unheld_bounds u JOIN records r ON r.request_id = u.request_id "
    "WHERE u.writer = ? AND basis IN ('unsettled', 'pending') "
    "AND NOT EXISTS (SELECT 1 FROM settlements s WHERE s.request_id = u.request_id)"
)
_SELECT_WRITERS = "SELECT DISTINCT writer FROM unheld_bounds"
_SELECT_HELD = (
    "SELECT request_id FROM unheld_bounds u WHERE writer = ? AND request_id > ? "
    "AND NOT EXISTS (SELECT 1 FROM records r WHERE r.request_id = u.request_id AND r.seq > ?) "
    "ORDER BY request_id LIMIT ?"
)

#: Bounds that one transaction forgets.  With SQLite, all writers of the ledger wait for its end.
_BATCH_SIZE = 500


@dataclass(frozen=True, slots=True)
class UnheldRequest:
    """A request of a process that has died, with the most that it can have cost.

    `basis` is that of its record; `unsettled` without one.
    """

    request_id: str
    basis: Basis
    started_at: datetime
    bound: CostBound
    spender: Spender


def list_unheld(ledger: Database, writer: str) -> list[UnheldRequest]:
    """Return the requests with a bound of a process that has died which have no record, or one without a known cost."""
    return [
        UnheldRequest(
            str(request_id),
            Basis(str(basis)),
            datetime.fromisoformat(str(started_at)),
            CostBound(Decimal(str(total)), Decimal(str(subtotal))),
            make_spender(tuple(spender)),
        )
        for sql in (_SELECT_LOST, _SELECT_UNHELD)
        for request_id, basis, started_at, total, subtotal, *spender in ledger.fetch_rows(sql, (writer,))
    ]


def list_writers(ledger: Database) -> set[str]:
    """Return the processes whose records have bounds that are not forgotten yet."""
    return {str(writer) for (writer,) in ledger.fetch_rows(_SELECT_WRITERS)}


def forget_bounds(ledger: Database, writer: str, last_seq: int) -> None:
    """Forget the bounds of a process that are held: those of records that have seq <= `last_seq`, or were pruned.

    Some are forgotten in each transaction.  If the ledger cannot be written now, the rest is forgotten later.
    """
    after = ""
    while held := ledger.fetch_rows(_SELECT_HELD, (writer, after, last_seq, _BATCH_SIZE)):
        request_ids = [str(request_id) for (request_id,) in held]
        try:
            with ledger.transaction():
                ledger.delete("unheld_bounds", "request_id", request_ids)
        except StoreError:
            return
        after = request_ids[-1]
