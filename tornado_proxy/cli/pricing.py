"""`tornado-proxy pricing`: what the price files hold, whether they cover what is served, and what public lists say."""

from __future__ import annotations

import click

from tornado_proxy.cli.pricing_check import check
from tornado_proxy.cli.pricing_diff import diff
from tornado_proxy.cli.pricing_import import import_prices
from tornado_proxy.cli.pricing_list import list_models, show


@click.group()
def pricing() -> None:
    """Price files: look at them, check them, compare them with public price lists.

    \b
    Example:
      tornado-proxy pricing show gpt-5.4
    """


for _command in (list_models, show, check, diff, import_prices):
    pricing.add_command(_command)
