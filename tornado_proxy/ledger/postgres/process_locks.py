"""Which processes write a PostgreSQL ledger: each holds an advisory lock for as long as its connection lives.

A server that restarts frees all locks, though their processes live.  So a free lock may be wrong about a death for the
moments until the process has connected again: it then takes back what was called lost, and a record takes the place of
a lost intent whenever it comes.

The owner's lock is shared: a connection that the server has not yet found dead does not keep the next one from it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from tornado_proxy.ledger.database import Database

#: The lock of those who make tables or look for dead writers; any number that no writer's id is likely to have.
_GATE = 0x746F_726E_6164_6F00


class PostgresProcessLocks:
    """The writers of one database, this process among them as `own`.  Satisfies ledger.store.Liveness."""

    def __init__(self, db: Database, own: str) -> None:
        self._db = db
        self._own = own

    def register(self) -> None:
        """Take the lock of this process."""
        self._db.rows("SELECT pg_advisory_lock_shared(?)", (_key(self._own),))

    @contextlib.contextmanager
    def opening(self) -> Iterator[None]:
        """Keep other processes from making tables or looking for dead writers at the same time."""
        self._db.rows("SELECT pg_advisory_lock(?)", (_GATE,))
        yield  # not in finally: a connection that failed has lost its locks with it
        self._db.rows("SELECT pg_advisory_unlock(?)", (_GATE,))

    def dead(self, writer: str) -> bool:
        """Whether a writer is another process that is gone, as far as the server knows."""
        if writer == self._own:
            return False
        ((free,),) = self._db.rows("SELECT pg_try_advisory_lock(?)", (_key(writer),))
        if free:
            self._db.rows("SELECT pg_advisory_unlock(?)", (_key(writer),))
        return bool(free)

    def resign(self) -> None:
        """Give the lock back: the server takes a moment to find out that a connection was closed."""
        self._db.rows("SELECT pg_advisory_unlock_shared(?)", (_key(self._own),))


def _key(writer: str) -> int:
    """A writer's id as a number of 64 bits with a sign."""
    return int.from_bytes(bytes.fromhex(writer[:16]), signed=True)
