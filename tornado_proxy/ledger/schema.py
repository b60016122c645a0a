"""The tables of a ledger.

intents       requests under way.  The transaction that writes a record deletes its intent; `lost_at` is set when the
              process of an intent is found dead
records       append-only: triggers refuse UPDATE and DELETE, and a second record of a request is ignored
settlements   append-only: the final figures of pending records, one row each
given_up      append-only: figures of pending records that are shown until there are final ones
bills         view: records, with the figures of their settlements, and lost intents as `unsettled`
objects       the project that created each object of a provider, and the provider key that it was made with
changes       append-only, filled by triggers: settlements, given up and lost requests in the order of their commits
rollups       sums of records by hour and day (sums/rollups.py); records that were pruned are in them
attribute_sums  sums of the records of a day that have a certain agent session, client or the like
item_sums     sums of line items by hour and day; item_shapes has the kinds of line items of each row
cursors       how far each reader of the changes has come
containers    the life of each container that ran code, and the seconds of it that requests were charged for
allowances    the free container time that an account has used in a month
pruned_requests  the ids of records that were pruned
unheld_bounds the most that a request whose record has no known cost can have cost, until the budgets hold it
meta          schema version
"""

from __future__ import annotations

import json
from collections.abc import Callable, Container, Iterable, Iterator

from tornado_proxy.domain.record import Outcome
from tornado_proxy.domain.usage import Basis
from tornado_proxy.ledger.columns import (
    COMPUTED_COLUMNS,
    INTENT_COLUMNS,
    OBJECT_COLUMNS,
    RECORD_COLUMNS,
    SETTLED_COLUMNS,
    UNHELD_COLUMNS,
)
from tornado_proxy.ledger.container_rows import ALLOWANCE_COLUMNS, CONTAINER_COLUMNS
from tornado_proxy.ledger.database import Backend, Database, StoreError
from tornado_proxy.ledger.dialect import Dialect, Insert
from tornado_proxy.ledger.pruned_requests import create_pruned_requests
from tornado_proxy.ledger.sums.item_rows import create_item_sums
from tornado_proxy.ledger.sums.rollup_rows import ROLLUPS_INDEX, SEQS, create_attribute_sums, create_rollups

SCHEMA_VERSION = 1

#: An intent that exists gets the bound of its later version, which is what budgets hold if the process dies; its other
#: columns stay those of the first version.
INSERT_INTENTS = Insert(
    "intents",
    (*INTENT_COLUMNS, "writer"),
    "request_id",
    "bound_total = excluded.bound_total, bound_subtotal = excluded.bound_subtotal "
    "WHERE intents.bound_total <> excluded.bound_total OR intents.bound_subtotal <> excluded.bound_subtotal",
)
#: A table that is partitioned (packaging/postgresql/partition.sql) has another unique index than on `request_id`.
INSERT_RECORDS = Insert("records", RECORD_COLUMNS, "")
INSERT_SETTLEMENTS = Insert("settlements", ("request_id", *SETTLED_COLUMNS, "settled_at"), "request_id")
INSERT_GIVEN_UP = Insert("given_up", ("request_id", *SETTLED_COLUMNS, "settled_at"), "request_id")
INSERT_CONTAINERS = Insert("containers", CONTAINER_COLUMNS, "provider, container_id")
INSERT_ALLOWANCES = Insert("allowances", ALLOWANCE_COLUMNS, "provider, account, month")
INSERT_UNHELD_BOUNDS = Insert("unheld_bounds", UNHELD_COLUMNS, "request_id")
INSERT_OBJECTS = Insert("objects", OBJECT_COLUMNS, "provider, object_id")

SET_META = "INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value"


def _cast_column(sql: str, name: str) -> str:
    """Return SQL of a column of the view that is an expression.

    SQLite reads both parts of the view in the order of an index, and sorts nothing, only if their columns have the same
    type.  An expression has none without CAST.  https://sqlite.org/optoverview.html#subquery_flattening, rule 17h
    PostgreSQL reads the records by an index only if the types and collations of both parts are the same.
    """
    types = {"seq": "BIGINT", "status": "INTEGER"}
    return f'CAST({sql} AS {types.get(name, "TEXT")}) AS "{name}"'


def _record_column(name: str) -> str:
    """Return SQL of a column of `bills` for a record."""
    # A CASE and not coalesce(): a settlement may set a column to NULL.
    cases = f'WHEN s.request_id IS NOT NULL THEN s."{name}" WHEN g.request_id IS NOT NULL THEN g."{name}"'
    either = f'CASE {cases} ELSE r."{name}" END'
    return _cast_column(either, name) if name in SETTLED_COLUMNS else f'r."{name}"'


#: The columns of a request whose process died: nothing is known of its cost, and every report shows it.
_LOST = {
    "outcome": f"'{Outcome.CRASHED.value}'",
    "basis": f"'{Basis.UNSETTLED.value}'",
    "ended_at": "i.lost_at",
    "line_items": "'[]'",
    "subtotal": "'0'",
    "surcharge": "'0'",
    "total": "'0'",
    "faults": f"'{json.dumps(['the server died while the request was under way'])}'",
}


def lost_column(name: str) -> str:
    """Return SQL of a column of `bills` for a lost intent."""
    return f'i."{name}"' if name in INTENT_COLUMNS else _cast_column(_LOST.get(name, "NULL"), name)


def retry_of(table: str) -> str:
    """Return SQL of the first request with the same idempotency key, for a row of records or lost intents.

    It is found when it is read: the first request can end, and have its record, after the one that repeats it.
    """
    same = f"idempotency_hash = {table}.idempotency_hash"
    # The smallest time with its id, cut after the time's 24 characters: ORDER BY would sort for each row.
    return (
        f"CASE WHEN {table}.idempotency_hash IS NULL THEN NULL ELSE (SELECT substr(min(e.began), 25) FROM "  # noqa: S608  # names of ours
        f"(SELECT started_at || request_id AS began FROM records WHERE {same} UNION ALL "
        f"SELECT started_at || request_id FROM intents WHERE lost_at IS NOT NULL AND {same}) e "
        f"WHERE e.began < {table}.started_at || {table}.request_id) END"
    )


#: The columns of `bills` that are expressions, for a record and for a lost intent.
_COMPUTED = {
    "retry_of": (retry_of("r"), retry_of("i")),
    "settled_at": ("CASE WHEN s.request_id IS NOT NULL THEN s.settled_at ELSE g.settled_at END", "NULL"),
}

#: The two parts of the view `bills`: records with the figures of their settlements, and lost intents.
RECORDED_BILLS = (
    f"SELECT r.seq AS seq, {', '.join(_record_column(name) for name in RECORD_COLUMNS)}, "  # noqa: S608  # names of ours
    f"{', '.join(_cast_column(_COMPUTED[name][0], name) for name in COMPUTED_COLUMNS)} "
    "FROM records r LEFT JOIN settlements s ON s.request_id = r.request_id "
    "LEFT JOIN given_up g ON g.request_id = r.request_id"
)
LOST_BILLS = (
    f"SELECT {_cast_column('NULL', 'seq')}, {', '.join(lost_column(name) for name in RECORD_COLUMNS)}, "  # noqa: S608  # names of ours
    f"{', '.join(_cast_column(_COMPUTED[name][1], name) for name in COMPUTED_COLUMNS)} "
    "FROM intents i WHERE i.lost_at IS NOT NULL"
)

#: The view, and the indexes that it needs.
_VIEW = f"""
CREATE INDEX IF NOT EXISTS intents_lost ON intents (lost_at) WHERE lost_at IS NOT NULL;
CREATE INDEX IF NOT EXISTS records_idempotency ON records (idempotency_hash) WHERE idempotency_hash IS NOT NULL;
CREATE VIEW bills AS {RECORDED_BILLS} UNION ALL {LOST_BILLS};
"""


def _describe_columns(names: Iterable[str], sql: Dialect) -> str:
    return ", ".join(f'"{name}" {sql.number if name == "status" else sql.text}' for name in names)


def _create_settlements(table: str, sql: Dialect) -> str:
    return f"""
CREATE TABLE {table} (
    request_id {sql.text} PRIMARY KEY,
    {_describe_columns(SETTLED_COLUMNS, sql)},
    settled_at {sql.text} NOT NULL
) {sql.keyed_table_end};
"""


def _create_tables(sql: Dialect) -> str:
    return f"""
CREATE TABLE meta (key {sql.text} PRIMARY KEY, value {sql.text} NOT NULL) {sql.table_end};
CREATE TABLE intents (
    request_id {sql.text} PRIMARY KEY,
    writer {sql.text} NOT NULL,
    lost_at {sql.text},
    {_describe_columns(INTENT_COLUMNS[1:], sql)}
) {sql.keyed_table_end};
CREATE TABLE records (seq {sql.sequence}, {_describe_columns(RECORD_COLUMNS, sql)}) {sql.table_end};
CREATE UNIQUE INDEX records_request ON records (request_id);
CREATE INDEX records_project ON records (project_id, started_at);
CREATE INDEX records_time ON records (started_at);
CREATE INDEX records_pending ON records (request_id) WHERE basis = 'pending';
{_create_settlements("settlements", sql)}
{_create_settlements("given_up", sql)}
CREATE TABLE objects (
    provider {sql.text} NOT NULL,
    object_id {sql.text} NOT NULL,
    project_id {sql.text} NOT NULL,
    request_id {sql.text} NOT NULL,
    provider_key {sql.text},
    key_fingerprint {sql.text},
    key_owner {sql.text},
    PRIMARY KEY (provider, object_id)
) {sql.keyed_table_end};
{_create_containers(sql)}
{_create_allowances(sql)}
{_create_unheld_bounds(sql)}
{_create_changes(sql)}
{create_rollups(sql)}
{create_attribute_sums(sql)}
{create_item_sums(sql)}
{create_pruned_requests(sql)}
"""


def _create_changes(sql: Dialect) -> str:
    """Return SQL of the tables with which programs follow the ledger."""
    return f"""
CREATE TABLE changes (
    seq {sql.sequence},
    request_id {sql.text} NOT NULL,
    kind {sql.text} NOT NULL,
    UNIQUE (request_id, kind)
) {sql.table_end};
CREATE TABLE cursors (
    name {sql.text} PRIMARY KEY,
    position {sql.text} NOT NULL,
    moved_at {sql.text} NOT NULL
) {sql.keyed_table_end};
"""


#: Fills `changes` with the rows that an earlier version has written.
_COPY_CHANGES = """
INSERT INTO changes (request_id, kind) SELECT request_id, 'given_up' FROM given_up ORDER BY settled_at;
INSERT INTO changes (request_id, kind) SELECT request_id, 'settlement' FROM settlements ORDER BY settled_at;
INSERT INTO changes (request_id, kind) SELECT request_id, 'lost' FROM intents WHERE lost_at IS NOT NULL;
"""


def _create_containers(sql: Dialect) -> str:
    return f"""
CREATE TABLE containers (
    {_describe_columns(CONTAINER_COLUMNS, sql)},
    PRIMARY KEY (provider, container_id)
) {sql.keyed_table_end};
CREATE INDEX containers_seen ON containers (seen_at);
"""


def _create_allowances(sql: Dialect) -> str:
    return f"""
CREATE TABLE allowances (
    {_describe_columns(ALLOWANCE_COLUMNS, sql)},
    PRIMARY KEY (provider, account, month)
) {sql.keyed_table_end};
"""


def _create_unheld_bounds(sql: Dialect) -> str:
    return f"""
CREATE TABLE unheld_bounds (
    request_id {sql.text} PRIMARY KEY,
    {_describe_columns(UNHELD_COLUMNS[1:], sql)}
) {sql.keyed_table_end};
"""


def _add_columns(db: Database, dialect: Dialect) -> Iterator[str]:
    """Yield SQL that adds the columns which the version that made the tables did not have."""
    expected = {
        "intents": (*INTENT_COLUMNS, "lost_at"),
        "records": RECORD_COLUMNS,
        "settlements": SETTLED_COLUMNS,
        "given_up": SETTLED_COLUMNS,
        "objects": OBJECT_COLUMNS,
        "rollups": (SEQS,),
    }
    for table, columns in expected.items():
        existing = db.list_columns(table)
        if not existing:
            continue  # prepare() makes the table
        for name in columns:
            if name not in existing:
                yield f'ALTER TABLE {table} ADD COLUMN "{name}" {dialect.text}; '


def make_tables(db: Database, dialect: Dialect) -> None:
    """Make the tables of a ledger in an empty database."""
    version = f"INSERT INTO meta VALUES ('schema_version', '{SCHEMA_VERSION}');"  # noqa: S608  # a number of ours
    triggers = dialect.guards + dialect.change_triggers + dialect.record_trigger[1]
    db.run_script(_create_tables(dialect) + _VIEW + triggers + version)


def prepare(db: Database, backend: Backend) -> None:
    """Make the tables in an empty database; add the columns that this version needs to the tables of an earlier one.

    Raises:
        StoreError: the database belongs to another program, or to a later version of this one.
    """
    tables = db.list_tables()
    if not tables:
        make_tables(db, backend.dialect)
        return
    if not {"meta", "intents", "records"} <= tables:
        raise StoreError(f"{backend.name}: is a database of another program; name another one")
    ((stored,),) = db.fetch_rows("SELECT value FROM meta WHERE key = 'schema_version'") or [("0",)]
    if int(str(stored)) > SCHEMA_VERSION:
        raise StoreError(
            f"{backend.name}: schema {stored} is newer than this program, which knows {SCHEMA_VERSION}; "
            "install the version that wrote it, or a later one"
        )
    added = "".join(_add_columns(db, backend.dialect)) + _add_tables(tables, backend.dialect)
    if added:
        # The view names every column, so it is made anew.  Nothing else is altered: records are append-only.
        added = f"DROP VIEW IF EXISTS bills; {added} {_VIEW}"
    added += _add_trigger(db, backend.dialect)
    if added:
        # Without writers: a transaction of one takes locks of tables in another order than these statements.
        wait = backend.dialect.wait_for_writers
        db.run_script(f"{wait}; {added}" if wait else added)


def _add_trigger(db: Database, dialect: Dialect) -> str:
    """Return SQL of the trigger that announces writers; "" if the table of records has it."""
    name, create = dialect.record_trigger
    return create if name and name not in db.list_triggers("records") else ""


def _add_tables(existing: Container[str], dialect: Dialect) -> str:
    """Return SQL of the tables that the version which made the others did not have."""
    tables: dict[str, Callable[[], str]] = {
        "given_up": lambda: _create_settlements("given_up", dialect) + dialect.guards,
        "containers": lambda: _create_containers(dialect) + _create_allowances(dialect),
        "unheld_bounds": lambda: _create_unheld_bounds(dialect),
        # Triggers first: PostgreSQL then waits for the transactions that write the tables.
        "changes": lambda: _create_changes(dialect) + dialect.change_triggers + _COPY_CHANGES,
        "rollups": lambda: create_rollups(dialect),
        "attribute_sums": lambda: create_attribute_sums(dialect),
        "item_sums": lambda: create_item_sums(dialect) + ROLLUPS_INDEX,
        "pruned_requests": lambda: create_pruned_requests(dialect),
    }
    return "".join(create() for name, create in tables.items() if name not in existing)
