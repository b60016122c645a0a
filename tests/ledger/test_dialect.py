"""Many rows become few statements in each dialect."""

from __future__ import annotations

import json

import pytest

from tornado_proxy.ledger.dialect import POSTGRES, SQLITE, Insert

INSERT = Insert("objects", ("provider", "status"), "provider")


@pytest.mark.parametrize(
    ("count", "sizes"),
    [(0, []), (1, [1]), (4, [4]), (7, [4, 1, 1, 1]), (301, [256, 32, 4, 4, 4, 1]), (512, [256, 256])],
)
def test_sqlite_splits_rows_into_statements_of_few_sizes(count: int, sizes: list[int]) -> None:
    rows = [(f"p{number}", number) for number in range(count)]

    inserts = list(SQLITE.inserts(INSERT, rows))
    deletes = list(SQLITE.deletes("objects", "provider", [name for name, _ in rows]))

    assert [sql.count("(?, ?)") for sql, _ in inserts] == sizes
    assert [value for _, values in inserts for value in values] == [value for row in rows for value in row]
    assert [len(values) for _, values in deletes] == sizes


def test_postgresql_sends_all_rows_in_one_parameter() -> None:
    ((insert, (text,)),) = POSTGRES.inserts(INSERT, [("openai", 1), ("anthropic", None)])
    ((delete, (names,)),) = POSTGRES.deletes("objects", "provider", ("openai", "anthropic"))

    assert json.loads(str(text)) == [
        {"provider": "openai", "status": 1},
        {"provider": "anthropic", "status": None},
    ]
    assert '"provider" text, "status" integer' in insert
    assert delete == "DELETE FROM objects WHERE provider = ANY(?)"
    assert names == ["openai", "anthropic"]


def test_postgresql_sends_nothing_for_no_rows() -> None:
    assert list(POSTGRES.inserts(INSERT, [])) == []
    assert list(POSTGRES.deletes("objects", "provider", [])) == []


def test_existing_key_is_ignored() -> None:
    for dialect in (SQLITE, POSTGRES):
        ((sql, _),) = dialect.inserts(INSERT, [("openai", 1)])
        assert sql.endswith("ON CONFLICT (provider) DO NOTHING")
