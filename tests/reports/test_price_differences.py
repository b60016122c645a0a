"""Compared prices as rows."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

from tests.reports.rated_records import price_book
from tornado_proxy.domain.terms import Terms
from tornado_proxy.domain.usage import Meter
from tornado_proxy.pricing.lists.comparison import compare
from tornado_proxy.pricing.lists.price_list import ListedModel, ListedPrice
from tornado_proxy.reports.price_differences import COLUMNS, difference_members

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def members(price: ListedPrice, model: str = "gpt-5.4") -> dict[str, str | None]:
    (compared,) = compare(price_book(), [ListedModel("openai", model, (price,))], NOW)
    return difference_members(compared)


def test_row_of_a_different_price_has_our_source_and_conditions() -> None:
    row = members(ListedPrice(Meter.INPUT, "per_million_tokens", Decimal("2.50"), Terms("flex")))

    assert tuple(row) == COLUMNS
    assert row == {
        "provider": "openai",
        "model": "gpt-5.4",
        "meter": "input_tokens",
        "when": "service_tier flex",
        "finding": "differs",
        "ours": "0.625",
        "theirs": "2.5",
        "unit": "per_million_tokens",
        "our_source": "https://prices.example/flex",
        "our_checked": "2026-02-02",
        "why": "service_tier flex",
    }


def test_row_of_a_missing_price_has_the_reason() -> None:
    row = members(ListedPrice(Meter.CACHED_INPUT, "per_million_tokens", Decimal(1), over=1000))

    assert (row["finding"], row["when"], row["ours"], row["our_source"]) == (
        *("missing", "input_tokens over 1000", None, None),
    )
    assert row["why"] == "cached_input_tokens of gpt-5.4 has no price on the standard terms"


def test_row_of_a_new_model_has_only_the_listed_price() -> None:
    row = members(ListedPrice(Meter.INPUT, "per_million_tokens", Decimal(1)), "gpt-new")

    assert (row["model"], row["finding"], row["ours"], row["theirs"], row["why"]) == (
        *("gpt-new", "new model", None, "1", ""),
    )
