"""Ledgers with any number of different records, written by the store in large transactions."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

from msgspec.structs import replace

from tests.ledger.sample_records import START, make_intent, make_record
from tornado_proxy.domain.cost import Cost, LineItem, round_amount
from tornado_proxy.domain.identity import Caller
from tornado_proxy.domain.record import RequestRecord, Settlement
from tornado_proxy.domain.usage import Basis
from tornado_proxy.ledger.backends import make_backend
from tornado_proxy.ledger.database import Backend
from tornado_proxy.ledger.rows import make_record_row, make_settlement_row
from tornado_proxy.ledger.writer.process_locks import ProcessLocks
from tornado_proxy.ledger.writer.store import Batch, Store
from tornado_proxy.pricing.book.calculator import bill

FREE = Cost((), Decimal(0), Decimal(0), Decimal(0))

#: Meter, unit, USD per unit, units of the divisor.
_PRICES = (
    ("input_tokens", "per_million_tokens", "1.25", 1_000_000),
    ("cached_input_tokens", "per_million_tokens", "0.125", 1_000_000),
    ("output_tokens", "per_million_tokens", "10", 1_000_000),
    ("web_searches", "per_thousand_calls", "10", 1000),
    ("audio_seconds", "per_minute", "0.006", 60),
)

_BATCH = 1000


def write_generated_ledger(path: Path, count: int) -> Backend:
    """Write `count` records, of which every tenth is settled later, and return the ledger."""
    backend = make_backend(path)
    store = Store(backend, ProcessLocks(path))
    draw = random.Random(7)  # the same records in each run
    records = [_make_record(number, draw) for number in range(count)]
    for start in range(0, count, _BATCH):
        some = records[start : start + _BATCH]
        rows = [make_record_row(record) for record in some]
        settlements = [make_settlement_row(settlement) for settlement in _settle(some, draw)]
        store.write(Batch(records=rows, settlements=settlements))
    store.close()
    return backend


def _make_record(number: int, draw: random.Random) -> RequestRecord:
    caller = Caller(draw.choice(["project-a", "project-b"]), participant=draw.choice(["ada", "=cmd()"]), room="lab")
    at = START + timedelta(minutes=number)
    provider = draw.choice(["openai", "anthropic"])
    intent = replace(make_intent(f"req_{number:08}"), caller=caller, provider=provider, started_at=at)
    intent = replace(intent, labels={"team": "red"} if number % 3 else {}, annotations=(("ticket", f"T{number % 5}"),))
    if number % 10 == 0:
        return make_record(intent, basis=Basis.PENDING, cost=FREE, usage=None, object_id=f"resp_{number}")
    if number % 97 == 0:
        return make_record(intent, basis=Basis.UNSETTLED, cost=FREE, usage=None)
    return make_record(intent, cost=make_cost(draw))


def make_cost(draw: random.Random) -> Cost:
    """Return the bill of a few line items, with a discount of 0, 10 or 12.5 % and a surcharge of 0, 5 or 7.5 %."""
    items = []
    for meter, unit, price, divisor in draw.sample(_PRICES, draw.randint(1, 3)):
        quantity = Decimal(draw.randint(1, 200_000))
        amount = round_amount(quantity * Decimal(price) / divisor)
        items.append(LineItem(meter, quantity, unit, Decimal(price), amount, "gpt-5.4", f"hash-{meter}"))
    if draw.random() < 0.02:
        items.append(LineItem("web_fetches", Decimal(3), "", None, None, "gpt-5.4"))
    discount = Decimal(draw.choice(["0", "0.1", "0.125"]))
    return bill(items, Decimal(draw.choice(["0", "0.05", "0.075"])), discount_rate=discount)


def _settle(records: list[RequestRecord], draw: random.Random) -> Iterator[Settlement]:
    for record in records:
        if record.basis is Basis.PENDING:
            at, final = record.ended_at + timedelta(days=draw.choice([1, 40])), draw.random() < 0.9
            cost, basis = (make_cost(draw), Basis.REPORTED) if final else (FREE, Basis.UNSETTLED)
            yield Settlement(record.intent.request_id, "gpt-5.4", basis, cost, at, final=final)
