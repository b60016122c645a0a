"""`tornado-proxy usage --api`: the caller's own usage from a server, for who has a token and no ledger."""

from __future__ import annotations

import json
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Any
from urllib.parse import quote, urlencode

import click
from rich.table import Table

from tornado_proxy.auth.unverified_token import read_unverified
from tornado_proxy.cli.tables import plain_text, print_table
from tornado_proxy.domain.errors import NotAuthenticated
from tornado_proxy.wire.csv_cells import TrustedText, write_rows

#: Seconds; the server ends a question after ten.
_TIMEOUT_S = 30

#: Rows of one page.
_PAGE = 5000

#: Members of a row after its interval and groups.
_FIGURES = ("provider", "model", "type", "requests", "quantity", "unpriced_quantity", "total")
_PLAIN = frozenset({"start", "end", "quantity", "unpriced_quantity", "total"})


@dataclass(frozen=True, slots=True)
class Asked:
    """A question to a server.  `query` holds parameters of the usage API (docs/usage_api.md)."""

    base_url: str
    token: str
    project_id: str
    query: Mapping[str, str]


def read_token(name: str | None) -> str:
    """The token in an environment variable; it never comes as an argument, which everybody on the machine can read."""
    if name is None:
        raise click.UsageError("say where the token is: --token-env NAME")
    token = os.environ.get(name, "").strip()
    if not token:
        raise click.ClickException(f"the environment variable {name} is empty or not set; it must hold a token")
    return token


def project_of(token: str) -> str:
    """The project that a participant token names."""
    try:
        project = read_unverified(token).claims.get("sub")
    except NotAuthenticated:
        project = None
    if not isinstance(project, str):
        raise click.UsageError("the token does not name its project; name it with --project")
    return project


def print_usage(asked: Asked, shape: str, out: IO[str]) -> None:
    """Ask, page by page, and print every row."""
    summary: dict[str, Any] = {}
    rows = _rows(asked, summary)
    if shape == "jsonl":
        for row in rows:
            out.write(json.dumps(row) + "\n")
    elif shape == "json":
        out.write(json.dumps(list(rows), indent=1) + "\n")
    elif shape == "csv":
        _print_csv(list(rows), out)
    else:
        _print_table(list(rows), summary, out)
    out.flush()
    unknown = {"unsettled": "cost not known", "pending": "the provider reports the cost later"}
    for kind, words in unknown.items():
        if summary.get(f"{kind}_requests"):
            print(f"{summary[f'{kind}_requests']} {kind} requests: {words}", file=sys.stderr)


def _rows(asked: Asked, summary: dict[str, Any]) -> Iterator[dict[str, Any]]:
    cursor: str | None = ""
    while cursor is not None:
        page = _ask(asked, {**asked.query, "limit": str(_PAGE), **({"cursor": cursor} if cursor else {})})
        summary.update(page["summary"])
        yield from page["usage"]
        cursor = page["next_cursor"]


def _ask(asked: Asked, query: Mapping[str, str]) -> dict[str, Any]:
    path = f"/accounts/projects/{quote(asked.project_id, safe='')}/llm-proxy/usage?{urlencode(query)}"
    if not asked.base_url.startswith(("http://", "https://")):
        raise click.UsageError(f"{asked.base_url!r} is not the URL of a server such as http://127.0.0.1:8080")
    request = urllib.request.Request(  # noqa: S310  # http or https, as just checked
        asked.base_url.rstrip("/") + path, headers={"Authorization": f"Bearer {asked.token}"}
    )
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:  # noqa: S310  # as above
            content: dict[str, Any] = json.loads(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            raise click.ClickException(_words(error.code, error.read())) from None
    except (OSError, ValueError) as error:
        raise click.ClickException(f"{asked.base_url} does not answer as a server of this program: {error}") from None
    return content


def _words(status: int, body: bytes) -> str:
    try:
        message = json.loads(body)["error"]["message"]
    except (ValueError, KeyError, TypeError):
        message = "no usage there; is this the URL of the client port?"
    return f"the server answered {status}: {message}"


def _columns(rows: list[dict[str, Any]]) -> tuple[str, ...]:
    groups = [name for name in (rows[0] if rows else {}) if name not in _FIGURES]
    return (*groups, *_FIGURES)


def _print_csv(rows: list[dict[str, Any]], out: IO[str]) -> None:
    columns = _columns(rows)
    write_rows(out, columns, ([_cell(name, row[name]) for name in columns] for row in rows))


def _cell(name: str, value: object) -> object:
    return TrustedText(value) if name in _PLAIN and isinstance(value, str) else value


def _print_table(rows: list[dict[str, Any]], summary: Mapping[str, Any], out: IO[str]) -> None:
    columns = [name for name in _columns(rows) if name not in ("end", "unpriced_quantity")]
    table = Table(show_footer=True)
    for name in columns:
        figure = name in ("requests", "quantity", "total")
        footer = str(summary["total"]) if name == "total" else "all" if name == columns[0] else ""
        title = "total USD" if name == "total" else name
        table.add_column(title, footer=footer, justify="right" if figure else "left", overflow="fold")
    for row in rows:
        table.add_row(*(plain_text(None if row[name] is None else str(row[name])) for name in columns))
    print_table(table, out)
