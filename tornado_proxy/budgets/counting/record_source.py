"""Finds the records that are to be counted: those of this process in memory, all others in the ledger.

seq   ... cursor ─┬─────────────────────┬─────────────────────┬─────────────────────┬─ last record
                  │ of other processes  │ committed here      │ of other processes  │
                  └─ ledger             └─ memory             └─ ledger
"""

from __future__ import annotations

from tornado_proxy.budgets.counting import ledger_records
from tornado_proxy.budgets.counting.ledger_records import RecordGroup
from tornado_proxy.ledger.database import Database
from tornado_proxy.ledger.dialect import Dialect
from tornado_proxy.ledger.writer.committed_records import CommittedBatch, CommittedRecords


class RecordSource:
    """The records of one ledger, in the order of their commits."""

    def __init__(self, ledger: Database, dialect: Dialect, committed: CommittedRecords) -> None:
        self._ledger = ledger
        self._dialect = dialect
        self._committed = committed
        committed.is_followed = True
        #: Batches of this process that are not counted yet, in the order of their seqs.
        self._own: list[CommittedBatch] = []

    def read(self, cursor: int, last_seq: int, *, by_second: bool) -> tuple[list[RecordGroup], int]:
        """Return records with cursor < seq <= last_seq, the first in the order of seq, and the seq up to which.

        Args:
            cursor: The seq of the last record that is counted.
            last_seq: A seq below which no record will appear.
            by_second: True if the records of a group begin and end in the same seconds, False for the same hour.
        """
        self._own += self._committed.take()
        reached, own = cursor, []
        while self._own and self._own[0].seqs[0] <= last_seq:
            batch = self._own[0]
            if batch.seqs[0] > reached + 1:
                break
            if batch.seqs[0] == reached + 1:
                own.append(batch)
                reached = batch.seqs[-1]
            del self._own[0]  # else another process has counted some of them, or all
        if own or reached >= last_seq:
            return ledger_records.group_committed(own, by_second=by_second), reached
        next_own = self._own[0].seqs[0] - 1 if self._own else last_seq
        return self._read_ledger(reached, min(next_own, last_seq), by_second=by_second)

    def _read_ledger(self, cursor: int, last_seq: int, *, by_second: bool) -> tuple[list[RecordGroup], int]:
        groups = ledger_records.read_after(self._ledger, self._dialect, cursor, last_seq, by_second=by_second)
        # Without 1,000 records there are no others: the seqs in between have none.
        is_full = sum(len(group.request_ids) for group in groups) >= ledger_records.MAX_ROWS
        return groups, max(group.last_seq for group in groups) if is_full else last_seq
