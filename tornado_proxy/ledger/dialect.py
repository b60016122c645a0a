"""Where the SQL of SQLite and PostgreSQL differs; all other SQL of the ledger is the same for both.

Both take `?` for a parameter here: PostgreSQL's driver wants `%s`, which its Database puts there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain
from typing import TypeVar

import msgspec

#: Rows of one of SQLite's statements, largest first.  Few sizes, so that all statements stay prepared.
_RUNS = (256, 32, 4, 1)

Row = Sequence[object]

_encode = msgspec.json.Encoder().encode

_Any = TypeVar("_Any")

#: A statement and its parameters.
Bound = tuple[str, Sequence[object]]


@dataclass(frozen=True, slots=True)
class Insert:
    """Rows for a table.  One whose `key` is there already is passed over."""

    table: str
    columns: tuple[str, ...]
    key: str

    @property
    def start(self) -> str:
        """The SQL before the rows."""
        return f"INSERT INTO {self.table} ({quoted(self.columns)})"

    @property
    def end(self) -> str:
        """The SQL after them."""
        return f"ON CONFLICT ({self.key}) DO NOTHING"


@dataclass(frozen=True, slots=True)
class Dialect:
    """`inserts` and `deletes` take many rows in few statements.  Each statement gives the interpreter's lock back and
    waits for it again, some milliseconds each time while the event loop is busy; row by row, a batch of a hundred took
    seconds.

    `text` is the type of all that is compared and sorted byte by byte; `guards` keep tables append-only.
    """

    text: str
    number: str
    sequence: str
    table_end: str
    keyed_table_end: str
    guards: str
    inserts: Callable[[Insert, Sequence[Row]], Iterator[Bound]]
    deletes: Callable[[str, str, Sequence[object]], Iterator[Bound]]


def quoted(names: Iterable[str]) -> str:
    """Column names as SQL."""
    return ", ".join(f'"{name}"' for name in names)


def _sqlite_inserts(insert: Insert, rows: Sequence[Row]) -> Iterator[Bound]:
    for run in _runs(rows):
        yield _values(insert, len(run)), list(chain.from_iterable(run))


def _sqlite_deletes(table: str, column: str, keys: Sequence[object]) -> Iterator[Bound]:
    for run in _runs(keys):
        yield f"DELETE FROM {table} WHERE {column} IN ({', '.join('?' * len(run))})", run  # noqa: S608  # names of ours


def _runs(rows: Sequence[_Any]) -> Iterator[Sequence[_Any]]:
    at = 0
    for size in _RUNS:
        while len(rows) - at >= size:
            yield rows[at : at + size]
            at += size


@cache
def _values(insert: Insert, rows: int) -> str:
    group = f"({', '.join('?' * len(insert.columns))})"
    return f"{insert.start} VALUES {', '.join([group] * rows)} {insert.end}"


def _postgres_inserts(insert: Insert, rows: Sequence[Row]) -> Iterator[Bound]:
    """One JSON text, which the server takes apart: any number of rows is one prepared statement of one parameter.

    Arrays of columns, and a parameter for each value, cost the driver 100 microseconds a row.
    """
    if rows:
        objects = [dict(zip(insert.columns, row, strict=True)) for row in rows]
        yield _from_json(insert), (_encode(objects).decode(),)


@cache
def _from_json(insert: Insert) -> str:
    columns = ", ".join(f'"{name}" {"integer" if name == "status" else "text"}' for name in insert.columns)
    return f"{insert.start} SELECT * FROM json_to_recordset(?::json) AS row({columns}) {insert.end}"  # noqa: S608  # names of ours


def _postgres_deletes(table: str, column: str, keys: Sequence[object]) -> Iterator[Bound]:
    if keys:
        yield f"DELETE FROM {table} WHERE {column} = ANY(?)", (list(keys),)  # noqa: S608  # names of ours


SQLITE = Dialect(
    text="TEXT",
    number="INTEGER",
    sequence="INTEGER PRIMARY KEY",
    table_end="STRICT",
    keyed_table_end="STRICT, WITHOUT ROWID",
    # A trigger beside ON CONFLICT: INSERT OR REPLACE of another program would delete the first record without asking
    # the DELETE trigger.
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
""",
    inserts=_sqlite_inserts,
    deletes=_sqlite_deletes,
)

POSTGRES = Dialect(
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
""",
    inserts=_postgres_inserts,
    deletes=_postgres_deletes,
)
