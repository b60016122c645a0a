"""`tornado-proxy usage --api`: the caller's own usage from a server, for callers with a token and without a ledger."""

from __future__ import annotations

import json
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import IO, Any
from urllib.parse import quote, urlencode

import click

from tornado_proxy.auth.unverified_token import read_unverified
from tornado_proxy.domain.errors import NotAuthenticated
from tornado_proxy.ledger.reports.records_query import UsageSum
from tornado_proxy.wire.csv_cells import write_members

#: The server stops a query after ten seconds; the rest is for the network.
_TIMEOUT_S = 30

#: Rows in one response.  The server allows at most 10,000.
_PAGE_ROWS = 5000

#: Members of a row that follow its interval and its groups.
_FIGURES = ("provider", "model", "type", "requests", "quantity", "unpriced_quantity", "total")

#: Columns of decimals and times: a minus there is a number, not a formula, and needs no escape in a spreadsheet.
_TRUSTED_COLUMNS = frozenset({"start", "end", "quantity", "unpriced_quantity", "total"})


@dataclass(frozen=True, slots=True)
class ApiQuery:
    """A query to a server.  `parameters` are those of the usage API (docs/usage_api.md)."""

    base_url: str
    token: str
    project_id: str
    parameters: Mapping[str, str]


def read_token(name: str | None) -> str:
    """Return the token in an environment variable.  Arguments are visible to every user of the machine."""
    if name is None:
        raise click.UsageError("the token is missing; name its environment variable with --token-env NAME")
    token = os.environ.get(name, "").strip()
    # Never print the value: a wrong variable can contain a provider key.
    if not token:
        raise click.ClickException(f"the environment variable {name} is empty or not set; it must contain a token")
    return token


def find_project(token: str) -> str:
    """Return the project id in a participant token."""
    try:
        project = read_unverified(token).claims.get("sub")
    except NotAuthenticated:
        project = None
    if not isinstance(project, str):
        raise click.UsageError("the token does not contain a project id; use --project")
    return project


def print_usage(query: ApiQuery, output_format: str, out: IO[str]) -> None:
    """Fetch all pages and print every row, a sum of one kind of line item, as csv, json or jsonl."""
    summary: dict[str, Any] = {}
    rows = _fetch_rows(query, summary)
    if output_format == "jsonl":
        for row in rows:
            out.write(json.dumps(row) + "\n")
    elif output_format == "json":
        out.write(json.dumps(list(rows), indent=1) + "\n")
    else:
        _print_csv(list(rows), out)
    out.flush()
    explanations = {"unsettled": "cost not known", "pending": "the provider reports the cost later"}
    for kind, explanation in explanations.items():
        if summary.get(f"{kind}_requests"):
            count = summary[f"{kind}_requests"]
            print(f"{count} {kind} request{'' if count == 1 else 's'}: {explanation}", file=sys.stderr)


def fetch_sums(query: ApiQuery, groups: Sequence[str]) -> list[UsageSum]:
    """Return the sums by `groups` in their order, as the ledger's own report has them."""
    # All rows are of one project, so the server has no group for it.
    sent = ",".join(name for name in groups if name != "project")
    parameters = {**query.parameters, "rows": "groups", **({"group_by": sent} if sent else {})}
    rows = _fetch_rows(replace(query, parameters=parameters), {})
    sums = [_read_sum(row, groups, query.project_id) for row in rows]
    return sorted(sums, key=lambda usage_sum: tuple(part or "" for part in usage_sum.group))


def _read_sum(row: Mapping[str, Any], groups: Sequence[str], project_id: str) -> UsageSum:
    # A group without a member of its own is the interval, whose start is a time; a day is shown as a date.
    start = str(row.get("start"))
    known = {"project": project_id, "day": start[:10], **row}
    return UsageSum(
        group=tuple(known.get(name, start) for name in groups),
        requests=row["requests"],
        subtotal=Decimal(row["subtotal"]),
        surcharge=Decimal(row["surcharge"]),
        total=Decimal(row["total"]),
        unsettled=row["unsettled"],
        pending=row["pending"],
    )


def _fetch_rows(query: ApiQuery, summary: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the rows of all pages, and put the summary of the last page into `summary`."""
    cursor: str | None = ""
    while cursor is not None:
        page = _fetch_page(
            query, {**query.parameters, "limit": str(_PAGE_ROWS), **({"cursor": cursor} if cursor else {})}
        )
        summary.update(page["summary"])
        yield from page["usage"]
        cursor = page["next_cursor"]


def _fetch_page(query: ApiQuery, parameters: Mapping[str, str]) -> dict[str, Any]:
    path = f"/accounts/projects/{quote(query.project_id, safe='')}/llm-proxy/usage?{urlencode(parameters)}"
    # urllib also opens file: and ftp: URLs.
    if not query.base_url.startswith(("http://", "https://")):
        raise click.UsageError(f"{query.base_url!r} is not the URL of a server, such as http://127.0.0.1:8080")
    request = urllib.request.Request(  # noqa: S310  # http or https, as just checked
        query.base_url.rstrip("/") + path, headers={"Authorization": f"Bearer {query.token}"}
    )
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as response:  # noqa: S310  # as above
            content: dict[str, Any] = json.loads(response.read())
    except urllib.error.HTTPError as error:
        with error:
            raise click.ClickException(_describe_error(error.code, error.read())) from None
    except (OSError, ValueError) as error:
        raise click.ClickException(f"{query.base_url} did not respond like a server of this program: {error}") from None
    return content


def _describe_error(status: int, body: bytes) -> str:
    try:
        message = json.loads(body)["error"]["message"]
    except (ValueError, KeyError, TypeError):
        message = "it serves no usage; check that the URL is that of the client port"
    return f"the server returned {status}: {message}"


def _columns(rows: list[dict[str, Any]]) -> tuple[str, ...]:
    groups = [name for name in (rows[0] if rows else {}) if name not in _FIGURES]
    return (*groups, *_FIGURES)


def _print_csv(rows: list[dict[str, Any]], out: IO[str]) -> None:
    write_members(out, _columns(rows), rows, trusted=_TRUSTED_COLUMNS)
