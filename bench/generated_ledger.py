"""Fills a ledger with generated requests: SQL of both databases makes the rows, and the program itself their sums.

The requests are of 30 days up to now, in the order of time, as servers write them, by some 500 participants of two
projects; `rare` is a participant, a room and a session with 20 requests in all, and a few requests are unsettled,
pending or estimated.  The same number of requests gives the same names and amounts.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.harness import OTHER_PROJECT, PROJECT
from tornado_proxy.domain.config.ledger_address import LedgerAddress
from tornado_proxy.ledger.backends import make_backend
from tornado_proxy.ledger.database import Backend, Database
from tornado_proxy.ledger.dialect import quote_names
from tornado_proxy.ledger.schema import prepare
from tornado_proxy.ledger.sums.rollups import roll_up

#: Rows of one INSERT.
_ROWS_PER_STATEMENT = 250_000

DAYS = 30

#: Requests of the participant, the room, the session and the agent session `rare`.
RARE_REQUESTS = 20

#: SQL of the two databases for: text of a whole number, of one as 12 digits, of one as 16 hexadecimal digits, of a time
#: in milliseconds, and for the numbers from one to another.
_POSTGRES = {
    "text": "CAST(({}) AS text)",
    "digits": "lpad(CAST(({}) AS text), 12, '0')",
    "hex": "lpad(to_hex(({})::bigint), 16, '0')",
    "time": ("to_char(to_timestamp(({}) / 1000.0) AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"')"),
    "numbers": "SELECT n::bigint AS n FROM generate_series({}, {}) AS n",
}
_SQLITE = {
    "text": "CAST(({}) AS TEXT)",
    "digits": "printf('%012d', {})",
    "hex": "printf('%016x', {})",
    "time": "strftime('%Y-%m-%dT%H:%M:%S.', ({0}) / 1000, 'unixepoch') || printf('%03dZ', ({0}) % 1000)",
    "numbers": "WITH RECURSIVE s(n) AS (SELECT {} UNION ALL SELECT n + 1 FROM s WHERE n < {}) SELECT n FROM s",
}


@dataclass(frozen=True, slots=True)
class Size:
    """The number of requests, the time of the last one in milliseconds since 1970, and whether rows are narrow.

    Narrow rows have no usage and no line items, so that many fit on a disk.
    """

    requests: int
    end_ms: int
    is_narrow: bool = False


def fill(address: LedgerAddress, size: Size) -> None:
    """Make the tables of an empty database, and write the requests; their sums are not made."""
    with _connected(address) as (db, backend):
        prepare(db, backend)
        is_sqlite = isinstance(address, Path)
        # The rows are generated again if the machine fails.
        db.run("PRAGMA synchronous = OFF" if is_sqlite else "SET statement_timeout = 0")
        for start in range(1, size.requests + 1, _ROWS_PER_STATEMENT):
            end = min(start + _ROWS_PER_STATEMENT - 1, size.requests)
            db.run_script(_make_insert(_SQLITE if is_sqlite else _POSTGRES, size, (start, end)))


def make_sums(address: LedgerAddress) -> float:
    """Add all requests to the sums by hour and day; return the seconds of it."""
    began = time.monotonic()
    with _connected(address) as (db, backend):
        while roll_up(db, backend.dialect):
            pass
        # As autovacuum does, which the server of the tests does not have; SQLite has no statistics in a real ledger.
        if not isinstance(address, Path):
            db.run("ANALYZE")
    return time.monotonic() - began


@contextlib.contextmanager
def _connected(address: LedgerAddress) -> Iterator[tuple[Database, Backend]]:
    backend = make_backend(address)
    with contextlib.closing(backend.connect(create=True)) as db:
        yield db, backend


def _make_insert(sql: dict[str, str], size: Size, numbers: tuple[int, int]) -> str:
    columns = _list_columns(sql, size)
    step = size.requests // RARE_REQUESTS
    # a, b and c look random; p is the person, lower ones with more requests; x is True for the rare requests.
    numbered = (
        f"SELECT n, (n * 2654435761) % 1000003 AS a, (n * 40503) % 65537 AS b, (n * 69069) % 104729 AS c, "
        f"n % {step} = {step // 2} AS x, {size.end_ms - DAYS * 86_400_000} + n * {DAYS * 86_400_000} / {size.requests} "
        f"AS at FROM ({sql['numbers'].format(*numbers)}) numbers"
    )
    priced = (
        "SELECT *, (a % 500) * (b % 500) / 500 AS p, (100 + a % 5000) * 1250000 + (10 + b % 900) * 10000000 AS pico "
        f"FROM ({numbered}) r"
    )
    values = ", ".join(columns.values())
    return f"INSERT INTO records ({quote_names(columns)}) SELECT {values} FROM ({priced}) p ORDER BY n;"


def _list_columns(sql: dict[str, str], size: Size) -> dict[str, str]:
    """Return the columns with the SQL of their values."""
    known = "CASE WHEN n % 1000 = 5 OR n % 20000 = 11 THEN '0' ELSE {} END"
    model = "CASE a % 10 WHEN 0 THEN 'gpt-5.4' WHEN 1 THEN 'gpt-4o-mini' WHEN 2 THEN 'o3' ELSE 'gpt-5.4-mini' END"
    basis = (
        "CASE WHEN n % 1000 = 5 THEN 'unsettled' WHEN n % 20000 = 11 THEN 'pending' WHEN n % 50 = 3 THEN 'estimated' "
        "ELSE 'reported' END"
    )
    session = f"'agent-' || {sql['text'].format('p')} || '-' || {sql['text'].format(f'n * {DAYS} / {size.requests}')}"
    columns = {
        "request_id": f"'req_' || {sql['hex'].format('a * 4294967296 + b * 65536 + c')} || {sql['hex'].format('n')}",
        "project_id": f"CASE WHEN p % 10 < 7 THEN '{PROJECT}' ELSE '{OTHER_PROJECT}' END",
        "room": f"CASE WHEN x THEN 'rare' ELSE 'room-' || {sql['text'].format('p % 40')} END",
        "participant": f"CASE WHEN x THEN 'rare' ELSE 'person-' || {sql['text'].format('p')} END",
        "session": "CASE WHEN x THEN 'rare' END",
        "provider": "'openai'",
        "endpoint": "CASE a % 3 WHEN 0 THEN '/v1/responses' ELSE '/v1/chat/completions' END",
        "method": "'POST'",
        "model_requested": model,
        "model": f"{model} || '-2026-03-05'",
        "status": "200",
        "outcome": "CASE WHEN n % 1000 = 5 THEN 'upstream_broken' ELSE 'completed' END",
        "basis": basis,
        "started_at": sql["time"].format("at"),
        "first_byte_at": sql["time"].format("at + 300"),
        "ended_at": sql["time"].format("at + 1500 + c % 9000"),
        "subtotal": known.format(f"'0.' || {sql['digits'].format('pico')}"),
        "surcharge": known.format(f"'0.' || {sql['digits'].format('pico / 20')}"),
        "total": known.format(f"'0.' || {sql['digits'].format('pico + pico / 20')}"),
        "provider_key": "'main'",
        "labels": """CASE p % 2 WHEN 0 THEN '{"team":"search"}' ELSE '{"team":"mail"}' END""",
        "agent_session": f"CASE WHEN x THEN 'rare' WHEN c % 3 = 0 THEN {session} END",
        "client": "CASE WHEN c % 3 = 0 THEN 'codex' END",
        "end_user": f"CASE WHEN x THEN 'rare' WHEN b % 5 = 0 THEN 'end-' || {sql['text'].format('c % 20000')} END",
        "upstream_request_id": f"'chatcmpl-' || {sql['hex'].format('n')}",
        "credential_id": "'key-1'",
        "line_items": "'[]'",
    }
    return columns if size.is_narrow else {**columns, **_list_wide_columns(sql)}


def _list_wide_columns(sql: dict[str, str]) -> dict[str, str]:
    def number(text: str) -> str:
        return f"' || {sql['text'].format(text)} || '"

    def amount(text: str) -> str:
        return f"0.' || {sql['digits'].format(text)} || '"

    def item(kind: str, quantity: str, price: str, cost: str) -> str:
        return (
            f'{{"type":"{kind}","quantity":"{quantity}","unit":"per_million_tokens","unit_price":"{price}",'
            f'"amount":"{cost}","model":"gpt-5.4-2026-03-05","price_hash":"1f0c7d42a9be"}}'
        )

    tokens_in, tokens_out = "100 + a % 5000", "10 + b % 900"
    items = (
        item("input_tokens", number(tokens_in), "1.25", amount(f"({tokens_in}) * 1250000")),
        item("output_tokens", number(tokens_out), "10", amount(f"({tokens_out}) * 10000000")),
        f'{{"type":"llm_proxy_surcharge","quantity":"{amount("pico")}","unit":"usd","unit_price":"0.05",'
        f'"amount":"{amount("pico / 20")}","model":null,"price_hash":null}}',
    )
    return {
        "usage": f'\'{{"prompt_tokens":{number(tokens_in)},"completion_tokens":{number(tokens_out)}}}\'',
        "line_items": f"CASE WHEN n % 1000 = 5 OR n % 20000 = 11 THEN '[]' ELSE '[{','.join(items)}]' END",
        "annotations": """CASE WHEN n % 10 = 0 THEN '{"env":"prod"}' END""",
    }
