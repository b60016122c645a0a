"""The terms a call is rated on: a price book and what this installation adds to it."""

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
    """The prices of one provider that held when a call began; a reload in between changes nothing for the call.

    `surcharge_rate` is a fraction of the provider's charge; `provider_region` the region of the provider host, if any.
    """

    prices: PriceBook
    provider: str
    surcharge_rate: Decimal
    provider_region: str | None = None

    def admit(self, endpoint: str, spend: Spend, at: datetime) -> None:
        """Raise ModelNotPriced unless all that `spend` can cost has a price."""
        self.prices.admit(self.provider, endpoint, spend, at)

    def rate(self, report: UsageReport, facts: RequestFacts, at: datetime) -> Cost:
        """The itemised cost of what was used."""
        return self.prices.rate(
            self.provider,
            report,
            requested_model=facts.model,
            at=at,
            provider_region=self.provider_region,
            surcharge_rate=self.surcharge_rate,
        )
