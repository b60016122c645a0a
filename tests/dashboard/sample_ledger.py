"""A ledger with requests of several days, whose names are chosen to attack a page, a spreadsheet and a terminal."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path

from msgspec.structs import replace

from tests.harness import OTHER_PROJECT, PROJECT
from tests.ledger.sample_records import make_intent, make_record
from tornado_proxy.domain.attribution import Attribution
from tornado_proxy.domain.cost import Cost, LineItem
from tornado_proxy.domain.identity import Caller
from tornado_proxy.domain.record import RequestRecord
from tornado_proxy.domain.usage import Basis
from tornado_proxy.ledger.backends import make_ledger
from tornado_proxy.pricing.book.calculator import bill

NO_COST = bill([], Decimal(0))

#: Each sets `window.hacked`, runs a program in a spreadsheet, or breaks a page if a page or a file does not escape it.
SCRIPT = "<script>window.hacked=1</script>"
IMAGE = "\"'><img src=x onerror=window.hacked=1>"
ATTRIBUTE = "' onmouseover='window.hacked=1' x=\" onfocus=window.hacked=1 autofocus \""
LINK = "javascript:window.hacked=1"
TEMPLATE = "{{ 7*7 }}{% raw page %}"
FORMULA = "=cmd|' /C calc'!A0"
HEADERS = "a\r\nSet-Cookie: hacked=1\u202e&project=x#"

#: The longest name of a credential, without a place where a line could end.
LONGEST = "w" * 255

NASTY = (SCRIPT, IMAGE, ATTRIBUTE, LINK, TEMPLATE, FORMULA, HEADERS, LONGEST)


def make_cost(input_tokens: int, model: str = "gpt-5.4") -> Cost:
    """Return the cost of tokens at 1.25 USD a million, with 5 % on top."""
    amount = Decimal(input_tokens) * Decimal("1.25") / 1_000_000
    item = LineItem("input_tokens", Decimal(input_tokens), "per_million_tokens", Decimal("1.25"), amount, model, "h1")
    return bill([item], Decimal("0.05"))


def make_requests(now: datetime) -> list[RequestRecord]:
    """Return 4 requests of ada today and 2 yesterday, 1 of bob's, 1 of another project, and one for each nasty name.

    Today: ada 4 x 1000 tokens (1 unsettled, 1 pending besides), bob 2000 tokens; yesterday: ada 2 x 1000.
    """
    day = now.replace(hour=0, minute=0, second=1, microsecond=0)
    ada, bob = Caller(PROJECT, "ada", room="lab"), Caller(PROJECT, "bob", room="lab")
    eve = Caller(OTHER_PROJECT, "eve", room="den")
    made = [
        *(_make(f"req_ada{number}", ada, day) for number in range(4)),
        *(_make(f"req_old{number}", ada, day - timedelta(days=1)) for number in range(2)),
        _make("req_bob", bob, day, tokens=2000),
        _make("req_eve", eve, day),
        replace(_make("req_unsettled", ada, day), basis=Basis.UNSETTLED, cost=NO_COST),
        replace(_make("req_pending", ada, day), basis=Basis.PENDING, cost=NO_COST),
        replace(_make("req_estimated", ada, day), basis=Basis.ESTIMATED, estimate_method="client left"),
    ]
    return [*made, *(_make_nasty(f"req_nasty{number}", name, day) for number, name in enumerate(NASTY))]


def _make(request_id: str, caller: Caller, started_at: datetime, tokens: int = 1000) -> RequestRecord:
    intent = make_intent(request_id, caller=caller, started_at=started_at, labels={"team": "search"})
    return make_record(intent, cost=make_cost(tokens))


def _make_nasty(request_id: str, name: str, started_at: datetime) -> RequestRecord:
    """Return a request in which everything that a client can choose is `name`."""
    intent = make_intent(
        request_id,
        caller=Caller(PROJECT, name, room=name),
        started_at=started_at,
        model_requested=name,
        annotations=(("env", name),),
        labels={"team": name},
        attribution=Attribution(
            agent_session=name, agent=name, turn=name, client=name, repository=name, end_user=name, request_kind=name
        ),
        session=name,
    )
    record = make_record(intent, model=name, cost=make_cost(10, name), faults=(name,), upstream_request_id=name)
    return replace(record, usage='{"prompt_tokens": 10, "note": "<script>window.hacked=1</script>"}')


def write_records(path: Path, records: Iterable[RequestRecord]) -> None:
    """Write records to the SQLite ledger at `path`, which no server uses yet."""
    asyncio.run(_write(path, list(records)))


async def _write(path: Path, records: list[RequestRecord]) -> None:
    ledger = make_ledger(path, fsync=False)
    await ledger.open()
    for record in records:
        await ledger.begin(record.intent)
    await asyncio.gather(*(ledger.finish(record) for record in records))
    await ledger.close()
