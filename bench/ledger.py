"""What the ledger costs of one processor, against the same rows put into SQLite without any of its promises.

    python -m bench.ledger [--calls 20000] [--fsync]

`ledger` is the CPU time of the whole process, all its threads, for begin, a turn of the event loop and finish, with 1
and with 32 calls under way; `plain` is executemany of the same records, 1,000 a transaction, their rows made before.
Compare ratios: the times move with the machine.  The least of five rounds counts, for what else runs only adds.
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

from tornado_proxy.domain.cost import LineItem, bill
from tornado_proxy.domain.identity import Caller
from tornado_proxy.domain.record import Outcome, RequestIntent, RequestRecord
from tornado_proxy.domain.usage import Basis
from tornado_proxy.ledger.backends import make_ledger
from tornado_proxy.ledger.rows import RECORD_COLUMNS, record_row

_ROUNDS = 5
_CALLER = Caller("0c9f8a5e-9a1e-4f6b-8c43-1d2a7f6f0a10", participant="ada", room="lab", credential_id="key-1")
_ITEMS = [
    LineItem("input_tokens", Decimal(1000), "per_million_tokens", Decimal("1.25"), Decimal("0.00125"), "gpt-5.4", "h1"),
    LineItem("output_tokens", Decimal(100), "per_million_tokens", Decimal(10), Decimal("0.001"), "gpt-5.4", "h2"),
]


def make_intent(number: int) -> RequestIntent:
    now = datetime.now(UTC)
    return RequestIntent(f"req_{number:032x}", _CALLER, "openai", "/v1/chat/completions", "POST", "gpt-5.4", now)


def make_record(intent: RequestIntent) -> RequestRecord:
    first, end = intent.started_at + timedelta(milliseconds=250), intent.started_at + timedelta(seconds=1)
    cost = bill(_ITEMS, Decimal("0.05"))
    usage = '{"prompt_tokens":1000,"completion_tokens":100,"total_tokens":1100}'
    return RequestRecord(
        intent, "gpt-5.4-2026-03-05", 200, Outcome.COMPLETED, Basis.REPORTED, cost, first, end, usage,
        object_id=f"chatcmpl-{intent.request_id}",
    )  # fmt: skip


def measure_plain(records: list[RequestRecord]) -> float:
    """CPU microseconds a record."""
    rows = [tuple(record_row(record)[name] for name in RECORD_COLUMNS) for record in records]
    with tempfile.TemporaryDirectory() as folder, closing(sqlite3.connect(Path(folder) / "plain.db")) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        db.execute(f"CREATE TABLE records ({', '.join(f'[{name}] TEXT' for name in RECORD_COLUMNS)})")
        db.execute("CREATE UNIQUE INDEX one ON records (request_id)")
        sql = f"INSERT INTO records VALUES ({', '.join('?' * len(RECORD_COLUMNS))})"
        began = time.process_time()
        for at in range(0, len(rows), 1000):
            with db:
                db.executemany(sql, rows[at : at + 1000])
        return (time.process_time() - began) * 1e6 / len(rows)


async def measure_ledger(records: list[RequestRecord], under_way: int, *, fsync: bool) -> tuple[float, float]:
    """CPU microseconds a call, and the median milliseconds that begin() took."""
    waits: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        ledger = make_ledger(Path(folder) / "ledger.db", fsync=fsync)
        await ledger.open()
        left = iter(records)

        async def call() -> None:
            for record in left:
                started = time.perf_counter()
                await ledger.begin(record.intent)
                waits.append(time.perf_counter() - started)
                await asyncio.sleep(0)
                ledger.finish(record)

        began = time.process_time()
        await asyncio.gather(*(call() for _ in range(under_way)))
        await ledger.close()
        spent = time.process_time() - began
    return spent * 1e6 / len(records), sorted(waits)[len(waits) // 2] * 1000


def run(calls: int, *, fsync: bool) -> dict[str, dict[str, float]]:
    records = [make_record(make_intent(number)) for number in range(calls)]
    plains, singles, many = [], [], []
    for _ in range(_ROUNDS):
        plains.append(measure_plain(records))
        singles.append(uvloop.run(measure_ledger(records, 1, fsync=fsync)))
        many.append(uvloop.run(measure_ledger(records, 32, fsync=fsync)))
    plain = min(plains)
    table = {"plain executemany": {"us_per_call": plain, "ratio": 1.0, "begin_ms": 0.0}}
    for name, rounds in (("ledger, 1 call under way", singles), ("ledger, 32 calls under way", many)):
        spent, begin_ms = min(rounds)
        table[name] = {"us_per_call": spent, "ratio": spent / plain, "begin_ms": begin_ms}
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=5000)
    parser.add_argument("--fsync", action="store_true", help="with ledger.fsync")
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    options = parser.parse_args()
    table = run(options.calls, fsync=options.fsync)
    print(f"{'':28} {'CPU us/call':>12} {'x plain':>9} {'begin ms':>9}")
    for name, figures in table.items():
        print(f"{name:28} {figures['us_per_call']:12.1f} {figures['ratio']:9.2f} {figures['begin_ms']:9.3f}")
    if options.json:
        options.json.write_text(json.dumps(table, indent=2) + "\n")


if __name__ == "__main__":
    main()
