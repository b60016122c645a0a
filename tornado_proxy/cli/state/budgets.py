"""`tornado-proxy budget`: shows what budgets have spent, and changes their limits in the ledger's database.

It needs no running server: each server of the ledger applies a change within two seconds.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.table import Table

from tornado_proxy.budgets.selection import (
    BudgetSelector,
    Until,
    describe_kind,
    find_kind,
    make_change,
    parse_until,
    parse_usd,
)
from tornado_proxy.cli.options.config_lookup import exit_on_errors, find_project_id
from tornado_proxy.cli.options.config_option import config_option
from tornado_proxy.cli.options.duration_param import parse_duration
from tornado_proxy.cli.options.format_option import format_option
from tornado_proxy.cli.state.actor import find_actor
from tornado_proxy.cli.state.budget_lookup import now, open_budgets
from tornado_proxy.cli.tables import print_table, printable_name, printable_text, replace_unprintable
from tornado_proxy.domain.budgets.budget import BudgetChange
from tornado_proxy.domain.budgets.counter import Amount, Period, Scope
from tornado_proxy.ledger.rows import format_time
from tornado_proxy.reports.budgets import (
    BudgetRow,
    describe_subject,
    find_origin,
    list_rows,
    show_other_reservations,
    show_reservations,
    show_row,
    show_rows,
)
from tornado_proxy.state import budgets as changes

_Command = TypeVar("_Command", bound=Callable[..., Any])

#: Whose spend a budget limits, on a command line.
_SCOPES = [scope.value for scope in Scope]

#: Where a limit comes from, in a table.
_ORIGINS = {"configuration": "file", "token": "token"}

_CONFIG = config_option("The configuration that names the ledger and the projects.")

_SELECTOR = (
    click.argument("project_id", metavar="PROJECT"),
    click.option("--period", type=click.Choice([period.value for period in Period]), required=True, help="Its period."),
    click.option("--per", type=click.Choice(_SCOPES), help="Whose spend it limits; needed if several would match."),
    click.option("--of", type=click.Choice([amount.value for amount in Amount]), help="The amount that it limits."),
    click.option("--start", metavar="DAY", help="The day on which its period begins."),
    click.option("--label", metavar="NAME", help="The label of a budget per label."),
    click.option("--participant", metavar="NAME", help="Only this participant."),
    click.option("--user", metavar="ID", help="Only this OAuth user; with --issuer if there are several issuers."),
    click.option("--issuer", metavar="URL", help="The issuer of the user."),
    click.option("--access-key", metavar="ID", help="Only this access key."),
    click.option("--token", metavar="ID", help="Only this token, by the id that `token inspect` shows."),
    click.option("--agent-session", metavar="ID", help="Only this agent session."),
    click.option("--value", metavar="TEXT", help="Only this value of the label."),
)

_UNTIL = click.option(
    "--until",
    metavar="TIME",
    default=Until.PERIOD_END.value,
    show_default=True,
    help="When the limit of the file is in force again: 2026-12-01 (UTC), an RFC 3339 time, 90s, 15m, 1h or 30d from "
    "now, or never.",
)


def _selector_options(command: _Command) -> _Command:
    """Add the argument and the options that name a budget."""
    for option in reversed(_SELECTOR):
        command = option(command)
    return command


@click.group("budget", short_help="Show budgets, and change their limits while the server runs.")
def budget() -> None:
    """Show what budgets have spent, and change their limits while the server runs.

    \b
    Example:
      tornado-proxy budget list
    """


@budget.command("list")
@_CONFIG
@format_option("table", "json")
def list_(config: Path, output_format: str) -> None:
    """List the budgets of all projects in their current periods.

    A budget per participant, user, access key, token, agent session or label has a row for each one that has spent
    something, at most 1,000 in each project, those that have spent most; a token that states a budget has one from its
    first request until it expires.

    \b
    Example:
      tornado-proxy budget list
    """
    _print_rows(read_rows(config, None), output_format)


@budget.command("show")
@click.argument("project_id", metavar="PROJECT")
@_CONFIG
@format_option("table", "json")
def show(config: Path, project_id: str, output_format: str) -> None:
    """Show the budgets of PROJECT, which limit is in force, and where it comes from.

    \b
    Example:
      tornado-proxy budget show 0c9f8a5e-9a1e-4f6b-8c43-1d2a7f6f0a10
    """
    _print_rows(read_rows(config, project_id), output_format)


@budget.command("explain")
@click.argument("project_id", metavar="PROJECT")
@_CONFIG
@format_option("text", "json")
def explain(config: Path, project_id: str, output_format: str) -> None:
    """Explain the budgets of PROJECT: limit, settled, and the oldest reservations with request id, state and age.

    Of each budget the oldest 100 are listed, and 10,000 of all budgets together; the others are summed.

    \b
    Example:
      tornado-proxy budget explain 0c9f8a5e-9a1e-4f6b-8c43-1d2a7f6f0a10 --format json
    """
    rows, at = read_rows(config, project_id, list_reservations=True), now()
    if output_format == "json":
        documents = [
            {
                **show_row(row),
                "reservations": show_reservations(row, at),
                "other_reservations": show_other_reservations(row),
            }
            for row in rows
        ]
        click.echo(json.dumps({"budgets": documents}, indent=2))
        return
    for row in rows:
        _explain_row(row, at)


@budget.command("set")
@_selector_options
@click.option("--usd", metavar="AMOUNT", help="The limit.")
@click.option("--restore", is_flag=True, help="Put the limit of the file in force again.")
@_UNTIL
@_CONFIG
@format_option("table", "json")
def set_(config: Path, usd: str | None, restore: bool, until: str, output_format: str, **options: Any) -> None:  # noqa: FBT001  # click passes it
    """Set another limit of a budget of PROJECT, in every server within two seconds.

    \b
    Example:
      tornado-proxy budget set 0c9f8a5e-9a1e-4f6b-8c43-1d2a7f6f0a10 --period month --usd 800
    """
    if (usd is None) != restore:
        raise click.UsageError("give either --usd or --restore")

    def make(change: BudgetChange) -> BudgetChange:
        return change if usd is None else replace(change, limit=parse_usd(usd))

    _print_rows(_change(config, options, until, make, restore=restore), output_format)


@budget.command("lift")
@_selector_options
@_UNTIL
@_CONFIG
@format_option("table", "json")
def lift(config: Path, until: str, output_format: str, **options: Any) -> None:
    """Lift a budget of PROJECT, so that it limits nothing until a time.  Spend is still counted.

    \b
    Example:
      tornado-proxy budget lift 0c9f8a5e-9a1e-4f6b-8c43-1d2a7f6f0a10 --period day --participant ada --until 2h
    """
    _print_rows(_change(config, options, until, lambda change: change, restore=False), output_format)


def read_rows(config: Path, project_id: str | None, *, list_reservations: bool = False) -> list[BudgetRow]:
    """Return the budgets of all projects of a configuration, or of one, by its id or name.

    With `list_reservations` they have their oldest reservations, else the sums alone.
    """
    with exit_on_errors():
        project_id = None if project_id is None else find_project_id(config, project_id)
    with open_budgets(config) as budgets:
        at = now()
        if project_id is not None and project_id not in budgets.configured.budgets:
            raise click.ClickException(f"there is no project {project_id!r}; `tornado-proxy project list` shows them")
        figures = budgets.read_figures(at, project_id, list_reservations=list_reservations)
        return list_rows(budgets.read_limits(), figures, at, project_id)


def _change(
    config: Path,
    options: dict[str, Any],
    until: str,
    make: Callable[[BudgetChange], BudgetChange],
    *,
    restore: bool,
) -> list[BudgetRow]:
    """Make a change, and return the budgets that it concerns."""
    with exit_on_errors():
        options["project_id"] = find_project_id(config, options["project_id"])
    selector = _read_selector(options)
    at = now()
    with open_budgets(config) as budgets:
        ends = _parse_until(until, at)
        figures = budgets.read_figures(at)
        kind = find_kind(budgets.read_limits().state(figures.stated), selector)
        change = make(make_change(kind, selector, ends, at, find_actor()))
        apply = changes.restore if restore else changes.apply
        apply(budgets.state, change)
        click.echo("changed; each server applies it within two seconds", err=True)
        rows = list_rows(budgets.read_limits(), budgets.read_figures(at), at, selector.project_id)
        return [row for row in rows if row.state.kind == kind and change.subject in (None, row.state.subject)]


def _read_selector(options: dict[str, Any]) -> BudgetSelector:
    start = options.pop("start")
    try:
        day = None if start is None else date.fromisoformat(start)
    except ValueError:
        raise click.UsageError(f"--start {start!r} is not a day such as 2026-11-01") from None
    per, of = options.pop("per"), options.pop("of")
    return BudgetSelector(
        options.pop("project_id"),
        Period(options.pop("period")),
        None if per is None else Scope(per),
        None if of is None else Amount(of),
        day,
        **options,
    )


def _parse_until(text: str, at: datetime) -> datetime | Until:
    if re.fullmatch(r"[0-9]+[smhd]", text):
        duration = parse_duration(click.get_current_context(), click.Option(["--until"]), text)
        assert duration is not None, "only `never` is None"
        return at + duration
    return parse_until(text)


def _print_rows(rows: Sequence[BudgetRow], output_format: str) -> None:
    if output_format == "json":
        click.echo(json.dumps(show_rows(rows), indent=2))
    else:
        print_table(make_table(rows), sys.stdout)


def make_table(rows: Iterable[BudgetRow]) -> Table:
    """Return a table of budgets."""
    table = Table()
    for name in ("project", "budget", "of"):
        table.add_column(name, overflow="fold")
    for name in ("limit USD", "settled", "reserved", "held"):
        table.add_column(name, justify="right", overflow="fold")
    for name in ("ends", "limit from"):
        table.add_column(name, overflow="fold")
    for row in rows:
        kind, subject = describe_kind(row.state.kind), describe_subject(row) or "project"
        amounts = ("lifted" if row.limit is None else _show(row.limit), *map(_show, _figures(row)))
        cells = (*amounts, "never" if row.end is None else format_time(row.end), _describe_source(row))
        names = (printable_text(row.state.project_id), printable_text(kind), printable_name(subject))
        table.add_row(*names, *map(printable_text, cells))
    return table


def _figures(row: BudgetRow) -> tuple[Decimal, Decimal, Decimal]:
    return row.state.settled, row.reserved, row.held


def _show(amount: Decimal) -> str:
    """Return an amount with its decimals, two at least."""
    exponent = amount.normalize().as_tuple().exponent
    return f"{amount:.{max(2, -exponent if isinstance(exponent, int) else 0)}f}"


def _describe_source(row: BudgetRow) -> str:
    change = row.change
    origin = find_origin(row)
    if change is None:
        return _ORIGINS[origin]
    until = "" if change.until is None else f" until {format_time(change.until)}"
    return f"{change.actor}{until}; {_ORIGINS[origin]}: {_show(row.configured)}"


def _explain_row(row: BudgetRow, at: datetime) -> None:
    state = row.state
    subject = f", {describe_subject(row)}" if state.subject else ""
    limit = "lifted" if row.limit is None else f"{_show(row.limit)} USD"
    click.echo(replace_unprintable(f"{describe_kind(state.kind)}{subject}, since {format_time(state.interval.begin)}"))
    click.echo(replace_unprintable(f"  limit     {limit} (from {_describe_source(row)})"))
    for name, amount in zip(("settled", "reserved", "held"), _figures(row), strict=True):
        click.echo(f"  {name:<9} {_show(amount)}")
    for entry in show_reservations(row, at):
        click.echo(f"  {entry['request_id']}  {entry['state']}  {entry['usd']} USD  {entry['age_s']} s old")
    others = row.reservations.others
    if others:
        noun = "other reservation" if others == 1 else "other reservations"
        click.echo(f"  {others} {noun}  {_show(row.reservations.others_usd)} USD")
