"""`tornado-proxy pricing check`: whether the price files cover what a plain request to each model is charged on."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path

import click

from tornado_proxy.cli.config_lookup import PRICES, PRICES_CONFIG, find_prices, named_config, read_prices, reporting
from tornado_proxy.pricing.book.price_book import PriceBook
from tornado_proxy.reports.coverage import coverage_faults, ending_prices, stale_cards, uneven_prices


@click.command()
@PRICES_CONFIG
@PRICES
@click.option("--max-age", type=click.IntRange(1), default=180, show_default=True, help="Days until a price is stale.")
def check(config: Path | None, prices: Path | None, max_age: int) -> None:
    """Check the price files: every fault on its own line; exit status 1 if there is one.

    Beside what `tornado-proxy check` finds: models that a plain request on one of their endpoints, or on one of the
    tiers they have prices for, would be refused on; lengths of input that lie between two cards; models past their
    shutdown that are still active.  Warnings are prices that will end with nothing after them, meters that the standard
    terms have a price for and another tier or speed has none, and prices that nobody has looked at for --max-age days.

    \b
    Example:
      tornado-proxy pricing check --prices conf/prices
    """
    with reporting():
        path = find_prices(named_config(config), prices)
        documents = read_prices(path)
        book = PriceBook.from_documents(documents)
        now = datetime.now(UTC)
        faults = coverage_faults(documents, book, now)
        for warning in (
            *ending_prices(documents, book, now),
            *uneven_prices(documents, book, now),
            *stale_cards(documents, now.date(), max_age),
        ):
            click.echo(f"warning: {warning}", err=True)
        for fault in faults:
            click.echo(fault)
        if faults:
            sys.exit(1)
        models = [model for document in documents for model in book.models(_provider(document.content))]
        click.echo(f"ok: {path}: {len(models)} models, {sum(len(model.cards) for model in models)} price cards")


def _provider(content: object) -> str:
    assert isinstance(content, dict), "the schema lets mappings through only"
    return str(content["provider"])
