"""`tornado-proxy check`: says everything that is wrong with a configuration, and changes nothing."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

import click

from tornado_proxy.config.loading import LoadedConfig, read_config
from tornado_proxy.domain.errors import ConfigError
from tornado_proxy.pricing.book.price_book import PriceBook


@click.command()
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    default=Path("conf/proxy.yaml"),
    show_default=True,
    help="The proxy's configuration; its projects, prices and secrets are checked with it.",
)
def check(config: Path) -> None:
    """Check a configuration: every fault on its own line, with file, line, key and rule; exit status 1 if there is one.

    \b
    Example:
      tornado-proxy check --config conf/proxy.yaml
    """
    read = read_config(config)
    faults = set(read.faults)
    prices = PriceBook({})
    try:
        prices = PriceBook.from_documents(read.price_documents)
    except ConfigError as error:
        faults.update(error.faults)
    for warning in read.warnings:
        click.echo(f"warning: {warning}", err=True)
    if faults or read.config is None:
        for fault in sorted(faults):
            click.echo(fault)
        sys.exit(1)
    click.echo(f"ok: {config}: {_summary(read.config, prices)}")


def _summary(config: LoadedConfig, prices: PriceBook) -> str:
    """What a valid configuration holds, in one line."""
    providers = ", ".join(
        f"{name} ({_counted(prices.models(name), 'priced model')})" for name in sorted(config.settings.providers)
    )
    keys = [key for project in config.projects for key in project.api_keys]
    return f"{providers}; {_counted(config.projects, 'project')} with {_counted(keys, 'API key')}"


def _counted(things: Iterable[object], word: str) -> str:
    number = sum(1 for _ in things)
    return f"{number} {word}" if number == 1 else f"{number} {word}s"
