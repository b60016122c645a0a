"""Prices of models as JSON members and as phrases."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest

from tests.reports.rated_records import PRICES, price_book, price_document
from tornado_proxy.domain.usage import Meter
from tornado_proxy.pricing.book.price import Conditions
from tornado_proxy.reports.model_prices import (
    describe_conditions,
    describe_dates,
    describe_unit,
    find_aliases,
    find_models,
    find_similar_names,
    find_standard_price,
    model_members,
)

BOOK = price_book()
NOW = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.mark.parametrize("name", ["gpt-5.4", "gpt-5.4-2026-03-05", "openai/gpt-5.4"])
def test_model_is_found_by_name_alias_and_provider(name: str) -> None:
    (model,) = find_models(BOOK, name)

    assert model.name == "gpt-5.4"
    assert find_aliases([price_document()], model) == ["gpt-5.4-2026-03-05"]


def test_unknown_model_has_similar_names() -> None:
    assert find_models(BOOK, "gpt-5.5") == find_models(BOOK, "anthropic/gpt-5.4") == []
    assert find_similar_names(BOOK, "gpt-5.5") == ["gpt-5.4"]
    assert find_similar_names(BOOK, "x" * 100_000) == []


def test_standard_price_is_that_of_the_default_terms() -> None:
    (model,) = find_models(BOOK, "gpt-5.4")

    assert find_standard_price(model, Meter.INPUT, NOW) == Decimal("1.25")
    assert find_standard_price(model, Meter.IMAGES, NOW) is None


def test_members_contain_every_card_and_modifier() -> None:
    members = model_members(find_models(BOOK, "gpt-5.4")[0])

    assert [card["when"] for card in members["cards"]] == ["service_tier standard", "service_tier flex"]
    assert members["cards"][1] == {
        "when": "service_tier flex",
        "unit": "per_million_tokens",
        "prices": {"input_tokens": "0.625", "output_tokens": "5"},
        "effective_from": None,
        "effective_until": None,
        "source": "https://prices.example/flex",
        "checked": "2026-02-02",
    }
    assert members["modifiers"] == [
        {"name": "eu", "when": "provider_region eu", "multiply": "1.1", "units": ["per_million_tokens"]}
    ]


def test_conditions_are_described_with_their_limits() -> None:
    conditions = Conditions((("service_tier", frozenset({"flex", "batch"})),), over=5, up_to=9)

    assert describe_conditions(conditions) == ("service_tier batch or flex, input_tokens over 5, input_tokens up to 9")
    assert describe_conditions(Conditions()) == ""


def test_dates_of_a_card_are_described() -> None:
    dated = price_book(
        PRICES.replace(
            "unit: per_million_tokens\n", "unit: per_million_tokens\n        effective_from: 2026-01-01\n", 1
        )
    )

    first, second = find_models(dated, "gpt-5.4")[0].cards
    assert describe_dates(first) == ["from 2026-01-01"]
    assert describe_dates(second) == []


def test_unit_is_described_with_spaces() -> None:
    assert describe_unit("per_million_tokens") == "per million tokens"
