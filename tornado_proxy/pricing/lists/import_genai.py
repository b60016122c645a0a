"""Reads the data of genai-prices, `prices/data.json` or one provider's YAML: content in, listed prices out.

A model has `prices`, or a list of dated ones of which the last that has begun holds, and `price_variants` for tiers.
A price is USD for a million tokens, an hour or a thousand calls, or `{base, tiers: [{start, price}]}`, whose tiers
replace the price of the whole request above `start` input tokens.
Source: pydantic/genai-prices, prices/README.md and data.schema.json.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from decimal import Decimal
from typing import Any

from tornado_proxy.domain.usage import Meter
from tornado_proxy.pricing.lists.price_list import (
    MESSAGES,
    ListedModel,
    ListedPrice,
    NotAPriceList,
    PriceList,
    known,
    price_of,
)

_TOKENS = "per_million_tokens"
_CALLS = "per_thousand_calls"

#: Keys of prices -> meter and unit.
PRICE_KEYS: Mapping[str, tuple[Meter, str]] = {
    "input_mtok": (Meter.INPUT, _TOKENS),
    "output_mtok": (Meter.OUTPUT, _TOKENS),
    "cache_read_mtok": (Meter.CACHED_INPUT, _TOKENS),
    "cache_write_mtok": (Meter.CACHE_WRITE, _TOKENS),
    "cache_write_5m_mtok": (Meter.CACHE_WRITE_5M, _TOKENS),
    "cache_write_1h_mtok": (Meter.CACHE_WRITE_1H, _TOKENS),
    "input_audio_mtok": (Meter.INPUT_AUDIO, _TOKENS),
    "output_audio_mtok": (Meter.OUTPUT_AUDIO, _TOKENS),
    "cache_audio_read_mtok": (Meter.CACHED_INPUT_AUDIO, _TOKENS),
    "input_image_mtok": (Meter.INPUT_IMAGE, _TOKENS),
    "output_image_mtok": (Meter.OUTPUT_IMAGE, _TOKENS),
    "cache_image_read_mtok": (Meter.CACHED_INPUT_IMAGE, _TOKENS),
    "input_mchars": (Meter.INPUT_CHARACTERS, "per_million_characters"),
    "audio_hours": (Meter.AUDIO_SECONDS, "per_hour"),
    "input_audio_hours": (Meter.AUDIO_SECONDS, "per_hour"),
    "web_searches_kcount": (Meter.WEB_SEARCHES, _CALLS),
    "storage_searches_kcount": (Meter.FILE_SEARCHES, _CALLS),
}

#: The condition of a variant -> the registry's terms.  `default` says again what the model's own prices say.
_WHEN: Mapping[tuple[str, str], tuple[tuple[str, str], ...] | None] = {
    ("service_tier", "default"): None,
    ("service_tier", "flex"): (("service_tier", "flex"),),
    ("service_tier", "priority"): (("service_tier", "priority"),),
    ("service_tier", "fast"): (("service_tier", "priority"),),
    ("service_tier", "ultrafast"): (("service_tier", "ultrafast"),),
    ("processing", "batch"): (("service_tier", "batch"),),
    ("speed", "fast"): (("speed", "fast"),),
}

_PROVIDERS = ("openai", "anthropic")


def read_genai(content: object, endpoints: frozenset[str], today: date) -> PriceList:
    """The OpenAI and Anthropic models of parsed data, whose numbers with a point are Decimal, at today's prices.

    Raises:
        NotAPriceList: it is not that data.
    """
    found = PriceList("genai-prices")
    for provider in _providers(content):
        if provider.get("id") not in _PROVIDERS:
            continue
        name = str(provider["id"])
        for model in _objects(provider.get("models")):
            prices = tuple(dict.fromkeys(_model_prices(name, model, today, found)))
            served = known(MESSAGES, endpoints) if name == "anthropic" else ()
            found.add(ListedModel(name, str(model.get("id")), prices, served))
    return found


def _providers(content: object) -> Sequence[Mapping[str, Any]]:
    if isinstance(content, dict) and isinstance(content.get("providers"), list):
        content = content["providers"]
    listed = _objects([content] if isinstance(content, dict) else content)
    if not listed or not all("id" in one and isinstance(one.get("models"), list) for one in listed):
        raise NotAPriceList("is no genai-prices data: a list of providers, or one, with id and models")
    return listed


def _model_prices(provider: str, model: Mapping[str, Any], today: date, found: PriceList) -> Iterator[ListedPrice]:
    yield from _read(provider, _active(model.get("prices"), today), (), found)
    for variant in _objects(model.get("price_variants")):
        when = variant.get("when")
        pairs = [(str(name), str(word)) for name, word in when.items()] if isinstance(when, dict) else []
        if len(pairs) != 1 or pairs[0] not in _WHEN:
            found.skipped[f"variants for {when}"] += 1
            continue
        terms = _WHEN[pairs[0]]
        if terms is not None and _has_begun(variant, today):
            yield from _read(provider, variant.get("prices"), terms, found)


def _active(prices: object, today: date) -> object:
    """The prices of today: the last of several whose start date has come."""
    if not isinstance(prices, list):
        return prices
    begun = [one.get("prices") for one in _objects(prices) if _has_begun(one, today)]
    return begun[-1] if begun else None


def _has_begun(one: Mapping[str, Any], today: date) -> bool:
    constraint = one.get("constraint")
    if constraint is None:
        return True
    start = constraint.get("start_date") if isinstance(constraint, dict) else None
    # Prices that hold at certain hours of the day have no place in the registry.
    return isinstance(start, str) and start <= today.isoformat()


def _read(provider: str, prices: object, terms: tuple[tuple[str, str], ...], found: PriceList) -> Iterator[ListedPrice]:
    if not isinstance(prices, dict):
        return
    for key, value in prices.items():
        if key not in PRICE_KEYS:
            found.skipped[f"{key}: has no meter here"] += 1
            continue
        meter, unit = PRICE_KEYS[key]
        if meter is Meter.CACHE_WRITE and provider == "anthropic":
            meter = Meter.CACHE_WRITE_5M
        for price, over in _tiers(value):
            if price is None:
                found.skipped[f"{key}: is no price"] += 1
            elif price == 0:
                found.skipped["prices of zero: the list does not tell free from unknown"] += 1
            else:
                yield ListedPrice(meter, unit, price, terms, over)


def _tiers(value: object) -> Iterator[tuple[Decimal | None, int | None]]:
    """Each price with the input length above which it holds; None for what is no price."""
    if not isinstance(value, dict):
        yield price_of(value), None
        return
    yield price_of(value.get("base")), None
    for tier in _objects(value.get("tiers")):
        start = tier.get("start")
        whole = isinstance(start, int) and not isinstance(start, bool) and start >= 0
        yield (price_of(tier.get("price")), start) if whole else (None, None)


def _objects(value: object) -> list[Mapping[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []
