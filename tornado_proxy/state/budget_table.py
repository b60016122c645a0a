"""The table of budgets whose limit was changed while the server runs: one row for each budget and subject."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal

from tornado_proxy.domain.budgets.budget import BudgetChange
from tornado_proxy.domain.budgets.counter import CounterKind, decode_kind, encode_kind
from tornado_proxy.ledger.database import Database
from tornado_proxy.ledger.dialect import Dialect
from tornado_proxy.ledger.rows import format_time

#: The column `subject` of a row that concerns all subjects; another one has a sign before the subject.
_ALL, _SIGN = "*", "="

_COLUMNS = "project_id, kind, subject, usd, valid_until, changed_at, actor"
_SELECT = f"SELECT {_COLUMNS} FROM budget_changes ORDER BY project_id, kind, subject"  # noqa: S608  # names of ours
_INSERT = f"INSERT INTO budget_changes ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)"  # noqa: S608  # names of ours
_DELETE = "DELETE FROM budget_changes WHERE project_id = ? AND kind = ? AND subject = ?"
_DELETE_ENDED = "DELETE FROM budget_changes WHERE valid_until < ?"


def _create(sql: Dialect) -> str:
    return f"""
CREATE TABLE IF NOT EXISTS budget_changes (
    project_id {sql.text} NOT NULL,
    kind {sql.text} NOT NULL,
    subject {sql.text} NOT NULL,
    usd {sql.text},
    valid_until {sql.text},
    changed_at {sql.text} NOT NULL,
    actor {sql.text} NOT NULL,
    PRIMARY KEY (project_id, kind, subject)
) {sql.keyed_table_end};
"""


#: Each table, and the function that returns the SQL which makes it.
TABLES: Mapping[str, Callable[[Dialect], str]] = {"budget_changes": _create}


def read_all(db: Database) -> dict[str, Sequence[BudgetChange]]:
    """Return the changes of each project, also ended ones, by project id.

    Raises:
        ValueError, TypeError or ArithmeticError: a row was not written by this program.
    """
    changes: dict[str, list[BudgetChange]] = {}
    for project_id, kind, subject, usd, until, changed_at, actor in db.fetch_rows(_SELECT):
        change = BudgetChange(
            str(project_id),
            decode_kind(str(kind)),
            None if subject == _ALL else str(subject).removeprefix(_SIGN),
            None if usd is None else Decimal(str(usd)),
            None if until is None else datetime.fromisoformat(str(until)),
            datetime.fromisoformat(str(changed_at)),
            str(actor),
        )
        changes.setdefault(change.project_id, []).append(change)
    return {project_id: tuple(listed) for project_id, listed in changes.items()}


def replace(db: Database, change: BudgetChange) -> None:
    """Store a change in place of the one before it, and delete those that have ended."""
    db.run(_DELETE_ENDED, (format_time(change.changed_at),))
    delete(db, change.project_id, change.kind, change.subject)
    db.run(
        _INSERT,
        (
            change.project_id,
            encode_kind(change.kind),
            _encode_subject(change.subject),
            None if change.limit is None else f"{change.limit:f}",
            None if change.until is None else format_time(change.until),
            format_time(change.changed_at),
            change.actor,
        ),
    )


def delete(db: Database, project_id: str, kind: CounterKind, subject: str | None) -> None:
    """Delete a change."""
    db.run(_DELETE, (project_id, encode_kind(kind), _encode_subject(subject)))


def _encode_subject(subject: str | None) -> str:
    return _ALL if subject is None else _SIGN + subject
