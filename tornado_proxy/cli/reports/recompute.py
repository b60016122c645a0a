"""`tornado-proxy recompute`: the cost of past requests at today's prices.  Reads the ledger and never writes to it.

The ledger is append-only, and customers have seen its bills: a correction is booked separately.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import IO

import click

from tornado_proxy.cli.options.config_lookup import (
    CONFIG,
    LEDGER,
    PRICES,
    exit_on_errors,
    find_ledger,
    find_recorded_project_id,
    find_surcharge,
    load_prices,
    readable,
)
from tornado_proxy.cli.options.format_option import format_option
from tornado_proxy.cli.options.time_param import TimeParam, check_times
from tornado_proxy.cli.tables import replace_unprintable
from tornado_proxy.domain.text import count_noun
from tornado_proxy.ledger.backends import make_backend
from tornado_proxy.ledger.columns import RECORD_COLUMNS
from tornado_proxy.ledger.reports.records_query import UsageFilter, read_records
from tornado_proxy.ledger.rows import format_decimal
from tornado_proxy.providers.registry import PROVIDER_NAMES
from tornado_proxy.reports.recompute import COLUMNS, Recomputed, Totals, recompute_records
from tornado_proxy.wire.csv_cells import write_members

#: Columns of decimals and times: a minus there is a number, not a formula, and needs no escape in a spreadsheet.
_TRUSTED_COLUMNS = frozenset({"started_at", "billed", "today", "difference"})

_NOT_A_DRY_RUN = """\
recompute does not change the ledger: its records are append-only, and customers have seen the bills made of them.
What to do:
  1. tornado-proxy recompute --since ... --dry-run --format csv > differences.csv
  2. book the total of the column `difference` per project as a credit or a debit note, with that file as its voucher
  3. leave the ledger as it is; new requests are billed at the prices in force when they begin
"""


@click.command(short_help="Rate past requests with today's prices.")
@CONFIG
@LEDGER
@PRICES
@click.option(
    "--since", type=TimeParam(), required=True, help="Started at or after: 2026-11-01 (UTC), a time, 24h or 7d ago."
)
@click.option("--until", type=TimeParam(), help="Started before.")
@click.option("--project", "project_id", metavar="PROJECT", help="Only this project: its id, or its name in --config.")
@click.option("--provider", type=click.Choice(PROVIDER_NAMES), help="Only this provider.")
@click.option("--model", help="Only this model: that of the response, else the requested one.")
@click.option("--dry-run", is_flag=True, help="Show the differences.  Required: there is no other mode.")
@click.option("--all", "print_all", is_flag=True, help="Also print records without a difference.")
@format_option("text", "csv", "jsonl")
def recompute(
    *,
    config: Path,
    url: str | None,
    prices: Path | None,
    dry_run: bool,
    print_all: bool,
    output_format: str,
    **filters: str | None,
) -> None:
    """Rate past requests again with today's price files, and show the difference to the amounts billed.

    The quantities of each record's line items are rated on the stored terms (tier, context length, region), at the
    prices for the day on which the request began, with the surcharge rate of the record.  Nothing is written: without
    --dry-run the command explains how to correct bills, and exits with status 2.

    \b
    Example:
      tornado-proxy recompute --since 2026-11-01 --until 2026-12-01 --dry-run
      tornado-proxy recompute --since 30d --dry-run --format csv > differences.csv
    """
    # The option is required although it is the only mode: no user can believe that bills were changed.
    if not dry_run:
        raise click.UsageError(_NOT_A_DRY_RUN)
    check_times(filters["since"], filters["until"])
    with exit_on_errors():
        filters["project_id"] = find_recorded_project_id(config, url, filters["project_id"])
        price_config = readable(config, url)
        book, rate = load_prices(price_config, prices), find_surcharge(price_config)
        totals = Totals()
        ledger = make_backend(find_ledger(config, url))
        records = read_records(ledger, UsageFilter(**filters), RECORD_COLUMNS)
        results = recompute_records(records, book, rate, totals)
        _print_results((result for result in results if print_all or result.differs), output_format, sys.stdout)
        # Keep the sums out of files for machines.
        _print_summary(totals, sys.stdout if output_format == "text" else sys.stderr)


def _print_results(results: Iterable[Recomputed], output_format: str, out: IO[str]) -> None:
    if output_format == "csv":
        write_members(out, COLUMNS, (result.members() for result in results), trusted=_TRUSTED_COLUMNS)
    elif output_format == "jsonl":
        for result in results:
            out.write(json.dumps(result.members()) + "\n")
    else:
        for result in results:
            out.write(_format_result(result))
    out.flush()


def _format_result(result: Recomputed) -> str:
    members = {name: value or "-" for name, value in result.members().items()}
    started_at = datetime.fromisoformat(members["started_at"])
    difference = "-" if result.difference is None else _format_signed(result.difference)
    text = (
        f"{members['request_id']}  {started_at:%Y-%m-%d %H:%M}  {members['model']}  billed {members['billed']}  "
        f"today {members['today']}  difference {difference}"
    )
    lines = [text, *(f"    {reason}" for reason in result.reasons)]
    return "".join(f"{replace_unprintable(line)}\n" for line in lines)


def _format_signed(amount: Decimal) -> str:
    return f"{'+' if amount > 0 else ''}{format_decimal(amount)}"


def _print_summary(totals: Totals, out: IO[str]) -> None:
    records = count_noun(totals.records, "record")
    out.write(
        f"{records}: {totals.differing} differ, {totals.unrated} cannot be rated today, {totals.pending} pending\n"
        f"billed {format_decimal(totals.billed)} USD, today {format_decimal(totals.today)} USD, "
        f"difference {_format_signed(totals.today - totals.billed)} USD\n"
    )
    # Corrections are booked per project.
    if len(totals.by_project) > 1:
        for project, difference in sorted(totals.by_project.items()):
            out.write(f"  project {project}: difference {_format_signed(difference)} USD\n")
    out.flush()
