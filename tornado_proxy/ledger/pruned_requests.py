"""The ids of pruned records, so that none is stored a second time.

A process can write a record again that the ledger had before: from its files, when its machine is started again, or
after a commit whose result it did not learn.  While the record exists, the database ignores the second one.  After it
was pruned, the trigger `records_pruned` does, whatever the version of the process; a record that was never stored is
stored, however late.  The trigger compares the start of each record with that of the last prune, and reads the ids only
if the record is older.

A row has the ids of the records of a day that one transaction has removed, 40 bytes for each: " req_1 req_2 ".
"""

from __future__ import annotations

from collections.abc import Set

from tornado_proxy.ledger.database import Database
from tornado_proxy.ledger.dialect import Dialect, Insert, select_pruned

_COLUMNS = ("day", "first_id", "last_id", "ids")
_INSERT = Insert("pruned_requests", _COLUMNS, "day, first_id")
_SELECT = select_pruned("?", "?", "?")
_SELECT_FROM = "SELECT ids FROM pruned_requests WHERE day = ? AND first_id = ?"
_SELECT_BETWEEN = (
    "SELECT first_id, ids FROM pruned_requests "
    "WHERE day = ? AND first_id > ? AND first_id <= ? AND last_id >= ? ORDER BY first_id LIMIT ?"
)

#: Rows that are read at once, 20 KB each.
_PAGE_SIZE = 10


def create_pruned_requests(dialect: Dialect) -> str:
    """Return SQL of the table."""
    columns = ", ".join(f"{name} {dialect.text} NOT NULL" for name in _COLUMNS)
    return f"CREATE TABLE pruned_requests ({columns}, PRIMARY KEY (day, first_id)) {dialect.keyed_table_end};"


def guard_pruned(db: Database, dialect: Dialect, before: str) -> None:
    """Make the trigger, for records that began before a time or day, in a transaction."""
    for statement in dialect.prune_guard:
        db.run(statement.format(before=before))


def add_pruned(db: Database, day: str, removed: Set[str], missing: Set[str]) -> None:
    """Note the ids of records that began on a day (YYYY-MM-DD), in the transaction that removes them.

    Args:
        db: The ledger.
        day: The day.
        removed: The ids that the ledger had until now, of which none is noted: the trigger stores no pruned record.
        missing: Ids that it does not have; those that are noted already are left out.
    """
    new = sorted(removed | _list_unnoted(db, day, missing))
    if new:
        db.insert(_INSERT, [(day, new[0], new[-1], f" {' '.join(new)} ")])


def _list_unnoted(db: Database, day: str, ids: Set[str]) -> set[str]:
    left = set(ids)
    # First the row of the same batch, if an earlier prune has noted it: random ids are between those of every row.
    for (text,) in db.fetch_rows(_SELECT_FROM, (day, min(left))) if left else ():
        left.difference_update(str(text).split())
    after = ""
    while left and (rows := db.fetch_rows(_SELECT_BETWEEN, (day, after, max(left), min(left), _PAGE_SIZE))):
        for first_id, text in rows:
            left.difference_update(str(text).split())
            after = str(first_id)
    return left


def is_pruned(db: Database, request_id: str, started_at: str | None) -> bool:
    """Return True if the record of a request that began at a time has been pruned."""
    values = ((started_at or "")[:10], request_id, request_id, f" {request_id} ")
    return bool(db.fetch_rows(_SELECT, values))
