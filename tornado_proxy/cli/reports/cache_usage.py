"""`tornado-proxy usage --cache`: what prompt caches have saved, by agent session, agent and model."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import IO

from rich.table import Table

from tornado_proxy.cli.tables import print_table, printable_text
from tornado_proxy.ledger.database import Backend
from tornado_proxy.ledger.reports.records_query import UsageFilter, read_records
from tornado_proxy.pricing.book.price_book import PriceBook
from tornado_proxy.reports.cache_usage import COLUMNS, FIGURES, GROUPS, sum_cache_usage
from tornado_proxy.wire.csv_cells import write_members


def print_cache_usage(ledger: Backend, which: UsageFilter, book: PriceBook, output_format: str, out: IO[str]) -> None:
    """Print a row for each agent session, agent and model that has used input."""
    sums = sum_cache_usage(read_records(ledger, which, COLUMNS), book, datetime.now(UTC))
    rows = [{**dict(zip(GROUPS, group, strict=True)), **total.members()} for group, total in sums]
    if output_format == "table":
        _print_table(rows, out)
    elif output_format == "csv":
        write_members(out, [*GROUPS, *FIGURES], rows, trusted=frozenset(FIGURES))
    elif output_format == "json":
        out.write(json.dumps(rows, indent=1) + "\n")
    else:
        out.write("".join(json.dumps(row) + "\n" for row in rows))
    out.flush()


def _print_table(rows: Sequence[Mapping[str, object]], out: IO[str]) -> None:
    table = Table()
    for name in GROUPS:
        table.add_column(name, overflow="fold")
    for name in FIGURES:
        table.add_column(name.replace("_", " "), justify="right", overflow="fold")
    for row in rows:
        cells = [None if value is None else str(value) for value in row.values()]
        table.add_row(*(printable_text(cell) for cell in cells))
    print_table(table, out)
