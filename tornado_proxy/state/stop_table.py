"""The table of stops: a row for each stop that is in force; state_changes keeps who has made and lifted it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime

from tornado_proxy.domain.stop import Stop, StopTarget
from tornado_proxy.ledger.database import Database
from tornado_proxy.ledger.dialect import Dialect
from tornado_proxy.ledger.rows import format_time

_COLUMNS = "id, project_id, participant, agent_session, actor, created_at, reason"
_SELECT = f"SELECT {_COLUMNS} FROM stops ORDER BY created_at, id"  # noqa: S608  # names of ours
_INSERT = f"INSERT INTO stops ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)"  # noqa: S608  # names of ours
_COUNT_CHANGES = "SELECT count(*) FROM state_changes WHERE action = ? AND subject = ?"
_DELETE = "DELETE FROM stops WHERE id = ?"


def _create_stops(sql: Dialect) -> str:
    return f"""
CREATE TABLE IF NOT EXISTS stops (
    id {sql.text} PRIMARY KEY,
    project_id {sql.text},
    participant {sql.text},
    agent_session {sql.text},
    actor {sql.text} NOT NULL,
    created_at {sql.text} NOT NULL,
    reason {sql.text} NOT NULL
) {sql.keyed_table_end};
"""


#: Each table, and the function that returns the SQL which makes it.
TABLES: Mapping[str, Callable[[Dialect], str]] = {"stops": _create_stops}


def read_all(db: Database) -> list[Stop]:
    """Return all stops, oldest first."""
    return [
        Stop(
            str(stop_id),
            StopTarget(_text(project_id), _text(participant), _text(agent_session)),
            str(actor),
            datetime.fromisoformat(str(created_at)),
            str(reason),
        )
        for stop_id, project_id, participant, agent_session, actor, created_at, reason in db.fetch_rows(_SELECT)
    ]


def insert(db: Database, stop: Stop) -> None:
    """Store a stop."""
    target = stop.target
    values = (stop.id, target.project_id, target.participant, target.agent_session)
    db.run(_INSERT, (*values, stop.actor, format_time(stop.created_at), stop.reason))


def delete(db: Database, stop_id: str) -> None:
    """Delete a stop."""
    db.run(_DELETE, (stop_id,))


def count_changes(db: Database, action: str, stop_id: str) -> int:
    """Return how often an action was done to a stop, which may have been lifted."""
    return int(str(db.fetch_rows(_COUNT_CHANGES, (action, stop_id))[0][0]))


def _text(value: object) -> str | None:
    return None if value is None else str(value)
