"""Parses LiteLLM's price map, `model_prices_and_context_window.json`, into listed prices.

One member a model; each cost member is a base name with suffixes:

    cache_read_input_token_cost _above_272k_tokens _flex
    counted things              input longer than    tier

Costs are USD for one token, character or second.  A member without a meter is counted in `skipped`, never guessed.
Source: BerriAI/litellm, the file itself and its `sample_spec` member.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from decimal import Decimal

from tornado_proxy.domain.terms import NO_TERMS, Terms
from tornado_proxy.domain.usage import Meter
from tornado_proxy.pricing.lists.price_list import (
    TEXT,
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
_MILLION = Decimal(1_000_000)

#: Base name -> meter, unit, and the number of counted things that the unit is for.
_COSTS: Mapping[str, tuple[Meter, str, Decimal]] = {
    "input_cost_per_token": (Meter.INPUT, _TOKENS, _MILLION),
    "output_cost_per_token": (Meter.OUTPUT, _TOKENS, _MILLION),
    "cache_read_input_token_cost": (Meter.CACHED_INPUT, _TOKENS, _MILLION),
    "cache_creation_input_token_cost": (Meter.CACHE_WRITE, _TOKENS, _MILLION),
    "cache_creation_input_token_cost_above_1hr": (Meter.CACHE_WRITE_1H, _TOKENS, _MILLION),
    "cache_creation_input_token_cost_above_12hr": (Meter.CACHE_WRITE_12H, _TOKENS, _MILLION),
    "input_cost_per_audio_token": (Meter.INPUT_AUDIO, _TOKENS, _MILLION),
    "output_cost_per_audio_token": (Meter.OUTPUT_AUDIO, _TOKENS, _MILLION),
    "cache_read_input_audio_token_cost": (Meter.CACHED_INPUT_AUDIO, _TOKENS, _MILLION),
    "input_cost_per_image_token": (Meter.INPUT_IMAGE, _TOKENS, _MILLION),
    "output_cost_per_image_token": (Meter.OUTPUT_IMAGE, _TOKENS, _MILLION),
    "cache_read_input_image_token_cost": (Meter.CACHED_INPUT_IMAGE, _TOKENS, _MILLION),
    "input_cost_per_character": (Meter.INPUT_CHARACTERS, "per_million_characters", _MILLION),
    "input_cost_per_second": (Meter.AUDIO_SECONDS, "per_minute", Decimal(60)),
}

#: Suffix of a cost member -> service tier of the registry.
_TIERS = {"batches": "batch", "flex": "flex", "priority": "priority", "ultrafast": "ultrafast"}

# Longest base name first: one base name is the beginning of another, and the first alternative that matches wins.
_COST = re.compile(
    f"({'|'.join(sorted(_COSTS, key=len, reverse=True))})"
    r"(?:_above_([1-9][0-9]{0,4})k_tokens)?"
    f"(?:_({'|'.join(_TIERS)}))?"
)

#: `mode` of a model in the list -> endpoints that serve it.
_ENDPOINTS: Mapping[str, tuple[str, ...]] = {
    "chat": TEXT,
    "responses": TEXT[1:],
    "completion": ("/v1/completions",),
    "embedding": ("/v1/embeddings",),
    "audio_speech": ("/v1/audio/speech",),
    "audio_transcription": ("/v1/audio/transcriptions",),
    "image_generation": ("/v1/images/generations", "/v1/images/edits"),
    "realtime": ("/v1/realtime",),
}


def read_litellm(content: object, endpoints: frozenset[str]) -> PriceList:
    """Return the models of our providers.

    Args:
        content: the parsed file, whose numbers with a point are Decimal.
        endpoints: those that the registry knows.

    Raises:
        NotAPriceList: the content has another format.
    """
    if not isinstance(content, dict) or not any(_is_entry(entry) for entry in content.values()):
        raise NotAPriceList("is no LiteLLM price map: a JSON object of models with litellm_provider")
    price_list = PriceList("LiteLLM price map")
    for name, entry in content.items():
        provider = find_provider(entry.get("litellm_provider")) if isinstance(entry, dict) else None
        if provider is None:
            continue
        # hd/1024-x-1024/dall-e-3 repeats a model for one image size, azure/gpt-4o for another host.
        if "/" in name:
            price_list.skipped["rows of one image size or of another host (names with /)"] += 1
            continue
        price_list.add(
            ListedModel(
                provider.name,
                name,
                tuple(_prices(provider, entry, price_list)),
                _served(provider, entry, endpoints),
                _date(entry.get("deprecation_date")),
            )
        )
    return price_list


def _is_entry(entry: object) -> bool:
    return isinstance(entry, dict) and "litellm_provider" in entry


def _prices(provider: Provider, entry: Mapping[str, object], price_list: PriceList) -> Iterator[ListedPrice]:
    # The list also gives an average price per second for models that the provider charges by tokens.
    priced_by_second = entry.get("mode") == "audio_transcription" and "input_cost_per_token" not in entry
    for field, value in entry.items():
        if "cost" not in field:
            continue
        match, cost = _COST.fullmatch(field), parse_price(value)
        if match is None or cost is None:
            price_list.skipped[f"{field}: {'has no meter here' if match is None else 'is no price'}"] += 1
            continue
        base, over, tier = match.groups()
        meter, unit, quantity = _COSTS[base]
        # Writing such a price would make an unknown cost free.
        if cost == 0:
            price_list.skipped[ZERO_PRICES] += 1
        elif meter is Meter.AUDIO_SECONDS and not priced_by_second:
            price_list.skipped["prices per second of models that do not transcribe, or are priced by tokens"] += 1
        else:
            if meter is Meter.CACHE_WRITE:
                meter = provider.price_lists.cache_write
            terms = Terms(service_tier=_TIERS[tier]) if tier else NO_TERMS
            rounding = _last_place(cost) * quantity if unit == "per_minute" else Decimal(0)
            yield ListedPrice(meter, unit, cost * quantity, terms, int(over) * 1000 if over else None, rounding)


def _last_place(cost: Decimal) -> Decimal:
    """Return one unit of the last decimal place, the largest rounding error of `cost`.

    The list divides prices per minute by 60: 0.017 per minute becomes 0.00028333 per second.
    """
    exponent = cost.as_tuple().exponent
    assert isinstance(exponent, int), "parse_price() returns finite numbers"
    return Decimal(1).scaleb(exponent)


def _served(provider: Provider, entry: Mapping[str, object], endpoints: frozenset[str]) -> tuple[str, ...]:
    if provider.price_lists.endpoints:
        return filter_endpoints(provider.price_lists.endpoints, endpoints)
    # Older entries have no endpoints; `mode` is less exact, and the fallback.
    supported = entry.get("supported_endpoints")
    if isinstance(supported, list) and (served := filter_endpoints(map(str, supported), endpoints)):
        return served
    return filter_endpoints(_ENDPOINTS.get(str(entry.get("mode")), ()), endpoints)


def _date(value: object) -> str | None:
    return value if isinstance(value, str) and re.fullmatch(r"\d{4}-\d{2}-\d{2}", value) else None
