"""`tornado-proxy usage`: what calls cost, from the ledger."""

from __future__ import annotations

import csv
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO

import click
from rich.console import Console
from rich.table import Table

from tornado_proxy.config.files import read_document
from tornado_proxy.config.settings import ledger_path
from tornado_proxy.domain.errors import ConfigError, LedgerUnavailable
from tornado_proxy.domain.usage import Basis
from tornado_proxy.ledger.query import GROUPS, UsageFilter, UsageSum, read_records, sum_records
from tornado_proxy.ledger.rows import RECORD_COLUMNS, format_decimal, format_time

#: Members that hold JSON text in the ledger and JSON values in print.
_JSON_MEMBERS = ("usage", "line_items", "faults")

_RELATIVE = re.compile(r"(\d+)([smhdw])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}

#: First characters that make a spreadsheet take a cell for a formula (OWASP, CSV injection).
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")

_SUM_COLUMNS = ("requests", "subtotal", "surcharge", "total", "unsettled", "pending")


class _Moment(click.ParamType[str]):
    """A date, an RFC 3339 time, or a span back from now such as 24h or 7d."""

    name = "time"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        relative = _RELATIVE.fullmatch(value)
        if relative:
            return format_time(datetime.now(UTC) - timedelta(**{_UNITS[relative[2]]: int(relative[1])}))
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is not a date, a time or a span such as 24h", param, ctx)
        return format_time(moment if moment.tzinfo else moment.replace(tzinfo=UTC))


@click.command()
@click.option("--config", type=click.Path(path_type=Path), default=Path("conf/proxy.yaml"), help="Names the ledger.")
@click.option("--ledger", "url", help="The ledger itself, sqlite:///PATH; --config is not read then.")
@click.option("--project", "project_id", help="Only this project id.")
@click.option("--room", help="Only this room.")
@click.option("--participant", help="Only this participant.")
@click.option("--user", help="Only this OAuth user.")
@click.option("--provider", type=click.Choice(["openai", "anthropic"]), help="Only this provider.")
@click.option("--model", help="Only this model, as answers name it.")
@click.option("--basis", type=click.Choice([basis.value for basis in Basis]), help="Only costs known in this way.")
@click.option("--since", type=_Moment(), help="From this time on: 2026-11-01, an RFC 3339 time, 24h, 7d.")
@click.option("--until", type=_Moment(), help="Before this time.")
@click.option("--group-by", default="", help=f"Sum by {', '.join(GROUPS)}; several with commas.")
@click.option("--format", "shape", type=click.Choice(["table", "csv", "json", "jsonl"]), default="table")
def usage(config: Path, url: str | None, group_by: str, shape: str, **which: str | None) -> None:
    """Show what calls cost, and how each cost is known.

    Without --group-by, csv, json and jsonl print one record each; a table then sums by day and model.

    \b
    Example:
      tornado-proxy usage --since 7d --group-by participant,model
      tornado-proxy usage --basis unsettled --format jsonl
    """
    groups = [name.strip() for name in group_by.split(",") if name.strip()]
    unknown = [name for name in groups if name not in GROUPS]
    if unknown:
        raise click.UsageError(f"cannot group by {', '.join(unknown)}; known are {', '.join(GROUPS)}")
    try:
        path = _ledger(config, url)
        _print(path, UsageFilter(**which), groups, shape)
    except (ConfigError, LedgerUnavailable) as error:
        click.echo(str(error), err=True)
        sys.exit(1)
    except BrokenPipeError:
        sys.stderr.close()  # the reader has seen enough; Python would complain at exit


def _ledger(config: Path, url: str | None) -> Path:
    """The ledger's file.  Only `ledger.url` of the configuration is looked at: its secrets may be out of reach here."""
    base = Path() if url is not None else config.parent
    if url is None:
        content = read_document(config).content
        section = content.get("ledger") if isinstance(content, dict) else None
        url = str(section.get("url", "sqlite:///ledger.db")) if isinstance(section, dict) else "sqlite:///ledger.db"
    if not url.startswith("sqlite:///"):
        raise click.UsageError(f"{url!r} is not a ledger URL such as sqlite:///var/ledger.db")
    return ledger_path(url, base)


def _print(path: Path, which: UsageFilter, groups: Sequence[str], shape: str) -> None:
    if shape == "table":
        names = groups or ["day", "model"]
        _print_table(names, sum_records(path, which, names))
    elif groups:
        rows = (
            {**dict(zip(groups, one.group, strict=True)), **_sum_members(one)} for one in _sums(path, which, groups)
        )
        _print_rows(rows, [*groups, *_SUM_COLUMNS], shape, sys.stdout)
    else:
        _print_rows(map(_record_members, read_records(path, which)), RECORD_COLUMNS, shape, sys.stdout)


def _sums(path: Path, which: UsageFilter, groups: Sequence[str]) -> Iterator[UsageSum]:
    yield from sum_records(path, which, groups)


def _print_rows(rows: Iterable[Mapping[str, object]], columns: Sequence[str], shape: str, out: IO[str]) -> None:
    if shape == "jsonl":
        for row in rows:
            out.write(json.dumps(row, ensure_ascii=False) + "\n")
    elif shape == "json":
        separator = "[\n"
        for row in rows:
            out.write(separator + json.dumps(row, ensure_ascii=False))
            separator = ",\n"
        out.write("[]\n" if separator == "[\n" else "\n]\n")
    else:
        writer = csv.writer(out)
        writer.writerow(columns)
        writer.writerows([_cell(row.get(name)) for name in columns] for row in rows)
    out.flush()


def _record_members(record: Mapping[str, object]) -> dict[str, object]:
    members = dict(record)
    for name in _JSON_MEMBERS:
        text = members[name]
        members[name] = json.loads(text) if isinstance(text, str) else None
    members["faults"] = members["faults"] or []
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


def _cell(value: object) -> object:
    """A CSV cell that no spreadsheet runs: text that looks like a formula gets an apostrophe."""
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, str) and value.startswith(_FORMULA_STARTS):
        return "'" + value
    return "" if value is None else value


def _print_table(names: Sequence[str], sums: Sequence[UsageSum]) -> None:
    table = Table(show_footer=True)
    for name in names:
        table.add_column(name, footer="all" if name == names[0] else "", overflow="fold")
    totals = {
        "requests": str(sum(one.requests for one in sums)),
        "subtotal": _dollars(sum(one.subtotal for one in sums)),
        "surcharge": _dollars(sum(one.surcharge for one in sums)),
        "total": _dollars(sum(one.total for one in sums)),
    }
    for name, total in totals.items():
        table.add_column(name if name == "requests" else f"{name} USD", footer=total, justify="right")
    for one in sums:
        amounts = (_dollars(one.subtotal), _dollars(one.surcharge), _dollars(one.total))
        table.add_row(*(part or "-" for part in one.group), str(one.requests), *amounts)
    Console().print(table)
    for word, count in (("unsettled", sum(o.unsettled for o in sums)), ("pending", sum(o.pending for o in sums))):
        if count:
            meaning = "their cost is not known" if word == "unsettled" else "the provider reports it later"
            click.echo(f"{count} {word} requests: {meaning} (--basis {word} --format jsonl lists them)")


def _dollars(amount: object) -> str:
    return f"{amount:,.6f}"
