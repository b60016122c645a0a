"""`tornado-proxy check`: reports every fault of a configuration, and changes nothing."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

import click

from tornado_proxy.cli.options.config_option import config_option
from tornado_proxy.config.loading import LoadedConfig, read_config
from tornado_proxy.domain.errors import ConfigError
from tornado_proxy.pricing.book.price_book import PriceBook


@click.command()
@config_option("The proxy's configuration; its projects, prices and secrets are checked too.")
def check(config: Path) -> None:
    """Check a configuration.  Print each fault with file, line, key and rule; exit with status 1 if there is one.

    \b
    Example:
      tornado-proxy check --config conf/proxy.yaml
    """
    read = read_config(config)
    # A set: a price document can have one fault by its schema and again by the price rules.
    faults = set(read.faults)
    # An empty price book if the files are faulty: the other faults are still reported.
    prices = PriceBook({})
    try:
        prices = PriceBook.from_documents(read.price_documents)
    except ConfigError as error:
        faults.update(error.faults)
    # To standard error, so that standard output lists faults alone.
    for warning in read.warnings:
        click.echo(f"warning: {warning}", err=True)
    if faults or read.config is None:
        for fault in sorted(faults):
            click.echo(fault)
        sys.exit(1)
    click.echo(f"ok: {config}: {_summary(read.config, prices)}")


def _summary(config: LoadedConfig, prices: PriceBook) -> str:
    """Return the contents of a valid configuration in one line."""
    providers = ", ".join(
        f"{name} ({_count(prices.models(name), 'priced model')})" for name in sorted(config.settings.providers)
    )
    keys = [key for project in config.projects for key in project.api_keys]
    return f"{providers}; {_count(config.projects, 'project')} with {_count(keys, 'API key')}"


def _count(items: Iterable[object], noun: str) -> str:
    number = sum(1 for _ in items)
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
