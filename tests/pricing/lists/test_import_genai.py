"""The data of genai-prices, from hand-cut excerpts in its own shapes, and from the package itself."""

from __future__ import annotations

import json
from datetime import date
from decimal import Decimal

import pytest
from genai_prices.data_snapshot import get_snapshot

from tests.harness import ROOT
from tornado_proxy.config.files import read_document
from tornado_proxy.domain.usage import Meter
from tornado_proxy.pricing.lists.import_genai import PRICE_KEYS, read_genai
from tornado_proxy.pricing.lists.price_list import ListedPrice, NotAPriceList

FOLDER = ROOT / "tests" / "fixtures" / "price_lists"
TODAY = date(2026, 11, 23)
ENDPOINTS = frozenset({"/v1/messages", "/v1/messages/batches"})

CONTENT = json.loads((FOLDER / "genai.json").read_text(), parse_float=Decimal)
READ = read_genai(CONTENT, ENDPOINTS, TODAY)


def prices(name: str, today: date = TODAY) -> set[ListedPrice]:
    (found,) = [one for one in read_genai(CONTENT, ENDPOINTS, today).models if one.name == name]
    return set(found.prices)


def tokens(meter: Meter, price: str, terms: dict[str, str] | None = None, over: int | None = None) -> ListedPrice:
    return ListedPrice(meter, "per_million_tokens", Decimal(price), tuple((terms or {}).items()), over)


def test_tiers_are_prices_above_a_length_and_variants_prices_on_terms() -> None:
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
def test_of_dated_prices_the_last_that_has_begun_holds(today: date, price: str) -> None:
    assert prices("gpt-dated", today) == {tokens(Meter.INPUT, price)}


def test_hours_of_audio_are_read_once() -> None:
    assert prices("whisper-1") == {ListedPrice(Meter.AUDIO_SECONDS, "per_hour", Decimal("0.36"))}


def test_a_provider_s_yaml_is_read_too() -> None:
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


def test_the_version_with_units_is_read_too() -> None:
    assert read_genai({"units": {}, "providers": CONTENT}, ENDPOINTS, TODAY) == READ


def test_what_is_not_read_is_counted() -> None:
    assert {one.provider for one in READ.models} == {"openai"}
    assert READ.skipped == {"requests_kcount: has no meter here": 1, "variants for {'moon': 'full'}": 1}


@pytest.mark.parametrize("content", [[], {}, None, "text", [{"id": "openai"}], {"providers": []}, [1]])
def test_anything_else_is_no_such_data(content: object) -> None:
    with pytest.raises(NotAPriceList):
        read_genai(content, ENDPOINTS, TODAY)


@pytest.mark.parametrize("price", [True, "2.5", None, [1], Decimal("1e999999"), Decimal(-1), {"base": "x"}])
def test_what_is_no_price_is_counted_and_not_read(price: object) -> None:
    content = [{"id": "openai", "models": [{"id": "m", "prices": {"input_mtok": price, "output_mtok": 1}}]}]

    read = read_genai(content, ENDPOINTS, TODAY)

    assert [one.prices for one in read.models] == [(tokens(Meter.OUTPUT, "1"),)]
    assert read.skipped == {"input_mtok: is no price": 1}


def test_a_tier_that_cannot_be_understood_is_counted() -> None:
    price = {"base": 1, "tiers": [{"start": "far", "price": 2}, {"start": 5, "price": 3}]}
    content = [{"id": "openai", "models": [{"id": "m", "prices": {"input_mtok": price}}]}]

    read = read_genai(content, ENDPOINTS, TODAY)

    assert [one.prices for one in read.models] == [(tokens(Meter.INPUT, "1"), tokens(Meter.INPUT, "3", over=5))]
    assert read.skipped == {"input_mtok: is no price": 1}


def test_every_key_that_the_package_prices_openai_and_anthropic_by_is_known() -> None:
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
