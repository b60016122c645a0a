"""`tornado-proxy login`, `logout`, `whoami` and `token print`: the session of this user on this machine."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from datetime import UTC
from typing import TypeVar

import click

from tornado_proxy.domain.config.loopback import is_secure_url
from tornado_proxy.domain.errors import RequestError
from tornado_proxy.issuers.http_fetch import FetchError
from tornado_proxy.local.folders import make_state_folder
from tornado_proxy.local.session.code_login import open_system_browser
from tornado_proxy.local.session.issuer import DeviceCode, LoginError
from tornado_proxy.local.session.login import DEFAULT_SCOPES, LoginWays, find_client, log_in, log_out
from tornado_proxy.local.session.session import Client, Session
from tornado_proxy.local.session.store import SessionStore
from tornado_proxy.local.session.token_source import SessionTokens, require_session

Result = TypeVar("Result")

#: Seconds in which a person must log in.
_DEFAULT_TIMEOUT_S = 300


def open_store() -> SessionStore:
    """Return the store of this user's session.

    Raises:
        click.ClickException: its folder cannot be created.
    """
    try:
        return SessionStore(make_state_folder())
    except OSError as error:
        raise click.ClickException(f"{error.filename}: {error.strerror}; make the folder writable") from None


def run_session_work(work: Coroutine[None, None, Result]) -> Result:
    """Return the result of `work`; print its error and exit with status 1 if it fails."""
    try:
        return asyncio.run(work)
    except TimeoutError:
        raise click.ClickException("no login within the time of --timeout; run the command again") from None
    except RequestError as error:
        raise click.ClickException(error.message) from None
    except LoginError as error:
        raise click.ClickException(str(error)) from None
    except FetchError as error:
        raise click.ClickException(f"the server or its issuer cannot be reached: {error}") from None
    except OSError as error:
        raise click.ClickException(f"{error.filename}: {error.strerror}; the session cannot be stored") from None


@click.command()
@click.option("--upstream", metavar="URL", envvar="MESHAGENT_API_URL", help="The server; default: MESHAGENT_API_URL.")
@click.option("--issuer", metavar="URL", help="The issuer; default: the one that the server states.")
@click.option("--client-id", metavar="ID", help="The OAuth client at the issuer; needed with --issuer.")
@click.option("--device", is_flag=True, help="Log in on another device, for machines without a browser.")
@click.option(
    "--timeout",
    "timeout_s",
    type=click.IntRange(min=1),
    metavar="SECONDS",
    default=_DEFAULT_TIMEOUT_S,
    show_default=True,
    help="Stop waiting for the person after this time.",
)
def login(*, upstream: str | None, issuer: str | None, client_id: str | None, device: bool, timeout_s: int) -> None:
    """Log in at a server with OAuth.

    The session is kept for the other commands of this machine.

    The refresh token is kept in the system's keyring if one works, else with the session in a file that only you can
    read.

    \b
    Example:
      tornado-proxy login --upstream https://llm.example.com
    """
    if (issuer is None) != (client_id is None):
        raise click.UsageError("--issuer and --client-id need each other; name both or none")
    store = open_store()
    server = find_upstream(upstream, store.read())
    client = None if issuer is None else Client(issuer, client_id or "", DEFAULT_SCOPES)
    ways = LoginWays(device, open_system_browser, _announce_url, _announce_code)
    session = run_session_work(_log_in(server, client, ways, timeout_s))
    click.echo(f"logged in to {session.upstream} as {session.user or 'an unnamed user'}", err=True)


async def _log_in(server: str, client: Client | None, ways: LoginWays, timeout_s: int) -> Session:
    async with asyncio.timeout(timeout_s):
        return await log_in(server, client or await find_client(server), ways, open_store())


def find_upstream(named: str | None, session: Session | None) -> str:
    """Return the server: the named one, else that of the session.

    Raises:
        click.UsageError: there is none, or its URL is not secure.
    """
    url = (named or "").strip() or (session.upstream if session is not None else "")
    if not url:
        raise click.UsageError("the server is not known; name it with --upstream URL or MESHAGENT_API_URL")
    if not is_secure_url(url):
        raise click.UsageError(f"{url!r} is not an https URL of a server; http is for this machine only")
    return url.rstrip("/")


def _announce_url(url: str) -> None:
    click.echo(f"Log in in your browser; if it does not open, use this address:\n{url}", err=True)


def _announce_code(code: DeviceCode) -> None:
    click.echo(f"Open {code.verification_url} on any device and confirm the code {code.user_code}", err=True)


@click.command()
def logout() -> None:
    """Revoke the login and delete the session of this machine.

    \b
    Example:
      tornado-proxy logout
    """
    click.echo(run_session_work(log_out(open_store())), err=True)


@click.command()
def whoami() -> None:
    """Print who is logged in, and at which server.

    Also print until when the access token is valid.

    \b
    Example:
      tornado-proxy whoami
    """
    store = open_store()
    run_session_work(SessionTokens(store).get())
    session = require_session(store.read())
    expires_at = session.expires_at
    click.echo(f"user: {session.user or 'unknown'}")
    click.echo(f"server: {session.upstream}")
    click.echo(f"issuer: {session.client.issuer}")
    click.echo(
        f"expires: {'unknown' if expires_at is None else expires_at.astimezone(UTC).isoformat(timespec='seconds')}"
    )


@click.command("print")
def print_token() -> None:
    """Print a valid access token of the session.

    It prints nothing else, for programs that ask a command for a token.

    \b
    Example:
      tornado-proxy token print
    """
    click.echo(run_session_work(SessionTokens(open_store()).get()).reveal())
