"""`tornado-proxy connect`: runs a command as a participant of a room, with a token of its own."""

from __future__ import annotations

import getpass
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NoReturn

import click
from click.core import ParameterSource

from tornado_proxy.auth import participant
from tornado_proxy.cli.local.login import find_upstream, open_store, run_session_work
from tornado_proxy.cli.options.config_lookup import exit_on_errors
from tornado_proxy.cli.options.duration_param import parse_duration
from tornado_proxy.config.files import read_document
from tornado_proxy.config.loading import read_project_documents
from tornado_proxy.config.secrets import list_variables
from tornado_proxy.config.settings import CLIENT_PORT, DEFAULT_HOST
from tornado_proxy.config.signing_key import find_signing_key
from tornado_proxy.domain.config.document import read_section
from tornado_proxy.domain.errors import CallerError
from tornado_proxy.local.child import NOT_EXECUTABLE, NOT_FOUND
from tornado_proxy.local.environment import make_child_environment, sdk_variables
from tornado_proxy.local.room_connection import request_participant_token
from tornado_proxy.local.session.token_source import SessionTokens, require_session

_DEFAULT_CONFIG = Path("conf/proxy.yaml")


@dataclass(frozen=True, slots=True)
class _Participant:
    """Who runs the command: a participant of a room, for `lifetime`."""

    project_id: str
    room: str
    name: str
    lifetime: timedelta | None


@dataclass(frozen=True, slots=True)
class _Connection:
    """The server, the token for it, and the variables that hold secrets of the server."""

    api_url: str
    token: str
    secret_variables: frozenset[str]


def _parse_variables(ctx: click.Context, param: click.Parameter, value: Sequence[str]) -> dict[str, str]:
    """Return `NAME=VALUE` options as a mapping."""
    pairs = [text.partition("=") for text in value]
    for name, equals, _ in pairs:
        # The text after a missing name can be a secret, so it is not repeated.
        if not name or not equals:
            raise click.BadParameter("must be NAME=VALUE", ctx, param)
    return {name: text for name, _, text in pairs}


def _check_text(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    if value is not None and not value.strip():
        raise click.BadParameter("must not be blank", ctx, param)
    return value


@click.command()
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    help="The server's configuration, whose key signs the token; default: conf/proxy.yaml if it exists.",
)
@click.option(
    "--api",
    metavar="URL",
    help="The server at which you have logged in, which makes the token; default: that of the session.",
)
@click.option("--project", required=True, type=click.UUID, metavar="ID", help="The project that pays.")
@click.option("--room", required=True, callback=_check_text, help="The room of the participant.")
@click.option(
    "--identity", callback=_check_text, help="The participant's name; default: your user name.  Not with --api."
)
@click.option(
    "--env",
    "variables",
    multiple=True,
    metavar="NAME=VALUE",
    callback=_parse_variables,
    help="A further variable of the command; it replaces every other value.",
)
@click.option(
    "--expires-in",
    metavar="DURATION",
    callback=parse_duration,
    default="24h",
    show_default=True,
    help="The lifetime of the token: 90s, 15m, 1h, 30d or never.  Not with --api.",
)
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def connect(
    *,
    config: Path | None,
    variables: Mapping[str, str],
    expires_in: timedelta | None,
    command: tuple[str, ...],
    **options: object,
) -> None:
    """Run COMMAND as a participant of a room.

    The SDKs in it find the proxy and a token of their own.

    The command replaces this program, so its exit status and signals are its own.  It gets MESHAGENT_API_URL,
    MESHAGENT_PROJECT_ID, MESHAGENT_ROOM, MESHAGENT_TOKEN, OPENAI_API_KEY, OPENAI_BASE_URL, ANTHROPIC_API_KEY and
    ANTHROPIC_BASE_URL, and no variable from which the configuration reads a secret.

    \b
    Example:
      tornado-proxy connect --project 0c9f8a5e-9a1e-4f6b-8c43-1d2a7f6f0a10 --room lab -- python agent.py
    """
    name = options["identity"] or getpass.getuser()
    wanted = _Participant(str(options["project"]), str(options["room"]), str(name), expires_in)
    connection = _connect(config, options["api"], wanted)
    own = {
        "MESHAGENT_API_URL": connection.api_url,
        "MESHAGENT_PROJECT_ID": wanted.project_id,
        "MESHAGENT_ROOM": wanted.room,
        "MESHAGENT_TOKEN": connection.token,
        **sdk_variables(connection.api_url, connection.token),
    }
    environment = make_child_environment(os.environ, {**own, **variables}, connection.secret_variables)
    execute(command, environment)


def _connect(config: Path | None, api: object, wanted: _Participant) -> _Connection:
    """Return a connection by the configuration, or by the server at which the user has logged in."""
    if config is not None and api is not None:
        raise click.UsageError("--config and --api exclude each other; use one of them")
    if api is None and (config is not None or _DEFAULT_CONFIG.exists()):
        with exit_on_errors():
            return _mint(config or _DEFAULT_CONFIG, wanted)
    context = click.get_current_context()
    for name in ("identity", "expires_in"):
        if context.get_parameter_source(name) is not ParameterSource.DEFAULT:
            raise click.UsageError(f"--{name.replace('_', '-')} needs --config: the server decides it for its users")
    return run_session_work(_request(api, wanted))


async def _request(api: object, wanted: _Participant) -> _Connection:
    """Return a connection with a token that the server makes for the user of the session.

    Raises:
        click.UsageError: the session is for another server, which must not see the token of this one.
        LoginError, RequestError, FetchError: there is no session, or the server gives no token.
    """
    store = open_store()
    session = require_session(store.read())
    url = find_upstream(None if api is None else str(api), session)
    if url != session.upstream:
        raise click.UsageError(f"you have logged in at {session.upstream}; run tornado-proxy login --upstream {url}")
    access_token = await SessionTokens(store).get()
    token = await request_participant_token(url, access_token, wanted.project_id, wanted.room)
    return _Connection(url, token, frozenset())


def _mint(config: Path, wanted: _Participant) -> _Connection:
    """Return a connection with a token that the project's own key signs.

    Raises:
        ConfigError: a file cannot be read, or is not valid.
        click.ClickException: the project has no key, or the server would reject the token.
    """
    document, projects = read_document(config), read_project_documents(config)
    key = find_signing_key(projects, wanted.project_id)
    if key is None:
        raise click.ClickException(
            f"{config}: project {wanted.project_id} has no API key that is not disabled, or is not in the "
            "configuration; see tornado-proxy project list"
        )
    now = datetime.now(UTC)
    scopes = {"room": wanted.room, "role": "agent", "api": {"llm": {}}}
    grants = [{"name": name, "scope": scope} for name, scope in scopes.items()]
    expires_at = None if wanted.lifetime is None else now + wanted.lifetime
    token = participant.mint(key, wanted.name, grants, expires_at)
    # Verify as the server does: a command must not start with a token that the server rejects.
    try:
        participant.verify(token, {key.id: key}, now)
    except CallerError as error:
        raise click.ClickException(f"the server would reject this token: {error.message}") from None
    names = frozenset[str]().union(*(list_variables(read) for read in (document, *projects)))
    return _Connection(_find_url(read_section(document.content, "listen")), token, names)


def _find_url(listen: Mapping[str, object]) -> str:
    """Return the URL of the server for clients."""
    if "public_url" in listen:
        return str(listen["public_url"]).rstrip("/")
    host = str(listen.get("host", DEFAULT_HOST))
    if host in ("", "0.0.0.0", "::"):  # noqa: S104  # compared, not bound
        host = DEFAULT_HOST  # all addresses of this machine; no client can connect to that name
    return f"http://{f'[{host}]' if ':' in host else host}:{listen.get('port', CLIENT_PORT)}"


def execute(command: tuple[str, ...], environment: Mapping[str, str]) -> NoReturn:
    """Replace this process by `command`; exit as a shell does if that fails."""
    sys.stdout.flush()
    sys.stderr.flush()
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        # Python ignores them, and a process keeps ignored signals across exec: `yes | head` would not end.
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execvpe(command[0], command, environment)  # noqa: S606  # the user's own command, without a shell
    except FileNotFoundError:
        click.echo(f"{command[0]}: command not found", err=True)
        sys.exit(NOT_FOUND)
    except OSError as error:
        click.echo(f"{command[0]}: {error.strerror}", err=True)
        sys.exit(NOT_EXECUTABLE)
