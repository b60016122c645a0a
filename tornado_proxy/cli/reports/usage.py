"""`tornado-proxy usage`: the cost of requests, from the ledger or a server."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import IO

import click
from rich.table import Table

from tornado_proxy.cli.options.config_lookup import (
    exit_on_errors,
    find_ledger,
    find_recorded_project_id,
    load_prices,
    readable,
)
from tornado_proxy.cli.options.config_option import config_option
from tornado_proxy.cli.options.format_option import format_option
from tornado_proxy.cli.options.time_param import TimeParam, check_times
from tornado_proxy.cli.reports.cache_usage import print_cache_usage
from tornado_proxy.cli.reports.usage_api_client import ApiQuery, fetch_sums, find_project, print_usage, read_token
from tornado_proxy.cli.state.budgets import make_table, read_rows
from tornado_proxy.cli.tables import print_fitting_table, print_table, printable_name
from tornado_proxy.domain.text import format_sum
from tornado_proxy.domain.usage import Basis
from tornado_proxy.exports import focus
from tornado_proxy.ledger.backends import make_backend
from tornado_proxy.ledger.columns import PRINTED_COLUMNS
from tornado_proxy.ledger.database import Backend
from tornado_proxy.ledger.reports.record_sums import sum_records
from tornado_proxy.ledger.reports.records_query import (
    GROUPS,
    UsageFilter,
    UsageSum,
    add_exactly,
    is_named_group,
    read_records,
)
from tornado_proxy.ledger.rows import format_decimal
from tornado_proxy.providers.registry import PROVIDER_NAMES
from tornado_proxy.reports.usage_members import SUM_COLUMNS, record_members, sum_members
from tornado_proxy.wire.csv_cells import write_members

#: Columns of decimals: a minus there is a number, not a formula, and needs no escape in a spreadsheet.
_TRUSTED_COLUMNS = frozenset({"subtotal", "surcharge", "total"})

#: The groups of a table without --group-by.
_TABLE_GROUPS = ("day", "model")

#: Decimals of an amount in a table, unless it needs more to be shown exactly.  A narrow terminal can get fewer.
_MIN_DECIMALS = 6


@click.command()
@config_option("The configuration that names the ledger.")
@click.option("--ledger", "url", help="The URL of the ledger, such as sqlite:///PATH; replaces --config.")
@click.option("--api", metavar="URL", help="The URL of a server's client port: show your own usage from there.")
@click.option("--token-env", metavar="NAME", help="The environment variable with your token, for --api.")
@click.option("--project", "project_id", metavar="PROJECT", help="Only this project: its id, or its name in --config.")
@click.option("--room", help="Only this room.")
@click.option("--participant", help="Only this participant.")
@click.option("--user", help="Only this OAuth user: the subject, as records show it.")
@click.option("--issuer", help="Only users of this OAuth issuer.")
@click.option("--agent-session", help="Only this session of an agent.")
@click.option("--agent", help="Only this agent of a session.")
@click.option("--turn", help="Only this turn of a session.")
@click.option("--client", help="Only this program and version, such as claude-cli/2.1.197.")
@click.option("--repository", help="Only this repository, as records show it.")
@click.option("--end-user", help="Only requests for this end user.")
@click.option("--provider", type=click.Choice(PROVIDER_NAMES), help="Only this provider.")
@click.option("--model", help="Only this model: that of the response, else the requested one.")
@click.option("--basis", type=click.Choice([basis.value for basis in Basis]), help="Only costs with this basis.")
@click.option(
    "--since", type=TimeParam(), help="Started at or after: 2026-11-01 (UTC), an RFC 3339 time, 24h or 7d ago."
)
@click.option("--until", type=TimeParam(), help="Started before.")
@click.option(
    "--group-by",
    default="",
    help=f"Sum by {', '.join(GROUPS)}, label.NAME, annotation.NAME; separate several with commas.",
)
@click.option("--retries", flag_value="only", help="Only requests that repeat an earlier one of their caller.")
@click.option(
    "--cache",
    is_flag=True,
    help="Show by agent session, agent and model what prompt caches have saved, and writes that nothing has read.",
)
@click.option("--budgets", "with_budgets", is_flag=True, help="Below the table, show the budgets of --config.")
@format_option("table", "csv", "json", "jsonl", "focus")
def usage(
    config: Path,
    url: str | None,
    group_by: str,
    output_format: str,
    *,
    cache: bool,
    with_budgets: bool,
    **filters: str | None,
) -> None:
    """Show the cost of requests and its basis.

    A table sums by day and model unless --group-by names other groups; endpoints are grouped without ids.  Without
    --group-by, csv, json and jsonl print one row for each record, and focus one row for each charge, with the columns
    of FOCUS 1.4.

    With --api the rows are your own usage or, for an admin, that of the whole project.  In place of records there is a
    sum for each kind of line item.

    \b
    Example:
      tornado-proxy usage --since 7d --group-by participant,model
      tornado-proxy usage --since 7d --cache
      tornado-proxy usage --basis unsettled --format jsonl
      tornado-proxy usage --api http://127.0.0.1:8080 --token-env OPENAI_API_KEY --group-by day
    """
    api, token_env = filters.pop("api"), filters.pop("token_env")
    if api is not None and url is not None:
        raise click.UsageError("--api and --ledger exclude each other; use one of them")
    if output_format == "focus" and (api is not None or group_by or cache):
        raise click.UsageError(
            "--format focus reads a ledger and has a row for each charge; omit --api, --group-by, --cache"
        )
    if cache and (api is not None or group_by):
        raise click.UsageError("--cache reads a ledger and has groups of its own; omit --api and --group-by")
    if with_budgets and (api is not None or url is not None or output_format != "table"):
        raise click.UsageError("--budgets needs --config and --format table; `budget list` has other formats")
    if api is not None:
        with exit_on_errors():
            _print_api_usage(_api_query(api, token_env, filters), group_by, output_format)
        return
    # A server checks its groups itself, and may know more of them than this version.
    groups = _read_names(group_by)
    unknown = [name for name in groups if name not in GROUPS and not is_named_group(name)]
    if unknown:
        raise click.UsageError(
            f"cannot group by {', '.join(unknown)}; known are {', '.join(GROUPS)}, label.NAME, annotation.NAME"
        )
    check_times(filters["since"], filters["until"])
    with exit_on_errors():
        filters["project_id"] = find_recorded_project_id(config, url, filters["project_id"])
        ledger, which = make_backend(find_ledger(config, url)), UsageFilter(**filters)
        if cache:
            print_cache_usage(ledger, which, load_prices(readable(config, url), None), output_format, sys.stdout)
        else:
            _print_usage(ledger, which, groups, output_format)
    if with_budgets:
        print_table(make_table(read_rows(config, filters["project_id"])), sys.stdout)


def _print_api_usage(query: ApiQuery, group_by: str, output_format: str) -> None:
    """Print the report of the ledger, as far as the caller may see it, from a server."""
    groups = _read_names(group_by)
    if output_format == "table":
        names = groups or list(_TABLE_GROUPS)
        sums = fetch_sums(query, names)
        _print_table(names, sums, sys.stdout)
        _print_counts(sums, sys.stdout)
    elif groups:
        _print_sums(groups, fetch_sums(query, groups), output_format)
    else:
        print_usage(query, output_format, sys.stdout)


def _read_names(group_by: str) -> list[str]:
    return [name.strip() for name in group_by.split(",") if name.strip()]


def _api_query(api: str, token_env: str | None, filters: Mapping[str, str | None]) -> ApiQuery:
    """Return the query to a server: our options under the names of its parameters."""
    token = read_token(token_env)
    parameter_names = {"since": "start", "until": "end"}
    query = {parameter_names.get(name, name): value for name, value in filters.items() if value is not None}
    # The token names its project, unless it is an OAuth token.
    project = query.pop("project_id", None) or find_project(token)
    return ApiQuery(api, token, project, query)


def _print_usage(ledger: Backend, filters: UsageFilter, groups: Sequence[str], output_format: str) -> None:
    if output_format == "table":
        names = groups or list(_TABLE_GROUPS)
        sums = sum_records(ledger, filters, names)
        _print_table(names, sums, sys.stdout)
        _print_retries(ledger, filters, sys.stdout)
        _print_unknown(ledger, filters, sums, sys.stdout)
    elif groups:
        _print_sums(groups, sum_records(ledger, filters, groups), output_format)
    elif output_format == "focus":
        charges = focus.make_charges(read_records(ledger, filters, focus.RECORD_COLUMNS))
        write_members(sys.stdout, focus.COLUMNS, charges, trusted=frozenset(focus.DECIMAL_COLUMNS))
        sys.stdout.flush()
    else:
        records = map(record_members, read_records(ledger, filters))
        _print_rows(records, PRINTED_COLUMNS, output_format, sys.stdout)


def _print_sums(groups: Sequence[str], sums: Iterable[UsageSum], output_format: str) -> None:
    rows = ({**dict(zip(groups, usage_sum.group, strict=True)), **sum_members(usage_sum)} for usage_sum in sums)
    _print_rows(rows, [*groups, *SUM_COLUMNS], output_format, sys.stdout)


def _print_rows(rows: Iterable[Mapping[str, object]], columns: Sequence[str], output_format: str, out: IO[str]) -> None:
    if output_format == "jsonl":
        for row in rows:
            out.write(json.dumps(row) + "\n")
    elif output_format == "json":
        # One row after the other: a ledger does not fit into memory.
        separator = "[\n"
        for row in rows:
            out.write(separator + json.dumps(row))
            separator = ",\n"
        out.write("[]\n" if separator == "[\n" else "\n]\n")
    else:
        write_members(out, columns, rows, trusted=_TRUSTED_COLUMNS)
    out.flush()


def _print_table(names: Sequence[str], sums: Sequence[UsageSum], out: IO[str]) -> None:
    amounts = [(usage_sum.subtotal, usage_sum.surcharge, usage_sum.total) for usage_sum in sums]
    totals = [add_exactly(column) for column in zip(*amounts, strict=True)] or [Decimal(0)] * 3
    # One number of decimals for the whole table, so that the points of a column are below each other.
    exact = max([_MIN_DECIMALS, *(_count_decimals(amount) for row in (totals, *amounts) for amount in row)])

    def make(limit: int | None, characters: int | None) -> Table:
        return _make_table(names, sums, totals, exact if limit is None else min(exact, limit), characters)

    print_fitting_table(make, out)


def _make_table(
    names: Sequence[str], sums: Sequence[UsageSum], totals: Sequence[Decimal], decimals: int, characters: int | None
) -> Table:
    """Return the table with amounts of `decimals` and names of up to `characters`."""
    table = Table(show_footer=True)
    for name in names:
        table.add_column(name, footer="all" if name == names[0] else "", overflow="fold")
    requests = sum(usage_sum.requests for usage_sum in sums)
    table.add_column("requests", footer=str(requests), justify="right", overflow="fold")
    for name, total in zip(("subtotal", "surcharge", "total"), totals, strict=True):
        table.add_column(f"{name} USD", footer=f"{total:,.{decimals}f}", justify="right", overflow="fold")
    for usage_sum in sums:
        amounts = (usage_sum.subtotal, usage_sum.surcharge, usage_sum.total)
        cells = (f"{amount:,.{decimals}f}" for amount in amounts)
        group = (printable_name(value, characters) for value in usage_sum.group)
        table.add_row(*group, str(usage_sum.requests), *cells)
    return table


def _count_decimals(amount: Decimal) -> int:
    """Return the number of decimals that show an amount exactly."""
    return len(format_decimal(amount).partition(".")[2].rstrip("0"))


def _print_retries(ledger: Backend, filters: UsageFilter, out: IO[str]) -> None:
    """Print the part of the total that was spent on requests which repeat an earlier one."""
    for repeated in sum_records(ledger, replace(filters, retries="only"), ()):
        out.write(
            f"{_count_requests(repeated.requests, 'repeated')}: {format_sum(repeated.total)} USD of the total "
            "(--retries shows them alone)\n"
        )


def _print_unknown(ledger: Backend, filters: UsageFilter, sums: Sequence[UsageSum], out: IO[str]) -> None:
    """Print how many requests have no known cost, including those that a filter by basis leaves out."""
    # Without this, `--basis reported` would show a total that looks complete.
    if filters.basis not in (None, Basis.UNSETTLED):
        unsettled_sums = sum_records(ledger, replace(filters, basis=Basis.UNSETTLED.value), ())
        sums = [*sums, *unsettled_sums]
    _print_counts(sums, out)


def _print_counts(sums: Sequence[UsageSum], out: IO[str]) -> None:
    unsettled = sum(usage_sum.unsettled for usage_sum in sums)
    pending = sum(usage_sum.pending for usage_sum in sums)
    if unsettled:
        out.write(
            f"{_count_requests(unsettled, 'unsettled')}: cost not known (--basis unsettled --format jsonl lists them)\n"
        )
    if pending:
        out.write(f"{_count_requests(pending, 'pending')}: the provider reports the cost later\n")
    out.flush()


def _count_requests(count: int, kind: str) -> str:
    return f"{count} {kind} request{'' if count == 1 else 's'}"
