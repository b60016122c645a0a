"""`tornado-proxy access-key`: creates, lists, rotates, revokes and imports access keys in the ledger's database.

It needs no running server: each server of the ledger applies a change within two seconds.  Secrets go to standard
output, everything else to standard error.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.table import Table

from tornado_proxy.api.access_keys import show_key, show_keys, show_secret
from tornado_proxy.cli.options.config_lookup import (
    exit_on_errors,
    find_project_id,
    find_project_ids,
    find_recorded_project_id,
)
from tornado_proxy.cli.options.config_option import config_option
from tornado_proxy.cli.options.duration_param import parse_duration
from tornado_proxy.cli.options.format_option import format_option
from tornado_proxy.cli.state.actor import find_actor
from tornado_proxy.cli.state.state_store import open_state_store
from tornado_proxy.cli.tables import print_table, printable_name, printable_text
from tornado_proxy.domain.identity import ModelPatterns, Secret
from tornado_proxy.domain.state import AccessKey
from tornado_proxy.ledger.rows import format_time
from tornado_proxy.state import access_keys
from tornado_proxy.state.key_settings import KeySettings, check_grace, check_settings, parse_digest

_Command = TypeVar("_Command", bound=Callable[..., Any])

_CONFIG = config_option("The configuration that names the ledger and the projects.")

_SETTINGS = (
    click.argument("name"),
    click.option(
        "--project", required=True, metavar="PROJECT", help="The id or name of the project that the key belongs to."
    ),
    click.option("--participant", metavar="NAME", help="The participant that records name; default: NAME."),
    click.option(
        "--model",
        "models",
        multiple=True,
        metavar="PATTERN",
        help="A model that the key allows; default: all models of the project.",
    ),
    click.option(
        "--expires-in",
        metavar="DURATION",
        callback=parse_duration,
        default="never",
        show_default=True,
        help="The lifetime of the key: 90s, 15m, 1h, 30d or never.",
    ),
    click.option("--label", "labels", multiple=True, metavar="NAME=VALUE", help="A label of each record of the key."),
)


def _settings_options(command: _Command) -> _Command:
    """Add the argument and the options of a new key's settings."""
    for option in reversed(_SETTINGS):
        command = option(command)
    return command


def _parse_grace(ctx: click.Context, param: click.Parameter, value: str) -> timedelta:
    """Return a duration; `none` is no time."""
    grace = timedelta() if value == "none" else parse_duration(ctx, param, value)
    if grace is None:
        raise click.BadParameter("a secret that was replaced must end; name a duration, or none", ctx, param)
    return grace


@click.group("access-key", short_help="Manage access keys, which clients use in place of a token.")
def access_key() -> None:
    """Manage access keys: plain keys for clients, made and revoked while the server runs.

    \b
    Example:
      tornado-proxy access-key create "build server" --project 0c9f8a5e-9a1e-4f6b-8c43-1d2a7f6f0a10
    """


@access_key.command("create")
@_settings_options
@_CONFIG
@format_option("text", "json")
def create(config: Path, output_format: str, **options: Any) -> None:
    """Create the access key NAME and print it, this once; only its SHA-256 is stored.

    \b
    Example:
      tornado-proxy access-key create ci --project 0c9f8a5e-9a1e-4f6b-8c43-1d2a7f6f0a10 --model 'openai/*'
    """
    with open_state_store(config) as store:
        settings = _read_settings(config, **options)
        key, secret = access_keys.create(store, find_actor(), settings)
    _print_secret(key, secret, output_format)
    click.echo(f"created {key.id}; the key above is not shown again", err=True)


@access_key.command("import")
@_settings_options
@click.option("--sha256", required=True, metavar="HEX", help="The SHA-256 of the key's text, in hexadecimal digits.")
@_CONFIG
@format_option("text", "json")
def import_(config: Path, output_format: str, sha256: str, **options: Any) -> None:
    """Accept a key that was made elsewhere as the access key NAME, so that its clients need no other one.

    The key can have any form, such as the sk-... of another gateway.

    \b
    Example:
      tornado-proxy access-key import ada --project 0c9f8a5e-9a1e-4f6b-8c43-1d2a7f6f0a10 \\
        --sha256 "$(printf %s "$OLD_KEY" | sha256sum | cut -d' ' -f1)"
    """
    with open_state_store(config) as store:
        settings = _read_settings(config, **options)
        key = access_keys.import_digest(store, find_actor(), settings, parse_digest(sha256))
    if output_format == "json":
        click.echo(json.dumps(show_key(key), indent=2))
    click.echo(f"imported {key.id}", err=True)


@access_key.command("list")
@_CONFIG
@click.option("--project", metavar="PROJECT", help="Only the keys of this project: its id or its name.")
@format_option("table", "json")
def list_(config: Path, project: str | None, output_format: str) -> None:
    """List all access keys, revoked ones included.

    \b
    Example:
      tornado-proxy access-key list --format json
    """
    with exit_on_errors():
        project = find_recorded_project_id(config, None, project)
    with open_state_store(config) as store:
        keys = [key for key in access_keys.list_keys(store) if project in (None, key.project_id)]
    if output_format == "json":
        click.echo(json.dumps(show_keys(keys), indent=2))
    else:
        print_table(_make_table(keys, datetime.now(UTC)), sys.stdout)


@access_key.command("rotate")
@click.argument("key_id", metavar="ID")
@click.option(
    "--grace",
    metavar="DURATION",
    callback=_parse_grace,
    default="24h",
    show_default=True,
    help="How long the secret before it stays valid: 90s, 15m, 1h or 30d, or none.",
)
@_CONFIG
@format_option("text", "json")
def rotate(config: Path, key_id: str, grace: timedelta, output_format: str) -> None:
    """Give the access key ID another secret and print it, this once.

    \b
    Example:
      tornado-proxy access-key rotate ak_5f0c1d2e3a4b5c6d7e8f9a0b --grace 1h
    """
    with open_state_store(config) as store:
        check_grace(grace)
        key, secret = access_keys.rotate(store, find_actor(), key_id, grace)
    _print_secret(key, secret, output_format)
    ends = next(old.valid_until for old in key.secrets if old.valid_until is not None)
    click.echo(f"rotated {key.id}; the secret before it is valid until {format_time(ends)}", err=True)


@access_key.command("revoke")
@click.argument("key_id", metavar="ID")
@_CONFIG
@format_option("text", "json")
def revoke(config: Path, key_id: str, output_format: str) -> None:
    """Revoke the access key ID: in every server within two seconds, on open sessions within a minute.

    \b
    Example:
      tornado-proxy access-key revoke ak_5f0c1d2e3a4b5c6d7e8f9a0b
    """
    with open_state_store(config) as store:
        key = access_keys.revoke(store, find_actor(), key_id)
    if output_format == "json":
        click.echo(json.dumps(show_key(key), indent=2))
    click.echo(f"revoked {key.id}", err=True)


def _read_settings(config: Path, **options: Any) -> KeySettings:
    """Return the settings that the options give.

    Raises:
        ConfigError: the projects of the configuration cannot be read.
        BadRequest: a setting breaks a rule.
    """
    now = datetime.now(UTC)
    settings = KeySettings(
        name=options["name"],
        project_id=find_project_id(config, options["project"]),
        participant=options["participant"],
        models=ModelPatterns(options["models"] or None),
        expires_at=None if options["expires_in"] is None else now + options["expires_in"],
        labels=_parse_labels(options["labels"]),
    )
    check_settings(settings, find_project_ids(config), now)
    return settings


def _parse_labels(labels: tuple[str, ...]) -> dict[str, str]:
    pairs = [label.partition("=") for label in labels]
    if any(not separator for _, separator, _ in pairs):
        raise click.UsageError("a label must have the form NAME=VALUE")
    names = {name: value for name, _, value in pairs}
    if len(names) < len(pairs):
        raise click.UsageError("a label was given twice; give each name once")
    return names


def _print_secret(key: AccessKey, secret: Secret, output_format: str) -> None:
    click.echo(json.dumps(show_secret(key, secret), indent=2) if output_format == "json" else secret.reveal())


def _make_table(keys: list[AccessKey], now: datetime) -> Table:
    table = Table()
    for name in ("id", "name", "project", "participant", "models", "state"):
        table.add_column(name, overflow="fold")
    for key in keys:
        models = "all" if key.models.patterns is None else ", ".join(key.models.patterns)
        names = (printable_name(key.name), printable_text(key.project_id), printable_name(key.participant))
        table.add_row(key.id, *names, printable_text(models), _describe_state(key, now))
    return table


def _describe_state(key: AccessKey, now: datetime) -> str:
    if key.revoked_at is not None:
        return f"revoked {format_time(key.revoked_at)}"
    if key.expires_at is None:
        return "valid"
    return f"{'expired' if key.expires_at <= now else 'valid until'} {format_time(key.expires_at)}"
