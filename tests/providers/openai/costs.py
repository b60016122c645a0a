"""The cost of usage reports at the bundled prices."""

from __future__ import annotations

import functools
from datetime import UTC, datetime
from decimal import Decimal

from tornado_proxy.config.bundled import conf_path
from tornado_proxy.config.files import read_documents
from tornado_proxy.domain.request import RequestFacts
from tornado_proxy.domain.usage import UsageReport
from tornado_proxy.pricing.book.price_book import PriceBook, Tariff

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)


@functools.cache
def bundled_tariff() -> Tariff:
    """Return OpenAI's bundled prices without a surcharge; they take half a second to read."""
    return Tariff(PriceBook.from_documents(read_documents(conf_path("prices"))), "openai", Decimal(0))


def subtotal(report: UsageReport, facts: RequestFacts) -> Decimal:
    """Return the cost of `report` in USD; assert that everything in it has a price."""
    cost = bundled_tariff().charge(report, facts.model, NOW).cost
    assert cost.faults == ()
    return cost.subtotal
