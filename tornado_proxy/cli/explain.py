"""`tornado-proxy explain`: the itemised bill of one request, with the origin of each amount."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from tornado_proxy.cli.config_lookup import CONFIG, LEDGER, PRICES, exit_on_errors, find_ledger, load_prices, readable
from tornado_proxy.cli.explanation_text import format_explanation
from tornado_proxy.cli.format_option import format_option
from tornado_proxy.ledger.backends import make_backend
from tornado_proxy.ledger.reports.records_query import UsageFilter, read_records
from tornado_proxy.ledger.rows import RECORD_COLUMNS
from tornado_proxy.reports.explanation import explain_record


@click.command()
@click.argument("request_id")
@CONFIG
@LEDGER
@PRICES
@format_option("text", "json")
def explain(request_id: str, config: Path, url: str | None, prices: Path | None, output_format: str) -> None:
    """Show the bill of one request: the provider's usage, each price with its source, each multiplication.

    REQUEST_ID is the value of the response header Llm-Proxy-Request-Id.  A price that today's price files have changed
    or removed is marked; the billed amount does not change.

    \b
    Example:
      tornado-proxy explain req_0a1b2c3d4e5f60718293a4b5c6d7e8f9
    """
    with exit_on_errors():
        ledger = make_backend(find_ledger(config, url))
        record = next(read_records(ledger, UsageFilter(request_id=request_id.strip()), RECORD_COLUMNS), None)
        if record is None:
            raise click.ClickException(
                f"{request_id} is not in {ledger}; use the response header Llm-Proxy-Request-Id of a request that has "
                "ended"
            )
        # Without a configuration the bundled prices are used: the record itself names its price entries by hash.
        explanation = explain_record(record, load_prices(readable(config, url), prices))
        if output_format == "json":
            sys.stdout.write(json.dumps(explanation.members(), indent=2) + "\n")
        else:
            sys.stdout.write(format_explanation(explanation))
        sys.stdout.flush()
