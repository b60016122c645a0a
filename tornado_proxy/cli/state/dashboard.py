"""`tornado-proxy dashboard`: prints a one-time link to the web dashboard."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import click

from tornado_proxy.cli.options.config_lookup import exit_on_errors, find_project_id, find_project_ids
from tornado_proxy.cli.options.config_option import config_option
from tornado_proxy.cli.state.actor import find_actor
from tornado_proxy.cli.state.state_store import open_state_store
from tornado_proxy.config.files import read_document
from tornado_proxy.config.settings import ADMIN_PORT, CLIENT_PORT, DEFAULT_HOST
from tornado_proxy.domain.config.document import read_section
from tornado_proxy.state.dashboard_session_table import Identity, OperatorIdentity, ProjectIdentity
from tornado_proxy.state.dashboard_sessions import end_all_sessions, make_link


@click.command(short_help="Print a one-time link to the web dashboard.")
@config_option("The configuration that names the ledger and the ports.")
@click.option("--project", "project_id", metavar="PROJECT", help="Show this project alone, on the client port.")
@click.option("--participant", metavar="NAME", help="Show the usage of this participant of --project alone.")
@click.option("--user", metavar="SUBJECT", help="Show the usage of this OAuth user of --project alone.")
@click.option("--issuer", metavar="URL", help="The issuer of --user.")
@click.option("--url", metavar="URL", help="The root URL of the port in the link, such as that of an SSH tunnel.")
@click.option("--sign-out-all", is_flag=True, help="End all sessions and links, and print no link.")
def dashboard(
    config: Path, project_id: str | None, url: str | None, *, sign_out_all: bool, **caller: str | None
) -> None:
    """Print a one-time link to the web dashboard.

    It signs one browser in as the operator, who sees all projects.  It works once, for 60 seconds; the session lasts
    12 hours.  With --project the link is for another person: it leads to the client port, and shows that project, or
    the usage of one caller.

    \b
    Example:
      tornado-proxy dashboard
      tornado-proxy dashboard --project 0c9f8a5e-9a1e-4f6b-8c43-1d2a7f6f0a10 --participant ada
    """
    with exit_on_errors():
        project_id = None if project_id is None else find_project_id(config, project_id)
    identity = _make_identity(project_id, caller)
    with open_state_store(config) as store:
        if sign_out_all:
            end_all_sessions(store, find_actor())
            click.echo("all sessions of the dashboard have ended", err=True)
            return
        if project_id is not None and project_id not in find_project_ids(config):
            raise click.ClickException(f"{project_id!r} is no configured project; `project list` shows their ids")
        root = (url or _find_url(config, is_admin=project_id is None)).rstrip("/")
        secret = make_link(store, find_actor(), identity, datetime.now(UTC))
        click.echo(f"{root}/dashboard/sign-in?link={secret.reveal()}")


def _make_identity(project_id: str | None, caller: Mapping[str, str | None]) -> Identity:
    """Return the identity that the options name."""
    participant, user, issuer = caller["participant"], caller["user"], caller["issuer"]
    if project_id is None:
        if any((participant, user, issuer)):
            raise click.UsageError("--participant, --user and --issuer need --project")
        return OperatorIdentity()
    if participant is not None and user is not None:
        raise click.UsageError("--participant and --user exclude each other; use one of them")
    if (user is None) != (issuer is None):
        raise click.UsageError("--user and --issuer name a user together; use both")
    return ProjectIdentity(project_id, participant, user, issuer)


def _find_url(config: Path, *, is_admin: bool) -> str:
    """Return the root URL of a port, as the configuration states it."""
    section = read_section(read_document(config).content, "admin" if is_admin else "listen")
    public_url = section.get("public_url")
    if public_url is not None and not is_admin:
        return str(public_url)
    host, port = str(section.get("host", DEFAULT_HOST)), section.get("port", ADMIN_PORT if is_admin else CLIENT_PORT)
    if port == 0:
        raise click.ClickException("the configuration leaves the port to the kernel; state it with --url")
    if host in ("0.0.0.0", "::"):  # noqa: S104  # compared, not bound
        host = DEFAULT_HOST
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
