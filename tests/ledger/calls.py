"""OpenIntents and records to store, and what a ledger file holds."""

from __future__ import annotations

import contextlib
import sqlite3
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from tornado_proxy.domain.cost import Cost, LineItem, bill
from tornado_proxy.domain.identity import Caller
from tornado_proxy.domain.record import Outcome, RequestIntent, RequestRecord
from tornado_proxy.domain.usage import Basis

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


def intent(request_id: str, **members: Any) -> RequestIntent:
    standard = RequestIntent(request_id, CALLER, "openai", "/v1/chat/completions", "POST", "gpt-5.4", START)
    return replace(standard, **members)


def record(of: RequestIntent, **members: Any) -> RequestRecord:
    standard = RequestRecord(
        of,
        "gpt-5.4-2026-03-05",
        200,
        Outcome.COMPLETED,
        Basis.REPORTED,
        COST,
        of.started_at + timedelta(milliseconds=250),
        of.started_at + timedelta(seconds=1),
        '{"prompt_tokens":1000,"completion_tokens":100}',
    )
    return replace(standard, **members)


def costing(total: Decimal) -> Cost:
    """A bill of one line of `total` USD, without a surcharge."""
    return bill([LineItem("input_tokens", Decimal(1), "per_token", total, total)], Decimal(0))


def stored(path: Path, sql: str = "SELECT * FROM records ORDER BY seq") -> list[dict[str, Any]]:
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.row_factory = sqlite3.Row
        return [dict(row) for row in db.execute(sql)]


def bills(path: Path) -> list[dict[str, Any]]:
    """The records, and the intents of dead processes as the records that they amount to."""
    return stored(path, "SELECT * FROM bills ORDER BY request_id")


def stored_ids(path: Path, table: str = "records") -> list[str]:
    rows = stored(path, f"SELECT request_id FROM {table} ORDER BY request_id")  # noqa: S608  # a name from the tests
    return [row["request_id"] for row in rows]
