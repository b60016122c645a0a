"""All rows become one statement of PostgreSQL."""

from __future__ import annotations

import json

from tornado_proxy.ledger.dialect import Insert
from tornado_proxy.ledger.postgres.database import make_delete, make_insert

INSERT = Insert("objects", ("provider", "status"), "provider")


def test_postgresql_sends_all_rows_in_one_parameter() -> None:
    insert, (text,) = make_insert(INSERT, [("openai", 1), ("anthropic", None)])
    delete, (names,) = make_delete("objects", "provider", ("openai", "anthropic"))

    assert json.loads(str(text)) == [
        {"provider": "openai", "status": 1},
        {"provider": "anthropic", "status": None},
    ]
    assert '"provider" text, "status" integer' in insert
    assert delete == "DELETE FROM objects WHERE provider = ANY(?)"
    assert names == ["openai", "anthropic"]


def test_existing_key_is_ignored_by_postgresql() -> None:
    sql, _ = make_insert(INSERT, [("openai", 1)])
    assert sql.endswith("ON CONFLICT (provider) DO NOTHING")
