"""Reads LiteLLM's price map, `model_prices_and_context_window.json`: content in, listed prices out.

One member a model; each cost member is a base name with suffixes:

    cache_read_input_token_cost _above_272k_tokens _flex
    what is counted             input longer than    tier

Costs are USD for one token, character or second.  What has no meter here is counted in `skipped`, never guessed at.
Source: BerriAI/litellm, the file itself and its `sample_spec` member.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from decimal import Decimal

from tornado_proxy.domain.usage import Meter
from tornado_proxy.pricing.lists.price_list import (
    MESSAGES,
    TEXT,
    ListedModel,
    ListedPrice,
    NotAPriceList,
    PriceList,
    known,
    price_of,
)

_PROVIDERS = {"openai": "openai", "text-completion-openai": "openai", "anthropic": "anthropic"}

_TOKENS = "per_million_tokens"
_MILLION = Decimal(1_000_000)

#: Base name -> meter, unit, and how many of what is counted the unit is for.
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

_TIERS = {"batches": "batch", "flex": "flex", "priority": "priority", "ultrafast": "ultrafast"}

_COST = re.compile(
    f"({'|'.join(sorted(_COSTS, key=len, reverse=True))})"
    r"(?:_above_([1-9][0-9]{0,4})k_tokens)?"
    f"(?:_({'|'.join(_TIERS)}))?"
)

#: The list's word for what a model is -> where it may be used.
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
    """The OpenAI and Anthropic models of a parsed map, whose numbers with a point are Decimal.

    `endpoints` are those that the registry knows.

    Raises:
        NotAPriceList: it is not that map.
    """
    if not isinstance(content, dict) or not any(_is_entry(entry) for entry in content.values()):
        raise NotAPriceList("is no LiteLLM price map: a JSON object of models with litellm_provider")
    found = PriceList("LiteLLM price map")
    for name, entry in content.items():
        provider = _PROVIDERS.get(str(entry.get("litellm_provider"))) if isinstance(entry, dict) else None
        if provider is None:
            continue
        if "/" in name:
            found.skipped["rows of one image size or of another host (names with /)"] += 1
            continue
        found.add(
            ListedModel(
                provider,
                name,
                tuple(_prices(provider, entry, found)),
                _served(provider, entry, endpoints),
                _date(entry.get("deprecation_date")),
            )
        )
    return found


def _is_entry(entry: object) -> bool:
    return isinstance(entry, dict) and "litellm_provider" in entry


def _prices(provider: str, entry: Mapping[str, object], found: PriceList) -> Iterator[ListedPrice]:
    by_the_second = entry.get("mode") == "audio_transcription" and "input_cost_per_token" not in entry
    for field, value in entry.items():
        if "cost" not in field:
            continue
        match, cost = _COST.fullmatch(field), price_of(value)
        if match is None or cost is None:
            found.skipped[f"{field}: {'has no meter here' if match is None else 'is no price'}"] += 1
            continue
        base, over, tier = match.groups()
        meter, unit, quantity = _COSTS[base]
        if cost == 0:
            found.skipped["prices of zero: the list does not tell free from unknown"] += 1
        elif meter is Meter.AUDIO_SECONDS and not by_the_second:
            found.skipped["prices by the second of what is no transcription, or is priced by tokens"] += 1
        else:
            if meter is Meter.CACHE_WRITE and provider == "anthropic":
                meter = Meter.CACHE_WRITE_5M
            terms = (("service_tier", _TIERS[tier]),) if tier else ()
            rounding = _last_place(cost) * quantity if unit == "per_minute" else Decimal(0)
            yield ListedPrice(meter, unit, cost * quantity, terms, int(over) * 1000 if over else None, rounding)


def _last_place(cost: Decimal) -> Decimal:
    """One in the last place that the list gives: 0.00028333 stands for a price by the minute, divided."""
    exponent = cost.as_tuple().exponent
    assert isinstance(exponent, int), "price_of() gives finite numbers"
    return Decimal(1).scaleb(exponent)


def _served(provider: str, entry: Mapping[str, object], endpoints: frozenset[str]) -> tuple[str, ...]:
    if provider == "anthropic":
        return known(MESSAGES, endpoints)
    named = entry.get("supported_endpoints")
    if isinstance(named, list) and (served := known(map(str, named), endpoints)):
        return served
    return known(_ENDPOINTS.get(str(entry.get("mode")), ()), endpoints)


def _date(value: object) -> str | None:
    return value if isinstance(value, str) and re.fullmatch(r"\d{4}-\d{2}-\d{2}", value) else None
