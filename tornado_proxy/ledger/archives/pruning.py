"""Removes records from the ledger that archives hold and that are final; the sums by hour and day keep their amounts.

    verify the archives ──> add all records to the sums ──> each archived record: the same in the ledger? ──> delete

A record stays if the ledger's differs from the archive's, such as one that was settled after it was archived.  The last
record and the last change stay, too: SQLite would use their numbers again, and cursors would be after the end.  The ids
of removed records stay, so that none is stored a second time (ledger/pruned_requests.py).
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from tornado_proxy.ledger.archives.archiving import SELECT_ARCHIVED, check_head, split_values
from tornado_proxy.ledger.archives.files import (
    ArchivedRecord,
    ArchiveError,
    read_chain,
    read_file,
    verify_file,
)
from tornado_proxy.ledger.changes import SELECT_END, Position
from tornado_proxy.ledger.database import Backend, Database
from tornado_proxy.ledger.dialect import Dialect
from tornado_proxy.ledger.pruned_requests import add_pruned, guard_pruned
from tornado_proxy.ledger.schema import SET_META, prepare
from tornado_proxy.ledger.sums.rebuild import catch_up
from tornado_proxy.ledger.writer.process_locks import ProcessLocks
from tornado_proxy.ledger.writer_turns import pause_for_writers

#: Records of one transaction, for which writers wait.
_BATCH_SIZE = 500

#: The key in `meta` of the day before which records may be missing.
PRUNED_KEY = "pruned_before"


@dataclass(frozen=True, slots=True)
class Pruned:
    """The number of records that were removed, and of those that stay because the ledger has other figures."""

    removed: int
    kept: int


def prune_records(backend: Backend, before: str, folder: Path) -> Pruned:
    """Remove the records of days before a day (YYYY-MM-DD) that archives hold.

    Raises:
        ArchiveError: an archive has changed since it was written, or a program has not read the records yet.
        LedgerUnavailable: the ledger cannot be read.
        StoreError: the ledger cannot be written.
    """
    chain = read_chain(folder)
    check_head(backend, chain)
    links = [link for link in chain if link.day < before]
    for link in links:
        verify_file(folder, link)
    _check_files(backend)
    removed = kept = 0
    with contextlib.closing(backend.connect(create=False)) as db:
        prepare(db, backend)  # an earlier version may have made the tables
        catch_up(db, backend.dialect)
        with db.transaction():
            guard_pruned(db, backend.dialect, max(_find_limit(db), before))
        for link in links:
            records = read_file(folder, link)
            while some := list(islice(records, _BATCH_SIZE)):
                began = time.monotonic()
                number = _prune_some(db, backend.dialect, some, before)
                pause_for_writers(backend.dialect, began)
                removed, kept = removed + number, kept + len(some) - number
    return Pruned(removed, kept)


def _check_files(backend: Backend) -> None:
    """Raise ArchiveError if a process of this machine has left files: the ledger may not have all of their records."""
    if not backend.files_path.parent.is_dir():
        return
    locks = ProcessLocks(backend.files_path)
    with locks.hold_opening_lock():
        if locks.list_dead():
            raise ArchiveError(
                f"a process that has died left files beside {backend.files_path}; start the server once, so that it "
                "writes their records to the ledger, and prune then"
            )


def _prune_some(db: Database, dialect: Dialect, archived: Sequence[ArchivedRecord], before: str) -> int:
    """Remove those of some records of a day that the ledger has unchanged; return their number."""
    by_id = {_find_id(line): line for line in archived}
    with db.transaction():
        for statement in dialect.open_guards:
            db.run(statement)
        marks = ", ".join("?" * len(by_id))
        rows = db.fetch_rows(f"{SELECT_ARCHIVED} WHERE r.request_id IN ({marks})", list(by_id))
        found = [split_values(values) for values in rows]
        ((last_record, last_change),) = db.fetch_rows(SELECT_END)
        same = [line for line in found if line == by_id[_find_id(line)] and _record(line)["seq"] != last_record]
        _check_cursors(db, same)
        if same:
            # First: from now on no report may read records of that time as if they were all.
            _note_limit(db, before)
        ids = [_find_id(line) for line in same]
        _delete(db, ids, last_change)
        # An earlier version has removed some, and noted none.
        missing = by_id.keys() - set(map(_find_id, found))
        add_pruned(db, str(_record(archived[0])["started_at"])[:10], set(ids), missing)
        for statement in dialect.close_guards:
            db.run(statement)
    return len(ids)


def _note_limit(db: Database, before: str) -> None:
    if _find_limit(db) < before:
        db.run(SET_META, (PRUNED_KEY, f"{before}T00:00:00.000Z"))


def _find_limit(db: Database) -> str:
    """Return the time before which records may be missing; "" if none was pruned."""
    ((limit,),) = db.fetch_rows("SELECT coalesce(max(value), '') FROM meta WHERE key = ?", (PRUNED_KEY,))
    return str(limit)


def _delete(db: Database, ids: Sequence[str], last_change: object) -> None:
    marks = ", ".join("?" * len(ids)) or "NULL"
    db.run(f"DELETE FROM changes WHERE request_id IN ({marks}) AND seq <> ?", [*ids, last_change])  # noqa: S608
    for table in ("settlements", "given_up", "records"):
        db.delete(table, "request_id", ids)


def _check_cursors(db: Database, lines: Sequence[ArchivedRecord]) -> None:
    """Raise ArchiveError if a program that follows the ledger has not read some records, or later changes of them."""
    records = max((int(str(_record(line)["seq"])) for line in lines), default=0)
    marks = ", ".join("?" * len(lines)) or "NULL"
    sql = f"SELECT coalesce(max(seq), 0) FROM changes WHERE request_id IN ({marks})"  # noqa: S608
    ((changes,),) = db.fetch_rows(sql, [_record(line)["request_id"] for line in lines])
    for name, text in db.fetch_rows("SELECT name, position FROM cursors"):
        position = Position.parse(str(text))
        if position.record < records or position.change < int(str(changes)):
            raise ArchiveError(
                f"the cursor {name} has not read the records yet; let that program run first, or delete its row "
                "from the table cursors if nothing uses it any more"
            )


def _find_id(archived: ArchivedRecord) -> str:
    return str(_record(archived)["request_id"])


def _record(archived: ArchivedRecord) -> dict[str, object]:
    record = archived["record"]
    assert record is not None
    return record
