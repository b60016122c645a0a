"""The prices of one provider for one request: the price book, the operator's surcharge, and the host's region."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from tornado_proxy.domain.cost import Cost
from tornado_proxy.domain.request import RequestFacts, Spend
from tornado_proxy.domain.usage import UsageReport
from tornado_proxy.pricing.book.price_book import PriceBook


@dataclass(frozen=True, slots=True)
class Tariff:
    """The prices of one provider when a request began.  A reload during the request does not change them.

    `surcharge_rate` is a fraction of the provider's charge.  `provider_region` is the region of the provider's host,
    None for its global host.
    """

    prices: PriceBook
    provider: str
    surcharge_rate: Decimal
    provider_region: str | None = None

    def admit(self, endpoint: str, spend: Spend, at: datetime) -> None:
        """Raise ModelNotPriced unless everything that `spend` can cost has a price."""
        self.prices.admit(self.provider, endpoint, spend, at)

    def rate(self, report: UsageReport, facts: RequestFacts, at: datetime) -> Cost:
        """Return the itemised cost of `report`, at the prices of `at`."""
        return self.prices.rate(
            self.provider,
            report,
            requested_model=facts.model,
            at=at,
            provider_region=self.provider_region,
            surcharge_rate=self.surcharge_rate,
        )
