"""Ledger rows that were rated with a small price file, as the reports read them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import yaml
from msgspec.structs import asdict

from tests.ledger.sample_records import make_intent, make_record
from tornado_proxy.domain.config.document import Document
from tornado_proxy.domain.record import RequestRecord
from tornado_proxy.domain.terms import Terms
from tornado_proxy.domain.usage import Basis, Meter, Quantity, UsageItem, UsageReport
from tornado_proxy.ledger.rows import make_record_row
from tornado_proxy.pricing.book.price_book import PriceBook, Tariff
from tornado_proxy.reports.explanation import EXPLAINED_COLUMNS

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

USAGE = '{"prompt_tokens":1000,"completion_tokens":100}'


def price_document(text: str = PRICES) -> Document:
    """Return a price document.  Days are quoted, because YAML reads them as dates, and the program as text."""
    return Document("prices.yaml", yaml.safe_load(re.sub(r"\d{4}-\d{2}-\d{2}$", r'"\g<0>"', text, flags=re.MULTILINE)))


def price_book(text: str = PRICES) -> PriceBook:
    return PriceBook.from_documents([price_document(text)])


def rated_record(
    request_id: str, book: PriceBook, *, tier: str | None = None, region: str | None = None
) -> RequestRecord:
    """Return a record of 1000 input and 100 output tokens, with a surcharge of 5 %."""
    quantities = (Quantity(Meter.INPUT, Decimal(1000)), Quantity(Meter.OUTPUT, Decimal(100)))
    usage_item = UsageItem(quantities, model="gpt-5.4-2026-03-05", terms=Terms(tier), context_tokens=1000)
    report = UsageReport((usage_item,), Basis.REPORTED, USAGE)
    request = make_intent(request_id)
    tariff = Tariff(book, "openai", Decimal("0.05"), region)
    return make_record(request, cost=tariff.charge(report, "gpt-5.4", request.started_at).cost)


def row_of(stored: RequestRecord) -> Mapping[str, Any]:
    """Return the columns of a record that can be explained; it repeats no other request."""
    row = {**asdict(make_record_row(stored)), "retry_of": None}
    return {name: row[name] for name in EXPLAINED_COLUMNS}
