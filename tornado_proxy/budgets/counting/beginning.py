"""Begins to count a ledger: at its end, because a kind of counter adds the sums of the records before it itself."""

from __future__ import annotations

import logging

from tornado_proxy.budgets.counting import ledger_records
from tornado_proxy.budgets.counting.cursor import delete_position, has_cursor, insert_position, read_position
from tornado_proxy.ledger.changes import Position, find_written_end
from tornado_proxy.ledger.database import Database

_log = logging.getLogger(__name__)

#: Notes that a request is pending, with its begin and the figures at which it is counted.
TRACK = (
    "INSERT INTO budget_reservations (request_id, writer, state, started_at, total, subtotal, counters, "
    "counted_total, counted_subtotal) VALUES (?, '', 'pending', ?, '0', '0', '[]', ?, ?) "
    "ON CONFLICT (request_id) DO NOTHING"
)

#: The tables that are filled from one ledger.
_TABLES_OF_A_LEDGER = ("budget_counters", "budget_kinds", "budget_reservations", "budget_leases", "leased_requests")


def begin_to_count(budgets: Database, ledger: Database, wait_for_writers: str) -> None:
    """Begin at the end of the ledger, if nothing of this ledger was counted before."""
    counted = read_position(budgets) if has_cursor(budgets) else Position()
    end = find_written_end(ledger, wait_for_writers)
    if counted.record > end.record or counted.change > end.change:
        _forget_newer_ledger(budgets, counted, end)
    with budgets.transaction():
        if has_cursor(budgets):
            return
        insert_position(budgets, end)
        # Their settlements come later.
        for request_id, *values in ledger_records.list_pending(ledger, end):
            budgets.run(TRACK, (request_id, *values))


def _forget_newer_ledger(budgets: Database, counted: Position, end: Position) -> None:
    """Forget the counters and reservations of another ledger, such as the one that a backup has replaced.

    Its records had numbers that new ones will have again, which would not be counted.
    """
    with budgets.transaction():
        if not has_cursor(budgets) or read_position(budgets) != counted:
            return  # another process has done so
        for table in _TABLES_OF_A_LEDGER:
            budgets.run(f"DELETE FROM {table}")  # noqa: S608  # names of ours
        delete_position(budgets)
    _log.warning("the ledger is older than its budgets; they are counted anew", extra={"last_seq": end.record})
