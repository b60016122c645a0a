"""`tornado-proxy pricing`: commands that show, check and compare the price files."""

from __future__ import annotations

import click

from tornado_proxy.cli.pricing.check import check
from tornado_proxy.cli.pricing.diff import diff
from tornado_proxy.cli.pricing.import_prices import import_prices
from tornado_proxy.cli.pricing.list_prices import list_models, show


@click.group(short_help="Show, check and compare the price files.")
def pricing() -> None:
    """Show and check the price files, and compare them with public price lists.

    \b
    Example:
      tornado-proxy pricing show gpt-5.4
    """


for _command in (list_models, show, check, diff, import_prices):
    pricing.add_command(_command)
