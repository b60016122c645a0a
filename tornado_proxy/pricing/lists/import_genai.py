"""Parses the data of genai-prices, `prices/data.json` or one provider's YAML, into listed prices.

A model has `prices`, or a list of dated ones of which the last that has begun is valid, and `price_variants` for tiers.
A price is USD for a million tokens, an hour or a thousand calls, or `{base, tiers: [{start, price}]}`, whose tiers
replace the price of the whole request above `start` input tokens.
Source: pydantic/genai-prices, prices/README.md and data.schema.json.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from decimal import Decimal
from typing import Any

from tornado_proxy.domain.terms import NO_TERMS, Terms
from tornado_proxy.domain.usage import Meter
from tornado_proxy.pricing.lists.price_list import (
    ZERO_PRICES,
    ListedModel,
    ListedPrice,
    NotAPriceList,
    PriceList,
    filter_endpoints,
    find_provider,
    parse_price,
)
from tornado_proxy.providers.contract import Provider

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

#: The condition of a variant -> the registry's terms.  None: `default` repeats the model's own prices.
_VARIANTS: Mapping[tuple[str, str], Terms | None] = {
    ("service_tier", "default"): None,
    ("service_tier", "flex"): Terms(service_tier="flex"),
    ("service_tier", "priority"): Terms(service_tier="priority"),
    ("service_tier", "fast"): Terms(service_tier="priority"),
    ("service_tier", "ultrafast"): Terms(service_tier="ultrafast"),
    ("processing", "batch"): Terms(service_tier="batch"),
    ("speed", "fast"): Terms(speed="fast"),
}


def read_genai(content: object, endpoints: frozenset[str], today: date) -> PriceList:
    """Return the models of our providers at today's prices.

    Args:
        content: the parsed file, whose numbers with a point are Decimal.
        endpoints: those that the registry knows.
        today: selects among dated prices.

    Raises:
        NotAPriceList: the content has another format.
    """
    price_list = PriceList("genai-prices")
    for listed in _listed_providers(content):
        provider = find_provider(listed.get("id"))
        if provider is None:
            continue
        served = filter_endpoints(provider.price_lists.endpoints, endpoints)
        for model in _objects(listed.get("models")):
            # The list gives audio prices under two keys; both map to one meter.
            prices = tuple(dict.fromkeys(_model_prices(provider, model, today, price_list)))
            price_list.add(ListedModel(provider.name, str(model.get("id")), prices, served))
    return price_list


def _listed_providers(content: object) -> Sequence[Mapping[str, Any]]:
    if isinstance(content, dict) and isinstance(content.get("providers"), list):
        content = content["providers"]
    listed = _objects([content] if isinstance(content, dict) else content)
    if not listed or not all("id" in entry and isinstance(entry.get("models"), list) for entry in listed):
        raise NotAPriceList("is no genai-prices data: a list of providers, or one, with id and models")
    return listed


def _model_prices(
    provider: Provider, model: Mapping[str, Any], today: date, price_list: PriceList
) -> Iterator[ListedPrice]:
    yield from _read_prices(provider, _valid_prices(model.get("prices"), today), NO_TERMS, price_list)
    for variant in _objects(model.get("price_variants")):
        when = variant.get("when")
        pairs = [(str(name), str(value)) for name, value in when.items()] if isinstance(when, dict) else []
        if len(pairs) != 1 or pairs[0] not in _VARIANTS:
            price_list.skipped[f"variants for {when}"] += 1
            continue
        terms = _VARIANTS[pairs[0]]
        if terms is not None and _has_begun(variant, today):
            yield from _read_prices(provider, variant.get("prices"), terms, price_list)


def _valid_prices(prices: object, today: date) -> object:
    """Return the prices of today: the last entry of a dated list whose start date is not in the future."""
    if not isinstance(prices, list):
        return prices
    begun = [entry.get("prices") for entry in _objects(prices) if _has_begun(entry, today)]
    return begun[-1] if begun else None


def _has_begun(entry: Mapping[str, Any], today: date) -> bool:
    constraint = entry.get("constraint")
    if constraint is None:
        return True
    start = constraint.get("start_date") if isinstance(constraint, dict) else None
    # The other kind of constraint is a time of day, which the registry cannot express.
    return isinstance(start, str) and start <= today.isoformat()


def _read_prices(provider: Provider, prices: object, terms: Terms, price_list: PriceList) -> Iterator[ListedPrice]:
    if not isinstance(prices, dict):
        return
    for key, value in prices.items():
        if key not in PRICE_KEYS:
            price_list.skipped[f"{key}: has no meter here"] += 1
            continue
        meter, unit = PRICE_KEYS[key]
        if meter is Meter.CACHE_WRITE:
            meter = provider.price_lists.cache_write
        for price, over in _tiers(value):
            if price is None:
                price_list.skipped[f"{key}: is no price"] += 1
            # Writing such a price would make an unknown cost free.
            elif price == 0:
                price_list.skipped[ZERO_PRICES] += 1
            else:
                yield ListedPrice(meter, unit, price, terms, over)


def _tiers(value: object) -> Iterator[tuple[Decimal | None, int | None]]:
    """Yield each price with the input length above which it applies; the price is None if it cannot be read."""
    if not isinstance(value, dict):
        yield parse_price(value), None
        return
    yield parse_price(value.get("base")), None
    for tier in _objects(value.get("tiers")):
        start = tier.get("start")
        valid = isinstance(start, int) and not isinstance(start, bool) and start >= 0
        yield (parse_price(tier.get("price")), start) if valid else (None, None)


def _objects(value: object) -> list[Mapping[str, Any]]:
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []
