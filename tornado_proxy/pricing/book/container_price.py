"""The price of a container's time, with the rules of its card: minimum, steps, idle time, free allowance."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

from tornado_proxy.domain.container import ContainerPrice
from tornado_proxy.domain.cost import ZERO
from tornado_proxy.domain.terms import Terms
from tornado_proxy.domain.usage import Meter
from tornado_proxy.pricing.book.price import UNITS, ModelPrice, PriceCard, fingerprint


def quote_container(model: ModelPrice, terms: Terms, at: datetime) -> ContainerPrice | None:
    """Return the price of the time of a container on `terms` at `at`, None unless exactly one card has it."""
    card, free_card = (_find(model, meter, terms, at) for meter in (Meter.CONTAINER_SECONDS, _FREE))
    if card is None:
        return None
    unit_price = card.prices[Meter.CONTAINER_SECONDS] * model.factor(card.unit, terms, 0)
    return ContainerPrice(
        model=model.name,
        unit=card.unit,
        unit_price=unit_price,
        divisor=UNITS[card.unit],
        price_hash=fingerprint(model.name, Meter.CONTAINER_SECONDS, unit_price, card),
        terms=terms.non_default_pairs(),
        minimum_s=card.minimum or ZERO,
        step_s=card.step,
        idle_s=card.idle,
        free_per_month_s=card.free_per_month or ZERO,
        free_price_hash=None if free_card is None else fingerprint(model.name, _FREE, Decimal(0), free_card),
    )


_FREE = Meter.FREE_CONTAINER_SECONDS


def _find(model: ModelPrice, meter: Meter, terms: Terms, at: datetime) -> PriceCard | None:
    cards = model.find(meter, terms, 0, at)
    return cards[0] if len(cards) == 1 else None
