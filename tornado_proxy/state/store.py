"""The tables of the state in the ledger's database.  Synchronous; one thread uses a store.

    access_keys, access_key_secrets    state/access_key_table.py
    budget_changes                     state/budget_table.py
    stops                              state/stop_table.py
    provider_settings                  state/provider_settings_table.py
    dashboard_sessions                 state/dashboard_sessions.py
    alert_messages                     state/alert_table.py
    server_processes                   state/process_table.py
    idempotency_keys                   state/guarded_changes.py
    state_changes                      append-only: who changed what, one row for each generation
    meta                               the ledger's own table: `state_generation`

Each change is one transaction that first adds one to the generation.  That takes the lock of its row, so changes are
made one after the other, and a reader that has seen a generation has seen every change up to it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import UTC, datetime

from tornado_proxy.domain.state import State, StateChange
from tornado_proxy.ledger.database import Backend, Database, StoreError
from tornado_proxy.ledger.dialect import Dialect
from tornado_proxy.ledger.rows import format_time
from tornado_proxy.ledger.schema import prepare
from tornado_proxy.ledger.writer.process_locks import ProcessLocks
from tornado_proxy.state import (
    access_key_table,
    alert_table,
    budget_table,
    dashboard_session_table,
    guarded_changes,
    process_table,
    provider_settings_table,
    stop_table,
)

_SELECT_GENERATION = "SELECT value FROM meta WHERE key = 'state_generation'"
_NEXT_GENERATION = (
    "INSERT INTO meta (key, value) VALUES ('state_generation', '1') "
    "ON CONFLICT (key) DO UPDATE SET value = CAST(CAST(meta.value AS INTEGER) + 1 AS TEXT) RETURNING value"
)
_INSERT_CHANGE = "INSERT INTO state_changes (generation, at, actor, action, subject) VALUES (?, ?, ?, ?, ?)"
_SELECT_CHANGES = (
    "SELECT generation, at, actor, action, subject FROM state_changes WHERE generation > ? ORDER BY generation LIMIT ?"
)

#: Changes that one call of list_changes() returns.
_MAX_LISTED_CHANGES = 1000


def _create_changes(sql: Dialect) -> str:
    return f"""
CREATE TABLE IF NOT EXISTS state_changes (
    generation {sql.number} PRIMARY KEY,
    at {sql.text} NOT NULL,
    actor {sql.text} NOT NULL,
    action {sql.text} NOT NULL,
    subject {sql.text} NOT NULL
) {sql.table_end};
"""


#: Each table, and the function that returns the SQL which makes it.
_TABLES = {
    "state_changes": _create_changes,
    **access_key_table.TABLES,
    **alert_table.TABLES,
    **budget_table.TABLES,
    **guarded_changes.TABLES,
    **process_table.TABLES,
    **stop_table.TABLES,
    **provider_settings_table.TABLES,
    **dashboard_session_table.TABLES,
}


class StateStore:
    """The state of one ledger, with a connection of its own, which is made when it is needed.

    Methods raise StoreError if the database fails; the next call connects again.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._db: Database | None = None
        self._was_connected = False

    def read_generation(self) -> int:
        """Return the number of the last change, 0 before the first one."""
        with self._connection() as db:
            return _read_generation(db)

    def read(self) -> State:
        """Return the state."""
        with self._connection() as db:
            # The generation first: a change between the two is then read again, never missed.
            generation = _read_generation(db)
            try:
                return State(
                    generation,
                    access_key_table.read_usable(db, datetime.now(UTC)),
                    budget_table.read_all(db),
                    tuple(stop_table.read_all(db)),
                    provider_settings_table.read_all(db),
                )
            except (ValueError, TypeError, AttributeError, ArithmeticError) as error:
                raise StoreError(f"{self._backend.name}: a row of the state is damaged ({error})") from error

    def list_changes(self, after: int) -> list[StateChange]:
        """Return the changes after a generation, oldest first."""
        with self._connection() as db:
            return [
                StateChange(
                    int(str(generation)), datetime.fromisoformat(str(at)), str(actor), str(action), str(subject)
                )
                for generation, at, actor, action, subject in db.fetch_rows(
                    _SELECT_CHANGES, (after, _MAX_LISTED_CHANGES)
                )
            ]

    @contextlib.contextmanager
    def change(self, actor: str, action: str, subject: str) -> Iterator[Database]:
        """Run the statements of a `with` block as one change: all of them or, after an exception, none.

        Args:
            actor: Who makes the change.
            action: The change, such as `access key created`.
            subject: The public id of the changed thing.
        """
        with self._connection() as db, db.transaction():
            ((generation,),) = db.fetch_rows(_NEXT_GENERATION)
            values = (int(str(generation)), format_time(datetime.now(UTC)), actor, action, subject)
            db.run(_INSERT_CHANGE, values)
            yield db

    @contextlib.contextmanager
    def reading(self) -> Iterator[Database]:
        """Run the queries of a `with` block."""
        with self._connection() as db:
            yield db

    @contextlib.contextmanager
    def writing(self) -> Iterator[Database]:
        """Run the statements of a `with` block in a transaction that is no change of the state."""
        with self._connection() as db, db.transaction():
            yield db

    @property
    def row_lock(self) -> str:
        """The end of a SELECT whose rows no other transaction may change; see Dialect."""
        return self._backend.dialect.row_lock

    def close(self) -> None:
        """Close the connection."""
        db, self._db = self._db, None
        if db is not None:
            with contextlib.suppress(StoreError):
                db.close()

    @contextlib.contextmanager
    def _connection(self) -> Iterator[Database]:
        """Yield the connection; close it if the database fails, so that the next call makes another one."""
        if self._db is None:
            self._db = self._connect()
        try:
            yield self._db
        except StoreError:
            self.close()
            raise

    def _connect(self) -> Database:
        # Only the first time: a file that is missing later was moved away, and an empty one would have no keys.
        db = self._backend.connect(create=not self._was_connected)
        try:
            liveness = self._backend.make_liveness(db, ProcessLocks(self._backend.files_path))
            # A command can be the first to open the ledger, and two processes can start together.
            with liveness.hold_opening_lock():
                prepare(db, self._backend)
                self._create_missing_tables(db)
        except OSError as error:
            db.close()
            raise StoreError(f"{self._backend.name}: {error.strerror or error}") from error
        except BaseException:
            db.close()
            raise
        self._was_connected = True
        return db

    def _create_missing_tables(self, db: Database) -> None:
        existing = db.list_tables()
        missing = [create for name, create in _TABLES.items() if name not in existing]
        if missing:
            db.run_script("".join(create(self._backend.dialect) for create in missing))


def _read_generation(db: Database) -> int:
    rows = db.fetch_rows(_SELECT_GENERATION)
    return int(str(rows[0][0])) if rows else 0
