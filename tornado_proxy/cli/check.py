"""`tornado-proxy check`: reports every fault of a configuration, and changes nothing."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from tornado_proxy.cli.options.config_option import config_option
from tornado_proxy.config.loading import LoadedConfig, read_config
from tornado_proxy.domain.errors import ConfigError
from tornado_proxy.domain.text import count_noun
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
    models = {name: len(tuple(prices.models(name))) for name in sorted(config.settings.providers)}
    providers = ", ".join(f"{name} ({count_noun(number, 'priced model')})" for name, number in models.items())
    keys = [key for project in config.projects for key in project.api_keys]
    return f"{providers}; {count_noun(len(config.projects), 'project')} with {count_noun(len(keys), 'API key')}"
