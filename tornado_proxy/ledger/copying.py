"""Copies an SQLite ledger, with everything that its database has, into an empty ledger of another database.

The rows of all tables are copied as they are, in one transaction, so that a copy that fails leaves nothing.  Numbers of
records and changes stay, because cursors name them.  Budgets are not copied: the next start sums them again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing

from tornado_proxy.ledger.database import Backend, Database, Read
from tornado_proxy.ledger.dialect import Dialect, quote_names
from tornado_proxy.ledger.pruned_requests import guard_pruned
from tornado_proxy.ledger.schema import prepare

#: Tables whose rows are numbered.  They come first: triggers number the changes of settlements that have none.
_NUMBERED = ("changes", "records")

#: `meta` has the state of its own database too; a running process writes `server_processes`.
_APART = frozenset({"meta", "server_processes"})
_COPY_META = "INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value"
_OWN_META = frozenset({"schema_version", "probed_at"})


class CopyError(Exception):
    """The ledger cannot be copied.  The message says what to do."""


def copy_ledger(source: Backend, target: Backend) -> dict[str, int]:
    """Copy all rows of an SQLite ledger, and return their number by table; the tables of both exist.

    Raises:
        CopyError: a process has the source open, at the end of the copy too, or has died with it, or the target is not
            empty.
        StoreError: a database fails, and nothing was copied.
        LedgerUnavailable: the source cannot be read.
    """
    _check_closed(source)
    with closing(target.connect(create=False)) as db, source.read(snapshot=True) as read:
        prepare(db, target)
        tables = list(_list_tables(read))
        _check_target(db, target, tables)
        with db.transaction():
            rows = {table: _copy_table(read, db, target.dialect, table) for table in tables}
            _copy_meta(read, db, target.dialect)
            # Again: triggers have taken numbers for changes that were there already.
            for table in _NUMBERED:
                _continue_numbers(db, target.dialect, table)
            # A server that was started meanwhile can have written records that the snapshot does not have.
            _check_closed(source)
    return rows


def _check_closed(source: Backend) -> None:
    path = source.files_path
    if next(path.parent.glob(f"{path.name}-writer-*"), None) is not None:
        raise CopyError(
            f"a process has {path} open, or died and left files beside it; end all servers with SIGTERM, after a start "
            "if one had died, and copy then"
        )


def _list_tables(read: Read) -> Iterator[str]:
    found = {str(name) for (name,) in read("SELECT name FROM sqlite_master WHERE type = 'table'", ())}
    yield from _NUMBERED
    yield from sorted(name for name in found - {*_NUMBERED, *_APART} if not name.startswith("sqlite_"))


def _check_target(db: Database, target: Backend, tables: Iterable[str]) -> None:
    existing = db.list_tables()
    for table in tables:
        if table not in existing:
            raise CopyError(f"{target.name}: has no table {table}; start this version of the server with it once")
        if db.fetch_rows(f"SELECT 1 FROM {table} LIMIT 1"):  # noqa: S608  # names of ours
            raise CopyError(f"{target.name}: the table {table} has rows; name an empty database")


def _copy_table(read: Read, db: Database, dialect: Dialect, table: str) -> int:
    columns = [str(name) for (name,) in read("SELECT name FROM pragma_table_info(?)", (table,))]
    names = quote_names(columns)
    keep = dialect.keep_numbers if table in _NUMBERED else ""
    insert = f"INSERT INTO {table} ({names}) {keep} VALUES ({', '.join('?' * len(columns))})"  # noqa: S608  # the same
    copied = 0
    for row in read(f"SELECT {names} FROM {table}", ()):  # noqa: S608  # the same
        db.run(insert, row)
        copied += 1
    if table in _NUMBERED:
        _continue_numbers(db, dialect, table)
    return copied


def _continue_numbers(db: Database, dialect: Dialect, table: str) -> None:
    if dialect.continue_numbers:
        db.run(dialect.continue_numbers.format(table=table))


def _copy_meta(read: Read, db: Database, dialect: Dialect) -> None:
    for key, value in read("SELECT key, value FROM meta", ()):
        if key not in _OWN_META:
            db.run(_COPY_META, (key, value))
        if key == "pruned_before":
            guard_pruned(db, dialect, str(value))
