"""Many rows become few statements of SQLite."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from tornado_proxy.ledger.dialect import Insert
from tornado_proxy.ledger.sqlite.database import SqliteDatabase, make_deletes, make_inserts

INSERT = Insert("objects", ("provider", "status"), "provider")


@pytest.mark.parametrize(
    ("count", "sizes"),
    [(0, []), (1, [1]), (4, [4]), (7, [4, 2, 1]), (301, [256, 32, 8, 4, 1]), (512, [256, 256])],
)
def test_sqlite_splits_rows_into_statements_of_few_sizes(count: int, sizes: list[int]) -> None:
    rows = [(f"p{number}", number) for number in range(count)]

    inserts = make_inserts(INSERT, rows)
    deletes = make_deletes("objects", "provider", [name for name, _ in rows])

    assert [sql.count("(?, ?)") for sql, _ in inserts] == sizes
    assert [value for _, values in inserts for value in values] == [value for row in rows for value in row]
    assert [len(values) for _, values in deletes] == sizes
    assert [name for _, values in deletes for name in values] == [name for name, _ in rows]


def test_existing_key_is_ignored_by_sqlite() -> None:
    ((sql, _),) = make_inserts(INSERT, [("openai", 1)])
    assert sql.endswith("ON CONFLICT (provider) DO NOTHING")


def test_missing_values_are_stored_as_null(tmp_path: Path) -> None:
    with contextlib.closing(SqliteDatabase(tmp_path / "ledger.db", fsync=False)) as db:
        db.run_script("CREATE TABLE objects (provider TEXT PRIMARY KEY, status INTEGER) STRICT;")

        with db.transaction():
            db.insert(INSERT, [("openai", None), ("anthropic", 200)])

        assert db.fetch_rows("SELECT provider, status FROM objects ORDER BY provider") == [
            ("anthropic", 200),
            ("openai", None),
        ]


def test_columns_without_a_value_are_left_out_of_a_statement() -> None:
    insert = Insert("objects", ("provider", "note", "status"), "provider")

    none_used = make_inserts(insert, [("openai", None, 200), ("anthropic", None, 404)])
    one_used = make_inserts(insert, [("openai", None, None), ("anthropic", "slow", None)])

    assert none_used == [
        (
            'INSERT INTO objects ("provider", "status") VALUES (?, ?), (?, ?) ON CONFLICT (provider) DO NOTHING',
            ["openai", 200, "anthropic", 404],
        )
    ]
    assert one_used == [
        (
            'INSERT INTO objects ("provider", "note") VALUES (?, ?), (?, ?) ON CONFLICT (provider) DO NOTHING',
            ["openai", None, "anthropic", "slow"],
        )
    ]
