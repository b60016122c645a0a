"""The databases that a ledger is tested on."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.ledger.sample_records import make_record
from tornado_proxy.domain.config.ledger_address import LedgerAddress, PostgresAddress
from tornado_proxy.domain.record import RequestIntent, RequestRecord
from tornado_proxy.ledger.backends import make_backend, make_ledger
from tornado_proxy.ledger.protocol import Ledger
from tornado_proxy.ledger.reports.records_query import UsageFilter, read_records


@dataclass(frozen=True)
class LedgerUnderTest:
    """An empty database; each make() returns one more ledger on it, as another process would open."""

    address: LedgerAddress
    fsync: bool

    def make(self) -> Ledger:
        return make_ledger(self.address, fsync=self.fsync)

    def write(self, *intents: RequestIntent) -> None:
        """Write a record of each intent, one after the other."""

        async def run() -> None:
            ledger = self.make()
            await ledger.open()
            for intent in intents:
                await ledger.begin(intent)
                await ledger.finish(make_record(intent))
            await ledger.close()

        asyncio.run(run())

    def records(self) -> list[dict[str, Any]]:
        return [dict(record) for record in read_records(make_backend(self.address), UsageFilter())]


Make = Callable[[], Ledger]


@contextlib.asynccontextmanager
async def open_ledger(make: Make, records: Sequence[RequestRecord]) -> AsyncIterator[Ledger]:
    """Yield an open ledger with these records, and close it."""
    ledger = make()
    await ledger.open()
    try:
        for record in records:
            await ledger.begin(record.intent)
        await asyncio.gather(*(ledger.finish(record) for record in records))
        yield ledger
    finally:
        await ledger.close()


@pytest.fixture
def postgres_address(postgres_database: str, tmp_path: Path) -> PostgresAddress:
    """Return the address of an empty database."""
    return PostgresAddress(postgres_database, None, tmp_path / "journal")


@pytest.fixture(params=["sqlite", "sqlite with fsync", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> LedgerUnderTest:
    """Return each database in turn."""
    return open_test_database(request, tmp_path)


def open_test_database(request: pytest.FixtureRequest, tmp_path: Path) -> LedgerUnderTest:
    """Return the empty database that the fixture's parameter names."""
    if request.param == "postgresql":
        return LedgerUnderTest(request.getfixturevalue("postgres_address"), fsync=False)
    return LedgerUnderTest(tmp_path / "ledger.db", fsync=request.param == "sqlite with fsync")


@pytest.fixture
def make(store: LedgerUnderTest) -> Make:
    """Return a function that makes ledgers on one database."""
    return store.make


@pytest.fixture
def records(store: LedgerUnderTest) -> Callable[[], list[dict[str, Any]]]:
    """Return a function that reads all records."""
    return store.records
