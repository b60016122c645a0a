"""`tornado-proxy explain`: the itemised bill of one request, with the origin of each amount."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import click

from tornado_proxy.cli.options.config_lookup import (
    CONFIG,
    LEDGER,
    PRICES,
    exit_on_errors,
    find_ledger,
    load_prices,
    readable,
)
from tornado_proxy.cli.options.format_option import format_option
from tornado_proxy.cli.reports.explanation_text import format_explanation
from tornado_proxy.ledger.backends import make_backend
from tornado_proxy.ledger.database import Backend
from tornado_proxy.ledger.reports.records_query import Record, UsageFilter, is_running, read_records
from tornado_proxy.reports.explanation import EXPLAINED_COLUMNS, explain_record

#: An id that this program gave to a request.
_OWN_ID = re.compile(r"req_[0-9a-f]{32}")


@click.command(short_help="Show the itemised bill of one request.")
@click.argument("request_id")
@CONFIG
@LEDGER
@PRICES
@format_option("text", "json")
def explain(request_id: str, config: Path, url: str | None, prices: Path | None, output_format: str) -> None:
    """Show the bill of one request: the provider's usage, each price with its source, each multiplication.

    REQUEST_ID is the value of the response header Llm-Proxy-Request-Id, or the provider's own id, which SDKs show
    (x-request-id, request-id).  A price that today's price files have changed or removed is marked; the billed amount
    does not change.

    \b
    Example:
      tornado-proxy explain req_0a1b2c3d4e5f60718293a4b5c6d7e8f9
    """
    with exit_on_errors():
        ledger = make_backend(find_ledger(config, url))
        records = _find_records(ledger, request_id.strip())
        if not records:
            raise click.ClickException(_describe_missing(ledger, request_id.strip()))
        # Without a configuration the bundled prices are used: the record itself names its price entries by hash.
        book = load_prices(readable(config, url), prices)
        explanations = [explain_record(record, book) for record in records]
        if output_format == "json":
            members = [explanation.members() for explanation in explanations]
            sys.stdout.write(json.dumps(members[0] if len(members) == 1 else members, indent=2) + "\n")
        else:
            sys.stdout.write("\n\n".join(map(format_explanation, explanations)))
        sys.stdout.flush()


def _find_records(ledger: Backend, request_id: str) -> list[Record]:
    """Return the record with our id `request_id`, else those with the provider's id: one for each part of a session."""
    own = list(read_records(ledger, UsageFilter(request_id=request_id), EXPLAINED_COLUMNS))
    # The provider's id has no index: writing one for each request costs more than a rare search of the whole ledger.
    return own or list(read_records(ledger, UsageFilter(upstream_request_id=request_id), EXPLAINED_COLUMNS))


def _describe_missing(ledger: Backend, request_id: str) -> str:
    if is_running(ledger, request_id):
        return f"{request_id} still runs; it has a bill when it has ended"
    if _OWN_ID.fullmatch(request_id):
        return (
            f"{request_id} is not in {ledger.name}: refused, not billed. A request that was sent has a record; "
            'the reason is in the log line "request rejected" with this id'
        )
    return (
        f"{request_id} is not in {ledger.name}; use the response header Llm-Proxy-Request-Id, or the provider's own "
        "id, of a request that has ended"
    )
