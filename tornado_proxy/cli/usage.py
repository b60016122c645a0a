"""`tornado-proxy usage`: what calls cost, from the ledger."""

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

from tornado_proxy.cli.config_lookup import find_ledger, reporting
from tornado_proxy.cli.tables import plain_text, print_table
from tornado_proxy.cli.time_param import Moment
from tornado_proxy.cli.usage_api_client import Asked, print_usage, project_of, read_token
from tornado_proxy.domain.usage import Basis
from tornado_proxy.ledger.backends import make_backend
from tornado_proxy.ledger.database import Backend
from tornado_proxy.ledger.reports.records_query import (
    GROUPS,
    UsageFilter,
    UsageSum,
    add_exactly,
    read_records,
    sum_records,
)
from tornado_proxy.ledger.rows import PRINTED_COLUMNS, format_decimal
from tornado_proxy.wire.csv_cells import TrustedText, write_rows

#: Members that hold JSON text in the ledger and JSON values in print.
_JSON_MEMBERS = ("usage", "line_items")

#: Members of a line item that reports show.
_ITEM_MEMBERS = ("type", "quantity", "unit", "unit_price", "amount", "model")

#: Columns of decimals: a minus there is a number, and no formula.
_NUMBERS = frozenset({"subtotal", "surcharge", "total"})

_SUM_COLUMNS = ("requests", "subtotal", "surcharge", "total", "unsettled", "pending")


@click.command()
@click.option("--config", type=click.Path(path_type=Path), default=Path("conf/proxy.yaml"), help="Names the ledger.")
@click.option("--ledger", "url", help="The ledger itself, sqlite:///PATH; --config is not read then.")
@click.option("--api", metavar="URL", help="Ask a server instead, for your own usage: the URL of its client port.")
@click.option("--token-env", metavar="NAME", help="The environment variable that holds your token, for --api.")
@click.option("--project", "project_id", help="Only this project id.")
@click.option("--room", help="Only this room.")
@click.option("--participant", help="Only this participant.")
@click.option("--user", help="Only this OAuth user.")
@click.option("--provider", type=click.Choice(["openai", "anthropic"]), help="Only this provider.")
@click.option("--model", help="Only this model: the one of the answer, else the one asked for.")
@click.option("--basis", type=click.Choice([basis.value for basis in Basis]), help="Only costs known in this way.")
@click.option("--since", type=Moment(), help="Started at or after: 2026-11-01 (UTC), an RFC 3339 time, 24h, 7d.")
@click.option("--until", type=Moment(), help="Started before.")
@click.option("--group-by", default="", help=f"Sum by {', '.join(GROUPS)}; several with commas.")
@click.option(
    "--format",
    "shape",
    type=click.Choice(["table", "csv", "json", "jsonl"]),
    default="table",
    show_default=True,
    help="How it is printed.",
)
def usage(
    config: Path,
    url: str | None,
    group_by: str,
    shape: str,
    **which: str | None,
) -> None:
    """Show what calls cost, and how each cost is known.

    Without --group-by, csv, json and jsonl print one record each; a table then sums by day and model.  With --api rows
    are sums of one kind of line item each, of your own usage or, for an admin, of all the project's.

    \b
    Example:
      tornado-proxy usage --since 7d --group-by participant,model
      tornado-proxy usage --basis unsettled --format jsonl
      tornado-proxy usage --api http://127.0.0.1:8080 --token-env OPENAI_API_KEY --group-by day
    """
    api, token_env = which.pop("api"), which.pop("token_env")
    if api is not None and url is not None:
        raise click.UsageError("--api and --ledger exclude each other")
    if api is not None:
        with reporting():
            print_usage(_asked(api, token_env, group_by, which), shape, sys.stdout)
        return
    groups = [name.strip() for name in group_by.split(",") if name.strip()]
    unknown = [name for name in groups if name not in GROUPS]
    if unknown:
        raise click.UsageError(f"cannot group by {', '.join(unknown)}; known are {', '.join(GROUPS)}")
    with reporting():
        _print(make_backend(find_ledger(config, url)), UsageFilter(**which), groups, shape)


def _asked(api: str, token_env: str | None, group_by: str, which: Mapping[str, str | None]) -> Asked:
    """The question to a server: our options in the words of its parameters."""
    token = read_token(token_env)
    named = {"since": "start", "until": "end"}
    query = {named.get(name, name): value for name, value in which.items() if value is not None}
    project = query.pop("project_id", None) or project_of(token)
    return Asked(api, token, project, {**query, **({"group_by": group_by} if group_by else {})})


def _print(ledger: Backend, which: UsageFilter, groups: Sequence[str], shape: str) -> None:
    if shape == "table":
        names = groups or ["day", "model"]
        sums = sum_records(ledger, which, names)
        _print_table(names, sums, sys.stdout)
        _print_unknown(ledger, which, sums, sys.stdout)
    elif groups:
        rows = (
            {**dict(zip(groups, one.group, strict=True)), **_sum_members(one)}
            for one in sum_records(ledger, which, groups)
        )
        _print_rows(rows, [*groups, *_SUM_COLUMNS], shape, sys.stdout)
    else:
        _print_rows(map(_record_members, read_records(ledger, which)), PRINTED_COLUMNS, shape, sys.stdout)


def _print_rows(rows: Iterable[Mapping[str, object]], columns: Sequence[str], shape: str, out: IO[str]) -> None:
    if shape == "jsonl":
        for row in rows:
            out.write(json.dumps(row) + "\n")
    elif shape == "json":
        separator = "[\n"
        for row in rows:
            out.write(separator + json.dumps(row))
            separator = ",\n"
        out.write("[]\n" if separator == "[\n" else "\n]\n")
    else:
        write_rows(out, columns, ([_cell(name, row[name]) for name in columns] for row in rows))
    out.flush()


def _record_members(record: Mapping[str, object]) -> dict[str, object]:
    members = dict(record)
    for name in _JSON_MEMBERS:
        text = members[name]
        members[name] = json.loads(text) if isinstance(text, str) else None
    items = members["line_items"]
    if isinstance(items, list):
        members["line_items"] = [{name: item[name] for name in _ITEM_MEMBERS} for item in items]
    return members


def _sum_members(one: UsageSum) -> dict[str, object]:
    return {
        "requests": one.requests,
        "subtotal": format_decimal(one.subtotal),
        "surcharge": format_decimal(one.surcharge),
        "total": format_decimal(one.total),
        "unsettled": one.unsettled,
        "pending": one.pending,
    }


def _cell(name: str, value: object) -> object:
    """A CSV cell: JSON values as text, decimals as they are."""
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False)
    return TrustedText(value) if name in _NUMBERS and isinstance(value, str) else value


def _print_table(names: Sequence[str], sums: Sequence[UsageSum], out: IO[str]) -> None:
    amounts = [(one.subtotal, one.surcharge, one.total) for one in sums]
    totals = [add_exactly(column) for column in zip(*amounts, strict=True)] or [Decimal(0)] * 3
    places = max([6, *(_places(amount) for amount in totals), *(_places(one) for row in amounts for one in row)])
    table = Table(show_footer=True)
    for name in names:
        table.add_column(name, footer="all" if name == names[0] else "", overflow="fold")
    table.add_column("requests", footer=str(sum(one.requests for one in sums)), justify="right", overflow="fold")
    for name, total in zip(("subtotal", "surcharge", "total"), totals, strict=True):
        table.add_column(f"{name} USD", footer=f"{total:,.{places}f}", justify="right", overflow="fold")
    for one, row in zip(sums, amounts, strict=True):
        money = (f"{amount:,.{places}f}" for amount in row)
        table.add_row(*map(plain_text, one.group), str(one.requests), *money)
    print_table(table, out)


def _places(amount: Decimal) -> int:
    """Decimals that an amount needs to be shown whole."""
    return len(format_decimal(amount).partition(".")[2].rstrip("0"))


def _print_unknown(ledger: Backend, which: UsageFilter, sums: Sequence[UsageSum], out: IO[str]) -> None:
    """Say how many requests the sums know no cost of, those too that a filter by basis leaves out."""
    if which.basis not in (None, Basis.UNSETTLED):
        left_out = sum_records(ledger, replace(which, basis=Basis.UNSETTLED.value), ())
        sums = [*sums, *left_out]
    unsettled, pending = sum(one.unsettled for one in sums), sum(one.pending for one in sums)
    if unsettled:
        out.write(
            f"{_requests(unsettled, 'unsettled')}: cost not known (--basis unsettled --format jsonl lists them)\n"
        )
    if pending:
        out.write(f"{_requests(pending, 'pending')}: the provider reports the cost later\n")
    out.flush()


def _requests(count: int, kind: str) -> str:
    return f"{count} {kind} request{'' if count == 1 else 's'}"
