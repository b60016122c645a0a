"""`tornado-proxy pricing list` and `show`: the registry's models, and every price of one of them."""

from __future__ import annotations

import difflib
import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from tornado_proxy.cli.config_lookup import (
    PRICES,
    PRICES_CONFIG,
    find_prices,
    load_prices,
    named_config,
    read_prices,
    reporting,
)
from tornado_proxy.cli.tables import print_table
from tornado_proxy.domain.terms import DEFAULT_TERMS
from tornado_proxy.domain.usage import Meter
from tornado_proxy.ledger.rows import format_decimal
from tornado_proxy.pricing.book.price import ModelPrice, RateCard
from tornado_proxy.pricing.book.price_book import PriceBook
from tornado_proxy.reports.explanation import conditions_words, unit_words

PROVIDERS = ("openai", "anthropic")

#: Columns of the table: what most models are asked for.
_COLUMNS = (Meter.INPUT, Meter.CACHED_INPUT, Meter.OUTPUT)


@click.command("list")
@click.argument("pattern", default="*")
@PRICES_CONFIG
@PRICES
@click.option("--provider", type=click.Choice(PROVIDERS), help="Only this provider.")
@click.option("--status", type=click.Choice(["active", "deprecated", "retired"]), help="Only models in this state.")
@click.option(
    "--format", "shape", type=click.Choice(["table", "json"]), default="table", show_default=True, help="As which text."
)
def list_models(
    *, pattern: str, config: Path | None, prices: Path | None, provider: str | None, status: str | None, shape: str
) -> None:
    """List the models that have prices; PATTERN is a name with * for any characters.

    The table shows today's standard prices in USD per million tokens, and what else the model is priced by.

    \b
    Example:
      tornado-proxy pricing list 'gpt-5*' --status active
    """
    with reporting():
        book = load_prices(named_config(config), prices)
        models = [
            model
            for name in ([provider] if provider else PROVIDERS)
            for model in sorted(book.models(name), key=lambda one: one.name)
            if fnmatchcase(model.name, pattern) and status in (None, model.status)
        ]
        if shape == "json":
            sys.stdout.write(json.dumps([_members(model) for model in models], indent=2) + "\n")
        else:
            _print_table(models, datetime.now(UTC))
        sys.stdout.flush()


@click.command()
@click.argument("model")
@PRICES_CONFIG
@PRICES
@click.option(
    "--format", "shape", type=click.Choice(["text", "json"]), default="text", show_default=True, help="As which text."
)
def show(model: str, config: Path | None, prices: Path | None, shape: str) -> None:
    """Show every price of MODEL (a name, an alias or PROVIDER/NAME) with its conditions, source and date.

    \b
    Example:
      tornado-proxy pricing show claude-haiku-4-5
    """
    with reporting():
        documents = read_prices(find_prices(named_config(config), prices))
        book = PriceBook.from_documents(documents)
        found = _find(book, model)
        if not found:
            raise click.ClickException(_unknown(book, model))
        aliases: list[Any] = [document.content for document in documents]
        for one in found:
            others = _aliases(aliases, one)
            if shape == "json":
                sys.stdout.write(json.dumps({**_members(one), "aliases": others}, indent=2) + "\n")
            else:
                sys.stdout.write("".join(f"{line}\n" for line in _text(one, others)))
        sys.stdout.flush()


def _find(book: PriceBook, name: str) -> list[ModelPrice]:
    provider, slash, rest = name.partition("/")
    named = [(provider, rest)] if slash and provider in PROVIDERS else [(one, name) for one in PROVIDERS]
    return [model for one, words in named if (model := book.resolve(one, words)) is not None]


def _unknown(book: PriceBook, name: str) -> str:
    names = [model.name for provider in PROVIDERS for model in book.models(provider)]
    near = difflib.get_close_matches(name[:100], names, 3)
    hint = f"; near are {', '.join(near)}" if near else "; `tornado-proxy pricing list` lists all"
    return f"{name[:100]} has no prices{hint}"


def _aliases(contents: list[Any], model: ModelPrice) -> list[str]:
    return sorted(
        alias
        for content in contents
        if content["provider"] == model.provider
        for alias, target in content.get("aliases", {}).items()
        if target == model.name
    )


def _members(model: ModelPrice) -> dict[str, Any]:
    return {
        "provider": model.provider,
        "model": model.name,
        "status": model.status,
        "endpoints": sorted(model.endpoints),
        "roles": sorted(model.roles),
        "cards": [_card(card) for card in model.cards],
        "modifiers": [
            {
                "name": one.name,
                "when": conditions_words(one.conditions),
                "multiply": format_decimal(one.factor),
                "units": sorted(one.units),
            }
            for one in model.modifiers
        ],
    }


def _card(card: RateCard) -> dict[str, Any]:
    return {
        "when": conditions_words(card.conditions),
        "unit": card.unit,
        "prices": {meter.value: format_decimal(price) for meter, price in card.prices.items()},
        "effective_from": None if card.effective_from is None else f"{card.effective_from:%Y-%m-%d}",
        "effective_until": None if card.effective_until is None else f"{card.effective_until:%Y-%m-%d}",
        "source": card.source,
        "checked": card.checked,
    }


def _text(model: ModelPrice, aliases: list[str]) -> Iterator[str]:
    yield f"{model.provider}/{model.name}: {model.status}"
    if aliases:
        yield f"also called: {', '.join(aliases)}"
    yield f"endpoints: {', '.join(sorted(model.endpoints))}"
    if model.roles:
        yield f"used in other models' calls as: {', '.join(sorted(model.roles))}"
    for card in model.cards:
        yield from _card_text(card)
    for one in model.modifiers:
        yield f"\nx {format_decimal(one.factor)} ({one.name}): {conditions_words(one.conditions)}"


def _card_text(card: RateCard) -> Iterator[str]:
    dates = [
        f"{word} {moment:%Y-%m-%d}"
        for word, moment in (("from", card.effective_from), ("until", card.effective_until))
        if moment is not None
    ]
    when = ", ".join([conditions_words(card.conditions) or "always", *dates])
    yield f"\n{when}; USD {unit_words(card.unit)}"
    width = max(len(meter.value) for meter in card.prices)
    for meter, price in card.prices.items():
        yield f"  {meter.value:<{width}}  {format_decimal(price)}"
    yield f"  source: {card.source}; checked {card.checked}"


def _print_table(models: list[ModelPrice], now: datetime) -> None:
    table = Table()
    for name in ("provider", "model", "status"):
        table.add_column(name, overflow="fold")
    for meter in _COLUMNS:
        table.add_column(meter.value.removesuffix("_tokens").replace("_", " "), justify="right")
    table.add_column("also", overflow="fold")
    for model in models:
        figures = [_standard(model, meter, now) for meter in _COLUMNS]
        others = sorted(meter.value for meter in model.by_meter if meter not in _COLUMNS)
        cells = ["-" if price is None else format_decimal(price) for price in figures]
        table.add_row(model.provider, model.name, model.status, *cells, ", ".join(others))
    print_table(table, sys.stdout)


def _standard(model: ModelPrice, meter: Meter, now: datetime) -> Decimal | None:
    cards = model.find(meter, DEFAULT_TERMS, 0, now)
    return cards[0].prices[meter] if len(cards) == 1 and cards[0].unit == "per_million_tokens" else None
