"""The prices of the installed genai-prices package in the form of its data.json, which the package does not hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from genai_prices import types
from genai_prices.data import providers


def export_providers(*names: str) -> list[dict[str, Any]]:
    """Return the providers with these ids and all their models."""
    return [
        {"id": provider.id, "models": [_export_model(model) for model in provider.models]}
        for provider in providers
        if provider.id in names
    ]


def _export_model(model: types.ModelInfo) -> dict[str, Any]:
    variants = [
        {"when": variant.when, "prices": _export_prices(variant.prices), "constraint": _export_constraint(variant)}
        for variant in getattr(model, "price_variants", None) or ()
    ]
    if not isinstance(model.prices, list):
        return {"id": model.id, "prices": _export_prices(model.prices), "price_variants": variants}
    dated = [
        {"constraint": _export_constraint(dated), "prices": _export_prices(dated.prices)} for dated in model.prices
    ]
    return {"id": model.id, "prices": dated, "price_variants": variants}


def _export_constraint(dated: Any) -> dict[str, str] | None:
    constraint = dated.constraint
    return {"start_date": constraint.start_date.isoformat()} if constraint is not None else None


def _export_prices(prices: object) -> dict[str, Any]:
    values: Mapping[str, Any] = vars(prices)
    return {
        name: _export_price(value) for name, value in values.items() if value is not None and not name.startswith("_")
    }


def _export_price(value: Any) -> Any:
    if not isinstance(value, types.TieredPrices):
        return value
    return {"base": value.base, "tiers": [{"start": tier.start, "price": tier.price} for tier in value.tiers]}
