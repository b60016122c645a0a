"""The SQL of tables in which SQLite and PostgreSQL differ; sqlite/ and postgres/ insert and delete rows.

`?` is the placeholder of a parameter in both.  postgres/database.py replaces it with the `%s` of PostgreSQL's driver.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

#: The values of a row, in the order of its columns.
Values = Sequence[object]

#: A statement and its parameters.
BoundStatement = tuple[str, Sequence[object]]


# eq=False: found by identity in the caches of statements.  Hashing 42 names takes as long as binding five values.
@dataclass(frozen=True, slots=True, eq=False)
class Insert:
    """An INSERT of rows into a table.  A row whose `key` exists already is ignored.

    key: the columns of a unique index, "" for any unique index of the table.
    update: SQL that changes the existing row instead; no two inserted rows may then have the same key on PostgreSQL.
    numbers: columns of whole numbers of 64 bits.
    """

    table: str
    columns: tuple[str, ...]
    key: str
    update: str = ""
    numbers: frozenset[str] = frozenset()

    @property
    def start(self) -> str:
        """The SQL in front of the rows."""
        return f"INSERT INTO {self.table} ({quote_names(self.columns)})"

    @property
    def end(self) -> str:
        """The SQL after the rows."""
        key = f"({self.key}) " if self.key else ""
        return f"ON CONFLICT {key}DO {f'UPDATE SET {self.update}' if self.update else 'NOTHING'}"


@dataclass(frozen=True, slots=True)
class Dialect:
    """The SQL of one database's tables.

    text, number, big_number, sequence: types of columns; values of type `text` are compared byte by byte,
        `big_number` has 64 bits.
    table_end, keyed_table_end: the end of CREATE TABLE, without and with a primary key of text.
    guards: triggers that keep tables append-only.
    open_guards, close_guards: statements that permit to delete archived rows in a transaction, and end that.
    change_triggers: triggers that fill the table `changes`.
    row_lock: the end of a SELECT whose rows no other transaction may change before this one has ended.
    announce_writer: the statement with which a transaction that writes records begins, "" if none is needed.
    json_rows: the table of the elements of a JSON array, which is a parameter.
    json_text: SQL of an element of such a row, which is an array too, as text; `{}` is its index.
    clock_us: the query of microseconds since 1970, "" if all processes have the clock of one machine.
    wait_for_writers: the statement that waits for all such transactions; the seq of a later record is higher than that
        of any record then visible.
    is_standby: the query that is true for a copy of the database, which has the rows of writers, but not their locks.
    prune_guard: statements that make the trigger `records_pruned` of `records`, which ignores records that began before
        `{before}` and were pruned (pruned_requests.py).
    record_trigger: the name of the trigger of `records` that announces writers which do not do so, and SQL that makes
        it; "" if none is needed.
    keep_numbers: the clause of an INSERT, before VALUES, to give a row of a numbered table its own number.
    continue_numbers: the query after which `{table}` numbers its rows from its last one on; "" if it does so itself.
    join_texts: the aggregate function of a text and a separator that joins texts.
    """

    text: str
    number: str
    big_number: str
    sequence: str
    table_end: str
    keyed_table_end: str
    guards: str
    change_triggers: str
    row_lock: str
    open_guards: tuple[str, ...]
    close_guards: tuple[str, ...]
    prune_guard: tuple[str, ...]
    announce_writer: str = ""
    wait_for_writers: str = ""
    is_standby: str = ""
    record_trigger: tuple[str, str] = ("", "")
    clock_us: str = ""
    json_rows: str = ""
    json_text: str = ""
    keep_numbers: str = ""
    continue_numbers: str = ""
    join_texts: str = "group_concat"


def quote_names(names: Iterable[str]) -> str:
    """Return column names as SQL."""
    return ", ".join(f'"{name}"' for name in names)


def select_pruned(day: str, request_id: str, word: str) -> str:
    """Return the query of a pruned request, from SQL of its day, its id, and its id between two spaces."""
    return (
        f"SELECT 1 FROM pruned_requests WHERE day = {day} AND first_id <= {request_id} AND last_id >= {request_id} "  # noqa: S608  # names of ours
        f"AND replace(ids, {word}, '') <> ids"
    )


_SELECT_PRUNED = select_pruned("substr(NEW.started_at, 1, 10)", "NEW.request_id", "' ' || NEW.request_id || ' '")

#: The tables whose rows are never changed, and deleted only if archives hold them.
_GUARDED = ("records", "settlements", "given_up")

#: The key of the advisory lock of the transactions that write records: "records" in ASCII.
_WRITERS_KEY = 0x7265_636F_7264_7300

#: The kind of a change (changes.py) -> the table, the event and the condition of the trigger that notes it.
_CHANGE_EVENTS = {
    "settlement": ("settlements", "INSERT", ""),
    "given_up": ("given_up", "INSERT", ""),
    "lost": ("intents", "UPDATE OF lost_at", "WHEN (NEW.lost_at IS NOT NULL)"),
}


def _make_change_triggers(row: str, action: str) -> str:
    """Return the triggers of a database: `row` precedes the condition, `action` is done with the kind for `KIND`."""
    return "".join(
        f"CREATE TRIGGER {table}_change AFTER {event} ON {table} {row} {condition} {action};\n".replace("KIND", kind)
        for kind, (table, event, condition) in _CHANGE_EVENTS.items()
    )


SQLITE = Dialect(
    text="TEXT",
    number="INTEGER",
    big_number="INTEGER",
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
    change_triggers=_make_change_triggers(
        "",
        "BEGIN INSERT INTO changes (request_id, kind) SELECT NEW.request_id, 'KIND' "
        "WHERE NOT EXISTS (SELECT 1 FROM changes WHERE request_id = NEW.request_id AND kind = 'KIND'); END",
    ),
    row_lock="",  # a transaction holds the lock of the whole file
    open_guards=tuple(f"DROP TRIGGER {table}_stay" for table in _GUARDED),
    close_guards=tuple(
        f"CREATE TRIGGER {table}_stay BEFORE DELETE ON {table} "
        f"BEGIN SELECT RAISE(ABORT, '{table} are append-only'); END"
        for table in _GUARDED
    ),
    prune_guard=(
        "DROP TRIGGER IF EXISTS records_pruned",
        "CREATE TRIGGER records_pruned BEFORE INSERT ON records "
        f"WHEN NEW.started_at < '{{before}}' AND EXISTS ({_SELECT_PRUNED}) BEGIN SELECT RAISE(IGNORE); END",
    ),
    json_rows="json_each(?)",
    json_text="json_extract(value, '$[{}]')",
)

POSTGRES = Dialect(
    # The collation of the database may compare by language rules; times and ids are compared byte by byte.
    text='TEXT COLLATE "C"',
    number="INTEGER",
    big_number="BIGINT",
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
    # The function announces its writer itself: processes of an earlier version fire it too.
    change_triggers=f"""
CREATE OR REPLACE FUNCTION note_change() RETURNS trigger LANGUAGE plpgsql AS
    'BEGIN PERFORM pg_advisory_xact_lock_shared({_WRITERS_KEY});
     INSERT INTO changes (request_id, kind) VALUES (NEW.request_id, TG_ARGV[0]) ON CONFLICT DO NOTHING;
     RETURN NULL; END';
"""  # noqa: S608  # a number of ours
    + _make_change_triggers("FOR EACH ROW", "EXECUTE FUNCTION note_change('KIND')"),
    row_lock="FOR UPDATE",
    open_guards=tuple(f"ALTER TABLE {table} DISABLE TRIGGER {table}_keep" for table in _GUARDED),
    close_guards=tuple(f"ALTER TABLE {table} ENABLE TRIGGER {table}_keep" for table in _GUARDED),
    # It sees the ids of a transaction that prunes: writers wait for its lock on `records` (open_guards).
    prune_guard=(
        "CREATE OR REPLACE FUNCTION ignore_pruned() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$BEGIN IF EXISTS ({_SELECT_PRUNED}) THEN RETURN NULL; END IF; RETURN NEW; END$$",
        "CREATE OR REPLACE TRIGGER records_pruned BEFORE INSERT ON records FOR EACH ROW "
        "WHEN (NEW.started_at < '{before}') EXECUTE FUNCTION ignore_pruned()",
    ),
    # PostgreSQL draws the numbers of records before it commits them.  Whoever waits for the shared locks of the writers
    # sees every record with a lower number than the next one.
    announce_writer=f"SELECT pg_advisory_xact_lock_shared({_WRITERS_KEY})",
    wait_for_writers=f"SELECT pg_advisory_xact_lock({_WRITERS_KEY})",
    is_standby="SELECT pg_is_in_recovery()",
    # Before the numbers of the rows are drawn.  A trigger, because processes of an earlier version announce nothing.
    record_trigger=(
        "records_announce",
        f"""
CREATE OR REPLACE FUNCTION announce_writer() RETURNS trigger LANGUAGE plpgsql AS
    'BEGIN PERFORM pg_advisory_xact_lock_shared({_WRITERS_KEY}); RETURN NULL; END';
CREATE OR REPLACE TRIGGER records_announce BEFORE INSERT ON records
    FOR EACH STATEMENT EXECUTE FUNCTION announce_writer();
""",
    ),
    # Not now(), which is the start of the transaction: it may have waited for locks since.
    json_rows="json_array_elements(CAST(? AS json))",
    json_text='(value ->> {}) COLLATE "C"',
    clock_us="SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint",
    keep_numbers="OVERRIDING SYSTEM VALUE",
    continue_numbers=(
        "SELECT setval(pg_get_serial_sequence('{table}', 'seq'), "
        "(SELECT coalesce(max(seq), 0) + 1 FROM {table}), false)"
    ),
    join_texts="string_agg",
)
