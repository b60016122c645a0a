"""Makes sample intents and records, and reads the tables of an SQLite ledger."""

from __future__ import annotations

import contextlib
import sqlite3
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from tornado_proxy.domain.cost import LineItem
from tornado_proxy.domain.identity import Caller
from tornado_proxy.domain.record import Outcome, RequestIntent, RequestRecord
from tornado_proxy.domain.usage import Basis
from tornado_proxy.pricing.book.calculator import bill

START = datetime(2026, 3, 2, 10, 0, 0, 123456, UTC)
CALLER = Caller("project-a", participant="ada", room="lab", credential_id="key-1")

#: 1000 input tokens at 1.25 and 100 output tokens at 10 a million, 5 % on top:
#: 0.00125 + 0.001 = 0.00225, surcharge 0.0001125, total 0.0023625.
COST = bill(
    [
        LineItem(
            "input_tokens", Decimal(1000), "per_million_tokens", Decimal("1.25"), Decimal("0.00125"), "gpt-5.4", "h1"
        ),
        LineItem("output_tokens", Decimal(100), "per_million_tokens", Decimal(10), Decimal("0.001"), "gpt-5.4", "h2"),
    ],
    Decimal("0.05"),
)


def make_intent(request_id: str, **members: Any) -> RequestIntent:
    """Return the intent of a chat request, with `members` replaced."""
    standard = RequestIntent(request_id, CALLER, "openai", "/v1/chat/completions", "POST", "gpt-5.4", START)
    return replace(standard, **members)


def make_record(intent: RequestIntent, /, **members: Any) -> RequestRecord:
    """Return the record of a completed request, with `members` replaced."""
    standard = RequestRecord(
        intent,
        "gpt-5.4-2026-03-05",
        200,
        Outcome.COMPLETED,
        Basis.REPORTED,
        COST,
        intent.started_at + timedelta(milliseconds=250),
        intent.started_at + timedelta(seconds=1),
        '{"prompt_tokens":1000,"completion_tokens":100}',
    )
    return replace(standard, **members)


def read_rows(path: Path, sql: str = "SELECT * FROM records ORDER BY seq") -> list[dict[str, Any]]:
    """Return the rows of a query, past the program's own reader: the test sees the file as it is."""
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.row_factory = sqlite3.Row
        return [dict(row) for row in db.execute(sql)]


def read_bills(path: Path) -> list[dict[str, Any]]:
    """Return the rows of the view `bills`: records, and lost intents as records."""
    return read_rows(path, "SELECT * FROM bills ORDER BY request_id")


def read_ids(path: Path, table: str = "records") -> list[str]:
    """Return the request ids of a table, sorted."""
    rows = read_rows(path, f"SELECT request_id FROM {table} ORDER BY request_id")  # noqa: S608  # a name from the tests
    return [row["request_id"] for row in rows]
