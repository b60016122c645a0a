"""Measure the CPU time of the ledger, beside plain inserts of the same rows into SQLite.

    python -m bench.ledger [--calls 20000] [--fsync]

`ledger` is the CPU time of the process, all threads, for begin, a turn of the event loop, write_ahead and finish, with
1 and with 32 requests at a time.  `plain` is executemany of the same records, 1,000 per transaction; their rows are
made before.  Compare ratios: the times depend on the machine.  The lowest of five rounds counts, because other load
only adds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sqlite3
import tempfile
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import uvloop

from tornado_proxy.domain.cost import LineItem
from tornado_proxy.domain.identity import Caller
from tornado_proxy.domain.record import Outcome, RequestIntent, RequestRecord
from tornado_proxy.domain.usage import Basis
from tornado_proxy.ledger.backends import make_ledger
from tornado_proxy.ledger.columns import RECORD_COLUMNS
from tornado_proxy.ledger.rows import make_record_row
from tornado_proxy.pricing.book.calculator import bill

_ROUNDS = 5
_CALLER = Caller("0c9f8a5e-9a1e-4f6b-8c43-1d2a7f6f0a10", participant="ada", room="lab", credential_id="key-1")
_ITEMS = [
    LineItem("input_tokens", Decimal(1000), "per_million_tokens", Decimal("1.25"), Decimal("0.00125"), "gpt-5.4", "h1"),
    LineItem("output_tokens", Decimal(100), "per_million_tokens", Decimal(10), Decimal("0.001"), "gpt-5.4", "h2"),
]


def make_intent(number: int) -> RequestIntent:
    """Return the intent of request `number`."""
    now = datetime.now(UTC)
    return RequestIntent(f"req_{number:032x}", _CALLER, "openai", "/v1/chat/completions", "POST", "gpt-5.4", now)


def make_record(intent: RequestIntent) -> RequestRecord:
    """Return the record of a completed request of one second."""
    first, end = intent.started_at + timedelta(milliseconds=250), intent.started_at + timedelta(seconds=1)
    cost = bill(_ITEMS, Decimal("0.05"))
    usage = '{"prompt_tokens":1000,"completion_tokens":100,"total_tokens":1100}'
    return RequestRecord(
        intent, "gpt-5.4-2026-03-05", 200, Outcome.COMPLETED, Basis.REPORTED, cost, first, end, usage,
        object_id=f"chatcmpl-{intent.request_id}",
    )  # fmt: skip


def measure_plain(records: list[RequestRecord]) -> float:
    """Return the CPU microseconds of a plain insert."""
    rows = [tuple(getattr(row, name) for name in RECORD_COLUMNS) for row in map(make_record_row, records)]
    with tempfile.TemporaryDirectory() as folder, closing(sqlite3.connect(Path(folder) / "plain.db")) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        db.execute(f"CREATE TABLE records ({', '.join(f'[{name}] TEXT' for name in RECORD_COLUMNS)})")
        db.execute("CREATE UNIQUE INDEX one ON records (request_id)")
        sql = f"INSERT INTO records VALUES ({', '.join('?' * len(RECORD_COLUMNS))})"
        began = time.process_time()
        # A transaction for each thousand, as a batch job would write them.
        for at in range(0, len(rows), 1000):
            with db:
                db.executemany(sql, rows[at : at + 1000])
        return (time.process_time() - began) * 1e6 / len(rows)


async def measure_ledger(records: list[RequestRecord], concurrency: int, *, fsync: bool) -> tuple[float, float]:
    """Return the CPU microseconds of a request, and the median duration of begin() in milliseconds."""
    waits: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        ledger = make_ledger(Path(folder) / "ledger.db", fsync=fsync)
        await ledger.open()
        remaining = iter(records)

        async def run_requests() -> None:
            for record in remaining:
                begun = time.perf_counter()
                await ledger.begin(record.intent)
                waits.append(time.perf_counter() - begun)
                # A turn of the loop between both, as a request has: the ledger's thread must not see them together.
                await asyncio.sleep(0)
                ledger.write_ahead(record)
                ledger.finish(record)

        began = time.process_time()
        await asyncio.gather(*(run_requests() for _ in range(concurrency)))
        # close() writes the waiting records, which belong to the measured time.
        await ledger.close()
        spent = time.process_time() - began
    return spent * 1e6 / len(records), sorted(waits)[len(waits) // 2] * 1000


def run(requests: int, *, fsync: bool) -> dict[str, dict[str, float]]:
    """Return the figures of each way of writing."""
    records = [make_record(make_intent(number)) for number in range(requests)]
    plains, singles, many = [], [], []
    for _ in range(_ROUNDS):
        plains.append(measure_plain(records))
        singles.append(uvloop.run(measure_ledger(records, 1, fsync=fsync)))
        many.append(uvloop.run(measure_ledger(records, 32, fsync=fsync)))
    plain = min(plains)
    table = {"plain executemany": {"us_per_call": plain, "ratio": 1.0, "begin_ms": 0.0}}
    for name, rounds in (("ledger, 1 request at a time", singles), ("ledger, 32 requests at a time", many)):
        spent, begin_ms = min(rounds)
        table[name] = {"us_per_call": spent, "ratio": spent / plain, "begin_ms": begin_ms}
    return table


def main() -> None:
    """Measure, print the table, write the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=5000)
    parser.add_argument("--fsync", action="store_true", help="measure with the setting ledger.fsync")
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args()
    table = run(options.calls, fsync=options.fsync)
    print(f"{'':28} {'CPU us':>12} {'x plain':>9} {'begin ms':>9}")
    for name, figures in table.items():
        print(f"{name:28} {figures['us_per_call']:12.1f} {figures['ratio']:9.2f} {figures['begin_ms']:9.3f}")
    if options.json:
        options.json.write_text(json.dumps(table, indent=2) + "\n")


if __name__ == "__main__":
    main()
