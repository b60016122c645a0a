"""A ledger whose records were rated with a small price file, for commands that read both."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from tests.ledger.sample_records import make_intent, make_record
from tornado_proxy.cli import main
from tornado_proxy.cli.config_lookup import load_prices
from tornado_proxy.domain.record import RequestRecord
from tornado_proxy.domain.request import RequestFacts
from tornado_proxy.domain.terms import Terms
from tornado_proxy.domain.usage import Basis, Meter, Quantity, UsageItem, UsageReport
from tornado_proxy.ledger.backends import make_ledger
from tornado_proxy.pricing.book.tariff import Tariff

PRICES = """\
provider: openai
service_tiers: {default: standard, flex: flex}
aliases: {gpt-5.4-2026-03-05: gpt-5.4}
modifiers:
  eu:
    when: {provider_region: eu}
    multiply: "1.1"
    units: [per_million_tokens]
    source: https://prices.example/regions
    checked: 2026-02-01
models:
  gpt-5.4:
    status: active
    endpoints: [/v1/chat/completions]
    modifiers: [eu]
    rates:
      - when: {service_tier: standard}
        unit: per_million_tokens
        prices: {input_tokens: "1.25", output_tokens: "10"}
        source: https://prices.example/gpt
        checked: 2026-02-01
      - when: {service_tier: flex}
        unit: per_million_tokens
        prices: {input_tokens: "0.625", output_tokens: "5"}
        source: https://prices.example/flex
        checked: 2026-02-02
"""

RAW = '{"prompt_tokens":1000,"completion_tokens":100}'


def write_prices(folder: Path, text: str = PRICES) -> Path:
    path = folder / "prices.yaml"
    path.write_text(text)
    return path


def call(request_id: str, prices: Path, *, tier: str | None = None, region: str | None = None) -> RequestRecord:
    """A call of 1000 input and 100 output tokens, 5 % on top."""
    quantities = (Quantity(Meter.INPUT, Decimal(1000)), Quantity(Meter.OUTPUT, Decimal(100)))
    reading = UsageItem(quantities, model="gpt-5.4-2026-03-05", terms=Terms(tier), context_tokens=1000)
    report = UsageReport((reading,), Basis.REPORTED, RAW)
    made = make_intent(request_id)
    tariff = Tariff(load_prices(None, prices), "openai", Decimal("0.05"), region)
    return make_record(made, cost=tariff.rate(report, RequestFacts(model="gpt-5.4"), made.started_at))


def write_ledger(folder: Path, records: Sequence[RequestRecord]) -> str:
    """Store the records; gives the ledger's URL."""

    async def run() -> None:
        ledger = make_ledger(folder / "ledger.db")
        await ledger.open()
        for one in records:
            await ledger.begin(one.intent)
            await ledger.finish(one)
        await ledger.close()

    asyncio.run(run())
    return f"sqlite:///{folder}/ledger.db"


def run(*words: Any) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])
