"""Which processes write a PostgreSQL ledger: each holds an advisory lock for as long as its connection is open.

A server that restarts frees all locks, although the processes live.  Until such a process has connected again, another
one may find its lock free and mark its intents as lost.  The process takes them back when it has reconnected, and a
record replaces a lost intent at any time.

A process's own lock is shared, so that its old connection, whose end the server has not detected yet, does not keep
its new one from taking it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from tornado_proxy.ledger.database import Database

#: The key of the opening lock: "tornado" in ASCII.  A writer id of the same 64 bits is as good as impossible.
_OPENING_KEY = 0x746F_726E_6164_6F00


# A key of 64 bits is in two columns.  https://www.postgresql.org/docs/current/view-pg-locks.html
_SELECT_OWNER = (
    "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ShareLock' AND granted AND objsubid = 1 "
    "AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) "
    "AND (classid::bigint << 32) | objid::bigint = ?"
)

#: Twice as long as a process uses slices of budgets without the database (budgets/leases/slices.py), which is the
#: longest time that it acts on earlier queries.
_GRACE_S = 10.0


class PostgresProcessLocks:
    """The writers of one database, this process among them as `writer_id`.  Satisfies ledger.database.Liveness."""

    def __init__(self, db: Database, writer_id: str) -> None:
        self._db = db
        self._writer_id = writer_id

    @property
    def grace_s(self) -> float:
        """Seconds for which a process may go on although its lock is free."""
        return _GRACE_S

    def register(self) -> None:
        """Take the lock of this process."""
        self._db.fetch_rows("SELECT pg_advisory_lock_shared(?)", (_lock_key(self._writer_id),))

    @contextlib.contextmanager
    def hold_opening_lock(self) -> Iterator[None]:
        """Hold the lock against other processes that make tables or search for dead processes."""
        self._db.fetch_rows("SELECT pg_advisory_lock(?)", (_OPENING_KEY,))
        yield  # without `finally`: the server frees the locks of a failed connection, and a query on it would raise
        self._db.fetch_rows("SELECT pg_advisory_unlock(?)", (_OPENING_KEY,))

    def is_dead(self, writer: str) -> bool:
        """Return True if a writer is another process, and no connection holds its lock."""
        if writer == self._writer_id:
            return False
        # To try the lock would hold it for a moment, in which other processes find the writer alive.
        return not self._db.fetch_rows(_SELECT_OWNER, (_lock_key(writer),))

    @contextlib.contextmanager
    def hold_dead(self, writer: str) -> Iterator[bool]:
        """Return True in a `with` block if no connection holds a writer's lock, which none can take until its end."""
        ((is_free,),) = self._db.fetch_rows("SELECT pg_try_advisory_lock(?)", (_lock_key(writer),))
        yield bool(is_free)  # without `finally`, as above
        if is_free:
            self._db.fetch_rows("SELECT pg_advisory_unlock(?)", (_lock_key(writer),))

    def release(self) -> None:
        """Free the lock of this process: the server detects a closed connection some time later only."""
        self._db.fetch_rows("SELECT pg_advisory_unlock_shared(?)", (_lock_key(self._writer_id),))


def _lock_key(writer: str) -> int:
    """Return the first 64 bits of a writer id as a signed number, PostgreSQL's type of a lock key."""
    return int.from_bytes(bytes.fromhex(writer[:16]), signed=True)
