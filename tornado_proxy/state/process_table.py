"""The table of server processes: a row for each that runs, with its running requests while a page shows them.

Times are those of the processes' own clocks, so that the nodes of a PostgreSQL ledger need clocks that agree within
seconds.  Each function is part of a transaction of the caller.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from tornado_proxy.ledger.database import Database
from tornado_proxy.ledger.dialect import Dialect
from tornado_proxy.ledger.rows import format_time

_SELECT_OTHERS = "SELECT id, written_at, watches, running FROM server_processes WHERE id <> ? AND written_at >= ?"
_WRITE = (
    "INSERT INTO server_processes (id, written_at, watches, running) VALUES (?, ?, ?, ?) ON CONFLICT (id) DO UPDATE "
    "SET written_at = excluded.written_at, watches = excluded.watches, running = excluded.running"
)
_DELETE = "DELETE FROM server_processes WHERE id = ?"
_DELETE_OLD = "DELETE FROM server_processes WHERE written_at < ?"


def _create(sql: Dialect) -> str:
    return f"""
CREATE TABLE IF NOT EXISTS server_processes (
    id {sql.text} PRIMARY KEY,
    written_at {sql.text} NOT NULL,
    watches {sql.number} NOT NULL,
    running {sql.text}
) {sql.keyed_table_end};
"""


#: Each table, and the function that returns the SQL which makes it.
TABLES: Mapping[str, Callable[[Dialect], str]] = {"server_processes": _create}


@dataclass(frozen=True, slots=True)
class ServerProcess:
    """A server process, as it has described itself.

    Attributes:
        id: The id of its writer of the ledger.
        written_at: When it wrote this, aware UTC.
        watches: True if it shows a page of running requests.
        running: Its running requests, None unless another process watches.
    """

    id: str
    written_at: datetime
    watches: bool = False
    running: str | None = None


def list_others(db: Database, own_id: str, since: datetime) -> list[ServerProcess]:
    """Return the processes but `own_id` that have written at or after `since`."""
    return [
        ServerProcess(
            str(process_id),
            datetime.fromisoformat(str(written_at)),
            bool(watches),
            None if running is None else str(running),
        )
        for process_id, written_at, watches, running in db.fetch_rows(_SELECT_OTHERS, (own_id, format_time(since)))
    ]


def write(db: Database, process: ServerProcess) -> None:
    """Add or replace the row of a process."""
    db.run(_WRITE, (process.id, format_time(process.written_at), int(process.watches), process.running))


def delete(db: Database, process_id: str) -> None:
    """Delete the row of a process that ends."""
    db.run(_DELETE, (process_id,))


def delete_old(db: Database, before: datetime) -> None:
    """Delete the rows that were written before a time: those of processes that were killed."""
    db.run(_DELETE_OLD, (format_time(before),))
