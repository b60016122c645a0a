"""`tornado-proxy key` and `tornado-proxy token`: create API keys, mint participant tokens, and describe a token.

An API key is never an argument, because every user of the machine can read arguments.  Tokens and keys go to standard
output, everything else to standard error.
"""

from __future__ import annotations

import os
import re
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

from tornado_proxy.auth import api_key, narrowing, participant
from tornado_proxy.auth.token_report import Verification, describe_token
from tornado_proxy.auth.token_spec import ROLES, TokenSpec, find_pattern_fault, read_spec
from tornado_proxy.auth.unverified_token import read_unverified
from tornado_proxy.auth.validity import read_validity
from tornado_proxy.cli.local.login import print_token
from tornado_proxy.cli.options.duration_param import parse_duration
from tornado_proxy.cli.projects.secret_files import write_secret
from tornado_proxy.config.files import read_document
from tornado_proxy.config.loading import load_settings
from tornado_proxy.domain.errors import CallerError, ConfigError
from tornado_proxy.domain.identity import ApiKey


def _example(*lines: str) -> str:
    """Return an epilog with example lines.  The backspace tells click not to wrap them."""
    return "\n".join(("\b", "Example:", *(f"  {line}" for line in lines)))


_key_env = click.option("--key-env", metavar="NAME", help="The environment variable with the API key (ma-...).")
_key_file = click.option("--key-file", metavar="PATH", help="The file with the API key; - reads standard input.")


@click.group(
    short_help="Manage the API keys of projects.",
    epilog=_example("tornado-proxy key create --project 0c9f8a5e-9a1e-4f6b-8c43-1d2a7f6f0a10 --env ACME_KEY"),
)
def key() -> None:
    """Manage the API keys of projects, which sign participant tokens."""


@key.command(
    "create", epilog=_example("tornado-proxy key create --project 0c9f8a5e-9a1e-4f6b-8c43-1d2a7f6f0a10 --env ACME_KEY")
)
@click.option("--project", required=True, type=click.UUID, metavar="ID", help="The project's id in projects.yaml.")
@click.option("--env", metavar="NAME", help="The server's environment variable that will hold the signing secret.")
@click.option(
    "--file",
    "file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the signing secret to this new file (mode 0600) instead of printing it.",
)
def create(*, project: object, env: str | None, file: Path | None) -> None:
    """Create an API key.  It is printed once and stored nowhere."""
    if env is not None and file is not None:
        raise click.UsageError("--env and --file exclude each other; use one of them")
    # The printed line `NAME=secret` must be valid in a shell and in an environment file.
    if env is not None and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", env):
        raise click.BadParameter(f"{env!r} is not the name of an environment variable", param_hint="--env")
    new_key = api_key.generate(str(project))
    if file is not None:
        write_secret(file, new_key.secret.reveal())
        reference = f"{{file: {file.resolve()}}}"
        server_lines = f"# The signing secret, for the server alone, is in {file}"
    else:
        # The project id makes the name unique among the projects of a server.
        name = env or f"PROJECT_{new_key.project_id[:8].upper()}_KEY"
        reference = f"{{env: {name}}}"
        server_lines = "# The signing secret, for the server alone: put this line into its environment"
        server_lines += f"\n{name}={new_key.secret.reveal()}"
    click.echo("# The API key, a secret, for minting tokens: printed only this once")
    click.echo(api_key.format_api_key(new_key).reveal())
    click.echo(f"\n{server_lines}")
    click.echo(f"\n# Not secret: put these lines into projects.yaml, in the project {new_key.project_id}")
    click.echo(f"    api_keys:\n      - {{id: {new_key.id}, secret: {reference}}}")


@click.group(
    short_help="Mint and inspect participant tokens.",
    epilog=_example(
        "tornado-proxy token mint --key-env ACME_API_KEY --identity ada --expires-in 1h",
        "tornado-proxy token inspect --config conf/proxy.yaml < token.txt",
    ),
)
def token() -> None:
    """Mint and inspect participant tokens, which clients use in place of a provider key."""


@token.command(
    "mint",
    epilog=_example(
        "tornado-proxy token mint --key-env ACME_API_KEY --identity ada --model 'openai/*' --expires-in 1h",
        "tornado-proxy token mint --key-file key.txt agent.yaml",
    ),
)
@click.argument("spec", required=False, type=click.Path(path_type=Path, dir_okay=False))
@_key_env
@_key_file
@click.option("--identity", help="The participant's name; replaces a SPEC file.")
@click.option("--room", help="The participant's room.")
@click.option("--role", type=click.Choice(ROLES), help="The participant's role.")
@click.option(
    "--model",
    "models",
    multiple=True,
    metavar="PATTERN",
    help="A model that the token grants; default: all models of the project.",
)
@click.option(
    "--expires-in",
    metavar="DURATION",
    callback=parse_duration,
    default="24h",
    show_default=True,
    help="The lifetime of the token: 90s, 15m, 1h, 30d or never.",
)
def mint(
    *,
    spec: Path | None,
    key_env: str | None,
    key_file: str | None,
    expires_in: timedelta | None,
    models: tuple[str, ...],
    **options: str | None,
) -> None:
    """Mint a token from a SPEC file, or from --identity, and print it."""
    signing_key = _read_key(key_env, key_file)
    if signing_key is None:
        raise click.UsageError("the API key is missing; use --key-env NAME or --key-file PATH (- for standard input)")
    token_spec = _make_spec(spec, models, options)
    now = datetime.now(UTC)
    expires_at = None if expires_in is None else now + expires_in
    minted = participant.mint(signing_key, token_spec.identity, token_spec.grants(), expires_at)
    # Verify as the server does: a token that it would reject is never printed.
    try:
        participant.verify(minted, {signing_key.id: signing_key}, now)
    except CallerError as error:
        raise click.ClickException(f"the server would reject this token: {error.message}") from None
    # Nothing else on standard output: TOKEN=$(tornado-proxy token mint ...).
    click.echo(minted)


@token.command(
    "narrow",
    epilog=_example(
        "tornado-proxy token narrow --model 'openai/*' --expires-in 15m",
        "tornado-proxy token narrow --budget 2.50",
        "tornado-proxy token narrow --expires-in 15m --token - < token.txt",
    ),
)
@click.option(
    "--model",
    "--models",
    "models",
    multiple=True,
    metavar="PATTERN",
    help="A model that the new token grants; default: those of the parent.",
)
@click.option(
    "--expires-in",
    metavar="DURATION",
    callback=parse_duration,
    help="The lifetime of the new token: 90s, 15m, 1h or 30d; never, and the default, is the end of the parent.",
)
@click.option(
    "--budget",
    metavar="USD",
    help="What all requests of the new token together may cost; default: the budget of the parent, if it has one.",
)
@click.option(
    "--token",
    "text",
    metavar="TOKEN",
    envvar="MESHAGENT_TOKEN",
    help="The parent, a participant token; - reads standard input; default: the environment variable MESHAGENT_TOKEN.",
)
def narrow(*, models: tuple[str, ...], expires_in: timedelta | None, budget: str | None, text: str | None) -> None:
    """Make a token with fewer grants from yours, and print it.

    It needs no API key and no server.  It ends when its parent ends, and its requests count for the parent's budget
    too.
    """
    if text is None:
        raise click.UsageError("the parent is missing; set MESHAGENT_TOKEN, or use --token - for standard input")
    if not models and expires_in is None and budget is None:
        raise click.UsageError("nothing to narrow; use --model, --expires-in or --budget")
    for pattern in models:
        if (fault := find_pattern_fault(pattern)) is not None:
            raise click.BadParameter(fault, param_hint="--model")
    parent = (sys.stdin.read() if text == "-" else text).strip()
    try:
        expires_at = _find_expiry(parent, expires_in, datetime.now(UTC))
        narrowed = narrowing.narrow(parent, models or None, expires_at, budget)
        read_unverified(narrowed)  # a server rejects one that is too long
    except CallerError as error:
        raise click.ClickException(error.message) from None
    click.echo(narrowed)


token.add_command(print_token)


@token.command("inspect", epilog=_example("tornado-proxy token inspect --config conf/proxy.yaml < token.txt"))
@click.argument("text", metavar="[TOKEN]", default="-")
@click.option("--config", type=click.Path(path_type=Path), help="Verify against the projects of this configuration.")
@_key_env
@_key_file
def inspect(*, text: str, config: Path | None, key_env: str | None, key_file: str | None) -> None:
    """Describe a token, and verify it if keys are given.  Reads standard input unless TOKEN is given."""
    if config is not None and (key_env is not None or key_file is not None):
        raise click.UsageError("--config excludes --key-env and --key-file; use one of them")
    # Standard input can be read once.
    if text == "-" and key_file == "-":
        raise click.UsageError(
            "the token and the API key cannot both come from standard input; use --key-env for the key"
        )
    # Without keys the claims are shown unverified: who reads a token seldom has the secret that signed it.
    signing_key = _read_key(key_env, key_file)
    keys = [signing_key] if signing_key is not None else None
    if config is not None:
        keys = _configured_keys(config)
    token_text = sys.stdin.read() if text == "-" else text
    try:
        report = describe_token(token_text.strip().removeprefix("Bearer ").strip(), keys, datetime.now(UTC))
    except CallerError as error:
        raise click.ClickException(error.message) from None
    click.echo("\n".join(report.lines))
    for warning in report.warnings:
        click.echo(f"warning: {warning}", err=True)
    if report.verification is Verification.FAILED:
        sys.exit(1)


def _find_expiry(parent: str, expires_in: timedelta | None, now: datetime) -> datetime | None:
    """Return the end of a token with this lifetime, at the latest that of its parent; None for that of the parent.

    Raises:
        NotAuthenticated: the parent is malformed, or not valid now.
    """
    validity = read_validity(read_unverified(parent).claims)
    validity.check(now)
    if expires_in is None:
        return None
    expires_at = now + expires_in
    return expires_at if validity.expires_at is None else min(expires_at, validity.expires_at)


def _read_key(key_env: str | None, key_file: str | None) -> ApiKey | None:
    """Return the API key that the options name, None if neither is given."""
    if key_env is not None and key_file is not None:
        raise click.UsageError("--key-env and --key-file exclude each other; use one of them")
    if key_file is not None:
        source, text = f"the file {key_file}", _read_text(key_file)
    elif key_env is not None:
        source, text = f"the environment variable {key_env}", os.environ.get(key_env, "")
    else:
        return None
    if not text.strip():
        raise click.ClickException(f"{source} is empty or not set; it must contain an API key (ma-...)")
    try:
        return api_key.parse_api_key(text)
    except ValueError as error:
        raise click.ClickException(f"{source}: {error}") from None


def _read_text(file: str) -> str:
    try:
        return sys.stdin.read() if file == "-" else Path(file).read_text()
    except OSError as error:
        raise click.ClickException(f"the file {file} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise click.ClickException(f"the file {file} is not text; it must contain an API key (ma-...)") from None


def _make_spec(spec: Path | None, models: tuple[str, ...], options: dict[str, str | None]) -> TokenSpec:
    identity, room, role = options["identity"], options["room"], options["role"]
    if spec is not None:
        if models or identity or room or role:
            raise click.UsageError("a SPEC file excludes --identity, --room, --role and --model; write them into it")
        try:
            return read_spec(read_document(spec))
        except ConfigError as error:
            raise click.ClickException(str(error)) from None
    if not identity or not identity.strip():
        raise click.UsageError("the participant is missing; use a SPEC file or --identity NAME")
    for pattern in models:
        if (fault := find_pattern_fault(pattern)) is not None:
            raise click.BadParameter(fault, param_hint="--model")
    return TokenSpec(identity, {"llm": {"models": list(models)} if models else {}}, room, role)


def _configured_keys(config: Path) -> list[ApiKey]:
    try:
        return [signing_key for project in load_settings(config).projects for signing_key in project.api_keys]
    except ConfigError as error:
        raise click.ClickException(f"the configuration cannot be used:\n{error}") from None
