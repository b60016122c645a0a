"""`tornado-proxy local`: runs a proxy on this machine in front of the hosted one."""

from __future__ import annotations

import asyncio
import getpass
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import click

from tornado_proxy.auth.unverified_token import read_unverified
from tornado_proxy.cli.local.local_run import ALL_ADDRESSES, DEFAULT_HOST, TOKEN_VARIABLE, LocalRun, LocalSetup
from tornado_proxy.cli.local.login import find_upstream, open_store
from tornado_proxy.domain.errors import NotAuthenticated
from tornado_proxy.domain.identity import Caller, Secret
from tornado_proxy.local.access import LocalAccess
from tornado_proxy.local.bearer import keep_bearer
from tornado_proxy.local.coding_tools import ToolCommand
from tornado_proxy.local.dashboard.terminal import is_terminal
from tornado_proxy.local.environment import sdk_variables
from tornado_proxy.local.folders import make_state_folder
from tornado_proxy.local.hosted import FixedToken, TokenSource
from tornado_proxy.local.project_list import list_projects
from tornado_proxy.local.running_proxies import RunningProxy
from tornado_proxy.local.server import LocalConfig
from tornado_proxy.local.session.session import Session
from tornado_proxy.local.session.token_source import SessionTokens, require_session
from tornado_proxy.wire.host_header import normalize_host_name

DEFAULT_PORT = 8766

_PROJECT_VARIABLE = "MESHAGENT_PROJECT_ID"


@dataclass(frozen=True, slots=True)
class _Credential:
    """The token for the hosted proxy, where it comes from, and whose it is.

    The caller's project is the one that the token names, "" if it names none.  `session` is set if the token is that of
    a login.
    """

    tokens: TokenSource
    source: str
    caller: Caller
    session: Session | None = None


def _check_token_variable(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    if value is not None and not value.strip():
        raise click.BadParameter("must be the name of an environment variable", ctx, param)
    return value


def _check_bearer(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    if value is not None and not (value.isascii() and value.isprintable() and value and " " not in value):
        raise click.BadParameter("must be printable ASCII without spaces", ctx, param)
    return value


def _check_origins(ctx: click.Context, param: click.Parameter, value: Sequence[str]) -> frozenset[str]:
    for origin in value:
        parts = urlsplit(origin)
        if parts.scheme not in ("http", "https") or not parts.netloc or origin != f"{parts.scheme}://{parts.netloc}":
            rule = f"{origin!r} is not an origin such as http://localhost:5173: a scheme, a host and perhaps a port"
            raise click.BadParameter(rule, ctx, param)
    return frozenset(value)


@click.command()
@click.option("--host", default=DEFAULT_HOST, show_default=True, help="The address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=DEFAULT_PORT, show_default=True, help="0 selects a free port."
)
@click.option("--upstream", metavar="URL", help="The hosted proxy; default: MESHAGENT_API_URL, else that of the login.")
@click.option("--project", metavar="ID", help="The project; default: MESHAGENT_PROJECT_ID, else that of the token.")
@click.option(
    "--bearer", metavar="VALUE", callback=_check_bearer, help="The credential of clients, in place of a stored one."
)
@click.option("--insecure", is_flag=True, help="Accept every program of this machine without a credential.")
@click.option(
    "--token-from-env",
    "token_variable",
    metavar="NAME",
    callback=_check_token_variable,
    help="The variable with the token for the hosted proxy; default: MESHAGENT_TOKEN if set, else the login.",
)
@click.option(
    "--allow-origin",
    "origins",
    multiple=True,
    metavar="ORIGIN",
    callback=_check_origins,
    help="The origin of pages that may send requests; they need the bearer too.",
)
@click.option("--allow-host", "hosts", multiple=True, metavar="NAME", help="A further name in the Host header.")
@click.option(
    "--tui/--no-tui", "tui", default=True, show_default=True, help="The dashboard, if the terminal can show it."
)
@click.option("--log", "log", type=click.Choice(["text", "json"]), help="The form of the line for each request.")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def local(**options: object) -> None:
    """Run a proxy on this machine.

    SDKs and tools use it without a token of the hosted proxy.

    It prints the variables that SDKs read, and in a terminal shows a dashboard of requests and costs, elsewhere a line
    for each request. With COMMAND it runs the command with these variables, and ends with it.

    \b
    Example:
      tornado-proxy local --project 0c9f8a5e-9a1e-4f6b-8c43-1d2a7f6f0a10
      tornado-proxy local -- python agent.py
    """
    if options["insecure"] and options["bearer"] is not None:
        raise click.UsageError("--insecure and --bearer exclude each other; use one of them")
    command = options["command"]
    assert isinstance(command, tuple)

    def make_command(proxy: RunningProxy) -> ToolCommand:
        return ToolCommand(command, sdk_variables(proxy.url, proxy.credential.reveal()))

    log = _text(options["log"])
    dashboard = bool(options["tui"]) and log is None and not command and is_terminal()
    sys.exit(LocalRun(make_setup(options), log, make_command if command else None, dashboard=dashboard).run())


def make_setup(options: Mapping[str, object]) -> LocalSetup:
    """Return the local proxy that the options of `local` describe.

    Raises:
        click.ClickException: the options contradict each other, or there is no credential or project.
    """
    folder = _open_folder()
    variable = _text(options["token_variable"])
    credential = _find_credential(variable)
    config = _make_config(folder, credential, options)
    return LocalSetup(config, credential.source, (variable,) if variable else ())


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _open_folder() -> Path:
    try:
        return make_state_folder()
    except OSError as error:
        raise click.ClickException(f"{error.filename}: {error.strerror}; make the folder writable") from None


def _find_credential(variable: str | None) -> _Credential:
    """Return the token of a variable, else that of the login.

    Raises:
        click.ClickException: there is none.
    """
    name = variable or TOKEN_VARIABLE
    token = os.environ.get(name, "").strip()
    if token:
        return _Credential(FixedToken(Secret(token)), name, _read_caller(token))
    if variable is not None:
        raise click.ClickException(f"the environment variable {variable} is empty or not set; it must contain a token")
    store = open_store()
    try:
        session = require_session(store.read())
    except NotAuthenticated as error:
        raise click.ClickException(f"{error.message}, or set {TOKEN_VARIABLE}") from None
    user = session.user or getpass.getuser()
    caller = Caller("", user=user, issuer=session.client.issuer)
    return _Credential(SessionTokens(store), f"the login of {user}", caller, session)


def _read_caller(token: str) -> Caller:
    """Return whom a token names, unverified: the hosted proxy verifies it."""
    try:
        unverified = read_unverified(token)
    except NotAuthenticated:
        return Caller("", participant=getpass.getuser())  # an access key
    claims = unverified.claims
    if unverified.header.get("alg") != "HS256":
        return Caller("", user=_claim(claims.get("sub")), issuer=_claim(claims.get("iss")))
    return Caller(_claim(claims.get("sub")) or "", participant=_claim(claims.get("name")) or getpass.getuser())


def _claim(value: object) -> str | None:
    return value if isinstance(value, str) and value.isprintable() else None


def _make_config(folder: Path, credential: _Credential, options: Mapping[str, object]) -> LocalConfig:
    """Return the configuration; raise click.ClickException if it contradicts itself."""
    session, host = credential.session, str(options["host"])
    upstream = find_upstream(_text(options["upstream"]) or os.environ.get("MESHAGENT_API_URL"), session)
    if session is not None and upstream != session.upstream:
        raise click.ClickException(
            f"you have logged in at {session.upstream}; run tornado-proxy login --upstream {upstream}"
        )
    project_id = _find_project(_text(options["project"]), credential, upstream)
    names = options["hosts"]
    assert isinstance(names, tuple)
    own_name = () if host in ALL_ADDRESSES else (host,)
    origins = options["origins"]
    assert isinstance(origins, frozenset)
    access = LocalAccess(
        bearer=_find_bearer(folder, options),
        hosts=frozenset(normalize_host_name(name) for name in (*own_name, *names)),
        origins=origins,
    )
    caller = _in_project(credential.caller, project_id)
    port = options["port"]
    assert isinstance(port, int)
    return LocalConfig(host, port, upstream, credential.tokens, caller, access, folder)


def _in_project(caller: Caller, project_id: str) -> Caller:
    return Caller(project_id, participant=caller.participant, user=caller.user, issuer=caller.issuer)


def _find_project(named: str | None, credential: _Credential, upstream: str) -> str:
    """Return the project that is named, else that of the token.

    Raises:
        click.ClickException: there is none, or the token is for another one.
    """
    of_token = credential.caller.project_id
    project_id = (named or os.environ.get(_PROJECT_VARIABLE) or "").strip().lower() or of_token
    if not project_id:
        projects = asyncio.run(list_projects(upstream, credential.tokens))
        yours = "".join(f"\n  {project}" for project in projects)
        raise click.ClickException(
            f"the project is not known; name it with --project or {_PROJECT_VARIABLE}{yours and '; yours are:'}{yours}"
        )
    if of_token and project_id != of_token.lower():
        raise click.ClickException(f"the token is for project {of_token}, not {project_id}; use one of both")
    return project_id


def _find_bearer(folder: Path, options: Mapping[str, object]) -> Secret | None:
    if options["insecure"]:
        return None
    given = _text(options["bearer"])
    if given is not None:
        return Secret(given)
    try:
        bearer, is_new = keep_bearer(folder)
    except OSError as error:
        raise click.ClickException(f"{error.filename}: {error.strerror}") from None
    click.echo(f"bearer: {'generated and stored' if is_new else 'the stored one'}", err=True)
    return bearer
