"""`tornado-proxy export`: the changes of the ledger as events, printed or pushed to a receiver."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from tornado_proxy.cli.options.config_lookup import CONFIG, LEDGER, exit_on_errors, find_ledger
from tornado_proxy.domain.identity import Secret
from tornado_proxy.domain.text import count_noun
from tornado_proxy.exports.events import DEFAULT_SOURCE, make_event
from tornado_proxy.exports.push import Push, PushFailed, push_changes
from tornado_proxy.exports.receiver import Receiver, find_url_fault
from tornado_proxy.ledger.backends import make_backend
from tornado_proxy.ledger.changes import BEGINNING, Position, follow
from tornado_proxy.ledger.database import StoreError
from tornado_proxy.webhooks.signature import check_secret


class PositionParam(click.ParamType[Position]):
    """A cursor that an export has printed."""

    name = "cursor"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Position:
        """Return the position."""
        if isinstance(value, Position):
            return value
        try:
            return Position.parse(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


SINCE = click.option(
    "--since", type=PositionParam(), default=BEGINNING, help="The cursor to begin after; default: 0.0, the beginning."
)
SOURCE = click.option(
    "--source", default=DEFAULT_SOURCE, show_default=True, help="The attribute `source` of the events, a URI."
)


@click.group()
def export() -> None:
    """Give records to other programs, as CloudEvents.

    \b
    Example:
      tornado-proxy export events --since 0.0
    """


@export.command()
@CONFIG
@LEDGER
@SINCE
@SOURCE
def events(config: Path, url: str | None, since: Position, source: str) -> None:
    """Print the changes of the ledger after a cursor, a CloudEvent in each line.

    Ends at the last change.  The cursor to continue after it is the last line of standard error.

    \b
    Example:
      tornado-proxy export events --since 1042.7 > events.jsonl
    """
    with exit_on_errors():
        for batch in follow(make_backend(find_ledger(config, url)), since):
            for change in batch.changes:
                sys.stdout.write(make_event(change, source).text + "\n")
            since = batch.position
        sys.stdout.flush()
        click.echo(f"cursor {since}", err=True)


@export.command()
@CONFIG
@LEDGER
@click.option(
    "--to", "receiver_url", required=True, metavar="URL", help="The receiver: https, or http on this machine."
)
@click.option(
    "--secret-env",
    "secret_names",
    required=True,
    multiple=True,
    metavar="NAME",
    help="The environment variable with the receiver's signing secret, whsec_...; repeat it while the secret changes.",
)
@click.option("--cursor", "cursor_name", metavar="NAME", help="The name of the stored cursor; default: the URL.")
@click.option("--since", "start", type=PositionParam(), default=BEGINNING, help="The cursor to begin after, at first.")
@SOURCE
@click.option(
    "--follow",
    "interval_s",
    type=click.FloatRange(min=0.1),
    metavar="SECONDS",
    help="Continue after the last change, and look for others as often as this.",
)
@click.option(
    "--give-up",
    "give_up_s",
    type=click.FloatRange(min=0),
    default=300.0,
    show_default=True,
    metavar="SECONDS",
    help="Exit with 1 if the receiver has not accepted an event for this time.",
)
def push(
    config: Path,
    url: str | None,
    receiver_url: str,
    secret_names: Sequence[str],
    interval_s: float | None,
    **settings: Any,
) -> None:
    """Send the changes of the ledger to a receiver, and store how far it has come.

    Each event is a POST, signed as Standard Webhooks describes.  Its id is in `webhook-id` and `Idempotency-Key`: a
    receiver that ignores ids it knows has each event once, however often this command is killed.  --since counts only
    before the first push of a cursor.

    \b
    Example:
      tornado-proxy export push --to https://billing.example.com/events --secret-env BILLING_SECRET --follow 10
    """
    fault = find_url_fault(receiver_url)
    if fault:
        raise click.UsageError(f"--to: {fault}")
    receiver = Receiver(receiver_url, [_read_secret(name) for name in secret_names])
    wanted = Push(**{**settings, "cursor_name": settings["cursor_name"] or receiver_url})
    with exit_on_errors():
        backend = make_backend(find_ledger(config, url))
        try:
            while True:
                pushed = push_changes(backend, wanted, receiver)
                if pushed.events or interval_s is None:
                    click.echo(f"{count_noun(pushed.events, 'event')}, cursor {pushed.position}", err=True)
                if interval_s is None:
                    return
                time.sleep(interval_s)
        except (PushFailed, StoreError) as error:
            raise click.ClickException(str(error)) from None


def _read_secret(name: str) -> Secret:
    secret = Secret(os.environ.get(name, "").strip())
    if not secret:
        raise click.UsageError(f"--secret-env {name}: the environment variable is not set")
    fault = check_secret(secret)
    if fault:
        raise click.UsageError(f"--secret-env {name}: {fault}")
    return secret
