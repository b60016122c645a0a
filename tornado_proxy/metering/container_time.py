"""Times the containers that a response used; the ledger charges their time when it stores the record."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from tornado_proxy.domain.container import ContainerTime, PricedUse
from tornado_proxy.pricing.book.price_book import Tariff


@dataclass(frozen=True, slots=True)
class RequestSpan:
    """A request that used containers: its provider and project, its begin and end, and the account that it used."""

    provider: str
    project_id: str
    began_at: datetime
    ended_at: datetime
    account: str = ""


def make_container_time(uses: tuple[PricedUse, ...], tariff: Tariff, span: RequestSpan) -> ContainerTime:
    """Return the containers that a request used, for its record."""
    rates = tariff.find_rates(span.began_at)
    return ContainerTime(
        uses,
        span.provider,
        span.project_id,
        span.began_at,
        span.ended_at,
        rates.surcharge,
        span.account,
        rates.discount,
    )
