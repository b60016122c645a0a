"""Frees what processes that have died have reserved, as soon as it is certain that they have.

The kernel frees the lock file of a process of this machine with the process.  On PostgreSQL there are other machines,
whose processes have a lock that belongs to their connections, which can break although the process lives.  Such a
process counts as dead when its lock was free for longer than it uses slices without the database; and it cannot take
its lock again while its reservations are freed.

    lock free ── files of this machine in the ledger? ── lock free for grace_s? ──> count its records
                                                                                          │
              slices freed, requests of unknown cost held or freed <──────────────────────┘
"""

from __future__ import annotations

import time

from tornado_proxy.budgets.counting.folding import Folding
from tornado_proxy.budgets.leases.leasing import Leasing
from tornado_proxy.budgets.limits.rates import Rates
from tornado_proxy.ledger.database import Database, Liveness
from tornado_proxy.ledger.writer.process_locks import ProcessLocks

_SELECT_WRITERS = (
    "SELECT writer FROM budget_leases UNION SELECT writer FROM leased_requests "
    "UNION SELECT writer FROM budget_reservations WHERE state = 'open' "
    "UNION SELECT writer FROM rate_claims UNION SELECT writer FROM rate_leases"
)


class DeadProcesses:
    """The search of one process for others that have died.  Methods raise StoreError if a database fails."""

    def __init__(self, budgets: Database, locks: ProcessLocks, liveness: Liveness) -> None:
        self._budgets = budgets
        self._locks = locks
        self._liveness = liveness
        #: When each process was first found to be dead, monotonic.
        self._dead_since: dict[str, float] = {}

    def free(self, folding: Folding, leasing: Leasing, rates: Rates) -> None:
        """Free the slices and reservations of processes that have died; hold their requests of unknown cost."""
        found = {str(writer) for (writer,) in self._budgets.fetch_rows(_SELECT_WRITERS)}
        writers = (found | leasing.list_unheld_writers()) - {self._locks.writer_id}
        now = time.monotonic()
        self._dead_since = {
            writer: min(self._dead_since.get(writer, now), self._find_certain(writer))
            for writer in writers
            if self._liveness.is_dead(writer)
        }
        for writer in self._dead_since:
            if self.is_certain(writer) and not self._has_files(writer):
                self._free(writer, folding, leasing, rates)

    def is_certain(self, writer: str) -> bool:
        """Return True if a process has died, and has not only lost its connection."""
        if not self._liveness.is_dead(writer):
            return False
        now = time.monotonic()
        since = min(self._dead_since.get(writer, now), self._find_certain(writer))
        return now - since >= self._liveness.grace_s

    def _find_certain(self, writer: str) -> float:
        """Return the begin of all times if a lock file shows that a process has died, else the end.

        The file is deleted with the process's logs, so `_dead_since` keeps the result.
        """
        return float("-inf") if self._locks.has_died_here(writer) else float("inf")

    def _free(self, writer: str, folding: Folding, leasing: Leasing, rates: Rates) -> None:
        with self._liveness.hold_dead(writer) as is_dead:
            if is_dead:
                folding.fold()
                folding.free_orphans(writer)
                leasing.free(writer, folding.read_kinds(), hold=folding.hold)
                with self._budgets.transaction():
                    rates.free_dead(lambda other: other == writer)

    def _has_files(self, writer: str) -> bool:
        """Return True if records of a process are in files of this machine that the ledger does not have yet."""
        return bool(self._locks.find_intent_logs(writer)) or self._locks.journal_path(writer).exists()
