"""The cost of usage reports at Anthropic's bundled prices."""

from __future__ import annotations

import functools
from datetime import UTC, datetime
from decimal import Decimal

from tornado_proxy.config.bundled import conf_path
from tornado_proxy.config.files import read_documents
from tornado_proxy.domain.usage import Basis, UsageReport
from tornado_proxy.pricing.book.price_book import PriceBook, Tariff

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)


@functools.cache
def bundled_tariff() -> Tariff:
    """Return Anthropic's bundled prices without a surcharge; they take half a second to read."""
    return Tariff(PriceBook.from_documents(read_documents(conf_path("prices"))), "anthropic", Decimal(0))


def charge(report: UsageReport, at: datetime = NOW) -> tuple[Decimal, Basis]:
    """Return the cost of `report` in USD without free refusals, and its basis; assert that all of it has a price."""
    charged = bundled_tariff().charge(report, None, at)
    assert charged.cost.faults == ()
    return charged.cost.subtotal, charged.report.basis
