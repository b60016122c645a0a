"""Stores how far each program that follows the changes of a ledger has come, in the ledger's own database.

A restored backup of the ledger so has cursors of the same time: one that is kept elsewhere would be after changes that
the backup does not have, and miss those that take their numbers.
"""

from __future__ import annotations

from datetime import datetime

from tornado_proxy.ledger.changes import Position
from tornado_proxy.ledger.database import Database
from tornado_proxy.ledger.dialect import Dialect
from tornado_proxy.ledger.rows import format_time

_SELECT = "SELECT position FROM cursors WHERE name = ?"
_INSERT = "INSERT INTO cursors (name, position, moved_at) VALUES (?, ?, ?) ON CONFLICT (name) DO NOTHING"
_UPDATE = "UPDATE cursors SET position = ?, moved_at = ? WHERE name = ?"


class Cursor:
    """The stored position of one program.  Methods raise StoreError if the database fails."""

    def __init__(self, db: Database, dialect: Dialect, name: str) -> None:
        self._db = db
        self._row_lock = dialect.row_lock
        self._name = name

    def read(self) -> Position | None:
        """Return the stored position; None if there is none yet."""
        rows = self._db.fetch_rows(_SELECT, (self._name,))
        return Position.parse(str(rows[0][0])) if rows else None

    def move(self, position: Position, now: datetime) -> Position:
        """Store a position, unless another process has stored one that is not before it; return the stored one."""
        with self._db.transaction():
            self._db.run(_INSERT, (self._name, str(position), format_time(now)))
            rows = self._db.fetch_rows(f"{_SELECT} {self._row_lock}", (self._name,))
            stored = Position.parse(str(rows[0][0]))
            # Not the larger number of each: records and changes of two positions do not belong together.
            if not stored.is_before(position):
                return stored
            self._db.run(_UPDATE, (str(position), format_time(now), self._name))
        return position
