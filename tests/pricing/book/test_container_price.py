"""The price of a container's time, as the bundled price files state it."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest

from tests.providers.openai.costs import bundled_tariff
from tornado_proxy.domain.container import ContainerPrice
from tornado_proxy.domain.terms import Terms
from tornado_proxy.domain.usage import ContainerUse, UsageReport

NOVEMBER = datetime(2026, 11, 28, tzinfo=UTC)
APRIL = datetime(2026, 4, 1, tzinfo=UTC)


def quote(terms: Terms | None, *, at: datetime = NOVEMBER, model: str = "gpt-5.4") -> ContainerPrice | None:
    report = UsageReport(model=model, containers=(ContainerUse("cntr_1", terms, "note"),))
    (use,) = bundled_tariff().prices.price_containers(
        "openai", report, requested_model=None, at=at, provider_region=None
    )
    return use.price


@pytest.mark.parametrize(
    ("memory", "usd_per_minute"),
    [(None, "0.0015"), ("1g", "0.0015"), ("4g", "0.006"), ("16g", "0.024"), ("64g", "0.096")],
)
def test_container_is_priced_by_its_memory(memory: str | None, usd_per_minute: str) -> None:
    price = quote(Terms(memory_limit=memory))

    assert price is not None
    assert (price.unit, price.unit_price, price.divisor) == ("per_minute", Decimal(usd_per_minute), 60)
    assert (price.minimum_s, price.step_s, price.idle_s, price.free_per_month_s) == (300, 60, None, 0)


def test_container_before_june_is_priced_by_sessions_of_twenty_minutes() -> None:
    price = quote(Terms(), at=APRIL)

    assert price is not None
    assert (price.minimum_s, price.step_s) == (1200, 1200)
    # The price of one session of 1 GB.
    assert price.itemise(price.round_up(Decimal(1)), Decimal(0))[0].amount == Decimal("0.03")


@pytest.mark.parametrize(
    ("terms", "model"),
    [
        pytest.param(None, "gpt-5.4", id="terms are not known"),
        pytest.param(Terms(memory_limit="2g"), "gpt-5.4", id="a size without a card"),
        pytest.param(Terms(), "gpt-unknown", id="a model without prices"),
    ],
)
def test_container_without_a_card_has_no_price(terms: Terms | None, model: str) -> None:
    assert quote(terms, model=model) is None


def test_new_container_without_a_card_is_a_fault() -> None:
    report = UsageReport(model="gpt-5.4", containers=(ContainerUse("cntr_1", Terms(memory_limit="2g"), "note"),))

    charge = bundled_tariff().charge(report, None, NOVEMBER)

    assert charge.cost.faults == ("container cntr_1 has no price: container_seconds of gpt-5.4",)
