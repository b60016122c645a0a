"""The prices of models as JSON values and as phrases for people.  Pure."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal
from typing import Any

from tornado_proxy.domain.config.document import Document
from tornado_proxy.domain.terms import DEFAULT_TERMS
from tornado_proxy.domain.usage import Meter
from tornado_proxy.ledger.rows import format_decimal
from tornado_proxy.pricing.book.name_hints import MAX_HINT_CHARACTERS
from tornado_proxy.pricing.book.price import Conditions, ModelPrice, PriceCard
from tornado_proxy.pricing.book.price_book import PriceBook
from tornado_proxy.providers.registry import PROVIDER_NAMES


def find_models(book: PriceBook, name: str) -> list[ModelPrice]:
    """Return the models called `name`: a model, an alias or PROVIDER/NAME.  Several providers can have one each."""
    provider, slash, rest = name.partition("/")
    candidates = (
        [(provider, rest)] if slash and provider in PROVIDER_NAMES else [(each, name) for each in PROVIDER_NAMES]
    )
    return [model for each, model_name in candidates if (model := book.resolve(each, model_name)) is not None]


def find_similar_names(book: PriceBook, name: str) -> list[str]:
    """Return up to three names of models that are similar to `name`, the most similar first."""
    names = [model.name for provider in PROVIDER_NAMES for model in book.models(provider)]
    return difflib.get_close_matches(name[:MAX_HINT_CHARACTERS], names, 3)


def find_aliases(documents: Iterable[Document], model: ModelPrice) -> list[str]:
    """Return the aliases of `model` in price documents, sorted."""
    contents: list[Any] = [document.content for document in documents]
    return sorted(
        alias
        for content in contents
        if content["provider"] == model.provider
        for alias, target in content.get("aliases", {}).items()
        if target == model.name
    )


def find_standard_price(model: ModelPrice, meter: Meter, now: datetime) -> Decimal | None:
    """Return the price in USD per million tokens on default terms, None if there is none or it has another unit."""
    # 0 input tokens: the price of short requests, where the price depends on the length.
    cards = model.find(meter, DEFAULT_TERMS, 0, now)
    return cards[0].prices[meter] if len(cards) == 1 and cards[0].unit == "per_million_tokens" else None


def model_members(model: ModelPrice) -> dict[str, Any]:
    """Return a model with all its prices as JSON members."""
    return {
        "provider": model.provider,
        "model": model.name,
        "status": model.status,
        "endpoints": sorted(model.endpoints),
        "roles": sorted(model.roles),
        "cards": [card_members(card) for card in model.cards],
        "modifiers": [
            {
                "name": modifier.name,
                "when": describe_conditions(modifier.conditions),
                "multiply": format_decimal(modifier.factor),
                "units": sorted(modifier.units),
            }
            for modifier in model.modifiers
        ],
    }


def card_members(card: PriceCard) -> dict[str, Any]:
    """Return a price card as JSON members."""
    return {
        "when": describe_conditions(card.conditions),
        "unit": card.unit,
        "prices": {meter.value: format_decimal(price) for meter, price in card.prices.items()},
        **date_members(card),
        "source": card.source,
        "checked": card.checked,
    }


def date_members(card: PriceCard) -> dict[str, str | None]:
    """Return the first day of a card, and the day after its last, as JSON members."""
    return {
        "effective_from": None if card.effective_from is None else f"{card.effective_from:%Y-%m-%d}",
        "effective_until": None if card.effective_until is None else f"{card.effective_until:%Y-%m-%d}",
    }


def describe_dates(card: PriceCard) -> list[str]:
    """Return the dates of a card as phrases: "from 2026-11-01", "until 2026-12-01"."""
    members = date_members(card)
    phrases = {"from": members["effective_from"], "until": members["effective_until"]}
    return [f"{preposition} {day}" for preposition, day in phrases.items() if day is not None]


def describe_conditions(conditions: Conditions) -> str:
    """Return conditions as a phrase: "service_tier batch, input_tokens over 272000"."""
    phrases = [f"{name} {' or '.join(sorted(values))}" for name, values in conditions.accepted]
    if conditions.over is not None:
        phrases.append(f"input_tokens over {conditions.over}")
    if conditions.up_to is not None:
        phrases.append(f"input_tokens up to {conditions.up_to}")
    return ", ".join(phrases)


def describe_unit(unit: str) -> str:
    """Return a unit as a phrase: `per_million_tokens` as "per million tokens"."""
    return unit.replace("_", " ")
