"""Ledgers that earlier versions have written are opened by this one, and lose and change no amount.

tests/fixtures/ledgers/ has a dump of each database by two versions: the first one with PostgreSQL (2026-11-23), and one
with sums, but not those of line items (2026-11-28).  Each has served the same requests of the simulator: eleven, of
which a background response and a batch are settled, and two of these that are pending; it was killed during a stream.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import psycopg
import pytest

from tests.harness import OTHER_PROJECT, PROJECT, ROOT
from tests.ledger.conftest import LedgerUnderTest
from tests.ledger.sample_records import COST
from tornado_proxy.domain.config.ledger_address import PostgresAddress
from tornado_proxy.domain.record import Settlement
from tornado_proxy.domain.usage import Basis
from tornado_proxy.ledger.backends import make_backend
from tornado_proxy.ledger.reports.record_sums import sum_records
from tornado_proxy.ledger.reports.records_query import UsageFilter
from tornado_proxy.ledger.schema import prepare
from tornado_proxy.ledger.sums.rebuild import END_OF_TIME
from tornado_proxy.ledger.sums.rollups import roll_up
from tornado_proxy.ledger.sums.verification import verify_sums

#: The endpoint, basis and total of each entry, as the versions that wrote them print them.
CHAT, RESPONSES, BATCHES = "/v1/chat/completions", "/v1/responses", "/v1/messages/batches"
ENTRIES = [
    (CHAT, "reported", "0.000015435000"),
    (CHAT, "reported", "0.000309750000"),
    (RESPONSES, "reported", "0.000635250000"),
    (RESPONSES, "reported", "0.000635250000"),
    ("/v1/messages", "reported", "0.000384300000"),
    (BATCHES, "reported", "0.000387450000"),
    ("/v1/embeddings", "reported", "0.000000042000"),
    (CHAT, "free", "0"),
    (CHAT, "estimated", "0.000005985000"),
    (CHAT, "reported", "0.000015435000"),
    ("/v1/audio/speech", "reported", "0.000127260000"),
    PENDING := (RESPONSES, "pending", "0"),
    (BATCHES, "pending", "0"),
]
#: The stream that ran when the process was killed.  SQLite has its intent in a file beside the database.
LOST = (CHAT, "unsettled", "0")


@pytest.fixture(params=["sqlite-2026-11-23", "sqlite-2026-11-28", "postgresql-2026-11-23", "postgresql-2026-11-28"])
def earlier(request: pytest.FixtureRequest, tmp_path: Path) -> LedgerUnderTest:
    """Return a database with the tables and rows of a dump."""
    dump = (ROOT / "tests" / "fixtures" / "ledgers" / f"{request.param}.sql").read_text("utf-8")
    if request.param.startswith("postgresql"):
        address: PostgresAddress = request.getfixturevalue("postgres_address")
        with psycopg.connect(address.url, autocommit=True) as server:
            server.execute(dump.encode())
        return LedgerUnderTest(address, fsync=False)
    path = tmp_path / "ledger.db"
    with contextlib.closing(sqlite3.connect(path)) as file:
        file.executescript(dump)
    return LedgerUnderTest(path, fsync=False)


def read_entries(store: LedgerUnderTest) -> list[tuple[str, str, str]]:
    entries = [(str(each["endpoint"]), str(each["basis"]), str(each["total"])) for each in store.records()]
    return sorted(entries)


async def open_and_settle(store: LedgerUnderTest) -> None:
    """Start this version, settle the older pending request, and add everything to the sums."""
    ledger = store.make()
    await ledger.open()
    first, second = await ledger.pending_requests(10)
    assert (first.endpoint, second.endpoint) == (RESPONSES, BATCHES)
    await ledger.settle(
        Settlement(first.request_id, "gpt-5.4", Basis.REPORTED, COST, datetime(2026, 11, 30, tzinfo=UTC))
    )
    await ledger.close()
    backend = make_backend(store.address)
    with contextlib.closing(backend.connect(create=False)) as db:
        while roll_up(db, backend.dialect):
            pass


def test_ledger_of_an_earlier_version_keeps_its_entries_and_settles_its_pending_requests(
    earlier: LedgerUnderTest,
) -> None:
    lost = [LOST] if isinstance(earlier.address, PostgresAddress) else []
    settled = [(RESPONSES, "reported", "0.002362500000") if entry == PENDING else entry for entry in ENTRIES]

    asyncio.run(open_and_settle(earlier))

    assert read_entries(earlier) == sorted([*settled, *lost])


def test_sums_of_an_upgraded_ledger_are_those_of_its_records(earlier: LedgerUnderTest) -> None:
    # 0.002516157 of the entries, of which 0.000015435 are of the other project, and 0.0023625 of the settlement.
    asyncio.run(open_and_settle(earlier))

    sums = sum_records(make_backend(earlier.address), UsageFilter(), ["project"])

    by_project = {each.group: (each.total, each.pending) for each in sums}
    assert by_project == {
        (PROJECT,): (Decimal("0.004863222000"), 1),
        (OTHER_PROJECT,): (Decimal("0.000015435000"), 0),
    }
    days = verify_sums(make_backend(earlier.address), "", END_OF_TIME)
    assert [(day.records, day.total, list(day.differences)) for day in days] == [(12, Decimal("0.004878657000"), [])]


def test_second_start_after_an_upgrade_changes_no_table(earlier: LedgerUnderTest) -> None:
    backend = make_backend(earlier.address)
    with contextlib.closing(backend.connect(create=False)) as db:
        prepare(db, backend)
        scripts: list[str] = []
        db.run_script = scripts.append  # type: ignore[method-assign]

        prepare(db, backend)

    assert scripts == []
