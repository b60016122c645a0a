"""`tornado-proxy alerts test`: sends a message to each webhook of the configuration, and prints the response."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from pathlib import Path

import click

from tornado_proxy.alerts.delivery import DeliveryError, deliver
from tornado_proxy.alerts.messages import make_message, make_test_alert
from tornado_proxy.cli.options.config_lookup import exit_on_errors
from tornado_proxy.cli.options.config_option import config_option
from tornado_proxy.config.loading import load_settings
from tornado_proxy.config.sections.alerts import Webhook


@click.group("alerts", short_help="Test the webhooks that get alerts.")
def alerts() -> None:
    """Test the webhooks that get alerts (docs/alerts.md).

    \b
    Example:
      tornado-proxy alerts test
    """


@alerts.command("test")
@config_option("The configuration that names the webhooks.")
@click.option("--webhook", "name", metavar="NAME", help="Only this webhook.")
def test(config: Path, name: str | None) -> None:
    """Send a signed message of type alert.test to each webhook, and print the status of its response.

    It needs no running server, and sends once, without a repetition.  Exits with 1 if a webhook does not accept it.

    \b
    Example:
      tornado-proxy alerts test --webhook pager
    """
    with exit_on_errors():
        webhooks = [hook for hook in load_settings(config).settings.alerts.webhooks if name in (None, hook.name)]
    if not webhooks:
        which = "no webhook" if name is None else f"no webhook {name!r}"
        raise click.ClickException(f"{config} has {which}; add it to alerts.webhooks")
    results = [asyncio.run(_send(webhook)) for webhook in webhooks]
    if not all(results):
        raise SystemExit(1)


async def _send(webhook: Webhook) -> bool:
    message = make_message(make_test_alert(datetime.now(UTC)), webhook.name)
    began = time.monotonic()
    try:
        status = await deliver(webhook, message.id, message.body)
    except DeliveryError as error:
        click.echo(f"{webhook.name}: not accepted: {error}")
        return False
    click.echo(f"{webhook.name}: accepted with status {status} in {round((time.monotonic() - began) * 1000)} ms")
    return True
