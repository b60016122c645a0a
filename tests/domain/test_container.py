"""The certain life of a container, and what each of its uses is charged for.  All figures are worked out by hand."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from tornado_proxy.domain.container import ContainerLife, ContainerPrice, ContainerTime, PricedUse, add_use

NOON = datetime(2026, 11, 28, 12, 0, 0, tzinfo=UTC)

#: A container of 1 GB: by the minute, at least five (OpenAI changelog, 2026-06-02).
PER_MINUTE = ContainerPrice(
    "gpt-5.4",
    "per_minute",
    Decimal("0.0015"),
    Decimal(60),
    "h1",
    minimum_s=Decimal(300),
    step_s=Decimal(60),
)
#: Whole sessions of 20 minutes, as before.
PER_SESSION = ContainerPrice(
    "gpt-5.4", "per_minute", Decimal("0.0015"), Decimal(60), "h2", minimum_s=Decimal(1200), step_s=Decimal(1200)
)
#: At least five minutes; a container that was idle for 270 s is stopped.
STOPPED_WHEN_IDLE = ContainerPrice(
    "claude-opus-4-8", "per_hour", Decimal("0.05"), Decimal(3600), "h3", minimum_s=Decimal(300), idle_s=Decimal(270)
)


def charge(price: ContainerPrice | None, *spans: tuple[float, float]) -> list[Decimal]:
    """Return the seconds that requests are charged for, which began and ended so many seconds after noon."""
    life: ContainerLife | None = None
    charged = []
    for began, ended in spans:
        use = PricedUse("cntr_1", price, "")
        begin, end = (NOON + timedelta(seconds=seconds) for seconds in (began, ended))
        life, seconds = add_use(life, use, ContainerTime((use,), "openai", "p", begin, end, Decimal(0)))
        charged.append(seconds)
    return charged


@pytest.mark.parametrize(
    ("spans", "seconds"),
    [
        pytest.param([(0, 10)], [300], id="one use: the minimum"),
        pytest.param([(0, 4000)], [300], id="one long use: when the container was made is not known"),
        pytest.param([(0, 10), (100, 110)], [300, 0], id="a use within the minimum"),
        pytest.param([(0, 10), (310, 320)], [300, 0], id="a life of exactly the minimum"),
        pytest.param([(0, 10), (310.001, 320)], [300, 60], id="a started minute counts"),
        pytest.param([(0, 10), (730, 740)], [300, 420], id="twelve minutes"),
        pytest.param([(0, 10), (730, 740), (1000, 1010)], [300, 420, 300], id="17 minutes after three uses"),
        pytest.param([(0, 10), (5, 900), (6, 700)], [300, 0, 0], id="parallel requests prove no longer life"),
        pytest.param([(730, 740), (0, 10)], [300, 420], id="records that arrive in another order"),
    ],
)
def test_each_use_is_charged_for_the_time_that_it_adds(spans: list[tuple[float, float]], seconds: list[int]) -> None:
    assert charge(PER_MINUTE, *spans) == seconds


def test_sessions_of_twenty_minutes_are_charged_whole() -> None:
    assert charge(PER_SESSION, (0, 10), (1210, 1220), (1211, 1220), (3000, 3010)) == [1200, 0, 1200, 1200]


@pytest.mark.parametrize(
    ("spans", "seconds"),
    [
        pytest.param([(0, 10), (280, 290)], [300, 0], id="not idle for long enough"),
        pytest.param([(0, 10), (281, 290)], [300, 300], id="a life after the idle time"),
        pytest.param([(0, 10), (250, 260), (500, 510)], [300, 0, 190], id="500 - 10 seconds in use"),
        pytest.param([(1000, 1010), (0, 10)], [300, 0], id="a late record of an earlier life"),
    ],
)
def test_container_that_was_idle_begins_another_life(spans: list[tuple[float, float]], seconds: list[int]) -> None:
    assert charge(STOPPED_WHEN_IDLE, *spans) == seconds


def test_container_without_a_price_is_not_charged_until_a_use_has_one() -> None:
    assert charge(None, (0, 10), (1000, 1010)) == [0, 0]

    life, nothing = add_use(None, PricedUse("c", None, ""), _time(600, 610))
    life, seconds = add_use(life, PricedUse("c", PER_MINUTE, ""), _time(0, 10))

    # The request that created it is recorded after one that named it: 600 - 10 seconds, in whole minutes.
    assert (nothing, seconds, life.price) == (0, 600, PER_MINUTE)


def _time(began: float, ended: float) -> ContainerTime:
    begin, end = (NOON + timedelta(seconds=seconds) for seconds in (began, ended))
    return ContainerTime((), "openai", "p", begin, end, Decimal(0))


def test_price_of_a_life_is_that_of_its_first_use() -> None:
    life, _ = add_use(None, PricedUse("c", PER_MINUTE, ""), _time(0, 10))

    life, seconds = add_use(life, PricedUse("c", PER_SESSION, ""), _time(730, 740))

    assert (life.price, seconds) == (PER_MINUTE, 420)


def test_items_split_free_time_from_charged_time() -> None:
    free, charged = STOPPED_WHEN_IDLE.itemise(Decimal(100), Decimal(200))

    assert (free.type, free.quantity, free.unit_price, free.amount) == ("free_container_seconds", 200, 0, 0)
    # 100 / 3600 x 0.05 = 0.001388888889 (rounded).
    assert (charged.type, charged.quantity, charged.amount) == ("container_seconds", 100, Decimal("0.001388888889"))
