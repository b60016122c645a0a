"""`tornado-proxy pricing check`: checks that the price files cover plain requests to each model."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path

import click

from tornado_proxy.cli.options.config_lookup import (
    PRICES,
    PRICES_CONFIG,
    exit_on_errors,
    find_prices,
    named_config,
    read_prices,
)
from tornado_proxy.domain.text import count_noun
from tornado_proxy.pricing.book.price_book import PriceBook
from tornado_proxy.reports.coverage import (
    find_coverage_faults,
    find_ending_prices,
    find_stale_cards,
    find_uneven_prices,
    provider_of,
)


@click.command()
@PRICES_CONFIG
@PRICES
@click.option(
    "--max-age",
    type=click.IntRange(1),
    default=180,
    show_default=True,
    help="Days after which an unchecked price is stale.",
)
def check(config: Path | None, prices: Path | None, max_age: int) -> None:
    """Check the price files.  Print each fault with file and line; exit with status 1 if there is one.

    In addition to the faults that `tornado-proxy check` finds: models whose plain requests would be rejected on one of
    their endpoints or tiers, input lengths between two cards, and models past their shutdown date that are not retired.
    Warnings: prices that end or have ended without a successor, meters without a price on terms that a request can ask
    for together (tier, speed, lifetime of cached input), and prices not checked for --max-age days.

    \b
    Example:
      tornado-proxy pricing check --prices conf/prices
    """
    with exit_on_errors():
        path = find_prices(named_config(config), prices)
        documents = read_prices(path)
        book = PriceBook.from_documents(documents)
        now = datetime.now(UTC)
        faults = find_coverage_faults(documents, book, now)
        # Warnings do not change the exit status: prices can be complete today and end tomorrow.
        for warning in (
            *find_ending_prices(documents, book, now),
            *find_uneven_prices(documents, book, now),
            *find_stale_cards(documents, now.date(), max_age),
        ):
            click.echo(f"warning: {warning}", err=True)
        for fault in faults:
            click.echo(fault)
        if faults:
            sys.exit(1)
        models = [model for document in documents for model in book.models(provider_of(document))]
        cards = sum(len(model.cards) for model in models)
        click.echo(f"ok: {path}: {count_noun(len(models), 'model')}, {count_noun(cards, 'price card')}")
