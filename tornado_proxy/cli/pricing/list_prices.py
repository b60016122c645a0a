"""`tornado-proxy pricing list` and `show`: the models with prices, and every price of one model."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path

import click
from rich.table import Table

from tornado_proxy.cli.options.config_lookup import (
    PRICES,
    PRICES_CONFIG,
    exit_on_errors,
    find_prices,
    load_prices,
    named_config,
    read_prices,
)
from tornado_proxy.cli.options.format_option import format_option
from tornado_proxy.cli.tables import print_fitting_table
from tornado_proxy.domain.usage import Meter
from tornado_proxy.ledger.rows import format_decimal
from tornado_proxy.pricing.book.name_hints import MAX_HINT_CHARACTERS
from tornado_proxy.pricing.book.price import ModelPrice, PriceCard
from tornado_proxy.pricing.book.price_book import PriceBook
from tornado_proxy.providers.registry import PROVIDER_NAMES
from tornado_proxy.reports.model_prices import (
    describe_conditions,
    describe_dates,
    describe_unit,
    find_aliases,
    find_models,
    find_similar_names,
    find_standard_price,
    model_members,
)

#: Columns of the table in a pipe: an editor or a terminal shows them on one line each.
_PIPE_WIDTH = 119

#: Columns of the table: the meters that most models have.
_COLUMNS = (Meter.INPUT, Meter.CACHED_INPUT, Meter.OUTPUT)


@click.command("list")
@click.argument("pattern", default="*")
@PRICES_CONFIG
@PRICES
@click.option("--provider", type=click.Choice(PROVIDER_NAMES), help="Only this provider.")
@click.option("--status", type=click.Choice(["active", "deprecated", "retired"]), help="Only models with this status.")
@format_option("table", "json")
def list_models(
    *,
    pattern: str,
    config: Path | None,
    prices: Path | None,
    provider: str | None,
    status: str | None,
    output_format: str,
) -> None:
    """List the models that have prices.  PATTERN is a model name; * matches any text.

    The table shows today's standard prices in USD per million tokens, and the other meters of each model.

    \b
    Example:
      tornado-proxy pricing list 'gpt-5*' --status active
    """
    with exit_on_errors():
        book = load_prices(named_config(config), prices)
        models = [
            model
            for name in ([provider] if provider else PROVIDER_NAMES)
            # Price files are ordered by family; names are easier to find in order.
            for model in sorted(book.models(name), key=lambda model: model.name)
            if fnmatchcase(model.name, pattern) and status in (None, model.status)
        ]
        if output_format == "json":
            sys.stdout.write(json.dumps([model_members(model) for model in models], indent=2) + "\n")
        else:
            now = datetime.now(UTC)
            print_fitting_table(lambda _, characters: _make_table(models, now, characters), sys.stdout, _PIPE_WIDTH)
        sys.stdout.flush()


@click.command(short_help="Show every price of a model.")
@click.argument("model")
@PRICES_CONFIG
@PRICES
@format_option("text", "json")
def show(model: str, config: Path | None, prices: Path | None, output_format: str) -> None:
    """Show every price of MODEL (a name, an alias or PROVIDER/NAME) with its conditions, source and date.

    \b
    Example:
      tornado-proxy pricing show claude-haiku-4-5
    """
    with exit_on_errors():
        documents = read_prices(find_prices(named_config(config), prices))
        book = PriceBook.from_documents(documents)
        models = find_models(book, model)
        if not models:
            raise click.ClickException(_describe_unknown(book, model))
        # Two providers can serve a model of the same name.
        described = [(found, find_aliases(documents, found)) for found in models]
        if output_format == "json":
            members = [{**model_members(found), "aliases": aliases} for found, aliases in described]
            sys.stdout.write(json.dumps(members[0] if len(members) == 1 else members, indent=2) + "\n")
        else:
            for found, aliases in described:
                sys.stdout.write("".join(f"{line}\n" for line in _model_lines(found, aliases)))
        sys.stdout.flush()


def _describe_unknown(book: PriceBook, name: str) -> str:
    similar = find_similar_names(book, name)
    hint = f"did you mean {' or '.join(similar)}?" if similar else "`tornado-proxy pricing list` lists all models"
    return f"{name[:MAX_HINT_CHARACTERS]} has no prices; {hint}"


def _model_lines(model: ModelPrice, aliases: list[str]) -> Iterator[str]:
    yield f"{model.provider}/{model.name}: {model.status}"
    if aliases:
        yield f"aliases: {', '.join(aliases)}"
    yield f"endpoints: {', '.join(sorted(model.endpoints))}"
    if model.roles:
        yield f"roles in requests to other models: {', '.join(sorted(model.roles))}"
    for card in model.cards:
        yield from _card_lines(card)
    for modifier in model.modifiers:
        conditions = describe_conditions(modifier.conditions)
        yield f"\nx {format_decimal(modifier.factor)} ({modifier.name}): {conditions}"


def _card_lines(card: PriceCard) -> Iterator[str]:
    validity = ", ".join([describe_conditions(card.conditions) or "always", *describe_dates(card)])
    yield f"\n{validity}; USD {describe_unit(card.unit)}"
    width = max(len(meter.value) for meter in card.prices)
    for meter, price in card.prices.items():
        yield f"  {meter.value:<{width}}  {format_decimal(price)}"
    yield f"  source: {card.source}; checked {card.checked}"


def _make_table(models: list[ModelPrice], now: datetime, characters: int | None) -> Table:
    """Return the table; the list of other meters has up to `characters`."""
    table = Table()
    for name in ("provider", "model", "status"):
        table.add_column(name, overflow="fold")
    for meter in _COLUMNS:
        table.add_column(meter.value.removesuffix("_tokens").replace("_", " "), justify="right")
    table.add_column("other meters", overflow="fold")
    for model in models:
        standard_prices = [find_standard_price(model, meter, now) for meter in _COLUMNS]
        other_meters = ", ".join(sorted(meter.value for meter in model.by_meter if meter not in _COLUMNS))
        cells = ["-" if price is None else format_decimal(price) for price in standard_prices]
        # Cut, so that each model has one line; `pricing show` has all meters.
        cut = characters is not None and len(other_meters) > characters
        table.add_row(
            model.provider, model.name, model.status, *cells, f"{other_meters[:characters]}…" if cut else other_meters
        )
    return table
