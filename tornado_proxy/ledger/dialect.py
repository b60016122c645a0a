"""The differences between the SQL of SQLite and of PostgreSQL; all other SQL of the ledger is the same for both.

`?` is the placeholder of a parameter in both.  postgres/database.py replaces it with the `%s` of PostgreSQL's driver.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain
from typing import TypeVar

import msgspec

#: Rows of one statement for SQLite, largest first.  Few sizes, so that all statements stay prepared.  256 rows of the
#: records' 29 columns stay below SQLite's limit of 32766 parameters.  https://sqlite.org/limits.html
_RUN_SIZES = (256, 32, 4, 1)

Row = Sequence[object]

_encode = msgspec.json.Encoder().encode

_Item = TypeVar("_Item")

#: A statement and its parameters.
BoundStatement = tuple[str, Sequence[object]]


@dataclass(frozen=True, slots=True)
class Insert:
    """An INSERT of rows into a table.  A row whose `key` exists already is ignored."""

    table: str
    columns: tuple[str, ...]
    key: str

    @property
    def start(self) -> str:
        """The SQL in front of the rows."""
        return f"INSERT INTO {self.table} ({quote_names(self.columns)})"

    @property
    def end(self) -> str:
        """The SQL after the rows."""
        return f"ON CONFLICT ({self.key}) DO NOTHING"


@dataclass(frozen=True, slots=True)
class Dialect:
    """The SQL of one database.

    text, number, sequence: types of columns; values of type `text` are compared byte by byte.
    table_end, keyed_table_end: the end of CREATE TABLE, without and with a primary key of text.
    guards: triggers that keep tables append-only.
    inserts: returns the statements that insert rows.
    deletes: returns the statements that delete the rows of a table whose column has one of the values.
    """

    # `inserts` and `deletes` return few statements for many rows.  Each statement releases the interpreter's lock and
    # waits for it again, some milliseconds while the event loop is busy: row by row, a batch of a hundred took seconds.

    text: str
    number: str
    sequence: str
    table_end: str
    keyed_table_end: str
    guards: str
    inserts: Callable[[Insert, Sequence[Row]], Iterator[BoundStatement]]
    deletes: Callable[[str, str, Sequence[object]], Iterator[BoundStatement]]


def quote_names(names: Iterable[str]) -> str:
    """Return column names as SQL."""
    return ", ".join(f'"{name}"' for name in names)


def _sqlite_inserts(insert: Insert, rows: Sequence[Row]) -> Iterator[BoundStatement]:
    for run in _split_into_runs(rows):
        yield _insert_values(insert, len(run)), list(chain.from_iterable(run))


def _sqlite_deletes(table: str, column: str, keys: Sequence[object]) -> Iterator[BoundStatement]:
    for run in _split_into_runs(keys):
        yield f"DELETE FROM {table} WHERE {column} IN ({', '.join('?' * len(run))})", run  # noqa: S608  # names of ours


def _split_into_runs(rows: Sequence[_Item]) -> Iterator[Sequence[_Item]]:
    """Yield the rows in runs of _RUN_SIZES."""
    start = 0
    for size in _RUN_SIZES:
        while len(rows) - start >= size:
            yield rows[start : start + size]
            start += size


@cache
def _insert_values(insert: Insert, rows: int) -> str:
    group = f"({', '.join('?' * len(insert.columns))})"
    return f"{insert.start} VALUES {', '.join([group] * rows)} {insert.end}"


def _postgres_inserts(insert: Insert, rows: Sequence[Row]) -> Iterator[BoundStatement]:
    """Yield one statement whose only parameter is a JSON text of all rows, for the server to parse.

    So any number of rows shares one prepared statement.  Arrays of columns, or a parameter for each value, cost the
    driver 100 microseconds a row.
    """
    if rows:
        objects = [dict(zip(insert.columns, row, strict=True)) for row in rows]
        yield _insert_json(insert), (_encode(objects).decode(),)


@cache
def _insert_json(insert: Insert) -> str:
    columns = ", ".join(f'"{name}" {"integer" if name == "status" else "text"}' for name in insert.columns)
    return f"{insert.start} SELECT * FROM json_to_recordset(?::json) AS row({columns}) {insert.end}"  # noqa: S608  # names of ours


def _postgres_deletes(table: str, column: str, keys: Sequence[object]) -> Iterator[BoundStatement]:
    if keys:
        yield f"DELETE FROM {table} WHERE {column} = ANY(?)", (list(keys),)  # noqa: S608  # names of ours


SQLITE = Dialect(
    text="TEXT",
    number="INTEGER",
    sequence="INTEGER PRIMARY KEY",
    table_end="STRICT",
    keyed_table_end="STRICT, WITHOUT ROWID",
    # records_once is needed beside ON CONFLICT: INSERT OR REPLACE of another program deletes the first record without
    # firing its DELETE trigger, unless recursive_triggers is on.  https://sqlite.org/lang_conflict.html
    guards="""
CREATE TRIGGER IF NOT EXISTS records_once BEFORE INSERT ON records
    WHEN EXISTS (SELECT 1 FROM records WHERE request_id = NEW.request_id OR seq = NEW.seq)
    BEGIN SELECT RAISE(IGNORE); END;
CREATE TRIGGER IF NOT EXISTS records_keep BEFORE UPDATE ON records
    BEGIN SELECT RAISE(ABORT, 'records are append-only'); END;
CREATE TRIGGER IF NOT EXISTS records_stay BEFORE DELETE ON records
    BEGIN SELECT RAISE(ABORT, 'records are append-only'); END;
CREATE TRIGGER IF NOT EXISTS settlements_keep BEFORE UPDATE ON settlements
    BEGIN SELECT RAISE(ABORT, 'settlements are append-only'); END;
CREATE TRIGGER IF NOT EXISTS settlements_stay BEFORE DELETE ON settlements
    BEGIN SELECT RAISE(ABORT, 'settlements are append-only'); END;
CREATE TRIGGER IF NOT EXISTS given_up_keep BEFORE UPDATE ON given_up
    BEGIN SELECT RAISE(ABORT, 'given_up are append-only'); END;
CREATE TRIGGER IF NOT EXISTS given_up_stay BEFORE DELETE ON given_up
    BEGIN SELECT RAISE(ABORT, 'given_up are append-only'); END;
""",
    inserts=_sqlite_inserts,
    deletes=_sqlite_deletes,
)

POSTGRES = Dialect(
    # The collation of the database may compare by language rules; times and ids are compared byte by byte.
    text='TEXT COLLATE "C"',
    number="INTEGER",
    sequence="BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY",
    table_end="",
    keyed_table_end="",
    guards="""
CREATE OR REPLACE FUNCTION append_only() RETURNS trigger LANGUAGE plpgsql AS
    'BEGIN RAISE EXCEPTION USING MESSAGE = TG_TABLE_NAME || '' are append-only''; END';
CREATE OR REPLACE TRIGGER records_keep BEFORE UPDATE OR DELETE OR TRUNCATE ON records
    FOR EACH STATEMENT EXECUTE FUNCTION append_only();
CREATE OR REPLACE TRIGGER settlements_keep BEFORE UPDATE OR DELETE OR TRUNCATE ON settlements
    FOR EACH STATEMENT EXECUTE FUNCTION append_only();
CREATE OR REPLACE TRIGGER given_up_keep BEFORE UPDATE OR DELETE OR TRUNCATE ON given_up
    FOR EACH STATEMENT EXECUTE FUNCTION append_only();
""",
    inserts=_postgres_inserts,
    deletes=_postgres_deletes,
)
