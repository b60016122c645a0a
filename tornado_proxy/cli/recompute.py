"""`tornado-proxy recompute`: what past requests would cost at today's prices.  Reads, and never writes.

The ledger is append-only, and its bills have been shown: a correction is booked beside them, not over them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import IO

import click

from tornado_proxy.cli.config_lookup import (
    CONFIG,
    LEDGER,
    PRICES,
    find_ledger,
    find_surcharge,
    load_prices,
    readable,
    reporting,
)
from tornado_proxy.cli.time_param import Moment
from tornado_proxy.ledger.backends import make_backend
from tornado_proxy.ledger.database import Backend
from tornado_proxy.ledger.reports.records_query import UsageFilter, read_records
from tornado_proxy.ledger.rows import RECORD_COLUMNS, format_decimal
from tornado_proxy.pricing.book.price_book import PriceBook
from tornado_proxy.reports.recompute import Recomputed, Totals, recompute_record
from tornado_proxy.wire.csv_cells import TrustedText, write_rows

_COLUMNS = (
    "request_id",
    "project_id",
    "started_at",
    "provider",
    "model",
    "basis",
    "billed",
    "today",
    "difference",
    "why",
)

#: Columns of decimals and times.
_PLAIN = frozenset({"started_at", "billed", "today", "difference"})

_REFUSAL = """\
recompute does not change the ledger: its records are append-only, and bills made of them have been shown.
What to do:
  1. tornado-proxy recompute --since ... --dry-run --format csv > differences.csv
  2. book the total of the column `difference` per project as a credit or a debit note, with that file as its voucher
  3. leave the ledger as it is; new requests are billed at the prices that are in force when they begin
"""


@click.command()
@CONFIG
@LEDGER
@PRICES
@click.option("--since", type=Moment(), required=True, help="Started at or after: 2026-11-01 (UTC), a time, 24h, 7d.")
@click.option("--until", type=Moment(), help="Started before.")
@click.option("--project", "project_id", help="Only this project id.")
@click.option("--provider", type=click.Choice(["openai", "anthropic"]), help="Only this provider.")
@click.option("--model", help="Only this model: the one of the answer, else the one asked for.")
@click.option("--dry-run", is_flag=True, help="Show the differences; there is no other mode.")
@click.option("--all", "everything", is_flag=True, help="Print the records without a difference too.")
@click.option(
    "--format",
    "shape",
    type=click.Choice(["text", "csv", "jsonl"]),
    default="text",
    show_default=True,
    help="For people, spreadsheets or programs.",
)
def recompute(
    *,
    config: Path,
    url: str | None,
    prices: Path | None,
    dry_run: bool,
    everything: bool,
    shape: str,
    **which: str | None,
) -> None:
    """Rate past requests again with today's price files, and show the difference to what was billed.

    The quantities of each record's line items are rated on the terms kept with them (tier, context length, region), at
    the prices that hold for the day the request began.  The surcharge rate of the record is kept.  Nothing is written:
    without --dry-run the command says what to do instead, and ends with status 2.

    \b
    Example:
      tornado-proxy recompute --since 2026-11-01 --until 2026-12-01 --dry-run
      tornado-proxy recompute --since 30d --dry-run --format csv > differences.csv
    """
    if not dry_run:
        raise click.UsageError(_REFUSAL)
    with reporting():
        given = readable(config, url)
        book, rate = load_prices(given, prices), find_surcharge(given)
        totals = Totals()
        ledger = make_backend(find_ledger(config, url))
        results = _results(ledger, UsageFilter(**which), book, rate, totals)
        chosen = (one for one in results if everything or one.differs)
        _print(chosen, shape, sys.stdout)
        _summary(totals, sys.stdout if shape == "text" else sys.stderr)


def _results(
    ledger: Backend, which: UsageFilter, book: PriceBook, rate: Decimal, totals: Totals
) -> Iterator[Recomputed]:
    for record in read_records(ledger, which, RECORD_COLUMNS):
        result = recompute_record(record, book, rate)
        totals.add(result)
        yield result


def _print(results: Iterable[Recomputed], shape: str, out: IO[str]) -> None:
    if shape == "csv":
        write_rows(out, _COLUMNS, ([_cell(name, value) for name, value in _members(one).items()] for one in results))
    elif shape == "jsonl":
        for one in results:
            out.write(json.dumps(_members(one)) + "\n")
    else:
        for one in results:
            out.write(_line(one))
    out.flush()


def _members(one: Recomputed) -> Mapping[str, str | None]:
    record = one.record
    figures = {"billed": one.billed, "today": one.today, "difference": one.difference}
    return {
        **{name: None if record[name] is None else str(record[name]) for name in _COLUMNS[:6]},
        "model": _text(record["model"]) or _text(record["model_requested"]),
        **{name: None if amount is None else format_decimal(amount) for name, amount in figures.items()},
        "why": "; ".join(one.reasons),
    }


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _cell(name: str, value: str | None) -> object:
    return TrustedText(value) if name in _PLAIN and value is not None else value


def _line(one: Recomputed) -> str:
    members = {name: value or "-" for name, value in _members(one).items()}
    when = datetime.fromisoformat(members["started_at"])
    text = (
        f"{members['request_id']}  {when:%Y-%m-%d %H:%M}  {members['model']}  billed {members['billed']}  "
        f"today {members['today']}  difference {'-' if one.difference is None else _signed(one.difference)}"
    )
    why = "".join(f"\n    {reason}" for reason in one.reasons)
    return (
        "".join(character if character.isprintable() or character == "\n" else "\ufffd" for character in text + why)
        + "\n"
    )


def _signed(amount: Decimal) -> str:
    return f"{'+' if amount > 0 else ''}{format_decimal(amount)}"


def _summary(totals: Totals, out: IO[str]) -> None:
    counted = "1 record" if totals.records == 1 else f"{totals.records} records"
    out.write(
        f"{counted}: {totals.differing} differ, {totals.unrated} cannot be rated today, {totals.pending} pending\n"
        f"billed {format_decimal(totals.billed)} USD, today {format_decimal(totals.today)} USD, "
        f"difference {_signed(totals.today - totals.billed)} USD\n"
    )
    if len(totals.by_project) > 1:
        for project, difference in sorted(totals.by_project.items()):
            out.write(f"  project {project}: difference {_signed(difference)} USD\n")
    out.flush()
