"""Parsing of genai-prices: excerpts in its own formats, and the data of the package itself."""

from __future__ import annotations

import json
from datetime import date
from decimal import Decimal

import pytest
from genai_prices.data_snapshot import get_snapshot

from tests.harness import ROOT
from tornado_proxy.config.files import read_document
from tornado_proxy.domain.terms import Terms
from tornado_proxy.domain.usage import Meter
from tornado_proxy.pricing.lists.import_genai import PRICE_KEYS, read_genai
from tornado_proxy.pricing.lists.price_list import ListedPrice, NotAPriceList

FOLDER = ROOT / "tests" / "fixtures" / "price_lists"
TODAY = date(2026, 11, 23)
ENDPOINTS = frozenset({"/v1/messages", "/v1/messages/batches"})

CONTENT = json.loads((FOLDER / "genai.json").read_text(), parse_float=Decimal)
READ = read_genai(CONTENT, ENDPOINTS, TODAY)


def prices(name: str, today: date = TODAY) -> set[ListedPrice]:
    (found,) = [model for model in read_genai(CONTENT, ENDPOINTS, today).models if model.name == name]
    return set(found.prices)


def tokens(meter: Meter, price: str, terms: dict[str, str] | None = None, over: int | None = None) -> ListedPrice:
    return ListedPrice(meter, "per_million_tokens", Decimal(price), Terms(**(terms or {})), over)


def test_tiers_become_input_limits_and_variants_become_terms() -> None:
    assert prices("gpt-5.4") == {
        tokens(Meter.INPUT, "2.5"),
        tokens(Meter.INPUT, "5", over=272_000),
        tokens(Meter.OUTPUT, "15"),
        tokens(Meter.OUTPUT, "22.5", over=272_000),
        tokens(Meter.CACHED_INPUT, "0.25"),
        tokens(Meter.INPUT, "1.25", {"service_tier": "flex"}),
        ListedPrice(Meter.WEB_SEARCHES, "per_thousand_calls", Decimal(10)),
        ListedPrice(Meter.FILE_SEARCHES, "per_thousand_calls", Decimal("2.5")),
    }


@pytest.mark.parametrize(
    ("today", "price"), [(date(2026, 5, 31), "3"), (date(2026, 6, 1), "2"), (date(2099, 6, 1), "1")]
)
def test_last_dated_price_that_has_begun_is_valid(today: date, price: str) -> None:
    assert prices("gpt-dated", today) == {tokens(Meter.INPUT, price)}


def test_price_per_hour_of_audio_is_read_once() -> None:
    assert prices("whisper-1") == {ListedPrice(Meter.AUDIO_SECONDS, "per_hour", Decimal("0.36"))}


def test_yaml_of_one_provider_is_read() -> None:
    content = read_document(FOLDER / "genai.yml").content

    (model,) = read_genai(content, ENDPOINTS, TODAY).models

    assert (model.provider, model.name, model.endpoints) == (
        "anthropic",
        "claude-haiku-4-5",
        ("/v1/messages", "/v1/messages/batches"),
    )
    assert set(model.prices) == {
        tokens(Meter.INPUT, "1"),
        tokens(Meter.CACHE_WRITE_5M, "1.25"),
        tokens(Meter.CACHE_WRITE_1H, "2"),
        tokens(Meter.CACHED_INPUT, "0.1"),
        tokens(Meter.OUTPUT, "5"),
        tokens(Meter.INPUT, "2", {"speed": "fast"}),
    }


def test_format_with_units_is_read() -> None:
    assert read_genai({"units": {}, "providers": CONTENT}, ENDPOINTS, TODAY) == READ


def test_skipped_entries_are_counted_by_reason() -> None:
    assert {model.provider for model in READ.models} == {"openai"}
    assert READ.skipped == {"requests_kcount: has no meter here": 1, "variants for {'moon': 'full'}": 1}


@pytest.mark.parametrize("content", [[], {}, None, "text", [{"id": "openai"}], {"providers": []}, [1]])
def test_other_content_is_rejected(content: object) -> None:
    with pytest.raises(NotAPriceList):
        read_genai(content, ENDPOINTS, TODAY)


@pytest.mark.parametrize("price", [True, "2.5", None, [1], Decimal("1e999999"), Decimal(-1), {"base": "x"}])
def test_value_that_is_no_price_is_counted_and_skipped(price: object) -> None:
    content = [{"id": "openai", "models": [{"id": "m", "prices": {"input_mtok": price, "output_mtok": 1}}]}]

    read = read_genai(content, ENDPOINTS, TODAY)

    assert [model.prices for model in read.models] == [(tokens(Meter.OUTPUT, "1"),)]
    assert read.skipped == {"input_mtok: is no price": 1}


def test_tier_that_cannot_be_read_is_counted() -> None:
    price = {"base": 1, "tiers": [{"start": "far", "price": 2}, {"start": 5, "price": 3}]}
    content = [{"id": "openai", "models": [{"id": "m", "prices": {"input_mtok": price}}]}]

    read = read_genai(content, ENDPOINTS, TODAY)

    assert [model.prices for model in read.models] == [(tokens(Meter.INPUT, "1"), tokens(Meter.INPUT, "3", over=5))]
    assert read.skipped == {"input_mtok: is no price": 1}


def test_every_price_key_of_the_package_for_our_providers_is_known() -> None:
    used = {
        key
        for provider in get_snapshot().providers
        if provider.id in ("openai", "anthropic")
        for model in provider.models
        for priced in (model.prices if isinstance(model.prices, list) else [model])
        for key, value in vars(priced.prices).items()
        if value is not None and not key.startswith("_")
    }

    assert used
    assert used <= set(PRICE_KEYS)
