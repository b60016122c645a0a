"""`tornado-proxy stop` and `resume`: refuse and end requests while the servers run, and let them start again.

They need no running server: each server of the ledger applies a change within two seconds.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.table import Table

from tornado_proxy.api.stops import show_stop, show_stops
from tornado_proxy.cli.options.config_lookup import exit_on_errors, find_project_ids, find_recorded_project_id
from tornado_proxy.cli.options.config_option import config_option
from tornado_proxy.cli.options.format_option import format_option
from tornado_proxy.cli.state.actor import find_actor
from tornado_proxy.cli.state.state_store import open_state_store
from tornado_proxy.cli.tables import print_table, printable_text
from tornado_proxy.domain.errors import NotFound
from tornado_proxy.domain.stop import Stop, StopTarget
from tornado_proxy.ledger.rows import format_time
from tornado_proxy.state import stops

_Command = TypeVar("_Command", bound=Callable[..., Any])

_OPTIONS = (
    click.option("--project", metavar="PROJECT", help="Only requests of this project: its id or its name."),
    click.option("--participant", metavar="NAME", help="Only requests of this participant or user."),
    click.option("--agent-session", metavar="ID", help="Only requests of this agent session."),
    config_option("The configuration that names the ledger and the projects."),
)


def _target_options(command: _Command) -> _Command:
    """Add the options that name a target, and the configuration."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@click.command("stop", short_help="Refuse the requests of a project, participant or agent session, and end open ones.")
@_target_options
@click.option("--reason", default="", metavar="TEXT", help="A text for the clients, which the refusals contain.")
@click.option("--list", "list_all", is_flag=True, help="List all stops, and stop nothing.")
@format_option("text", "json")
def stop(config: Path, reason: str, *, list_all: bool, output_format: str, **names: str | None) -> None:
    """Stop a project, a participant or user, or an agent session: on every server within two seconds.

    New requests get 403 `stopped`.  Streams that run are cut, sessions closed with 1008, calls hung up; their
    records are exact or estimated.  Background responses and message batches are cancelled
    at their providers.  Several options together stop what matches all of them.

    \b
    Example:
      tornado-proxy stop --participant ada --reason "runaway agent"
    """
    target = _make_target(config, **names)
    with open_state_store(config) as store:
        if list_all:
            _print_stops(
                [found for found in stops.list_stops(store) if target in (StopTarget(), found.target)], output_format
            )
            return
        stops.check_stop(target, reason, find_project_ids(config))
        made = stops.make(store, find_actor(), target, reason)
    if output_format == "json":
        click.echo(json.dumps(show_stop(made), indent=2))
    click.echo(f"stopped {made.target} as {made.id}", err=True)


@click.command("resume", short_help="Lift a stop.")
@click.argument("stop_id", metavar="[STOP_ID]", required=False)
@_target_options
@format_option("text", "json")
def resume(config: Path, stop_id: str | None, output_format: str, **names: str | None) -> None:
    """Lift the stop with this id, or the one that was made with the same options.

    \b
    Example:
      tornado-proxy resume --participant ada
    """
    target = _make_target(config, **names)
    if (stop_id is None) == (target == StopTarget()):
        raise click.UsageError("name either the id of a stop, or the options that it was made with")
    with open_state_store(config) as store:
        lifted = stops.lift(store, find_actor(), stop_id or _find_id(stops.list_stops(store), target))
    if output_format == "json":
        click.echo(json.dumps(show_stop(lifted), indent=2))
    click.echo(f"resumed {lifted.target}", err=True)


def _make_target(config: Path, project: str | None, participant: str | None, agent_session: str | None) -> StopTarget:
    with exit_on_errors():
        project = find_recorded_project_id(config, None, project)
    return StopTarget(project, participant, agent_session)


def _find_id(made: list[Stop], target: StopTarget) -> str:
    for found in made:
        if found.target == target:
            return found.id
    raise NotFound(f"{target} is not stopped; tornado-proxy stop --list shows all stops")


def _print_stops(made: list[Stop], output_format: str) -> None:
    if output_format == "json":
        click.echo(json.dumps(show_stops(made), indent=2))
        return
    table = Table()
    for name in ("id", "stopped", "by", "at", "reason"):
        table.add_column(name, overflow="fold")
    for found in made:
        cells = (found.id, str(found.target), found.actor, format_time(found.created_at), found.reason)
        table.add_row(*(printable_text(cell) for cell in cells))
    print_table(table, sys.stdout)
