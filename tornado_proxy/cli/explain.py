"""`tornado-proxy explain`: the itemised bill of one request, with everything that led to it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from tornado_proxy.cli.config_lookup import CONFIG, LEDGER, PRICES, find_ledger, load_prices, readable, reporting
from tornado_proxy.cli.explanation_text import as_text
from tornado_proxy.ledger.backends import make_backend
from tornado_proxy.ledger.reports.records_query import UsageFilter, read_records
from tornado_proxy.ledger.rows import RECORD_COLUMNS
from tornado_proxy.reports.explanation import Explanation, explain_record


@click.command()
@click.argument("request_id")
@CONFIG
@LEDGER
@PRICES
@click.option(
    "--format",
    "shape",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="For people, or for programs.",
)
def explain(request_id: str, config: Path, url: str | None, prices: Path | None, shape: str) -> None:
    """Show the bill of one request: usage as the provider sent it, each price with its source, each multiplication.

    REQUEST_ID is what the answer carried as Llm-Proxy-Request-Id.  A price that today's price files no longer have, or
    have otherwise, is marked; what was billed stays as it was.

    \b
    Example:
      tornado-proxy explain req_0a1b2c3d4e5f60718293a4b5c6d7e8f9
    """
    with reporting():
        ledger = make_backend(find_ledger(config, url))
        record = next(read_records(ledger, UsageFilter(request_id=request_id.strip()), RECORD_COLUMNS), None)
        if record is None:
            raise click.ClickException(
                f"{request_id} is not in {ledger}; a request is there when it has ended, under the id that its answer "
                "carried as Llm-Proxy-Request-Id"
            )
        explanation = explain_record(record, load_prices(readable(config, url), prices))
        sys.stdout.write(
            json.dumps(_members(explanation), indent=2) + "\n" if shape == "json" else as_text(explanation)
        )
        sys.stdout.flush()


def _members(explanation: Explanation) -> dict[str, Any]:
    return {
        **explanation.record,
        "usage": explanation.usage,
        "line_items": [line.members() for line in explanation.lines],
        "surcharge_rate": explanation.surcharge_rate,
        "basis_words": explanation.basis_words,
        "faults": list(explanation.faults),
        "warnings": list(explanation.warnings),
    }
