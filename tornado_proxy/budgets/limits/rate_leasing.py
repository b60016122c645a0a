"""Leases units of limits for this process, and gives them back, in the database of the budgets.

rate_leases   what each process has taken from a bucket in advance: idle units; of streams also those under way

A process gives back and leases anew each quarter of a second while it has any.  The idle units of a process that has
died are lost until they have drained; its streams are freed.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable

from tornado_proxy.budgets.limits.rate_slices import RateLease, RateSlices
from tornado_proxy.budgets.limits.rates import BucketKey, LockedBuckets, Rates
from tornado_proxy.domain.budgets.rate_limits import RateClaim, RateUnit
from tornado_proxy.ledger.database import Database
from tornado_proxy.ledger.dialect import Dialect

_SELECT_RECALLED = "SELECT project_id, subject, unit FROM rate_leases WHERE writer = ? AND recalled = 1"
_SELECT_OWN = "SELECT units, recalled FROM rate_leases WHERE writer = ? AND project_id = ? AND subject = ? AND unit = ?"
_UPSERT = (
    "INSERT INTO rate_leases (writer, project_id, subject, unit, units, recalled) VALUES (?, ?, ?, ?, ?, 0) "
    "ON CONFLICT (writer, project_id, subject, unit) DO UPDATE SET units = excluded.units, recalled = 0"
)
_DELETE = "DELETE FROM rate_leases WHERE writer = ? AND project_id = ? AND subject = ? AND unit = ?"
_SELECT_OTHERS = "SELECT writer FROM rate_leases WHERE writer <> ? AND project_id = ? AND subject = ? AND unit = ?"
_SELECT_UNANSWERED = (
    "SELECT 1 FROM rate_leases WHERE writer = ? AND project_id = ? AND subject = ? AND unit = ? AND recalled = 1"
)
_RECALL = "UPDATE rate_leases SET recalled = 1 WHERE writer = ? AND project_id = ? AND subject = ? AND unit = ?"


class RateLeasing:
    """The leases of one process.  Methods raise StoreError if a database fails."""

    def __init__(self, db: Database, dialect: Dialect, writer_id: str, rates: Rates, slices: RateSlices) -> None:
        self._db = db
        self._row_lock = dialect.row_lock
        self._writer_id = writer_id
        self._rates = rates
        self._slices = slices

    def sync(self) -> None:
        """Give back what was not used, and lease what requests are about to need."""
        if not self._slices.slices:
            return
        recalled = self._db.fetch_rows(_SELECT_RECALLED, (self._writer_id,))
        self._slices.return_idle((str(project), str(subject), str(unit)) for project, subject, unit in recalled)
        now = time.monotonic()
        due = self._slices.list_due(now)
        if not due:
            return
        try:
            with self._db.transaction():
                buckets = self._rates.lock(RateClaim(*key[:2], RateUnit(key[2]), 1, 0) for key in due)
                leases = {key: self._settle(key, buckets, now) for key in due}
                self._rates.write(buckets)
        except BaseException:
            # The rows may be written or not: the next sync reads them.
            self._slices.forget()
            raise
        self._slices.grant(leases, now)

    def return_idle(self, keys: Collection[BucketKey]) -> None:
        """Give back what this process has of limits."""
        if self._slices.return_idle(keys):
            self.sync()

    def recall(
        self, keys: Iterable[BucketKey], asked: Collection[tuple[str, BucketKey]] = ()
    ) -> frozenset[tuple[str, BucketKey]]:
        """Ask the other processes for what they have of limits, except those in `asked`; return who has which."""
        held = {
            (str(writer), key)
            for key in keys
            for (writer,) in self._db.fetch_rows(_SELECT_OTHERS, (self._writer_id, *key))
        }
        recalls = held.difference(asked)
        for writer, key in recalls:
            self._db.run(_RECALL, (writer, *key))
        return frozenset(recalls)

    def is_answered(self, recalls: Iterable[tuple[str, BucketKey]]) -> bool:
        """Return True if all processes have answered."""
        return not any(self._db.fetch_rows(_SELECT_UNANSWERED, (writer, *key)) for writer, key in recalls)

    def _settle(self, key: BucketKey, buckets: LockedBuckets, now: float) -> RateLease:
        rows = self._db.fetch_rows(f"{_SELECT_OWN} {self._row_lock}", (self._writer_id, *key))
        held, is_recalled = (int(str(rows[0][0])), bool(rows[0][1])) if rows else (0, False)
        if is_recalled:
            self._slices.return_idle([key])
        lease = self._slices.settle(key, buckets, held, now)
        units = lease.units + lease.open
        if units and (units != held or is_recalled):
            self._db.run(_UPSERT, (self._writer_id, *key, units))
        elif rows and not units:
            self._db.run(_DELETE, (self._writer_id, *key))
        return lease
